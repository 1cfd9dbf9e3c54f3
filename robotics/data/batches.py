"""Endless, random, resumable streams: of windows, of windows of a mixture, and of batches.

Every position is a small JSON value, and several readers share one order.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import numpy as np

from robotics.data.augment import Augment
from robotics.data.cache.latents import LatentCache
from robotics.data.mixture import DatasetMixture, shuffled
from robotics.data.order import grouped_order, permutation
from robotics.data.windows import WindowDataset
from selfflow_wm.data import Mode, ModeSchedule, UnusableSample
from selfflow_wm.layout import Batch

_GROUPED = 9  # separates the draws of grouped orders from others with the same seed
BLOCK = 1000
"""Draws after which every set has had its share, but for rounding."""
_CHOICE = 10  # separates these draws from others with the same seed
_ROBOT = 13  # and these

Dataset = WindowDataset | DatasetMixture


class Encoder(Protocol):
    """Of a `WorldModel`, what makes latents of windows."""

    def encode(self, samples: Mapping[str, Any], mode: Mode) -> Batch: ...


class WindowStream:
    """An endless random order over a dataset's windows that resumes exactly.

    Every epoch is a permutation that follows from `seed` and the epoch's number alone. A batch may
    span two epochs. Batches may differ in size from call to call.

    Several readers share one order without overlap: of the endless sequence, reader `rank` of
    `world_size` takes every `world_size`-th window from `rank` on. Together they see every window
    once an epoch, whether or not `world_size` divides the number of windows. Loader workers are
    readers too: worker w of W on rank r of R is `rank=r * W + w, world_size=R * W`.

    With `group`, every epoch takes the episodes in random order, `group` of them at a time, and
    shuffles the windows of those; no two readers have an episode in common (but for one that may
    straddle their border), so the order depends on `world_size` too and a state holds for the same
    number of readers only. How well that mixes: `same_episode_share`.

    Args:
        dataset: whose windows.
        seed: of the order; the same for all readers.
        keep: the windows to draw, distinct; default all.
        rank: this reader's number.
        world_size: number of readers.
        group: episodes a reader has open at a time; default all of them, the plain order.

    Raises:
        ValueError: a rank outside 0 .. world_size - 1, a group below 1, or nothing to draw.
    """

    def __init__(
        self,
        dataset: WindowDataset,
        seed: int = 0,
        keep: np.ndarray | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
        group: int | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(
                f"expected a rank in 0..world_size - 1, got {rank} and world_size {world_size}."
            )
        if keep is not None and not len(keep):
            raise ValueError("expected at least one window to draw, got none; loosen the filter.")
        if group is not None and group < 1:
            raise ValueError(f"expected a group of at least one episode, got {group}; None: all.")
        self.dataset, self.keep, self.group = dataset, keep, group
        self.size = len(dataset) if keep is None else len(keep)
        self.seed = int(seed)
        self.rank, self.world_size = int(rank), int(world_size)
        self.epoch = 0
        self.position = 0
        self._order = functools.lru_cache(maxsize=2)(self._grouped if group else self._plain)

    def draw(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The next `count` windows: their indices and epochs, each (count,) int64."""
        # Epoch and position are those of all readers together, as long as all draw the same count.
        drawn = self.position + self.world_size * np.arange(count + 1)
        epochs, places = np.divmod(drawn[:-1] + self.rank, self.size)
        epochs += self.epoch
        result = np.empty(count, np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            part = self._order(epoch)[places[here]]
            result[here] = part if self.keep is None else self.keep[part]
        self.epoch, self.position = (
            self.epoch + int(drawn[-1]) // self.size,
            int(drawn[-1]) % self.size,
        )
        return result, epochs

    def indices(self, count: int) -> np.ndarray:
        """The next `count` windows' indices (count,) int64."""
        return self.draw(count)[0]

    def batch(self, size: int, *, video: bool = True) -> dict[str, Any]:
        """The next `size` >= 1 windows, see `WindowDataset.batch`."""
        return self.dataset.batch(self.indices(size), video=video)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position, the same for every reader at the same number of windows drawn."""
        return {"epoch": self.epoch, "position": self.position, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at `state`; `ValueError` if dataset, seed or grouping differ."""
        mine = self._identity()
        theirs = {name: state[name] for name in ("seed", "windows", "group") if name in state}
        if mine != theirs:
            raise ValueError(
                f"expected the state of a stream with {mine}, got {theirs}; resume with the same "
                "data, split and seed (in groups also their size and the number of readers), or "
                "start a new run."
            )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def _identity(self) -> dict[str, Any]:
        grouped = {"group": [self.group, self.world_size]} if self.group else {}
        return {"seed": self.seed, "windows": self.size, **grouped}

    def _plain(self, epoch: int) -> np.ndarray:
        return permutation(self.size, self.seed, epoch)

    def _grouped(self, epoch: int) -> np.ndarray:
        starts = self.dataset.episode_start
        return grouped_order(
            starts if self.keep is None else starts[self.keep],
            np.random.default_rng([self.seed, _GROUPED, epoch]),
            int(self.group or 1),
            self.world_size,
            epoch * self.size,
        )


class MixtureStream:
    """An endless order over a mixture's windows that draws each set by its share, resumably.

    Which set a draw comes from follows from the seed and the draw's number: of each `BLOCK` draws
    every set has its share, rounded up or down at random. Each set goes through its own epochs in
    its own order (a `WindowStream`), which does not depend on the other sets. All readers
    take their k-th window from the same set, different windows of it.

    Arguments as for `WindowStream`; `group` episodes are open in each set.
    """

    def __init__(
        self,
        dataset: DatasetMixture,
        seed: int = 0,
        keep: np.ndarray | None = None,
        **reader: Any,
    ) -> None:
        self.dataset, self.seed, self.drawn = dataset, int(seed), 0
        self.streams: dict[str, WindowStream] = {}
        for number, (name, part) in enumerate(dataset.parts.items()):
            first, end = dataset.starts[number : number + 2]
            kept = None if keep is None else keep[(keep >= first) & (keep < end)] - first
            if kept is not None and not len(kept):
                raise ValueError(f"{name}: expected at least one window to draw, got none.")
            self.streams[name] = WindowStream(part, _seed(seed, name), kept, **reader)
        self.size = sum(stream.size for stream in self.streams.values())
        self._edges = np.cumsum(list(dataset.shares.values()))
        self._block = functools.lru_cache(maxsize=2)(self._choose)

    def draw(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The next `count` windows: their indices in the mixture and their sets' epochs, int64."""
        numbers = self.drawn + np.arange(count)
        indices, epochs = np.empty((2, count), np.int64)
        chosen = np.empty(count, np.int64)
        for block in np.unique(numbers // BLOCK).tolist():
            here = numbers // BLOCK == block
            chosen[here] = self._block(block)[numbers[here] % BLOCK]
        for number, stream in enumerate(self.streams.values()):
            rows = np.flatnonzero(chosen == number)
            if len(rows):
                part, epochs[rows] = stream.draw(len(rows))
                indices[rows] = part + self.dataset.starts[number]
        self.drawn += count
        return indices, epochs

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position, the same for every reader at the same number of windows drawn."""
        return {
            "drawn": self.drawn,
            "seed": self.seed,
            "shares": self.dataset.shares,
            "sets": {name: stream.state_dict() for name, stream in self.streams.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at `state`; `ValueError` if sets, shares or seed differ."""
        mine = {"seed": self.seed, "shares": self.dataset.shares}
        theirs = {name: state.get(name) for name in mine}
        if mine != theirs or list(mine["shares"]) != list(state["sets"]):
            raise ValueError(
                f"expected the state of a mixture with {mine}, got {theirs}; resume with the same "
                "sets, weights and seed, or start a new run."
            )
        for name, stream in self.streams.items():
            stream.load_state_dict(state["sets"][name])
        self.drawn = int(state["drawn"])

    def _choose(self, block: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, _CHOICE, block])
        points = (np.arange(BLOCK) + generator.random()) / BLOCK
        sets = np.searchsorted(self._edges, points, side="right")
        return generator.permutation(np.minimum(sets, len(self._edges) - 1))


def _seed(seed: int, name: str) -> int:
    """Sets of the same size must not be shuffled in the same order."""
    return int(np.random.SeedSequence([seed, crc32(name.encode())]).generate_state(1)[0])


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
