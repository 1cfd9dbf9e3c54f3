"""Windows over demonstrations: the samples a world model is trained on.

A window starts at every step of every episode: the current frames, state and instruction, the chunk
of actions from there on, and future frames and, if wanted, past ones.

What does not exist is masked and zero, never a copy of the last step: actions after the end of an
episode or of its sub-task, frames after it, frames before the first one, cameras that an episode
does not have. The last recorded step counts like any other: in RT-1 its action is the one that
terminates. Steps in which nothing is commanded are kept unless
`robotics.data.streams.WindowStream` is given others to draw.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from robotics.data.assembled import Assembled, assembled, coded_actions, coded_states
from robotics.data.cameras import frame_sizes, recorded_sizes
from robotics.data.episodes import keypose_steps, no_op_steps
from robotics.data.formats import Spec, open_recording
from robotics.data.frame_store import DamagedFrame, FrameStore
from robotics.data.recordings import Reading
from robotics.data.replacements import Replacements
from robotics.data.rlds import storage
from robotics.data.rlds.faults import Faults
from robotics.data.statistics import Blocks, arrays_hash, cached_statistics
from robotics.data.texts import Texts
from robotics.data.views import Views
from robotics.data.window_steps import (
    WindowSteps,
    checked_indices,
    history_cut,
    ranges,
    window_cut,
)
from robotics.embodiment.coding import Coder
from robotics.embodiment.normalize import Quantiles

CHUNKS = 4096
"""Windows whose chunks of actions are coded at a time."""


class WindowDataset:
    """All windows of a split, in memory but for the frames, which are read when asked for.

    Split by episode with tensorflow-datasets' slices: train on "train[:90%]", validate on
    "train[90%:]"; both share one cache. The first use decodes every frame of the shards touched.

    Args:
        directory: data set directory, see `robotics.data.formats.open_recording`, or a URL.
        image_size: height and width of the frames.
        cameras: names of those to read; default: those the robot's table uses.
        image_sizes: camera -> height and width, where they are not `image_size`.
        split: split or slice of it.
        horizon: actions of a chunk; default: the table's.
        video_offsets: future frames, in control steps after the current one; default: the table's.
        history: past frames of a window.
        history_stride: control steps between them, and from the last of them to the current one.
        cache_dir: where decoded frames are kept (H * W * 3 bytes a step and camera); default
            `directory/.cache`, to be given for a URL. Entries are named by content; delete any that
            are not wanted.
        threads: that decode while the cache is built.
        progress: show a progress bar while the cache is built.
        spec: the robot's table (`robotics.embodiment.tables.load_robot`); RT-1's by default.
        embodiment: instead of the one that the table states.
        on_error: "error" stops at damaged data, "skip" leaves those episodes out; what was left out
            is counted in `faults` (`faults.summary()`). A frame that proves undecodable only when
            it is read makes way, with "skip", for another window, always the same one.
        decoded: keep decoded frames in the cache; False keeps an index and decodes the frames of a
            window when it is read, for data sets too large for pixels.
        frame_cache_mb: decoded=False only: MB of decoded frames kept in memory, the ones used last.
            It saves decoding where windows that share frames come together, see
            `robotics.data.order`.
        draft: decoded=False only: decode JPEGs to the size that is wanted, with fast arithmetic.
            It takes less of the CPU; pixels differ by about a grey level, see
            `robotics.data.images.decode_image`.
        seed: of the draws of an instruction where a step has several.
        terminate: whether the model's actions end with whether they end the task, where the table
            says where that is.

    Raises:
        ValueError: no such dataset or split, an empty one, a table that does not fit it, or
            damaged or malformed records.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        image_size: Sequence[int],
        *,
        cameras: Sequence[str] | None = None,
        image_sizes: Mapping[str, Sequence[int]] | None = None,
        split: str = "train",
        horizon: int | None = None,
        video_offsets: Sequence[int] | None = None,
        history: int = 0,
        history_stride: int = 1,
        cache_dir: str | os.PathLike[str] | None = None,
        threads: int = 2,
        progress: bool = True,
        spec: Spec = None,
        embodiment: str | None = None,
        on_error: str = "error",
        decoded: bool = True,
        frame_cache_mb: float = 0,
        draft: bool = False,
        seed: int = 0,
        terminate: bool = True,
    ) -> None:
        self.history_offsets = history_cut(history, history_stride)
        """Past frames, in control steps before the current one, oldest first."""
        if draft and decoded:
            raise ValueError(
                "expected draft only with decoded=False, got decoded=True; the decoded frames that "
                "are kept are exact."
            )
        if storage.is_url(directory) and cache_dir is None:
            raise ValueError(
                f"expected a local cache_dir for {directory}, got none; the index and the pixels "
                "of remote data are kept there."
            )
        self.faults, self.seed = Faults(on_error), int(seed)
        recording = open_recording(directory, spec, cameras)
        self.robot = recording.robot
        if embodiment:
            self.robot = replace(self.robot, embodiment=embodiment)
        self.coder = Coder(self.robot, terminate=terminate)
        self.horizon, self.video_offsets = window_cut(self.robot, horizon, video_offsets)
        self.image_sizes = frame_sizes(
            [row.name for row in self.robot.used_cameras(cameras)], image_size, image_sizes or {}
        )
        """Camera -> height and width of its frames."""
        sizes = recorded_sizes(self.image_sizes, self.robot)
        if len(sizes) > len(self.cameras):
            recording = open_recording(directory, recording.robot, list(sizes))
        self._cache = Path(cache_dir or Path(directory) / ".cache")
        self._recording, self._split = recording, split
        self._reading = Reading(sizes, self._cache, self.faults, decoded, draft, threads, progress)
        parts, self.sources = recording.steps(split, self._reading)
        """sources: where the recorded steps come from, in their order."""
        cache_mb = None if decoded else frame_cache_mb
        self.store = FrameStore(parts, sizes, cache_mb, threads)
        """Frames of the recorded steps."""
        self.recorded_episodes = ranges(np.concatenate([part.lengths for part in parts]))
        """Steps of every episode as recorded, in the numbers of `recorded_steps`."""
        steps = assembled(self.robot, parts)
        del parts
        self._take(steps)
        self._replacements = Replacements(len(self), self.recorded_episodes, self.faults, self.seed)

    def _take(self, steps: Assembled) -> None:
        self.recorded_state = steps.state
        """float32 (steps, S) as recorded."""
        self.states = coded_states(self.coder, steps.state)
        """float32 (steps, S') as the model is given them, in physical units."""
        self.actions = coded_actions(self.coder, steps)
        """float32 (steps, A') as the model is given them, each as the first of its chunk."""
        # Chunks are cut out of `actions` unless an action depends on its chunk.
        self._chunked = steps if self.coder.relative else None
        self._texts = Texts(steps.instructions, steps.instruction_id, self.seed)
        self._recorded = steps.recorded
        self.views = Views(self.robot, self.cameras, self.store, steps.present, self.seed)
        """Which recorded camera gives each window's frames."""
        self._steps = WindowSteps(
            steps.lengths,
            steps.instruction_id,
            self.horizon,
            self.video_offsets,
            self.history_offsets,
        )
        self._keypose: np.ndarray | None = None
        if any(part.kind == "position" for part in self.robot.state):
            fields = self.coder.fields("action")
            grippers = [place for place, row in enumerate(fields) if row.kind == "gripper"]
            self._keypose = keypose_steps(
                self.actions[:, grippers], self.episode_start, self._steps.segment_end
            ).astype(np.int32)

    def __len__(self) -> int:
        """Number of windows, one for each step."""
        return len(self.states)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that are read, in the table's order."""
        return tuple(self.image_sizes)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the first camera's frames."""
        return self.image_sizes[self.cameras[0]]

    @property
    def episodes(self) -> list[range]:
        """Steps, and so windows, of every episode."""
        return self._steps.episodes

    @property
    def num_episodes(self) -> int:
        """Episodes of the split."""
        return len(self.episodes)

    @property
    def episode_start(self) -> np.ndarray:
        """int64 (steps,): the first step of every step's episode; made anew."""
        return self._steps.episode_start

    @property
    def instructions(self) -> np.ndarray:
        """Distinct instructions, sorted, unicode."""
        return self._texts.texts

    @property
    def steps_without_instruction(self) -> int:
        """Steps whose instructions are all empty, or that have none."""
        return self._texts.without()

    @property
    def robots(self) -> dict[str, list[str]]:
        """The robot's name, and the names of its sets; one of no name here."""
        return {self.robot.name: [""]}

    def robot_shares(self) -> dict[str, float]:
        """Share of the one robot among the windows drawn."""
        return {self.robot.name: 1.0}

    def of_robot(self, name: str) -> WindowDataset:
        """The windows of the robot called `name`: these."""
        if name != self.robot.name:
            raise ValueError(f"expected robot {self.robot.name}, got {name!r}.")
        return self

    def vectors(self, group: str, limit: int) -> np.ndarray:
        """Model values (m, width) of "state" or "action" as `statistics` takes them, of at most
        about `limit` vectors, from windows evenly apart."""
        if group == "state" or self._chunked is None:
            return self.states if group == "state" else self.actions
        apart = max(1, -(-len(self) * self.horizon // limit))
        steps = np.arange(0, len(self), apart)
        blocks = (self._chunks(steps[i : i + CHUNKS]) for i in range(0, len(steps), CHUNKS))
        return np.concatenate([values[valid] for values, valid in blocks])

    @property
    def recorded_action(self) -> np.ndarray:
        """float32 (steps, A) as recorded; read again where the model's values say all that a
        batch needs."""
        if self._chunked is not None:
            return self._chunked.action
        silent = replace(self._reading, faults=Faults(self.faults.on_error), progress=False)
        return assembled(self.robot, self._recording.steps(self._split, silent)[0]).action

    # ------------------------------------------------------------------ frames

    def recorded_steps(self, steps: ArrayLike) -> np.ndarray:
        """Numbers of the given steps (...) among all that were recorded: rules of the table may
        have dropped some."""
        index = np.asarray(steps, np.int64)
        return index if self._recorded is None else self._recorded[index]

    def recorded_frames(self, steps: ArrayLike, camera: str | None = None) -> np.ndarray:
        """`frames` by the numbers of `recorded_steps`."""
        flat = checked_indices(steps, int(self.store.starts[-1]))
        name = self.cameras[0] if camera is None else self.robot.camera(camera).name
        frames = self.store.read(name, flat)
        return frames.reshape(*np.shape(steps), *frames.shape[1:])

    def frames(self, steps: ArrayLike, camera: str | None = None) -> np.ndarray:
        """Frames uint8 (..., H, W, 3) of the given steps (...); camera: default the first."""
        flat = checked_indices(steps, len(self)).reshape(np.shape(steps))
        return self.recorded_frames(self.recorded_steps(flat), camera)

    # ------------------------------------------------------------------ windows

    def batch(
        self,
        indices: ArrayLike,
        *,
        video: bool = True,
        pixels: bool = True,
        epochs: ArrayLike | None = None,
    ) -> dict[str, Any]:
        """Windows stacked along the first axis, states and actions in physical units.

        Args:
            indices: B windows.
            video: whether to read future frames.
            pixels: False leaves out all frames, and keeps their masks.
            epochs: B numbers; of several instructions that say the same, and of several cameras
                that may give a picture, one is drawn by the seed, the epoch and the window.
                Default 0.

        Returns:
            robot, its name; instruction (B strings, "" where there is none); state float32 (B, S')
            and state_recorded (B, S); keypose float32 (B, S'), the state at
            `robotics.data.episodes.keypose_steps`, of robots whose state has a position; action
            float32 (B, horizon, A'), action_valid bool (B, horizon). For every camera
            image/CAMERA uint8 (B, H, W, 3) and, if wanted, video/CAMERA uint8 (B, F, H, W, 3) with
            video_valid bool (B, F), with history also history/CAMERA (B, P, H, W, 3), oldest first,
            and history_valid bool (B, P); camera_valid/CAMERA bool (B,) where the table has a flag
            for it. What is not valid is zero, and what has no values is left out.
        """
        steps = checked_indices(indices, len(self))
        drawn = np.zeros_like(steps) if epochs is None else np.asarray(epochs, np.int64)
        if not pixels or self.faults.on_error == "error":
            return self._batch(steps, drawn, video, pixels)
        shown, tries = steps, np.zeros(len(steps), int)
        while True:
            shown = self._replacements.whole(steps, shown, tries, lambda of: self._shown(of, video))
            try:
                return self._batch(shown, drawn, video, pixels)
            except DamagedFrame as error:
                self._replacements.add(error)

    def _shown(self, steps: np.ndarray, video: bool) -> np.ndarray:
        """Recorded steps (n, k) of the frames of windows (n,), -1 where there is none."""
        index = [self.recorded_steps(steps)[:, None]]
        for later, valid in (self.history_steps(steps), self.video_steps(steps))[: 1 + video]:
            index.append(np.where(valid, self.recorded_steps(later), -1))
        return np.concatenate(index, axis=1)

    def _batch(
        self, steps: np.ndarray, epochs: np.ndarray, video: bool, pixels: bool
    ) -> dict[str, Any]:
        samples: dict[str, Any] = {"robot": self.robot.name}
        views = self.views.draw(steps, epochs) if pixels else {}
        for name, chosen in views.items():
            samples[f"image/{name}"] = self.views.current(name, chosen, self.recorded_steps(steps))
        samples |= {
            f"camera_valid/{name}": flags for name, flags in self.views.valid(steps).items()
        }
        samples["instruction"] = self._texts.draw(steps, epochs)
        if self.robot.state:
            samples["state"] = self.states[steps]
            samples["state_recorded"] = self.recorded_state[steps]
        if self._keypose is not None:
            samples["keypose"] = self.states[self._keypose[steps]]
        if self.coder.action_width:
            samples["action"], samples["action_valid"] = self._chunks(steps)
        if self.history_offsets:
            self._add_frames(samples, "history", *self.history_steps(steps), views)
        if video:
            self._add_frames(samples, "video", *self.video_steps(steps), views)
        return samples

    def _add_frames(
        self,
        samples: dict[str, Any],
        kind: str,
        index: np.ndarray,
        valid: np.ndarray,
        views: Mapping[str, np.ndarray],
    ) -> None:
        samples[f"{kind}_valid"] = valid
        for name, chosen in views.items():
            found = self.views.frames(name, chosen, self.recorded_steps(index), valid)
            samples[f"{kind}/{name}"] = found

    def _chunks(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions float32 (B, horizon, A'), zero where invalid, and bool (B, horizon)."""
        index, valid = self._steps.actions(steps)
        if self._chunked is None:
            values = self.actions[index]
        else:
            recorded = self._chunked
            values = self.coder.chunk(
                recorded.action[index], recorded.state[steps], recorded.terminate[index]
            )
        return np.where(valid[..., None], values, np.float32(0)), valid

    def video_steps(self, indices: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Steps of the future frames of B windows, int64 (B, F), and which exist, bool (B, F)."""
        return self._steps.video(np.asarray(indices, np.int64).reshape(-1))

    def history_steps(self, indices: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Steps of the past frames of B windows, int64 (B, P), and which exist, bool (B, P)."""
        return self._steps.history(np.asarray(indices, np.int64).reshape(-1))

    def sample(self, index: int) -> dict[str, Any]:
        """One window: as `batch` without the first axis."""
        samples = self.batch([index])
        return {name: v if name == "robot" else v[0] for name, v in samples.items()}

    def no_ops(self, position: float, rotation: float) -> np.ndarray:
        """bool (steps,), see `robotics.data.episodes.no_op_steps`."""
        return no_op_steps(self.actions, self.episode_start, self.coder, position, rotation)

    # ------------------------------------------------------------------ statistics

    def statistics(self) -> dict[str, Quantiles]:
        """Statistics {"state", "action"} of the model's values, over every step once, of actions
        that depend on their chunk over every action of every chunk; exact up to
        `robotics.data.statistics.EXACT_LIMIT` vectors. What has no values is left out. Take them
        from the training split alone."""
        arrays: dict[str, np.ndarray | Blocks] = {"state": self.states, "action": self.actions}
        name = self.fingerprint
        if self._chunked is not None:
            width = self.coder.action_width
            valid = self._steps.actions(np.arange(len(self)))[1]
            arrays["action"] = Blocks(int(valid.sum()), width, self._chunk_blocks)
            name = f"{name}-h{self.horizon}"
        used = {key: array for key, array in arrays.items() if array.shape[1]}
        return cached_statistics(used, name, self._cache)

    def _chunk_blocks(self) -> Iterator[np.ndarray]:
        for first in range(0, len(self), CHUNKS):
            values, valid = self._chunks(np.arange(first, min(first + CHUNKS, len(self))))
            yield values[valid]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identifies the states, actions, instructions and episodes of this split."""
        arrays = [self.actions, self.states, self._texts.number, self._steps.ends]
        if self._chunked is not None:
            arrays += [self._chunked.action, self._chunked.state]
        return arrays_hash(arrays, self.instructions.tolist())
