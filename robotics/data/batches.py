"""Windows to batches: one mode an optimiser step, resumable at any batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from robotics.data.augment import Augment
from robotics.data.cache.latents import LatentCache
from robotics.data.mixture import DatasetMixture, open_stream, shuffled
from robotics.data.windows import WindowDataset
from selfflow_wm.data import Mode, ModeSchedule
from selfflow_wm.layout import Batch

Dataset = WindowDataset | DatasetMixture


class Encoder(Protocol):
    """Of a `WorldModel`, what makes latents of windows."""

    def encode(self, samples: Mapping[str, Any], mode: Mode) -> Batch: ...


class ModeStream:
    """An endless iterator of encoded batches.

    The mode of optimiser step k and the order of the windows follow from the seed alone. All
    modes draw from one shuffled pass over the windows.
    accumulate: batches of one mode in a row, as many as the trainer adds up to a step.
    keep: the windows to draw, all by default. augment: transforms the frames of every window, anew
    in every epoch. latents: where the frames' latents come from instead of the pixels.
    rank, world_size: which of several readers this is, whose batches are the rows of one larger
    batch; all draw the same modes. The position is the same for any number of them.
    group: episodes open at a time, see `WindowStream`; default all. With it, the order depends on
    `world_size`, because every reader has episodes of its own.
    """

    def __init__(
        self,
        dataset: Dataset,
        world: Encoder,
        schedule: ModeSchedule,
        *,
        seed: int = 0,
        accumulate: int = 1,
        keep: np.ndarray | None = None,
        augment: Augment | None = None,
        latents: LatentCache | None = None,
        rank: int = 0,
        world_size: int = 1,
        group: int | None = None,
    ) -> None:
        if augment is not None and latents is not None:
            raise ValueError(
                "expected augmentation or cached latents, got both: latents cannot be cropped. "
                "Encode augmented variants instead: python -m robotics.encode --variants 4 "
                "--augment crop_colour"
            )
        self.augment, self.latents = augment, latents
        self.world, self.schedule, self.accumulate = world, schedule, accumulate
        readers = {"rank": rank, "world_size": world_size}
        self.windows = open_stream(dataset, seed, keep, group=group, **(readers if group else {}))
        # Without groups all draw the windows of all, which costs nothing, and read their own.
        self._own = slice(0, None, 1) if group else slice(rank, None, world_size)
        self.drawn = 0

    def __iter__(self) -> ModeStream:
        return self

    def __next__(self) -> Batch:
        mode = self.schedule.draw(self.drawn // self.accumulate)
        self.drawn += 1
        size = self.schedule.batch_size(mode.name)
        drawn = self.windows.draw(size * self._own.step)
        indices, epochs = (values[self._own] for values in drawn)
        video = "video" in mode.present
        if self.latents is not None:
            return self.world.encode(self.latents.batch(indices, epochs, video=video), mode)
        samples = self.windows.dataset.batch(indices, video=video)
        if self.augment is not None:
            samples = self.augment(samples, epochs.tolist(), indices.tolist())
        return self.world.encode(samples, mode)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position."""
        return {"drawn": self.drawn, "windows": self.windows.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`; ValueError when the data or the seed is another."""
        self.windows.load_state_dict(state["windows"])
        self.drawn = int(state["drawn"])


def fixed_batches(
    dataset: Dataset,
    world: Encoder,
    schedule: ModeSchedule,
    batches: int,
    seed: int = 0,
) -> dict[str, list[Batch]]:
    """The same `batches` encoded batches for every mode of the schedule, for validation."""
    groups: dict[str, list[Batch]] = {}
    for number, name in enumerate(schedule.names):
        order = shuffled(dataset, np.random.default_rng([seed, number]))
        size = schedule.batch_size(name)
        mode = schedule.table[name]
        groups[name] = [
            world.encode(dataset.batch(part, video="video" in mode.present), mode)
            for part in np.split(order, range(size, len(order), size))[:batches]
            if len(part)
        ]
    return groups
