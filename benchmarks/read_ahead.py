"""The share of a training step's time that it waits for its data: read when due, and read ahead.

    python -m benchmarks.read_ahead
    python -m benchmarks.read_ahead --workers 4 --batch 128 --size 256 320 --augment

The step is simulated, as one on a GPU is to the host: it sleeps, except for a part in which the
interpreter is busy (--busy, launching kernels), so that what reading takes from it is seen, too.
The data are made-up RT-1 episodes with JPEGs of RT-1's size, read either as JPEGs (decoded=false,
nothing kept in memory: as of a set far larger than that) or as pixels decoded before. Batches are
of windows with two future frames, drawn at random. Rounds of all the variants alternate and medians
are printed: another process on the machine is soon the larger part of what is measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rlds_data import made_set
from robotics.data.augment import Augment
from robotics.data.batches import ModeStream
from robotics.data.windows import WindowDataset
from robotics.model.modes import MODES
from selfflow_wm.cli import at_least, exit_code
from selfflow_wm.data import ModeSchedule
from selfflow_wm.data.ahead import AHEAD, ReadAhead
from selfflow_wm.tables import print_table

ALONE = "not at all"
"""The step on one batch again and again."""
SETTLE = 3
"""Batches before the clock starts: what is read ahead then is there."""


class Uncoded:
    """Stands for a world model: the samples as they are, because codecs run on the device."""

    def encode(self, samples: Mapping[str, Any], *_: Any) -> Any:
        return samples


def make_stream(directory: Path, given: argparse.Namespace, decoded: bool) -> ModeStream:
    """Windows with future frames, in random order."""
    dataset = WindowDataset(
        directory, given.size, decoded=decoded, progress=False, cache_dir=given.root / "cache"
    )
    schedule = ModeSchedule({"joint": {"probability": 1, "batch_size": given.batch}}, 0, MODES)
    colours: Any = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 5.0}
    augment = Augment(0.85, **colours) if given.augment else None
    world: Any = Uncoded()
    return ModeStream(dataset, world, schedule, augment=augment)


def make_step(busy: float) -> Callable[[float], None]:
    """A function that takes as many seconds as it is told: work of the interpreter for the share
    `busy` of them, the rest asleep. The work is counted, not timed, so that it takes longer where
    threads keep the interpreter's lock."""

    def work(rounds: int) -> None:
        total = 0
        for number in range(rounds):
            total += number * number

    sample = 300_000
    began = time.perf_counter()
    work(sample)
    rate = sample / (time.perf_counter() - began)

    def step(seconds: float) -> None:
        work(int(rate * busy * seconds))
        time.sleep(seconds * (1 - busy))

    return step


def measure(
    batches: Iterator[Any], step: Callable[[float], None], seconds: float, steps: int
) -> tuple[float, float]:
    """Milliseconds of a step and its batch, and the share of them that waits for the batch."""
    for _ in range(SETTLE):
        next(batches)
        step(seconds)
    waited, began = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
        step(seconds)
    whole = time.perf_counter() - began
    return 1e3 * whole / steps, waited / whole


def batch_bytes(stream: ModeStream) -> int:
    """Of one batch's samples."""
    samples = stream.read(stream.draw())
    return sum(value.nbytes for value in samples.values() if isinstance(value, np.ndarray))


def report(given: argparse.Namespace) -> None:
    """Measure and print."""
    directory = made_set(given.root / "rlds", *given.data)
    step = make_step(given.busy)
    ways: dict[str, Callable[[Any], Iterator[Any]]] = {
        ALONE: lambda stream: repeat(next(stream)),
        "when due": lambda stream: stream,
        f"{given.workers} threads ahead": lambda stream: ReadAhead(
            stream, given.workers, given.ahead
        ),
    }
    sources = {"JPEG": False, "decoded": True}
    found: dict[tuple[str, int, str], list[tuple[float, float]]] = {}
    for _ in range(given.rounds):
        for source, decoded in sources.items():
            for milliseconds in given.step:
                for way, wrap in ways.items():
                    batches = wrap(make_stream(directory, given, decoded))
                    took = measure(batches, step, milliseconds / 1e3, given.steps)
                    found.setdefault((source, milliseconds, way), []).append(took)
    size = batch_bytes(make_stream(directory, given, True))
    print(
        f"batches of {given.batch} windows of 3 frames of {given.size[0]} x {given.size[1]} "
        f"({size / 1e6:.0f} MB){', augmented' if given.augment else ''}; step busy for "
        f"{given.busy:.0%}; {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; "
        f"{given.rounds} rounds of {given.steps} steps"
    )
    ahead = max(given.ahead, given.workers)
    print(f"read ahead: at most {ahead} batches, {ahead * size / 1e6:.0f} MB")
    rows = []
    for (source, milliseconds, way), took in found.items():
        whole, waiting = (statistics.median(values) for values in zip(*took, strict=True))
        alone = found[source, milliseconds, ALONE]
        longer = statistics.median(
            one / other - 1 for (one, _), (other, _) in zip(took, alone, strict=True)
        )
        low, high = min(share for _, share in took), max(share for _, share in took)
        rows.append(
            (source, f"{milliseconds} ms", way, f"{whole:.0f} ms", f"{longer:+.1%}",
             f"{waiting:.1%}", f"{low:.1%} .. {high:.1%}")
        )  # fmt: skip
    headings = ("frames", "step", "read", "takes", "than alone", "waiting", "in the rounds")
    print_table(headings, rows)


def main(argv: list[str] | None = None) -> int:
    """Entry."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--step", type=at_least(1), nargs="+", default=[50, 100, 500], metavar="MS")
    add("--workers", type=at_least(1), default=2, help="threads that read ahead (2)")
    add("--ahead", type=at_least(1), default=AHEAD, help=f"batches ({AHEAD})")
    add("--batch", type=at_least(1), default=32, help="windows (32)")
    add("--size", type=at_least(8), nargs=2, default=(128, 160), metavar=("H", "W"))
    add("--augment", action="store_true", help="crops and colours, as augment=crop_colour")
    add("--busy", type=float, default=0.3, help="share of a step that needs the interpreter (0.3)")
    add("--steps", type=at_least(1), default=12)
    add("--rounds", type=at_least(1), default=3)
    add("--data", type=at_least(1), nargs=2, default=(60, 40), metavar=("EPISODES", "STEPS"))
    add("--root", type=Path, help="where the data are made and kept; default: temporary")
    given = parser.parse_args(argv)

    def work() -> None:
        with tempfile.TemporaryDirectory() as place:
            given.root = given.root or Path(place)
            report(given)

    return exit_code(work)


if __name__ == "__main__":
    raise SystemExit(main())
