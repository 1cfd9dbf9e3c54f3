"""Which steps the chunks, future frames and past frames of windows are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def checked_indices(indices: ArrayLike, count: int) -> np.ndarray:
    """Flat int64 indices; ValueError where there are none or some lie outside 0..count - 1."""
    steps = np.asarray(indices, np.int64).reshape(-1)
    if len(steps) == 0 or steps.min() < 0 or steps.max() >= count:
        raise ValueError(f"expected one or more indices in 0..{count - 1}, got {steps}.")
    return steps


def ranges(lengths: np.ndarray) -> list[range]:
    """The steps of every episode that has some, one after the other."""
    lengths = lengths[lengths > 0]
    ends = np.cumsum(lengths)
    return [
        range(end - length, end)
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]


def action_window(
    steps: np.ndarray, segment_end: np.ndarray, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which steps the action chunks starting at `steps` (n,) are made of.

    Args:
        steps: first step of every chunk.
        segment_end: (n,) first step after that step's sub-task or episode.
        horizon: actions of a chunk.

    Returns:
        index (n, horizon) int64 and valid (n, horizon) bool. Steps at or after `segment_end` belong
        to another instruction or do not exist: invalid, their index points at the first step so
        that it can be gathered from.
    """
    index = steps[:, None] + np.arange(horizon)
    valid = index < segment_end[:, None]
    return np.where(valid, index, steps[:, None]), valid


def video_window(
    steps: np.ndarray, segment_end: np.ndarray, episode_end: np.ndarray, offsets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Which frames follow `steps` (n,) at `offsets` (F,) control steps.

    A frame is valid when it was recorded and every action between the current frame and it is of
    the same sub-task. So the frame that the last action of a sub-task leads to is valid, later ones
    (which depend on actions for another instruction) are not.

    Returns:
        index (n, F) int64 and valid (n, F) bool; invalid ones point at the current frame.
    """
    index = steps[:, None] + np.asarray(offsets)
    valid = (index <= segment_end[:, None]) & (index < episode_end[:, None])
    return np.where(valid, index, steps[:, None]), valid


def history_window(
    steps: np.ndarray, episode_start: np.ndarray, offsets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Which frames lie `offsets` (H,) control steps before `steps` (n,), in the order of offsets.

    The past may reach into an earlier sub-task, whose frames were seen, but not beyond the
    episode's first step: there is nothing before it, so those are invalid.

    Returns:
        index (n, H) int64 and valid (n, H) bool; invalid ones point at the current frame.
    """
    index = steps[:, None] - np.asarray(offsets, np.int64)
    valid = index >= episode_start[:, None]
    return np.where(valid, index, steps[:, None]), valid
