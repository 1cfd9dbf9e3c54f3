import io
import re

import imageio_ffmpeg
import numpy as np
import pytest
from rich.console import Console

from eval.report.run import print_tables, write_report
from eval.report.video import VideoWatcher
from eval.results.results import means, summarize
from robotics.embodiment.control import Action


def record(task, index, status, video=None):
    success = status == "success"
    return {
        "status": status, "index": index, "task": task, "seed": 1_000_000 + index,
        "success": success, "success_any": True, "steps": 12, "terminated": success,
        "stages": {"object_grasped": True, "object_lifted": success},
        "instructions": [[0, "pick <coke> can"]], "latency_ms": [12.5, 12.5], "video": video,
    }  # fmt: skip


def record_video(out, name):
    (out / "videos").mkdir(parents=True, exist_ok=True)
    watcher = VideoWatcher(out / "videos" / name, horizon=80, fps=6)
    image = np.random.default_rng(0).integers(0, 255, (256, 320, 3), dtype=np.uint8)
    info = {"success": True, "instruction": "pick coke can"}
    for _ in range(3):
        watcher.step({"image": image}, Action(np.zeros(7)), "pick coke can", info)
    watcher.end({"image": image}, info)
    return f"videos/{name}"


@pytest.fixture
def run(tmp_path):
    records = [
        record("pick_coke_can", 0, "success", record_video(tmp_path, "a.mp4")),
        record("pick_coke_can", 1, "failure", record_video(tmp_path, "b.mp4")),
        {"status": "error", "index": 2, "task": "pick_coke_can", "seed": 1_000_002,
         "error": "RuntimeError: <b>lost</b> (env.py:3 in step)", "video": None},
        record("move_near", 0, "failure"),
    ]  # fmt: skip
    tasks = {
        name: summarize(name, [r for r in records if r["task"] == name])
        for name in ("pick_coke_can", "move_near")
    }
    results = {
        "simulator": "embedded-mujoco", "simulator_note": "not comparable with SIMPLER numbers",
        "complete": True, "policy": {"kind": "checkpoint", "path": "checkpoints/self_flow",
        "options": {}, "checkpoint_sha256": "ab" * 32}, "versions": {"python": "3.11"},
        "config": {}, "seed": 0, "command": "python -m eval.simpler --task 'a b'",
        "seeds": {"pick_coke_can": [1_000_000, 1_000_001, 1_000_002],
                  "move_near": [1_000_000, 1_000_001]},  # one of them was not run
        "tasks": tasks, "means": means(tasks, {}), "errors": 1,
    }  # fmt: skip
    return tmp_path, results, {(r["task"], r["seed"]): r for r in records}


def test_the_page_stands_alone_and_shows_both_outcomes(run):
    out, results, records = run
    page = write_report(out, results, records).read_text()
    assert page.count("data:video/mp4;base64,") == 2
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "embedded-mujoco — not comparable with SIMPLER numbers" in page
    assert "50% 1/2 [9–91]" in page
    assert "mean of 2 tasks" in page
    assert "<svg" in page
    assert "python -m eval.simpler --task &#39;a b&#39;" in page
    assert page.index('class="success">success</b>') < page.index('class="failure">failure</b>')


def test_text_from_outside_is_escaped_and_errors_are_shown(run):
    page = write_report(*run).read_text()
    assert "<b>lost</b>" not in page
    assert "&lt;b&gt;lost&lt;/b&gt; (env.py:3 in step)" in page
    assert "pick &lt;coke&gt; can" in page


@pytest.mark.parametrize("mean", ["mean of 2 tasks", "mean of 4 variants, then of 2 tasks"])
def test_the_table_fits_eighty_columns_and_names_everything(run, mean):
    _, results, _ = run
    next(iter(results["means"].values()))["name"] = mean
    text = io.StringIO()
    print_tables(Console(file=text, width=80), results)
    shown = text.getvalue()
    assert "…" not in shown
    assert all(word in shown for word in mean.split())
    for words in ("embedded-mujoco — not comparable", "last step", "any step", "95%", "50% 1/2",
                  "9–91", "object_lifted", "12.5/12.5", "abababab"):  # fmt: skip
        assert words in shown


def test_videos_are_h264_in_yuv420p(run):
    out, _, _ = run
    reader = imageio_ffmpeg.read_frames(str(out / "videos" / "a.mp4"))
    meta = next(reader)
    reader.close()
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"].startswith("yuv420p")
    assert meta["fps"] == 6
    assert meta["size"] == (640, 576)
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(out / "videos" / "a.mp4"))
    assert frames == 3 + 6


def test_a_video_that_is_broken_off_leaves_nothing(tmp_path):
    watcher = VideoWatcher(tmp_path / "x.mp4", horizon=8)
    image = np.zeros((256, 320, 3), np.uint8)
    watcher.step({"image": image}, Action(np.zeros(7)), "go", {"success": False})
    watcher.abort()
    assert list(tmp_path.iterdir()) == []
