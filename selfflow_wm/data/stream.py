"""Batches of one modality each, drawn from several sources, resumable at any batch."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from selfflow_wm.data.encode import SampleEncoder
from selfflow_wm.data.modes import Mode, ModeSchedule
from selfflow_wm.data.source import (
    Sample,
    Source,
    UnusableSample,
    fingerprint,
    sample_at,
)
from selfflow_wm.layout import Batch

_ORDER = 11  # keeps the orders of the samples apart from other draws of the same seed


class _Order:
    """Shuffled passes over one source, one after the other: position -> (number of the sample,
    number of the pass)."""

    def __init__(self, kind: str, length: int, seed: int) -> None:
        self.length, self._key = length, [seed, _ORDER, crc32(kind.encode())]
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def __call__(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self.length)
        if epoch != self._epoch:
            generator = np.random.default_rng([*self._key, epoch])
            self._epoch, self._permutation = epoch, generator.permutation(self.length)
        return int(self._permutation[place]), epoch


class Draw(NamedTuple):
    """What a batch holds."""

    mode: Mode
    numbers: tuple[int, ...]
    """Of the samples."""
    laps: tuple[int, ...]
    """Number of the pass over the source that each is drawn in."""


class SampleStream:
    """An endless iterator of encoded batches, each of one mode of the schedule.

    The mode of optimiser step k and every source's order follow from the seed alone; a source is
    passed over in whole shuffled passes, of which a later one may take other parts of long files.
    The position is a few integers, in samples drawn by all ranks together, so a run may be resumed
    with another number of them.

    Args:
        sources: by kind, one for every mode of the schedule.
        encoder: samples to latents.
        schedule: probabilities and batch sizes (of this rank alone).
        seed: of the orders.
        accumulate: batches of one mode in a row, as many as the trainer adds up to a step.
        rank, world_size: which of several readers this is. All draw the same modes, and of every
            step's samples each takes its share.

    Raises:
        ValueError: a mode without a source or without its modalities in the layout.
        UnusableSample: from `next`, for a sample that does not fit.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        encoder: SampleEncoder,
        schedule: ModeSchedule,
        *,
        seed: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"expected a rank in 0..world_size - 1, got {rank} of {world_size}")
        check_schedule(schedule, sources, encoder)
        self.sources = {name: sources[name] for name in schedule.names}
        self.encoder, self.schedule, self.accumulate = encoder, schedule, accumulate
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self._orders = {name: _Order(name, len(s), seed) for name, s in self.sources.items()}
        self.drawn = 0
        self.positions = dict.fromkeys(self.sources, 0)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        before = self.drawn, dict(self.positions)
        try:
            draw = self.draw()
            return self.encode(self.read(draw), draw)
        except BaseException:  # a sample that fails leaves the position as it was
            self.drawn, self.positions = before
            raise

    def draw(self) -> Draw:
        """What the next batch holds; moves the position."""
        mode = self.schedule.draw(self.drawn // self.accumulate)
        size = self.schedule.batch_size(mode.name)
        order, start = self._orders[mode.name], self.positions[mode.name]
        # Interleaved, so that the ranks together read what one with a larger batch would.
        places = range(start + self.rank, start + size * self.world_size, self.world_size)
        numbers, laps = zip(*map(order, places), strict=True)
        self.drawn += 1
        self.positions[mode.name] = start + size * self.world_size
        return Draw(mode, numbers, laps)

    def read(self, draw: Draw) -> list[Sample]:
        """The samples of a draw; UnusableSample for one that cannot be read."""
        source = self.sources[draw.mode.name]
        with _named(draw.mode):
            return [
                sample_at(source, number, lap)
                for number, lap in zip(draw.numbers, draw.laps, strict=True)
            ]

    def encode(self, samples: list[Sample], draw: Draw) -> Batch:
        """The batch of a draw's samples; UnusableSample for one that does not fit."""
        with _named(draw.mode):
            return self.encoder(samples, draw.mode)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position."""
        return {"drawn": self.drawn, "positions": dict(self.positions), "made_for": self._made_for}

    @functools.cached_property
    def _made_for(self) -> dict[str, Any]:
        lengths = {name: len(source) for name, source in self.sources.items()}
        known = {name: fingerprint(source) for name, source in self.sources.items()}
        files = {name: value for name, value in known.items() if value is not None}
        return {"seed": self.seed, "samples": lengths, "files": files}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict()`; ValueError when the data or the seed has changed."""
        # A state from before files were recorded resumes with any.
        before = {"files": self._made_for["files"]} | state["made_for"]
        if before != self._made_for:
            raise ValueError(
                f"state of the data: expected {before}, as when it was saved, got "
                f"{self._made_for}; resume with the same data, modes and seed, or start over with "
                "resume=false"
            )
        self.drawn = int(state["drawn"])
        self.positions = {name: int(state["positions"][name]) for name in self.sources}


@contextmanager
def _named(mode: Mode) -> Iterator[None]:
    """Say which source an unusable sample is of."""
    try:
        yield
    except ValueError as error:
        raise UnusableSample(f"data.{mode.name}: {error}") from error


def check_schedule(
    schedule: ModeSchedule, sources: Mapping[str, Source], encoder: SampleEncoder
) -> None:
    """ValueError when a mode of the schedule lacks its source or a modality of the layout."""
    for name in schedule.names:
        if name not in sources:
            raise ValueError(
                f"modes.{name}: expected a source of kind {name!r} in data, got "
                f"{sorted(sources) or 'none'}; add data.{name}, or leave the mode out with "
                f"modes.{name}=null"
            )
        if lacking := [m for m in schedule.table[name].present if m not in encoder.layout]:
            raise ValueError(
                f"modes.{name}: expected {', '.join(lacking)} in the layout, got "
                f"{encoder.layout.names}; add layout.rows.{lacking[0]}"
            )


def fixed_batches(
    sources: Mapping[str, Source],
    encoder: SampleEncoder,
    schedule: ModeSchedule,
    batches: int,
    seed: int = 0,
) -> dict[str, list[Batch]]:
    """The same up to `batches` encoded batches of every mode, for validation."""
    groups: dict[str, list[Batch]] = {}
    for name in schedule.names:
        source, size = sources[name], schedule.batch_size(name)
        order = _Order(name, len(source), seed)
        numbers = [order(position)[0] for position in range(min(batches * size, len(source)))]
        try:
            groups[name] = [
                encoder([source[i] for i in numbers[start : start + size]], schedule.table[name])
                for start in range(0, len(numbers), size)
            ]
        except ValueError as error:
            raise ValueError(
                f"data.{name}, {len(source)} held out for validation (another held_out= takes "
                f"others): {error}"
            ) from error
    return groups
