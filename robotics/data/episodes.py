"""Episodes as named arrays, as recorded, and what their steps are.

Plain numpy: no reader, no simulator and no torch. Step t pairs the observation before the step with
the action taken in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robotics.data.images import encode_image
from robotics.embodiment.coding import Coder
from robotics.embodiment.control import Action, observed_values, tool_robot
from robotics.embodiment.robot import Robot
from robotics.embodiment.rotation import axis_angle_to_rpy
from robotics.embodiment.tables import shipped


@dataclass(frozen=True)
class Episode:
    """One demonstration of T steps, float32 unless noted; values are in the recording's convention.

    Raises:
        ValueError: an array of another shape, or with NaN or infinity, or no steps.
    """

    robot: Robot
    cameras: Mapping[str, Sequence[bytes]]
    """Camera -> T encoded pictures, as stored; a camera that was absent is missing."""
    state: np.ndarray
    """(T, S) the parts of `robot.state` one after the other."""
    action: np.ndarray
    """(T, A) the parts of `robot.action`."""
    instructions: Sequence[tuple[str, ...]]
    """T rows of K instructions that say the same; they change where a sub-task ends."""
    terminate: np.ndarray
    """(T,) bool: the sub-task is finished with this step."""
    reward: np.ndarray
    """(T,)."""
    success: bool = True

    def __post_init__(self) -> None:
        steps = len(self.instructions)
        if steps == 0:
            raise ValueError("expected an episode of at least one step, got none.")
        for name, images in self.cameras.items():
            self.robot.camera(name)
            if len(images) != steps:
                raise ValueError(
                    f"expected {steps} pictures of camera {name}, one a step, got {len(images)}."
                )
        widths = {"state": self.robot.state_width, "action": self.robot.action_width}
        for name in ("state", "action", "terminate", "reward"):
            shape = (steps, widths[name]) if name in widths else (steps,)
            dtype = np.bool_ if name == "terminate" else np.float32
            array = np.asarray(getattr(self, name), dtype=dtype)
            if array.shape != shape:
                raise ValueError(
                    f"expected {name} of shape {shape} for {steps} steps, got {array.shape}."
                )
            if not np.isfinite(array).all():
                step, *place = np.argwhere(~np.isfinite(array))[0].tolist()
                part = self._part(name, place[0]) if place else name
                raise ValueError(f"expected finite {part}, got NaN or infinity at step {step}.")
            object.__setattr__(self, name, array)

    def _part(self, group: str, place: int) -> str:
        slices = self.robot.slices(group)
        name = next(name for name, where in slices.items() if where.start <= place < where.stop)
        return f"{group}.{name}"

    def __len__(self) -> int:
        return len(self.instructions)

    def part(self, path: str) -> np.ndarray:
        """float32 (T, n), the values of one part: "state.gripper", "action.position"."""
        group, _, name = path.partition(".")
        return getattr(self, group)[:, self.robot.slices(group)[name]]


@dataclass
class EpisodeRecorder:
    """Collects what a simulator and an expert produce, step by step, into an `Episode`.

    Every step takes the observation before the action, the action meant (the expert's, also when a
    perturbed one was executed) and the reward after it.
    """

    robot: Robot = field(default_factory=lambda: shipped("embedded"))
    """The simulator's table: the parts of a `robotics.embodiment.control.tool_robot`, but for
    commanded rotations, which are euler_xyz."""
    _steps: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        shown = tool_robot(self.robot.embodiment, self.robot.rate)
        for group in ("state", "action"):
            forms = {part.name: (part.kind, part.form) for part in getattr(shown, group)}
            if group == "action":
                forms["rotation"] = ("rotation", "euler_xyz")
            got = {part.name: (part.kind, part.form) for part in getattr(self.robot, group)}
            if got != forms:
                raise ValueError(
                    f"{group}: expected the parts {forms} that a simulator shows and takes, got "
                    f"{got} of robot {self.robot.name}; write episodes of other robots as `Episode`"
                )
        self._shown = shown

    def __len__(self) -> int:
        return len(self._steps)

    def add(
        self, observation: Mapping[str, Any], action: Action, instruction: str, reward: float = 0.0
    ) -> None:
        """Append one step; the image is encoded at once (JPEG, quality 95).

        observation: a whole `robotics.embodiment.control.Observation`, made with `obs_mode="rgb"`.
        """
        control, width = np.asarray(action.control, np.float32), self._shown.action_width
        if control.shape != (width,):
            raise ValueError(f"expected control of shape ({width},), got {control.shape}.")
        command = {name: control[place] for name, place in self._shown.slices("action").items()}
        command["rotation"] = axis_angle_to_rpy(command["rotation"])
        values = {part.name: observed_values(observation, part) for part in self._shown.state}
        self._steps.append(
            {
                "image": encode_image(observation["image"]),
                "instructions": (instruction,),
                "state": np.concatenate([values[part.name] for part in self.robot.state]),
                "action": np.concatenate([command[part.name] for part in self.robot.action]),
                "terminate": bool(action.terminate),
                "reward": float(reward),
            }
        )

    def build(self, success: bool = True) -> Episode:
        """The episode so far."""
        names = ("image", "instructions", "state", "action", "terminate", "reward")
        columns: Any = {name: [step[name] for step in self._steps] for name in names}
        images = columns.pop("image")
        cameras = {row.name: images for row in self.robot.used_cameras()}
        return Episode(self.robot, cameras, **columns, success=success)


def run_ends(labels: np.ndarray) -> np.ndarray:
    """(T,) int64: for every step the first step after its run of equal labels.

    Args:
        labels: (T,) or (T, k) of any dtype; a sub-task is a run of equal instructions.
    """
    rows = np.asarray(labels).reshape(len(labels), -1)
    changes = np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1
    ends = np.append(changes, len(rows))
    return ends[np.searchsorted(changes, np.arange(len(rows)), side="right")]


def keypose_steps(
    gripper: np.ndarray, episode_start: np.ndarray, segment_end: np.ndarray
) -> np.ndarray:
    """(T,) int64: for every step the next keyframe of its sub-task.

    A keyframe is a step in which a gripper command changes, or the last one of a sub-task
    (James & Davison 2022, arXiv 2105.14829, without their test for stillness): where the hand has
    to be for what matters next. The last step's keyframe is itself.

    Args:
        gripper: (T, g) closedness commands, above 0 closes; 0 keeps the one before. g may be 0.
        episode_start: (T,) first step of every step's episode.
        segment_end: (T,) first step after every step's sub-task.
    """
    steps = np.arange(len(gripper))
    before = np.maximum(steps - 1, 0)
    changed = np.zeros(len(gripper), bool)
    for command in np.sign(gripper).T:
        # The last command that was not 0, of the same episode.
        told = np.maximum.accumulate(np.where((command != 0) | (steps == episode_start), steps, 0))
        held = command[told]
        changed |= held != held[before]
    keys = changed & (steps > episode_start) & (segment_end == segment_end[before])
    keys |= steps == segment_end - 1
    keyframes = np.flatnonzero(keys)
    following = np.searchsorted(keyframes, steps, side="right")
    following = np.minimum(following, len(keyframes) - 1)
    return np.where(keyframes[following] < segment_end, keyframes[following], segment_end - 1)


def no_op_steps(
    actions: np.ndarray,
    episode_start: np.ndarray,
    coder: Coder,
    position: float,
    rotation: float,
) -> np.ndarray:
    """(T,) bool: the steps whose action commands nothing.

    That is a motion of at most `position` (length, m, of positions and bases) and `rotation`
    (length of the vector of angles, rad, of rotations and joints), no end of the sub-task, and
    gripper commands of 0 (keep) or those of the step before in the same episode. Targets count by
    their change since the step before.

    Args:
        actions: (T, A') as the model of `coder` has them, physical units.
        episode_start: (T,) first step of every step's episode.
    """
    steps = np.arange(len(actions))
    before, later = np.maximum(steps - 1, 0), steps > episode_start
    still = np.ones(len(actions), bool)
    for part in coder.robot.action:
        values = actions[:, coder.slices("action")[part.name]]
        same = (values == values[before]).all(axis=1) & later
        if part.kind == "gripper":
            still &= same | (values == 0).all(axis=1)
        elif part.kind == "other":
            still &= same
        else:
            if coder.mode(part.name) == "absolute":
                values = np.where(later[:, None], values - values[before], np.inf)
            limit = position if part.kind in ("position", "base") else rotation
            still &= np.linalg.norm(values, axis=1) <= limit
    if coder.terminate:
        still &= actions[:, -1] <= 0
    return still
