"""What passes between a policy and an environment, and nothing heavier than numpy.

Every simulator backend and every policy speaks these types, so that a rollout
worker can import them without torch, MuJoCo or SIMPLER.

An environment states its robot, a table whose paths are keys of its observations and whose action
parts are, one after the other, what `step` takes. `Observation` and seven values of control are
those of `tool_robot`, one arm driven by its tool.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict

import numpy as np

from robotics.embodiment.columns import column

if TYPE_CHECKING:
    from robotics.embodiment.parts import Part
    from robotics.embodiment.robot import Robot

CONTROL_DIM = 7
"""Δxyz (m), axis-angle (rad) in the robot base frame, gripper (+1 closes, -1 opens, 0 keeps), of
`tool_robot`."""

AUTO = "auto"
ACTING_MODES = ("policy", "joint")
"""Modes of `robotics.model.modes` that make actions from an observation; the cheaper one first."""


class Observation(TypedDict, total=False):
    """One observation of a `tool_robot`; arrays are unbatched. A robot with others states them."""

    image: np.ndarray
    """uint8 (H, W, 3) RGB of the head camera; absent in `obs_mode="state"`."""
    tool_pose: np.ndarray
    """float32 (7,): position (m) and quaternion xyzw of the tool in the base frame."""
    gripper_closed: np.ndarray
    """float32 (1,): 0 fully open, 1 fully closed."""


class Action(NamedTuple):
    """One control step."""

    control: np.ndarray
    """float32 (A,), the action parts of the environment's robot; see `CONTROL_DIM`."""
    terminate: bool = False
    """The policy declares the current sub-task finished (RT-1's `terminate_episode`)."""


class Policy(Protocol):
    """The only thing `eval` knows about a policy."""

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode; forget everything that was seen. `seed` fixes any sampling noise."""
        ...

    def instruct(self, instruction: str) -> None:
        """The instruction changed mid-episode: drop any action planned for the old one."""
        ...

    @property
    def needs_observation(self) -> bool:
        """Whether the next `act` reads its observation (False inside an open-loop chunk)."""
        ...

    def act(self, observation: Observation | None) -> Action:
        """The next action; `observation` may be None when `needs_observation` is False."""
        ...


@functools.cache
def tool_robot(embodiment: str, rate: float, camera_size: tuple[int, int] | None = None) -> Robot:
    """The table of an arm that shows an `Observation` and takes a control of `CONTROL_DIM`.

    Args:
        embodiment: the robot itself; a checkpoint for another one is refused.
        rate: control steps a second.
        camera_size: height and width of `image`; None: whatever they are.
    """
    from robotics.embodiment.tables import load_robot

    content = {
        "name": embodiment,
        "rate": rate,
        "cameras": {"head": {"path": "image", "size": camera_size and list(camera_size)}},
        "state": {
            "position": {"path": "tool_pose[0:3]", "kind": "position"},
            "rotation": {
                "path": "tool_pose[3:7]", "kind": "rotation", "form": "quaternion_xyzw",
            },
            "gripper": {"path": "gripper_closed", "kind": "gripper", "open": 0, "closed": 1},
        },
        "action": {
            "position": {"path": "control[0:3]", "kind": "position", "mode": "delta"},
            "rotation": {
                "path": "control[3:6]", "kind": "rotation", "form": "axis_angle", "mode": "delta",
            },
            "gripper": {
                "path": "control[6]", "kind": "gripper", "mode": "pulse", "open": -1, "closed": 1,
            },
        },
        "instruction": "instruction",
    }  # fmt: skip
    return load_robot(content)


def observed_values(observation: Mapping[str, Any], part: Part) -> np.ndarray:
    """float32 (n,) of a part of an environment's state, whose path is a key of the observation.
    ValueError for another number of values, or NaN or infinity."""
    place = column(part.path)
    array = np.asarray(observation[place.name], np.float32).reshape(-1)
    values = array if place.values is None else array[place.values]
    if values.shape != (part.width,) or (place.values is None and array.shape != (part.width,)):
        raise ValueError(
            f"observation[{place.name!r}]: expected {part.width} values at {part.path}, got "
            f"{len(values)} of shape {np.shape(observation[place.name])}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"observation[{place.name!r}]: expected finite values, got {values}")
    return values


def takes_tool_control(robot: Robot) -> bool:
    """Whether an environment shows and takes what that of a `tool_robot` does."""
    like = tool_robot("arm", 1.0)
    return (robot.state, robot.action) == (like.state, like.action)


def acting_mode(asked: str, trained: Sequence[str]) -> str:
    """The mode in which a model acts: `asked`, or with "auto" the first of `ACTING_MODES` among
    those it was trained in. ValueError for a mode that does not act, or one it was not trained in.
    """
    able = [name for name in ACTING_MODES if name in trained]
    if able and asked in (AUTO, *able):
        return able[0] if asked == AUTO else asked
    remedy = "train one with modes=mixed, modes=policy_only or modes=joint_only"
    if able:
        remedy = f"choose {' or '.join(able)}, or leave mode_name at auto"
    raise ValueError(
        "mode_name: expected mode 'policy' or 'joint' of a model trained in it, or 'auto'; asked "
        f"for {asked!r}, got one trained in {', '.join(trained) or 'none'}; {remedy}"
    )
