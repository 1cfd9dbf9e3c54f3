"""The order in which a dataset's windows are drawn: endless, random, resumable, shared by readers.

Two orders. The plain one is a permutation of all windows each epoch: the best mixing, but every
frame of a window is far from the last one read. The grouped one opens a few episodes at a time and
shuffles their windows: neighbouring windows share frames, so a reader that keeps what it decoded
(`robotics.data.cache.frames`) decodes each frame about once an epoch instead of once for every
window it is in.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from robotics.data.windows import WindowDataset

_GROUPED = 9  # keeps the draws of grouped orders apart from others that start from the same seed


class WindowStream:
    """An endless random order over a dataset's windows that resumes exactly.

    Every epoch is a permutation that follows from `seed` and the epoch's number alone. A batch may
    span two epochs. Batches may differ in size from call to call.

    Several readers share one order without overlap: of the endless sequence, reader `rank` of
    `world_size` takes every `world_size`-th window from `rank` on. Together they see every window
    once an epoch, whether or not `world_size` divides the number of windows. Loader workers are
    readers too: worker w of W on rank r of R is `rank=r * W + w, world_size=R * W`.

    With `group`, every epoch takes the episodes in random order, `group` of them at a time, and
    shuffles the windows of those; each reader has episodes of its own (but for one that two of
    them may share at their border), so the order depends on `world_size` too and a state is one of
    the same number of readers. How well that mixes: `same_episode_share`.

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
        # Epoch and position are those of all readers together, as long as they draw alike.
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
        """Continue at `state`; `ValueError` if it is of another dataset, seed or grouping."""
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
        return _permutation(self.size, self.seed, epoch)

    def _grouped(self, epoch: int) -> np.ndarray:
        starts = self.dataset.episode_start
        return grouped_order(
            starts if self.keep is None else starts[self.keep],
            np.random.default_rng([self.seed, _GROUPED, epoch]),
            int(self.group or 1),
            self.world_size,
            epoch * self.size,
        )


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, epoch]).permutation(size)
    order.flags.writeable = False  # it is shared
    return order


def grouped_order(
    episode: np.ndarray, generator: np.random.Generator, group: int, readers: int, first: int
) -> np.ndarray:
    """A permutation (n,) int64 of windows that keeps those of an episode near each other.

    Args:
        episode: (n,) a number of every window's episode.
        generator: of the order.
        group: episodes that are open at a time.
        readers: place p of the order belongs to reader (first + p) % readers; each has its own
            share of the episodes, and every share but for rounding the same number of windows.
        first: place of the order in the endless sequence.
    """
    count = len(episode)
    number = np.unique(episode, return_inverse=True)[1].reshape(-1)
    turn = generator.permutation(int(number.max()) + 1)[number]
    windows = np.argsort(turn, kind="stable")  # episode after episode, in random order
    turn = turn[windows]
    order = np.empty(count, np.int64)
    begin = 0
    for reader in range(readers):
        places = slice((reader - first) % readers, None, readers)
        end = begin + len(range(count)[places])
        mine, turns = windows[begin:end], turn[begin:end]
        opened = np.cumsum(np.diff(turns, prepend=turns[:1]) != 0)
        order[places] = mine[np.lexsort((generator.random(len(mine)), opened // group))]
        begin = end
    order.flags.writeable = False  # it is shared
    return order


def same_episode_share(lengths: ArrayLike, group: int | None = None) -> float:
    """Probability that two windows of a batch are of one episode.

    lengths: windows of every episode. group: episodes open at a time, default all (plain order).
    For equal lengths L it is (L - 1) / (group * L - 1), exactly; otherwise a ratio of expectations
    over the episodes that come together. Of B - 1 other windows in a batch, a window shares its
    episode with (B - 1) times this many.
    """
    values = np.asarray(lengths, np.float64)
    opened = len(values) if group is None else min(group, len(values))
    mean, square = values.mean(), (values**2).mean()
    pairs = square + (opened - 1) * mean**2 - mean
    return float((square - mean) / pairs) if pairs > 0 else 0.0
