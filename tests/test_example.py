"""The example package, installed and used from an empty directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a module where the example is installed; the finished process."""
    folder = tmp_path_factory.mktemp("example")
    site, source = folder / "site", folder / "source"
    subprocess.run(
        ["cp", "-r", str(ROOT / "examples" / "selfflow_wm_example"), str(source)], check=True
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
         "--no-build-isolation", "--target", str(site), str(source)], check=True,
    )  # fmt: skip
    paths = [str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]

    def start(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )  # fmt: skip

    start.folder = folder
    return start


def test_help_lists_what_is_installed(run):
    shown = run("eval.simpler", "--help").stdout
    for name in (
        "point (selfflow-wm-example 0.1.0)",
        "constant (selfflow-wm-example 0.1.0)",
        "speed (selfflow-wm-example 0.1.0)",
    ):
        assert name in " ".join(shown.split())
    shown = run("robotics.finetune", "--help").stdout
    for name in ("direction_flow", "mean_pool", "my_arm"):
        assert f"{name} (selfflow-wm-example 0.1.0)" in shown


def test_its_parts_run(run):
    words = ["--task", "reach", "--episodes", "3", "--workers", "1", "--video", "1"]
    for policy in ("expert", "constant://0.01,0,0"):
        done = run("eval.simpler", "--backend", "point", "--policy", policy, *words, "--out",
                   policy[:6])  # fmt: skip
        assert done.returncode == 0, done.stderr
    task = json.loads((run.folder / "expert" / "results.json").read_text())["tasks"]["reach"]
    assert task["success_last_step"]["rate"] == 1.0
    assert task["metrics"]["steps to success"] == task["mean_steps"]
    task = json.loads((run.folder / "consta" / "results.json").read_text())["tasks"]["reach"]
    assert task["success_last_step"]["rate"] == 0.0 and "metrics" not in task


def test_its_demonstrations_are_replayed(run):
    done = run("eval.collect", "--backend", "point", "--task", "reach", "--episodes", "2",
               "--workers", "1", "--position-noise", "0.005", "--out", "demos")  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run("eval.simpler", "--backend", "point", "--task", "reach", "--policy", "replay:demos",
               "--video", "0", "--workers", "1", "--out", "replay")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((run.folder / "replay" / "results.json").read_text())
    assert found["tasks"]["reach"]["success_last_step"]["count"] == 2


def test_the_doctor_looks_at_it(run):
    done = run("eval.doctor", "--only", "point")
    assert done.returncode == 0, done.stdout
    assert "320 x 256" in done.stdout


def test_its_objective_and_codec_are_trained_with_and_its_robot_is_read(run):
    done = run("eval.collect", "--backend", "point", "--task", "reach", "--episodes", "4",
               "--workers", "1", "--out", "train")  # fmt: skip
    assert done.returncode == 0, done.stderr
    words = [
        "experiment=rt1_small", "data=train", "out=run", "objective=direction_flow",
        "objective.weight=0.3", "codec.image={kind: mean_pool, cells: 2}",
        "codec.video={kind: patch_video, patch: 8, channels: 8}", "dataset.image_size=[32,48]",
        "dataset.video_offsets=[1,2,3,4,5]", "codec.fit_frames=20", "codec.fit_windows=20",
        "trainer.total_steps=2", "modes.joint.batch_size=2", "trainer.validation_batches=1",
        "trainer.preview_every=0", "log.wandb=disabled", 'dataset.train_split="train[:3]"',
        'dataset.validation_split="train[3:]"',
    ]  # fmt: skip
    done = run("robotics.finetune", *words)
    assert done.returncode == 0, done.stderr
    lines = (run.folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert any("train/direction" in line for line in lines)
    config = json.loads((run.folder / "run" / "checkpoint" / "config.json").read_text())
    assert config["training"]["objective"]["weight"] == 0.3
    assert "mean_pool" in json.dumps(config["codecs"])
    code = "from robotics.embodiment.tables import load_robot; print(load_robot('my_arm').rate)"
    read = run("timeit", "-n", "1", "-r", "1", code)
    assert read.returncode == 0, read.stderr
    assert read.stdout.startswith("10.0")
