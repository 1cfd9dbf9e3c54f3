"""Stage fed: the share of a training step's time that it waits for its data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu.cases import Repeated
from benchmarks.gpu.clock import wall
from benchmarks.gpu.record import Bench
from benchmarks.rlds_data import made_set

WORKERS = (0, 4, 12)
SIDE = 256
MEDIA = (
    "experiment=paper_625m", "only=image", "codec.image=null",
    f"++codec.image={{kind: patch_pca, image_size: [{SIDE}, {SIDE}], patch: 16, channels: 128}}",
    "trainer.compile=false", "fit_samples=32", "held_out=0.1", "layout.text_length=64",
)  # fmt: skip
ROBOT = ("experiment=embedded", "modes=policy_only", "spec=rt1")
TINY = ("model=tiny", "model.width=48", "model.heads=2", "model.single=2")
TINY_ROBOT = (
    "modes.policy.batch_size=4", "dataset.train_split='train[:50%]'",
    "dataset.validation_split='train[50%:]'",
)  # fmt: skip
QUIET = (
    "log.wandb=disabled", "trainer.validate_every=0", "trainer.preview_every=0",
    "trainer.diagnose_every=0", "trainer.validation_batches=1", "resume=false",
)  # fmt: skip


def run(bench: Bench) -> None:
    """See the module."""
    torch.set_float32_matmul_precision("high")
    root = bench.path.parent / "fed"
    workers = WORKERS[:2] if bench.tiny else WORKERS
    robot = [
        (f"robot, {way}, {n} workers", way, n)
        for way in ("decoded in advance", "decoded when read")
        for n in WORKERS[:2]
    ]
    media = [(f"pictures, {n} workers", n) for n in workers]
    bench.plan(["data", *(name for name, *_ in (*robot, *media))])
    made = bench.cell("data", lambda: _make(bench, root))
    if made is None:
        return
    bench.note(
        "workers are threads of the training process, which read the next batches during a step; "
        f"without any, two threads decode robot data; {len(os.sched_getaffinity(0))} cores"
    )
    for name, way, n in robot:
        bench.cell(name, lambda name=name, way=way, n=n: _robot(bench, name, root, way, n))
    for name, n in media:
        bench.cell(name, lambda name=name, n=n: _media(bench, name, root, n))


def _make(bench: Bench, root: Path) -> Path:
    """Synthetic data: RT-1 episodes as RLDS, and a folder of JPEGs with captions."""
    rlds = made_set(root / "rlds", *((4, 12) if bench.tiny else (60, 30)), shard_episodes=2)
    folder = root / "media" / "image"
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for number in range(40 if bench.tiny else 400):
        coarse = generator.integers(0, 256, (24, 24, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((320, 320), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:04d}.jpg", quality=92)
        (folder / f"{number:04d}.txt").write_text(f"colours, number {number}")
    return rlds


def _robot(bench: Bench, name: str, root: Path, way: str, workers: int) -> None:
    from robotics.training.build import build, compose_config

    data = next((root / "rlds").glob("*x*"))
    words = [*ROBOT, *_usual(bench), f"data={data}", f"out={root / 'robot'}"]
    words += [f"workers={workers}"]
    words += [f"decoded={'true' if way == 'decoded in advance' else 'false'}"]
    words += TINY_ROBOT if bench.tiny else []
    _compare(bench, name, build(compose_config(words)).trainer)


def _media(bench: Bench, name: str, root: Path, workers: int) -> None:
    from selfflow_wm.pretraining.build import build, compose_config

    words = [*MEDIA, *_usual(bench), f"data={root / 'media'}", f"out={root / 'run'}"]
    words += ["modes.image.batch_size=4"] if bench.tiny else []
    _compare(bench, name, build(compose_config([*words, f"workers={workers}"])).trainer)


def _usual(bench: Bench) -> Sequence[str]:
    precision = "float32" if bench.tiny else "bfloat16"
    words = [*QUIET, f"device={bench.device}", f"trainer.precision={precision}"]
    return [*words, *TINY] if bench.tiny else words


def _compare(bench: Bench, name: str, trainer: Any) -> None:
    """Time steps that read their data against steps on a batch that is already there."""
    stream, steps = trainer.batches, 2 if bench.tiny else 12
    trainer.batches = Repeated(next(stream).to(bench.device))
    for _ in range(1 if bench.tiny else 4):
        trainer.train_step()
    there = wall(trainer.train_step, bench.device, steps)
    trainer.batches = stream
    trainer.train_step()
    read = wall(trainer.train_step, bench.device, steps)
    reading = wall(lambda: next(stream), bench.device, steps)
    share = max(0.0, 1 - there / read)
    size = _size(trainer)
    bench.row(
        "steps and their data", data=name, batch=size, step_ms=1e3 * there,
        step_with_reading_ms=1e3 * read, reading_alone_ms=1e3 * reading, waiting=f"{share:.0%}",
        samples_per_s=size / read,
    )  # fmt: skip
    bench.figure(f"waiting for data, {name}", round(100 * share, 1), "%")


def _size(trainer: Any) -> int:
    stream = getattr(trainer.batches, "stream", trainer.batches)
    return stream.schedule.batch_size(stream.schedule.names[0])
