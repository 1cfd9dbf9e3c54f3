"""An endless, random, resumable stream of batches, and those that validation sees again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from robotics.data.augment import Augment
from robotics.data.cache.latents import LatentCache
from robotics.data.mixture import DatasetMixture, shuffled
from robotics.data.streams import MixtureStream, WindowStream
from robotics.data.windows import WindowDataset
from selfflow_wm.data import Mode, ModeSchedule, UnusableSample
from selfflow_wm.layout import Batch

_ROBOT = 13  # separates these draws from others with the same seed

Dataset = WindowDataset | DatasetMixture


class Encoder(Protocol):
    """Of a `WorldModel`, what makes latents of windows."""

    def encode(self, samples: Mapping[str, Any], mode: Mode) -> Batch: ...


class Draw(NamedTuple):
    """What a batch is made of."""

    mode: Mode
    robot: str
    indices: np.ndarray
    """int64 (B,) windows of the robot's sets."""
    epochs: np.ndarray
    """int64 (B,)."""


class ModeStream:
    """An endless iterator of encoded batches.

    The mode and the robot of optimiser step k and the order of the windows follow from the seed
    alone. All modes draw from one shuffled pass over a robot's windows. A batch holds one robot,
    drawn by its share among those that can train the mode.

    `next` is `draw`, `read` and `encode` in a row. After a draw the position is that of the next
    one, so draws may run ahead of reading, and other threads may read (`selfflow_wm.data.ahead`).

    accumulate: batches of one mode and robot in a row, as many as the trainer adds up to a step.
    keep: the windows to draw, all by default. augment: transforms the frames of every window, with
    a new draw in every epoch. latents: where the frames' latents come from instead of the pixels.
    rank, world_size: which of several readers this is, whose batches are the rows of one larger
    batch; all draw the same modes. The position is the same for any number of them.
    group: episodes open at a time, see `WindowStream`; default all. With it, the order depends on
    `world_size`, because no two readers have an episode in common.

    ValueError for a mode that no robot can train.
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
        self.augment, self.latents, self.seed = augment, latents, int(seed)
        self.world, self.schedule, self.accumulate = world, schedule, accumulate
        reader = {"rank": rank, "world_size": world_size, "group": group} if group else {}
        self.streams: dict[str, WindowStream | MixtureStream] = {}
        """Robot -> order of its windows."""
        for name in dataset.robots:
            one, kept = dataset.of_robot(name), keep
            if isinstance(dataset, DatasetMixture) and keep is not None:
                kept = dataset.windows_of(name, keep)
            kind: Any = MixtureStream if isinstance(one, DatasetMixture) else WindowStream
            self.streams[name] = kind(one, seed, kept, **reader)
        self._shares = {name: robots_of(dataset, schedule.table[name]) for name in schedule.names}
        # Without groups each reader draws the windows of all, which is cheap, and reads its rows.
        self._rows = slice(0, None, 1) if group else slice(rank, None, world_size)
        self.drawn = 0

    @property
    def windows(self) -> WindowStream | MixtureStream:
        """The order of the first robot's windows."""
        return next(iter(self.streams.values()))

    def __iter__(self) -> ModeStream:
        return self

    def __next__(self) -> Batch:
        drawn = self.draw()
        return self.encode(self.read(drawn), drawn)

    def draw(self) -> Draw:
        """The next batch's mode, robot and windows; the only one of the three that moves on."""
        step = self.drawn // self.accumulate
        mode = self.schedule.draw(step)
        robot = self._robot(mode.name, step)
        self.drawn += 1
        size = self.schedule.batch_size(mode.name)
        drawn = self.streams[robot].draw(size * self._rows.step)
        indices, epochs = (values[self._rows] for values in drawn)
        return Draw(mode, robot, indices, epochs)

    def read(self, draw: Draw) -> dict[str, Any]:
        """The samples of a draw: frames read and augmented, or latents looked up. It depends on
        nothing else, and may be called in any order and by several threads. UnusableSample for
        damaged data."""
        video = "video" in draw.mode.present
        if self.latents is not None:
            return self.latents.batch(draw.indices, draw.epochs, video=video)
        dataset = self.streams[draw.robot].dataset
        try:
            samples = dataset.batch(draw.indices, video=video, epochs=draw.epochs)
        except ValueError as error:
            raise UnusableSample(str(error)) from error
        if self.augment is None:
            return samples
        return self.augment(samples, draw.epochs.tolist(), draw.indices.tolist())

    def encode(self, samples: Mapping[str, Any], draw: Draw) -> Batch:
        """The samples as the model takes them, on its device."""
        return self.world.encode(samples, draw.mode)

    def _robot(self, mode: str, step: int) -> str:
        shares = self._shares[mode]
        if len(shares) == 1:
            return next(iter(shares))
        value = np.random.default_rng([self.seed, _ROBOT, step]).random()
        edges = np.cumsum(list(shares.values()))
        place = int(np.searchsorted(edges / edges[-1], value, side="right"))
        return list(shares)[min(place, len(shares) - 1)]

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position."""
        states = {name: stream.state_dict() for name, stream in self.streams.items()}
        windows = states if len(states) > 1 else next(iter(states.values()))
        return {"drawn": self.drawn, "windows": windows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at `state_dict()`; ValueError where data or seed differ."""
        states = state["windows"] if len(self.streams) > 1 else {self._only(): state["windows"]}
        if set(states) != set(self.streams):
            raise ValueError(
                f"expected the state of robots {', '.join(self.streams)}, got "
                f"{', '.join(map(str, states))}; resume with the same data, or start a new run."
            )
        for name, stream in self.streams.items():
            stream.load_state_dict(states[name])
        self.drawn = int(state["drawn"])

    def _only(self) -> str:
        return next(iter(self.streams))


