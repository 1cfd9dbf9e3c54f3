"""Which steps the chunks, future frames and past frames of windows are made of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from robotics.data.episodes import run_ends
from robotics.embodiment.robot import Robot


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


def window_cut(
    robot: Robot, horizon: int | None, video_offsets: Sequence[int] | None
) -> tuple[int, tuple[int, ...]]:
    """Actions of a chunk and future frames, the table's where they are None; ValueError for ones
    that cannot be."""
    count = robot.window.horizon if horizon is None else int(horizon)
    given = robot.window.video_offsets if video_offsets is None else video_offsets
    offsets = tuple(int(offset) for offset in given)
    if count < 1 or any(offset < 1 for offset in offsets):
        raise ValueError(
            f"expected horizon >= 1 and video offsets >= 1, got {count} and {offsets}; the "
            "current frame is in every window already."
        )
    if any(later <= offset for offset, later in itertools.pairwise(offsets)):
        raise ValueError(
            f"dataset.video_offsets: expected frames one after the other, got {list(offsets)}; "
            f"write {sorted(set(offsets))}"
        )
    return count, offsets


def history_cut(frames: int, stride: int) -> tuple[int, ...]:
    """Past frames in control steps before the current one, oldest first; ValueError for ones that
    cannot be."""
    if frames < 0 or stride < 1:
        raise ValueError(
            f"expected history >= 0 frames at a stride >= 1, got {frames} at {stride}; history=0 "
            "leaves past frames out."
        )
    return tuple(stride * number for number in range(frames, 0, -1))


class WindowSteps:
    """Where every step's window lies: one starts at each of n steps.

    Args:
        lengths: int64 (E,) steps of the episodes, all above 0.
        instruction_id: int (n, K), the same within a sub-task.
        horizon: actions of a chunk.
        video_offsets: future frames, in control steps after the current one.
        history_offsets: past frames, in control steps before the current one, oldest first.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        instruction_id: np.ndarray,
        horizon: int,
        video_offsets: Sequence[int],
        history_offsets: Sequence[int],
    ) -> None:
        self.horizon = horizon
        self.video_offsets, self.history_offsets = tuple(video_offsets), tuple(history_offsets)
        self.episodes = ranges(lengths)
        """Steps of every episode."""
        self.ends = np.cumsum(lengths)
        """int64 (E,) first step after every episode."""
        self._starts = self.ends - lengths
        self._episode = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        # An instruction can be the same in two neighbouring episodes, so both must be compared.
        labels = np.column_stack([self._episode, instruction_id])
        self.segment_end = run_ends(labels).astype(np.int32)
        """int32 (n,): the first step after every step's sub-task."""

    @property
    def episode_start(self) -> np.ndarray:
        """int64 (n,): the first step of every step's episode; made anew."""
        return self._starts[self._episode]

    def actions(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`action_window` of the windows of steps (B,)."""
        return action_window(steps, self.segment_end[steps], self.horizon)

    def video(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`video_window` of the windows of steps (B,)."""
        ends = self.segment_end[steps], self.ends[self._episode[steps]]
        return video_window(steps, *ends, self.video_offsets)

    def history(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`history_window` of the windows of steps (B,)."""
        return history_window(steps, self._starts[self._episode[steps]], self.history_offsets)


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
