"""Weights & Biases: one run however often a training is resumed, its pictures and clips, its name;
what more steps do to the learning rate."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import made_up
import numpy as np
import pytest

from selfflow_wm.pretraining.build import build, compose_config
from selfflow_wm.training.log import MetricsLog
from selfflow_wm.training.optim import AdamWCosine, rescheduled


class Served:
    """Stands for the wandb module: what was asked of it."""

    class Error(Exception):
        pass

    def __init__(self, key=None):
        self.api, self.begun, self.logged = SimpleNamespace(api_key=key), [], []
        self.Settings = lambda **options: options
        self.Image, self.Video = (lambda path, k=k, **_: (k, path) for k in ("image", "video"))

    def init(self, **options):
        self.begun.append(options)
        return SimpleNamespace(
            log=lambda values, step: self.logged.append((step, values)), finish=lambda: None
        )


@pytest.fixture
def served(monkeypatch):
    served = Served(key="0")
    monkeypatch.setitem(sys.modules, "wandb", served)
    return served


def words(out, *more):
    few = ("trainer.total_steps=4", "trainer.preview_every=2", "log.wandb=auto")
    return compose_config([*made_up.TINY, *few, f"out={out}", *more])


def test_a_resumed_training_goes_on_in_its_run(served, tmp_path):
    run = build(words(tmp_path))
    run.trainer.train(2)
    build(words(tmp_path)).trainer.train(4)
    first, second = served.begun
    assert first["id"] == second["id"] and first["project"] == second["project"]
    assert first["mode"] == "online" and first["resume"] == second["resume"] == "allow"
    assert {1, 2, 3, 4} <= {step for step, _ in served.logged}
    build(words(tmp_path, "log.project=another"))  # an id is of one project
    assert served.begun[-1]["project"] == first["project"]
    build(words(tmp_path, "resume=false"))
    assert served.begun[-1]["id"] != first["id"]
    assert json.loads((tmp_path / "replaced" / "wandb.json").read_text())["id"] == first["id"]


def test_a_training_that_saved_nothing_begins_another_run(served, tmp_path):
    MetricsLog(tmp_path, wandb="auto").write(1, {"loss": 1.0})  # and is killed
    MetricsLog(tmp_path, wandb="auto")
    assert served.begun[0]["id"] != served.begun[1]["id"]


def test_what_a_killed_training_took_with_it_is_sent_again(served, tmp_path, monkeypatch):
    clock = iter([0.0, 1000.0, 1010.0, 1020.0])
    monkeypatch.setattr("time.time", lambda: next(clock))
    log = MetricsLog(tmp_path, wandb="auto")
    for step in (1, 2, 3, 4):
        log.write(step, {"loss": step / 8, "nan": float("nan")})
    served.logged.clear()  # killed at step 4, with the state of step 3; 1 was written long before
    again = MetricsLog(tmp_path, wandb="auto", resume_step=3)
    assert served.logged == [(2, {"loss": 2 / 8}), (3, {"loss": 3 / 8})]
    again.close()
    served.logged.clear()  # nothing is left of one that ended by itself
    MetricsLog(tmp_path, wandb="auto", resume_step=3)
    assert served.logged == []


def test_the_record_is_there_before_the_run_is(served, tmp_path, monkeypatch):
    def init(**options):
        assert json.loads((tmp_path / "wandb.json").read_text())["id"] == options["id"]
        raise served.Error("no route to host")

    monkeypatch.setattr(served, "init", init)
    with pytest.raises(ConnectionError, match=r"no route to host; log\.wandb=offline"):
        MetricsLog(tmp_path, wandb="online")


def test_previews_are_shown_as_pictures_and_clips(served, tmp_path):
    run = build(words(tmp_path))
    run.trainer.train(2)
    shown = [(step, values) for step, values in served.logged if "preview" in values]
    ((step, values),) = shown
    assert step == 2
    assert values["preview"] == ("image", str(tmp_path / "previews" / "step_00000002.png"))
    clips = {name for name, (kind, _) in values.items() if kind == "video"}
    assert clips == {"preview/video_clip", "preview/video_audio_clip"}
    assert all((tmp_path / "previews" / path).is_file() for _, path in values.values())


def test_a_run_is_called_after_its_experiment_or_its_directory(tmp_path):
    assert words(tmp_path / "one").log.name == "toy_multimodal"
    assert words(tmp_path, "log.name=mine").log.name == "mine"
    assert compose_config(["data=x", f"out={tmp_path / 'one'}/"]).log.name == "one"
    assert compose_config([]).log.name is None


PART = """
import sys
from pathlib import Path
from selfflow_wm.training.log import MetricsLog
out, resumed = Path(sys.argv[1]), int(sys.argv[2])
log = MetricsLog(out, wandb="offline", name="a", resume_step=resumed)
log.write(3, {"loss": 1.0})
log.media(3, [out / "step_00000003.png"])
log.close()
"""


def test_offline_parts_of_a_training_are_of_one_run(tmp_path):
    pytest.importorskip("wandb")
    from PIL import Image

    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "step_00000003.png")
    for resumed in (0, 2):  # each in a process of its own, as a resumed training is
        time.sleep(1.1)  # W&B names a part's directory by the second
        subprocess.run([sys.executable, "-c", PART, tmp_path, str(resumed)], check=True)
    identity = json.loads((tmp_path / "wandb.json").read_text())["id"]
    parts = sorted((tmp_path / "wandb").glob(f"offline-run-*-{identity}"))
    assert len(parts) == 2 == len(list((tmp_path / "wandb").glob("offline-run-*")))
    for part in parts:
        assert _comes(part / f"run-{identity}.wandb"), sorted(path.name for path in part.iterdir())
        assert list(part.glob("files/media/images/preview_3_*.png"))


def _comes(path, seconds=20.0):
    """Whether a file is written: W&B's own process does it, after the run has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.is_file() and path.stat().st_size:
            return True
        time.sleep(0.1)
    return False


def test_more_steps_say_what_the_learning_rate_does(tmp_path):
    usual = ["log.wandb=disabled", "optim.warmup=1", "optim.floor=0.05"]
    run = build(words(tmp_path, *usual))
    run.trainer.train()
    assert build(words(tmp_path, *usual)).trainer.rescheduled == ""
    longer = build(words(tmp_path, *usual, "trainer.total_steps=300"))
    rate = longer.trainer.optim.rate
    assert f"from {rate(4, 4):.3g} to {rate(4, 300):.3g}" in longer.trainer.rescheduled
    assert longer.trainer.rescheduled in longer.description


@pytest.mark.parametrize(
    ("optim", "step", "before", "now", "found"),
    [
        (AdamWCosine(warmup=10, floor=1.0), 50, 100, 200, "constant after warm-up"),
        (AdamWCosine(lr=1e-3, warmup=0, floor=0.0), 100, 100, 200, "from 0 to 0.0005"),
        (AdamWCosine(lr=1e-3, warmup=10, floor=0.1), 5, 100, 50, "stays at 0.0006"),
        (AdamWCosine(), 100, 200, 50, "none is left"),
    ],
)
def test_the_line_is_what_the_schedule_is(optim, step, before, now, found):
    assert found in rescheduled(optim, step, before, now)
    assert f"of {now} steps now, {before} before" in rescheduled(optim, step, before, now)
