"""Two processes train as one: weights, averages, losses, states on disk, commands, failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranked
import torch
from made_up import TINY

from selfflow_wm.data import ModeSchedule
from selfflow_wm.layout import Rows
from selfflow_wm.pretraining.build import build, compose_config
from selfflow_wm.pretraining.cli import main as pretrain
from selfflow_wm.training import checkpoint, ranks
from selfflow_wm.training.config import CONFIG_DIR

HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
WORDS = ("ddp", "fsdp2")
# A gradient that is zero but for rounding would move its weight by the rounding's sign.
SMOOTH = ("optim.eps=1e-4", "optim.warmup=1")


def environment() -> dict[str, str]:
    paths = [str(CONFIG_DIR.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def torchrun(*words: str, timeout: float = 600) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*TORCHRUN, *words],
        env=environment(),
        cwd=CONFIG_DIR.parent,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def state(run: Path, step: int = ranked.STEPS) -> dict[str, torch.Tensor]:
    place = run / f"state/step_{step:08d}"
    return {
        f"{name}/{key}": value
        for name in ("model", "ema", "objective", "optimizer")
        for key, value in checkpoint.load_tensors(place / f"{name}.safetensors").items()
    }


def metrics(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("time")
        row.pop("train/steps_per_second", None)
    return rows


def assert_same(found: Path, expected: Path, step: int = ranked.STEPS, tolerance=5e-6) -> None:
    ours, theirs = state(found, step), state(expected, step)
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(
            ours[key], theirs[key], atol=tolerance, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}"
        )
    ours, theirs = metrics(found), metrics(expected)
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for key in one:
            assert one[key] == pytest.approx(other[key], rel=2e-3, abs=1e-4), (one["step"], key)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A directory with every case trained in one process and, under both words, in two."""
    out = tmp_path_factory.mktemp("runs")
    for name in ranked.CASES:
        ranked.train(out, "none", name)
    ranked.make(out / "half-none").train(until=2)
    done = torchrun(str(HERE / "ranked.py"), str(out))
    assert done.returncode == 0, done.stderr[-4000:]
    # Only the main process reports: a line a step and run.
    runs_of_five, resumed, halves = 2 * len(ranked.CASES), 4, 2
    lines = [line for line in done.stdout.splitlines() if line.startswith("training")]
    assert len(lines) == 5 * runs_of_five + 3 * resumed + 2 * halves
    return out


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("name", ranked.CASES)
def test_two_processes_train_as_one(runs, name, word):
    assert_same(runs / f"{word}-{name}", runs / f"none-{name}")
    # ... and training did something, so that the equality is not vacuous
    untrained = ranked.make(runs / "untrained").model.state_dict()
    trained = state(runs / f"{word}-{name}")
    moved = [k for k, v in untrained.items() if (v - trained[f"model/{k}"]).abs().max() > 1e-3]
    assert len(moved) > 0.9 * len(untrained)


def test_checkpointing_activations_changes_nothing(runs):
    for word in ("none", *WORDS):
        assert_same(runs / f"{word}-checkpointed", runs / f"{word}-self_flow", tolerance=1e-6)


@pytest.mark.parametrize(
    "name", ["half-none-ddp", "half-none-fsdp2", "half-ddp-fsdp2", "half-fsdp2-ddp"]
)
def test_a_state_is_gone_on_with_in_any_number_of_processes(runs, name):
    assert_same(runs / name, runs / "none-self_flow")


@pytest.mark.parametrize("word", WORDS)
def test_a_state_of_two_processes_is_gone_on_with_in_one(runs, word):
    ranked.go_on(runs, f"half-{word}", "none")
    assert_same(runs / f"half-{word}-none", runs / "none-self_flow")


def test_sharding_halves_what_a_process_holds(runs):
    held = {w: json.loads((runs / f"half-none-{w}/held.json").read_text()) for w in WORDS}
    assert set(held["ddp"].values()) == {1.0}
    assert all(0.45 < share < 0.55 for share in held["fsdp2"].values()), held["fsdp2"]


def test_one_process_writes(runs):
    for word in ("none", *WORDS):
        exported = sorted(path.name for path in (runs / f"{word}-repa").glob("exported_*"))
        assert exported == [f"exported_0_{ranked.STEPS}"]


def test_another_batch_of_a_step_is_refused(runs, tmp_path):
    trainer = ranked.make(tmp_path, accumulate=2)
    with pytest.raises(ValueError, match="expected trainer.accumulate=1"):
        trainer.resume(runs / f"none-self_flow/state/step_{ranked.STEPS:08d}")


