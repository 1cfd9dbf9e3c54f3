"""Windows over demonstrations: the samples a world model is trained on, and their order.

A window starts at every step of every episode: the current frame, proprioception and instruction,
the chunk of actions from there on, and future frames and, if wanted, past ones.

What does not exist is masked and zero, never a copy of the last step: actions after the end of an
episode or of its sub-task, frames after it, frames before the first one. The last recorded step
counts like any other: in RT-1 its action is the one that terminates. Steps in which nothing is
commanded are kept unless `robotics.data.batches.WindowStream` is given others to draw.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from robotics.data.cache.frames import FrameCache
from robotics.data.cache.shards import ShardArrays, ShardCache, open_split
from robotics.data.episodes import keypose_steps, run_ends
from robotics.data.rlds import storage
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.reader import record_format
from robotics.data.rlds.spec import DatasetSpec
from robotics.data.statistics import cached_statistics
from robotics.embodiment.normalize import Quantiles


class WindowDataset:
    """All windows of a split, in memory but for the frames, which are read when asked for.

    Split by episode with tensorflow-datasets' slices: train on "train[:90%]", validate on
    "train[90%:]"; both share one cache. The first use decodes every frame of the shards touched.

    Args:
        directory: TFDS dataset directory (TFRecord or ArrayRecord), or the URL of one (TFRecord).
        image_size: height and width of the frames.
        split: split or slice of it.
        horizon: actions of a chunk.
        video_offsets: future frames, in control steps after the current one.
        history: past frames of a window.
        history_stride: control steps between them, and from the last of them to the current one.
        cache_dir: where decoded frames are kept (H * W * 3 bytes a step); default
            `directory/.cache`, to be given for a URL. Entries are named by content; delete any that
            are not wanted.
        threads: that decode while the cache is built.
        progress: show a progress bar while the cache is built.
        spec: where things are in the data (`robotics.data.rlds.spec.load_spec`); RT-1's by default.
        on_error: "error" stops at damaged data, "skip" leaves those episodes out; what was left out
            is counted in `faults` (`faults.summary()`).
        decoded: keep decoded frames in the cache; False keeps an index and decodes the frames of a
            window when it is read, for data sets too large for pixels.
        frame_cache_mb: decoded=False only: MB of decoded frames kept in memory, the ones used last.
            It saves decoding where windows that share frames come together, see
            `robotics.data.order`.
        draft: decoded=False only: decode JPEGs to the size that is wanted, with fast arithmetic.
            It takes less of the CPU; pixels differ by about a grey level, see
            `robotics.data.images.decode_image`.

    Raises:
        ValueError: no such dataset or split, an empty one, a specification that does not fit it, or
            damaged or malformed records.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        image_size: Sequence[int],
        *,
        split: str = "train",
        horizon: int = 6,
        video_offsets: Sequence[int] = (3, 6),
        history: int = 0,
        history_stride: int = 1,
        cache_dir: str | os.PathLike[str] | None = None,
        threads: int = 2,
        progress: bool = True,
        spec: str | Path | DatasetSpec | None = None,
        on_error: str = "error",
        decoded: bool = True,
        frame_cache_mb: float = 0,
        draft: bool = False,
    ) -> None:
        offsets = tuple(int(offset) for offset in video_offsets)
        if horizon < 1 or any(offset < 1 for offset in offsets):
            raise ValueError(
                f"expected horizon >= 1 and video offsets >= 1, got {horizon} and {offsets}; the "
                "current frame is in every window already."
            )
        if history < 0 or history_stride < 1:
            raise ValueError(
                f"expected history >= 0 frames at a stride >= 1, got {history} at "
                f"{history_stride}; history=0 leaves past frames out."
            )
        self.history_offsets = tuple(history_stride * i for i in range(history, 0, -1))
        """Past frames, in control steps before the current one, oldest first."""
        if draft and decoded:
            raise ValueError(
                "expected draft only with decoded=False, got decoded=True; the decoded frames that "
                "are kept are exact."
            )
        height, width = (int(value) for value in image_size)
        self.image_size, self.horizon, self.video_offsets = (height, width), horizon, offsets
        if storage.is_url(directory) and cache_dir is None:
            raise ValueError(
                f"expected a local cache_dir for {directory}, got none; the index and the pixels "
                "of remote data are kept there."
            )
        self._cache = Path(cache_dir or Path(directory) / ".cache")
        self.frame_cache: FrameCache | None = None
        """Decoded frames in memory; None where they are read from disk."""
        if not decoded:
            self.frame_cache = FrameCache(int(frame_cache_mb * 1e6), self.image_size, threads)
        self.faults = Faults(on_error)
        parts, self.sources = open_split(
            directory,
            split,
            ShardCache(
                directory=self._cache,
                format=record_format(directory, spec),
                image_size=self.image_size,
                decoded=decoded,
                threads=threads,
                faults=self.faults,
                draft=draft,
            ),
            progress,
        )
        """sources: where the steps come from, in their order."""
        self._frames = [part.frames for part in parts]
        self._frame_starts = np.cumsum([0] + [len(frames) for frames in self._frames])
        self.actions = np.concatenate([part.action for part in parts])
        """float32 (steps, 8) in physical units."""
        self.proprio = np.concatenate([part.proprio for part in parts])
        """float32 (steps, 8) in physical units."""
        self.instructions, self._instruction_id = _merged_instructions(parts)
        self._index(np.concatenate([part.lengths for part in parts]))

    def _index(self, lengths: np.ndarray) -> None:
        lengths = lengths[lengths > 0]  # what was left out has none
        ends = np.cumsum(lengths)
        self.episodes = [
            range(end - length, end)
            for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
        ]
        """Steps, and so windows, of every episode."""
        episode = np.repeat(np.arange(len(lengths)), lengths)
        self._episode_end = ends[episode]
        self.episode_start = (ends - lengths)[episode]
        """int64 (steps,): the first step of every step's episode."""
        # An instruction can be the same in two neighbouring episodes, so both must be compared.
        self._segment_end = run_ends(np.stack([episode, self._instruction_id.reshape(-1)], axis=1))
        self._keypose = keypose_steps(self.actions, self.episode_start, self._segment_end)

    def __len__(self) -> int:
        """Number of windows, one for each step."""
        return len(self.actions)

    @property
    def num_episodes(self) -> int:
        """Episodes of the split."""
        return len(self.episodes)

    def frames(self, steps: ArrayLike) -> np.ndarray:
        """Frames uint8 (..., H, W, 3) of the given steps (...)."""
        flat = checked_indices(steps, len(self))
        out = np.empty((len(flat), *self.image_size, 3), np.uint8)
        self._copy_frames(flat, out)
        return out.reshape(*np.shape(steps), *out.shape[1:])

    def batch(
        self, indices: ArrayLike, *, video: bool = True, pixels: bool = True
    ) -> dict[str, Any]:
        """Windows stacked along the first axis, actions and proprioception in physical units.

        Args:
            indices: B windows.
            video: whether to read future frames.
            pixels: False leaves out all frames, and keeps their masks.

        Returns:
            image uint8 (B, H, W, 3), proprio float32 (B, 8), keypose float32 (B, 8) (the
            proprioception at `robotics.data.episodes.keypose_steps`), instruction (B strings),
            action float32 (B, horizon, 8), action_valid bool (B, horizon), and if wanted
            video uint8 (B, F, H, W, 3), video_valid bool (B, F). With history, also history uint8
            (B, P, H, W, 3), oldest first, history_valid bool (B, P). What is not valid is zero.
        """
        steps = checked_indices(indices, len(self))
        segment_end = self._segment_end[steps]
        index, valid = action_window(steps, segment_end, self.horizon)
        samples: dict[str, Any] = {"image": self.frames(steps)} if pixels else {}
        samples |= {
            "proprio": self.proprio[steps],
            "keypose": self.proprio[self._keypose[steps]],
            "instruction": self.instructions[self._instruction_id[steps]].tolist(),
            "action": np.where(valid[..., None], self.actions[index], np.float32(0)),
            "action_valid": valid,
        }
        if self.history_offsets:
            index, valid = self.history_steps(steps)
            samples["history_valid"] = valid
            if pixels:
                samples["history"] = self._masked_frames(index, valid)
        if video:
            index, valid = self.video_steps(steps)
            samples["video_valid"] = valid
            if pixels:
                samples["video"] = self._masked_frames(index, valid)
        return samples

    def video_steps(self, indices: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Steps of the future frames of B windows, int64 (B, F), and which exist, bool (B, F)."""
        steps = np.asarray(indices, np.int64).reshape(-1)
        ends = self._segment_end[steps], self._episode_end[steps]
        return video_window(steps, *ends, self.video_offsets)

    def history_steps(self, indices: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Steps of the past frames of B windows, int64 (B, P), and which exist, bool (B, P)."""
        steps = np.asarray(indices, np.int64).reshape(-1)
        return history_window(steps, self.episode_start[steps], self.history_offsets)

    def sample(self, index: int) -> dict[str, Any]:
        """One window: as `batch` without the first axis."""
        return {name: values[0] for name, values in self.batch([index]).items()}

    def statistics(self) -> dict[str, Quantiles]:
        """Statistics over every step once: {"action", "proprio"}; exact up to
        `robotics.data.statistics.EXACT_LIMIT` steps. Take them from the training split alone."""
        arrays = {"action": self.actions, "proprio": self.proprio}
        return cached_statistics(arrays, self.fingerprint, self._cache)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identifies the recorded vectors, instructions and episodes of this split."""
        digest = hashlib.sha256()
        for array in (self.actions, self.proprio, self._instruction_id, self._episode_end):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update("\0".join(self.instructions.tolist()).encode())
        return digest.hexdigest()[:20]

    def _masked_frames(self, index: np.ndarray, valid: np.ndarray) -> np.ndarray:
        frames = np.zeros((*index.shape, *self.image_size, 3), np.uint8)
        self._copy_frames(index.reshape(-1), frames.reshape(-1, *frames.shape[2:]), valid)
        return frames

    def _copy_frames(
        self, steps: np.ndarray, out: np.ndarray, where: np.ndarray | None = None
    ) -> None:
        rows = np.arange(len(steps)) if where is None else np.flatnonzero(where)
        shards = np.searchsorted(self._frame_starts, steps[rows], side="right") - 1
        places = steps[rows] - self._frame_starts[shards]
        if self.frame_cache is not None:
            self.frame_cache.copy(
                steps[rows],
                [out[row] for row in rows],
                lambda i: self._frames[shards[i]].decode(places[i]),
            )
            return
        for row, shard, place in zip(rows, shards, places, strict=True):
            self._frames[shard].read_into(int(place), out[row])


def checked_indices(indices: ArrayLike, count: int) -> np.ndarray:
    """Flat int64 indices; ValueError where there are none or some lie outside 0..count - 1."""
    steps = np.asarray(indices, np.int64).reshape(-1)
    if len(steps) == 0 or steps.min() < 0 or steps.max() >= count:
        raise ValueError(f"expected one or more indices in 0..{count - 1}, got {steps}.")
    return steps


def _merged_instructions(parts: Sequence[ShardArrays]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct instructions (sorted) and every step's number among them.

    Shard by shard: a text for every step, padded to the longest, would take gigabytes.
    """
    used = [np.unique(part.instruction_id) for part in parts]
    names = [part.instructions[ids] for part, ids in zip(parts, used, strict=True)]
    merged = np.unique(np.concatenate(names))
    numbers = []
    for part, ids, texts in zip(parts, used, names, strict=True):
        table = np.zeros(len(part.instructions), np.int64)
        table[ids] = np.searchsorted(merged, texts)
        numbers.append(table[part.instruction_id])
    return merged, np.concatenate(numbers)


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
