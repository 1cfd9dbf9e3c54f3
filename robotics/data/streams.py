"""Endless, random, resumable orders of windows: of one data set, and of a mixture of them.

Every position is a small JSON value, and several readers share one order.
"""

from __future__ import annotations

import functools
from typing import Any
from zlib import crc32

import numpy as np

from robotics.data.mixture import DatasetMixture
from robotics.data.order import grouped_order, permutation
from robotics.data.windows import WindowDataset

_GROUPED = 9  # separates the draws of grouped orders from others with the same seed
BLOCK = 1000
"""Draws after which every set has had its share, but for rounding."""
_CHOICE = 10  # separates these draws from others with the same seed


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
