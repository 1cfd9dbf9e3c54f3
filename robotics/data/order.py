"""Random orders of a dataset's windows: permutations that follow from a seed.

The plain one is a permutation of all windows: the best mixing, but every frame of a window is far
from the last one read. The grouped one opens a few episodes at a time and shuffles their windows:
neighbouring windows share frames, so a reader that keeps what it decoded
(`robotics.data.cache.frames`) decodes each frame about once an epoch instead of once for every
window it is in.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike


@functools.lru_cache(maxsize=4)
def permutation(size: int, seed: int, epoch: int) -> np.ndarray:
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
        readers: place p of the order belongs to reader (first + p) % readers; each has a share
            of the episodes, and all shares but for rounding the same number of windows.
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
