"""Estimates what our reader holds in memory and shuffles on a data set of RT-1's size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.order import grouped_order, same_episode_share
from robotics.data.rlds.frames import PLACE
from robotics.data.windows import WindowDataset

RT1_EPISODES, RT1_STEPS, RT1_SHARDS = 87_212, 3_786_400, 1024
GROUPS = (8, 64, 256)
BATCH = 64


def held(dataset: WindowDataset) -> int:
    """Bytes of the arrays that a dataset keeps, without its frames."""
    arrays = [value for value in vars(dataset).values() if isinstance(value, np.ndarray)]
    return sum(array.nbytes for array in arrays)


def opened(directory: Path, size: Any) -> tuple[WindowDataset, float]:
    """A dataset with its index there already, and the CPU seconds of opening it."""
    began = time.process_time()
    dataset = WindowDataset(directory, size, decoded=False, progress=False)
    return dataset, time.process_time() - began


def extrapolate(directory: Path, size: Any, cache_mb: float) -> None:
    """Print the table. What grows with steps or episodes is scaled from the measured set; the order
    of an epoch is made at full size; the shuffle's figures are `same_episode_share`'s."""
    opened(directory, size)  # imports and, where it was not there, the index
    dataset, seconds = opened(directory, size)
    steps, episodes = len(dataset), dataset.num_episodes
    frame = 3 * size[0] * size[1]
    per_step = held(dataset) / steps
    length = RT1_STEPS / RT1_EPISODES
    lengths = np.full(RT1_EPISODES, round(length))
    episode = np.repeat(np.arange(RT1_EPISODES), lengths)
    began = time.process_time()
    grouped_order(episode, np.random.default_rng(0), 64, 1, 0)
    order = time.process_time() - began
    vectors = RT1_STEPS * per_step / 1e6
    shards = len(dataset.sources)
    rows = [
        ("pixels on disk, decoded=true", f"{RT1_STEPS * frame / 1e9:.0f} GB"),
        ("index on disk, decoded=false", f"{RT1_STEPS * (PLACE.itemsize + 65) / 1e6:.0f} MB"),
        ("vectors and numbering in RAM", f"{vectors:.0f} MB ({per_step:.0f} B a step)"),
        ("order of one epoch in RAM", f"{8 * RT1_STEPS / 1e6:.0f} MB; made in {order:.1f} CPU s"),
        ("decoded frames in RAM", f"{cache_mb:g} MB, whatever the set's size"),
        (
            "opening, index there, CPU s",
            f"{seconds / episodes * RT1_EPISODES:.0f} by episodes, "
            f"{seconds / shards * RT1_SHARDS:.0f} by shards ({seconds:.3f} measured)",
        ),
    ]
    print(f"\nOn paper: RT-1's {RT1_EPISODES} episodes, {RT1_STEPS} steps, {RT1_SHARDS} shards")
    for name, value in rows:
        print(f"  {name:<30}{value}")
    print(f"  shuffle of a batch of {BATCH}, as expected:")
    for group in (*GROUPS, None):
        share = same_episode_share(lengths, group)
        cache = f"{group * length * frame / 1e6:.0f} MB of frames" if group else "no reuse"
        name = f"groups of {group}" if group else "all episodes"
        distinct = RT1_EPISODES if group is None else group
        met = distinct * -np.expm1(BATCH * np.log1p(-1 / distinct))
        print(
            f"    {name:<16}{(BATCH - 1) * share:8.4f} others of a window's episode, about "
            f"{met:.0f} episodes; {cache}"
        )
