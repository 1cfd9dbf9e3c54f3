"""Episodes as arrays, their action and proprioception vectors, and what their steps are.

Plain numpy: no reader, no simulator and no torch. Step t pairs the observation before the step with
the action taken in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robotics.data.images import encode_image
from robotics.embodiment.control import Action
from robotics.embodiment.rotation import axis_angle_to_rpy, canonical_quaternion
from robotics.embodiment.table import ACTION_DIM, GRIPPER, POSITION, ROTATION, TERMINATE

_ARRAYS = {
    "world_vector": (3,),
    "rotation_delta": (3,),
    "gripper": (),
    "terminate": (),
    "tool_pose": (7,),
    "gripper_closed": (),
    "reward": (),
}


@dataclass(frozen=True)
class Episode:
    """One demonstration of T steps, float32 unless noted.

    Raises:
        ValueError: an array of another shape, or with NaN or infinity.
    """

    images: Sequence[bytes]
    """T encoded JPEGs, as stored."""
    instruction: Sequence[str]
    """T instructions: it changes where a sub-task ends."""
    world_vector: np.ndarray
    """(T, 3) Δxyz of the tool, m, base frame."""
    rotation_delta: np.ndarray
    """(T, 3) Δroll-pitch-yaw, rad, base frame."""
    gripper: np.ndarray
    """(T,) closedness command in [-1, 1]: +1 closes."""
    terminate: np.ndarray
    """(T,) bool: the sub-task is finished with this step."""
    tool_pose: np.ndarray
    """(T, 7) xyz (m) and quaternion xyzw of the tool, base frame, sign as recorded."""
    gripper_closed: np.ndarray
    """(T,) in [0, 1]: 1 closed."""
    reward: np.ndarray
    """(T,)."""
    success: bool = True

    def __post_init__(self) -> None:
        steps = len(self.images)
        if steps == 0 or len(self.instruction) != steps:
            raise ValueError(
                f"expected as many instructions as images and at least one, got {steps} images and "
                f"{len(self.instruction)} instructions."
            )
        for name, shape in _ARRAYS.items():
            dtype = np.bool_ if name == "terminate" else np.float32
            array = np.asarray(getattr(self, name), dtype=dtype)
            if array.shape != (steps, *shape):
                raise ValueError(
                    f"expected {name} of shape {(steps, *shape)} for {steps} images, "
                    f"got {array.shape}."
                )
            if not np.isfinite(array).all():
                step = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise ValueError(f"expected finite {name}, got NaN or infinity at step {step}.")
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.images)

    def actions(self) -> np.ndarray:
        """(T, 8) float32 in physical units, see `robotics.embodiment.table`."""
        actions = np.empty((len(self), ACTION_DIM), np.float32)
        actions[:, POSITION] = self.world_vector
        actions[:, ROTATION] = self.rotation_delta
        actions[:, GRIPPER] = self.gripper
        actions[:, TERMINATE] = np.where(self.terminate, 1.0, -1.0)
        return actions

    def proprio(self) -> np.ndarray:
        """(T, 8) float32, see `proprio_vector`."""
        return proprio_vector(self.tool_pose, self.gripper_closed)


def proprio_vector(tool_pose: np.ndarray, gripper_closed: np.ndarray) -> np.ndarray:
    """Pose (..., 7) xyz + xyzw and closedness (...) or (..., 1) -> float32 (..., 8).

    The same function serves training data and the running policy.
    """
    pose = np.asarray(tool_pose, np.float32)
    if pose.shape[-1:] != (7,):
        raise ValueError(f"expected tool_pose (..., 7): xyz + quaternion xyzw, got {pose.shape}.")
    closed = np.asarray(gripper_closed, np.float32).reshape(*pose.shape[:-1], 1)
    return np.concatenate([pose[..., :3], canonical_quaternion(pose[..., 3:]), closed], axis=-1)


@dataclass
class EpisodeRecorder:
    """Collects what an environment and an expert produce, step by step, into an `Episode`.

    Every step takes the observation before the action, the action meant (the expert's, also when a
    perturbed one was executed) and the reward after it.
    """

    _steps: list[dict] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._steps)

    def add(
        self, observation: Mapping[str, Any], action: Action, instruction: str, reward: float = 0.0
    ) -> None:
        """Append one step; the image is encoded at once (JPEG, quality 95).

        observation: a whole `robotics.embodiment.control.Observation`, made with `obs_mode="rgb"`.
        """
        control = np.asarray(action.control, np.float32)
        if control.shape != (7,):
            raise ValueError(f"expected control of shape (7,), got {control.shape}.")
        self._steps.append(
            {
                "images": encode_image(observation["image"]),
                "instruction": instruction,
                "world_vector": control[:3],
                "rotation_delta": axis_angle_to_rpy(control[3:6]),
                "gripper": control[6],
                "terminate": bool(action.terminate),
                "tool_pose": np.asarray(observation["tool_pose"], np.float32),
                "gripper_closed": float(np.asarray(observation["gripper_closed"]).reshape(())),
                "reward": float(reward),
            }
        )

    def build(self, success: bool = True) -> Episode:
        """The episode so far."""
        names = ("images", "instruction", *_ARRAYS)
        columns: Any = {name: [step[name] for step in self._steps] for name in names}
        return Episode(**columns, success=success)


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
    actions: np.ndarray, episode_start: np.ndarray, segment_end: np.ndarray
) -> np.ndarray:
    """(T,) int64: for every step the next keyframe of its sub-task.

    A keyframe is a step in which the gripper command changes, or the last one of a sub-task
    (James & Davison 2022, arXiv 2105.14829, without their test for stillness): where the hand has
    to be for what matters next. The last step's keyframe is itself.

    Args:
        actions: (T, 8) in physical units; a gripper command of 0 keeps the one before.
        episode_start: (T,) first step of every step's episode.
        segment_end: (T,) first step after every step's sub-task.
    """
    steps = np.arange(len(actions))
    # The last command that was not 0, of the same episode.
    command = np.sign(actions[:, GRIPPER])
    told = np.maximum.accumulate(np.where((command != 0) | (steps == episode_start), steps, 0))
    held = command[told]
    before = np.maximum(steps - 1, 0)
    keys = (held != held[before]) & (steps > episode_start) & (segment_end == segment_end[before])
    keys |= steps == segment_end - 1
    keyframes = np.flatnonzero(keys)
    following = np.searchsorted(keyframes, steps, side="right")
    following = np.minimum(following, len(keyframes) - 1)
    return np.where(keyframes[following] < segment_end, keyframes[following], segment_end - 1)


def no_op_steps(
    actions: np.ndarray, episode_start: np.ndarray, position: float, rotation: float
) -> np.ndarray:
    """(T,) bool: the steps whose action commands nothing.

    That is a motion of at most `position` (m, length) and `rotation` (rad, length of the vector of
    angles), no end of the sub-task, and a gripper command of 0 (keep) or the one of the step before
    in the same episode.

    Args:
        actions: (T, 8) in physical units.
        episode_start: (T,) first step of every step's episode.
    """
    steps = np.arange(len(actions))
    gripper = actions[:, GRIPPER]
    repeated = (steps > episode_start) & (gripper == gripper[np.maximum(steps - 1, 0)])
    still = np.linalg.norm(actions[:, POSITION], axis=1) <= position
    still &= np.linalg.norm(actions[:, ROTATION], axis=1) <= rotation
    return still & (repeated | (gripper == 0)) & (actions[:, TERMINATE] <= 0)