def robots_of(dataset: Dataset, mode: Mode) -> dict[str, float]:
    """The robots whose data a mode can be trained on, and their shares of the windows drawn.

    ValueError where there is none: no robot has the actions or the future frames.
    """
    shares = dataset.robot_shares()
    able = {}
    for name in dataset.robots:
        one = dataset.of_robot(name)
        acts, shows = one.coder.action_width > 0, bool(one.video_offsets)
        if (acts or "action" not in mode.present) and (shows or "video" not in mode.present):
            able[name] = shares[name]
    if not able:
        lacking = [word for word in ("action", "video") if word in mode.present]
        raise ValueError(
            f"modes.{mode.name}: expected data with {' and '.join(lacking)}, got none of robot "
            f"{', '.join(dataset.robots)}; leave the mode out with modes.{mode.name}=null"
        )
    return able


def windows_drawn(dataset: Dataset, schedule: ModeSchedule, batches: float) -> dict[str, float]:
    """How many windows of every set come up in so many batches, on average."""
    drawn: dict[str, float] = {name: 0.0 for names in dataset.robots.values() for name in names}
    for mode, probability in schedule.probabilities.items():
        windows = batches * probability * schedule.batch_size(mode)
        shares = robots_of(dataset, schedule.table[mode])
        for robot, share in shares.items():
            one = dataset.of_robot(robot)
            sets = one.shares if isinstance(one, DatasetMixture) else {"": 1.0}
            for name, part in sets.items():
                drawn[name] += windows * part * share / sum(shares.values())
    return drawn


def fixed_batches(
    dataset: Dataset,
    world: Encoder,
    schedule: ModeSchedule,
    batches: int,
    seed: int = 0,
) -> dict[str, list[Batch]]:
    """The same `batches` encoded batches for every mode of the schedule, for validation. With
    several robots they are named MODE/ROBOT, for each robot that has what the mode needs."""
    groups: dict[str, list[Batch]] = {}
    for number, name in enumerate(schedule.names):
        mode, size = schedule.table[name], schedule.batch_size(name)
        for robot in robots_of(dataset, mode):
            one = dataset.of_robot(robot)
            order = shuffled(one, np.random.default_rng([seed, number]))
            groups[f"{name}/{robot}" if len(dataset.robots) > 1 else name] = [
                world.encode(one.batch(part, video="video" in mode.present), mode)
                for part in np.split(order, range(size, len(order), size))[:batches]
                if len(part)
            ]
    return groups
