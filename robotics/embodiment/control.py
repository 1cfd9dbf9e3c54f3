"""What passes between a policy and an environment, and nothing heavier than numpy.

Every simulator backend and every policy speaks these types, so that a rollout
worker can import them without torch, MuJoCo or SIMPLER.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypedDict

import numpy as np

CONTROL_DIM = 7
"""Δxyz (m), axis-angle (rad) in the robot base frame, gripper (+1 closes, -1 opens)."""

AUTO = "auto"
ACTING_MODES = ("policy", "joint")
"""Modes of `robotics.model.modes` that make actions from an observation; the cheaper one first."""


class Observation(TypedDict, total=False):
    """One observation of a single-arm robot; arrays are unbatched."""

    image: np.ndarray
    """uint8 (256, 320, 3) RGB of the head camera; absent in `obs_mode="state"`."""
    tool_pose: np.ndarray
    """float32 (7,): position (m) and quaternion xyzw of the tool in the base frame."""
    gripper_closed: np.ndarray
    """float32 (1,): 0 fully open, 1 fully closed."""


class Action(NamedTuple):
    """One control step."""

    control: np.ndarray
    """float32 (7,), see `CONTROL_DIM`."""
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
