"""From checkpoints to measurements on disk, and from those to results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from selfflow_wm.data import JOINT, MODES
from selfflow_wm.data.toy import ToyConfig, ToySource
from selfflow_wm.data.toy.truth import Sample
from selfflow_wm.evaluation.checkpoints import Entry, open_checkpoint
from selfflow_wm.evaluation.features import Extractor, checked
from selfflow_wm.evaluation.generate import Arrays, Maker, through_codec, true_samples
from selfflow_wm.evaluation.media import SHOWN
from selfflow_wm.evaluation.metrics import Columns, measure
from selfflow_wm.evaluation.store import Measured
from selfflow_wm.metrics.recogniser import Recogniser
from selfflow_wm.progress import Progress
from selfflow_wm.sampling.run import Solve

TRUE, REFERENCE, UNRELATED = "true", "reference", "unrelated"
"""Renderings that models are asked for, others of the same split that distances are to, and
videos with the sound of another: the score of a model whose sound ignores its picture."""

OFFSET = 500_000
"""Number in the test split of the first reference rendering."""

Make = Callable[[str, Sequence[Sample], Sequence[int]], Arrays]


@dataclass(frozen=True)
class Judge:
    """Everything needed to measure samples."""

    world: ToyConfig
    recogniser: Recogniser
    extractors: Mapping[str, Extractor]

    def asked(self, mode: str, numbers: Sequence[int], offset: int = 0) -> list[Sample]:
        """The renderings of the test split whose captions samples `numbers` are made from."""
        return _renderings(self.world, mode, [offset + number for number in numbers])

    def __call__(self, mode: str, made: Arrays, asked: Sequence[Sample]) -> Columns:
        """Metrics and features of a batch, by column."""
        columns = measure(mode, made, asked, self.recogniser, self.world)
        features = {
            f"features/{name}": checked(self.extractors[name], value)
            for name, value in made.items()
        }
        return columns | features


def _renderings(world: ToyConfig, mode: str, numbers: Sequence[int]) -> list[Sample]:
    source = ToySource(mode, 10**6, "test", world)
    return [source.rendering(number) for number in numbers]


def with_other_sound(world: ToyConfig) -> Make:
    """The true videos, each with the sound of the next one."""

    def make(mode: str, asked: Sequence[Sample], numbers: Sequence[int]) -> Arrays:
        others = _renderings(world, mode, [number + 1 for number in numbers])
        return true_samples(mode, asked) | {"audio": true_samples(mode, others)["audio"]}

    return make


@dataclass(frozen=True)
class Origin:
    """Where samples come from: a checkpoint, a codec, or the world itself."""

    key: str
    """Its directory."""
    modes: tuple[str, ...]
    open: Callable[[], Make]
    """Loads the model or codec; called only if samples are missing."""
    offset: int = 0


def origins(
    entries: Sequence[Entry], modes: Sequence[str], solve: Solve, seed: int, device: torch.device
) -> tuple[list[Origin], dict[str, str]]:
    """Everything to measure, and the key of each checkpoint's codecs by its label."""
    true: Make = lambda mode, asked, numbers: true_samples(mode, asked)  # noqa: E731
    found = [
        Origin(TRUE, tuple(modes), lambda: true),
        Origin(REFERENCE, tuple(modes), lambda: true, OFFSET),
    ]
    if JOINT in modes:
        found.append(Origin(UNRELATED, (JOINT,), lambda: with_other_sound(entries[0].world)))
    codecs: dict[str, str] = {}
    for entry in entries:
        saved, encoder = open_checkpoint(entry, device)  # refuses what does not fit, before work
        key = "codec-" + "-".join(codec.hash()[:8] for codec in saved.codecs.values())
        coded: Make = lambda mode, asked, numbers, e=encoder, w=entry: through_codec(  # noqa: E731
            e, mode, w, asked
        )
        # Of the modes that no earlier checkpoint with these codecs was trained in.
        known = {m for one in found if one.key == key for m in one.modes}
        if new := tuple(m for m in modes if m in entry.modes and m not in known):
            found.append(Origin(key, new, lambda make=coded: make))
        codecs[entry.label] = key
    for entry in entries:
        trained = tuple(mode for mode in modes if mode in entry.modes)
        opened = lambda entry=entry: Maker(entry, solve, seed, device)  # noqa: E731
        found.append(Origin(entry.fingerprint, trained, opened))
    return found, codecs


def stored(out: Path, key: str, mode: str) -> Measured:
    """The measurements of an origin in a mode."""
    return Measured(out / "measured" / key / mode)


def measure_all(out: Path, found: Sequence[Origin], judge: Judge, samples: int, batch: int) -> None:
    """Generate and measure the missing samples out of 0..samples - 1, with a progress bar."""
    todo = {
        (origin.key, mode): stored(out, origin.key, mode).missing(samples)
        for origin in found
        for mode in origin.modes
    }
    total = samples * len(todo)
    done = total - sum(map(len, todo.values()))
    if done == total:
        return
    with Progress(total, done, description="evaluating", unit="sample") as progress:
        for origin in found:
            make: Make | None = None
            for mode in origin.modes:
                numbers = todo[origin.key, mode]
                for start in range(0, len(numbers), batch):
                    some = numbers[start : start + batch]
                    make = make or origin.open()
                    asked = judge.asked(mode, some, origin.offset)
                    made = make(mode, asked, some)
                    first = [row for row, number in enumerate(some) if number < SHOWN]
                    raw = {name: value[first] for name, value in made.items()} if first else {}
                    stored(out, origin.key, mode).write(some, judge(mode, made, asked), raw)
                    progress.add(len(some))


def pick_modes(entries: Sequence[Entry], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The modes to evaluate: the wanted ones, or all that any checkpoint was trained in.

    ValueError for one that was asked for and that a checkpoint was not trained in.
    """
    if wanted is None:
        return tuple(mode for mode in MODES if any(mode in entry.modes for entry in entries))
    if unknown := [mode for mode in wanted if mode not in MODES]:
        raise ValueError(f"--modes: expected some of {', '.join(MODES)}, got {unknown[0]}")
    for entry in entries:
        if lacking := [mode for mode in wanted if mode not in entry.modes]:
            raise ValueError(
                f"{entry.path}: expected a model trained in {', '.join(wanted)}, got one trained "
                f"in {', '.join(entry.modes)}; leave {lacking[0]} out of --modes, or train with "
                f"modes.{lacking[0]}"
            )
    return tuple(mode for mode in MODES if mode in wanted)


def settings_of(judge: Judge, recogniser: str, solve: Solve, seed: int) -> dict[str, Any]:
    """The settings that measurements depend on; a directory holds those of one set of them."""
    return {
        "schema": 1,
        "world": judge.world.to_dict(),
        "recogniser": recogniser,
        "features": {name: extractor.name for name, extractor in judge.extractors.items()},
        "seed": seed,
        "solve": asdict(solve),
    }