def test_rows_of_a_batch_average_to_its_mean():
    values, counts = torch.tensor([[3.0, 5.0, 1.0, 7.0]]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    parts = [Rows(first, 2, lambda _: counts.sum()) for first in (0, 1)]
    assert [p.of(torch.arange(5)).tolist() for p in parts] == [[0, 2, 4], [1, 3]]
    means = [p.mean(p.of(values[0]).sum(), p.of(counts).sum()) for p in parts]
    assert float(sum(means) / 2) == pytest.approx(16 / 10)


# ---------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A pretraining run in one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert pretrain([*TINY, *SMOOTH, f"out={out}"]) == 0
    return out


@pytest.mark.parametrize("word", ["auto", "fsdp2"])
def test_pretraining_in_two_processes(alone, tmp_path, word):
    out = tmp_path / "run"
    words = ["-m", "selfflow_wm.pretrain", *TINY, *SMOOTH, f"trainer.parallel={word}"]
    begun = 0
    if word == "fsdp2":  # in two goes
        half = torchrun(*words, f"out={out}", "trainer.max_minutes=0")
        assert half.returncode == 0, half.stderr[-4000:]
        assert half.stdout.count("out of time at step 1;") == 1
        begun = 1
    done = torchrun(*words, f"out={out}")
    assert done.returncode == 0, done.stderr[-4000:]
    for text in ("finished at step 6", "2 that share every batch", f"{begun} done of 6"):
        assert done.stdout.count(text) == 1, done.stdout
    assert_same(out, alone, step=6, tolerance=1e-4)
    ours, theirs = (
        checkpoint.load_tensors(x / "checkpoint/model.safetensors") for x in (out, alone)
    )
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], atol=1e-4, rtol=1e-3)


def one_mode(kind: str, source: str) -> list[str]:
    """TINY on a single kind of samples, made up by `source`."""
    others = sorted({"image", "video", "audio"} - {kind})
    return [
        *(word for word in TINY if not word.startswith(("data=", "modes"))),
        f"data={{{kind}: {{_target_: made_up.{source}, kind: {kind}}}}}",
        *(f"layout.rows.{name}=null" for name in others),
        *(f"modes.{name}=null" for name in [*others, "video_audio"]),
        f"modes.{kind}.batch_size=4",
        "trainer.total_steps=100000",
        "trainer.validate_every=0",
    ]


@pytest.mark.parametrize(
    ("kind", "source", "message"),
    [
        ("image", "Breaking", "RuntimeError: sample 3 is broken"),
        ("audio", "NotANumber", "pretrain: step 1: the loss is nan"),
    ],
)
def test_a_process_that_fails_ends_the_run(tmp_path, kind, source, message):
    words = ["-m", "selfflow_wm.pretrain", *one_mode(kind, source), f"out={tmp_path / 'run'}"]
    done = torchrun(*words)
    assert done.returncode != 0
    assert done.stderr.count(message) == 1, done.stderr[-4000:]


def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    out = tmp_path / "run"
    words = ["-m", "selfflow_wm.pretrain", *one_mode("image", "MadeUp"), f"out={out}"]
    process = subprocess.Popen(
        [*TORCHRUN, *words], env=environment(), cwd=CONFIG_DIR.parent, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 300
    while not (out / "metrics.jsonl").is_file() or not (out / "metrics.jsonl").read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0].decode()
    assert process.returncode != 0 and said.count("SIGTERM: saving the state") == 1
    saved = checkpoint.latest_step(out / "state")
    assert saved is not None
    step = checkpoint.read_json(saved / "trainer.json")["step"]
    assert f"interrupted at step {step};" in said
    # one process goes on with it
    done = build(compose_config([*words[2:], f"trainer.total_steps={step + 1}"]))
    assert done.trainer.step == step and done.trainer.train() == "finished"


# ---------------------------------------------------------------- misuse


def test_misuse_is_said_once_and_writes_nothing(tmp_path):
    words = [*one_mode("image", "MadeUp"), f"out={tmp_path / 'run'}", "modes.image.batch_size=3"]
    done = torchrun("-m", "selfflow_wm.pretrain", *words)
    assert done.returncode != 0 and not (tmp_path / "run").exists()
    message = "pretrain: modes.image.batch_size: expected a multiple of the 2 processes"
    assert done.stderr.count(message) == 1, done.stderr[-4000:]


def launched(monkeypatch, size: int, **more: str) -> None:
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
        **more,
    }.items():
        monkeypatch.setenv(name, value)


def test_words_and_devices_are_checked(monkeypatch):
    with pytest.raises(ValueError, match="expected one of auto, none, ddp, fsdp2, got 'fdsp2'"):
        ranks.join("fdsp2")
    for word in WORDS:
        with pytest.raises(ValueError, match=f"trainer.parallel={word}: expected .* torchrun"):
            ranks.join(word, "cpu")
    for word in ("auto", "none"):
        assert ranks.join(word, "cpu").size == 1
    launched(monkeypatch, 4)
    with pytest.raises(ValueError, match="trainer.parallel=none: expected one process"):
        ranks.join("none", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="each of the 4 processes on this machine, got 2"):
        ranks.join("auto", "cuda")
    with pytest.raises(ValueError, match="device=cuda:1: expected one GPU for each"):
        ranks.join("fsdp2", "cuda:1")
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(ValueError, match="got WORLD_SIZE=4 without"):
        ranks.join("auto", "cpu")


def test_batches_are_divided_evenly_or_not_at_all():
    shares = {"image": {"probability": 1, "batch_size": 6}}
    mixture = ModeSchedule(shares, seed=3)
    third = mixture.divided(3)
    assert (third.batch_size("image"), mixture.batch_size("image")) == (2, 6)
    assert [third.draw(k) for k in range(5)] == [mixture.draw(k) for k in range(5)]
    with pytest.raises(ValueError, match="multiple of the 4 processes.*batch_size=8"):
        mixture.divided(4)
