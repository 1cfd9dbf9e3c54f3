"""Converts between SIMPLER's robots and the environment contract.

| quantity        | contract                      | Google robot           | WidowX         |
|-----------------|-------------------------------|------------------------|----------------|
| rotation        | axis-angle, rad, base frame   | the same               | the same       |
| gripper command | +1 closes, -1 opens, ~0 keeps | the same, relative     | +1 opens, held |
| quaternion      | xyzw                          | wxyz                   | wxyz           |
| image           | uint8, half size              | float RGBA (512, 640)  | (480, 640)     |

Facts from ManiSkill2_real2sim (`agents/configs/*/defaults.py`, `agents/robots/*.py`) and from
SimplerEnv's policy wrappers (`simpler_env/policies`). numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KEEP = 1e-3
"""A gripper command smaller than this keeps the fingers' target."""
DECIDED = 0.5
"""A gripper command larger than this starts a sticky repetition."""
_GOOGLE_MODE = (
    "arm_pd_ee_delta_pose_align_interpolate_by_planner_"
    "gripper_pd_joint_target_delta_pos_interpolate_by_planner"
)


@dataclass(frozen=True)
class RobotRow:
    """Constants of one robot in SIMPLER."""

    embodiment: str
    camera: str
    """Camera that policies see."""
    image_size: tuple[int, int]
    """Height, width of `camera_image()`: half of what is rendered."""
    control_mode: str
    control_hz: int
    physics_hz: int
    sticky_gripper_steps: int = 1
    """Control steps that a decided gripper command is repeated for, see `GoogleGripper`."""


ROBOTS = {
    "google_robot": RobotRow(
        "google_robot", "overhead_camera", (256, 320), _GOOGLE_MODE, 3, 513, 15
    ),
    "widowx": RobotRow(
        "widowx",
        "3rd_view_camera",
        (240, 320),
        "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos",
        5,
        500,
    ),
}


class GoogleGripper:
    """The relative gripper of the Google robot, with the sticky repetition.

    A command moves the fingers' *target* by at most the whole range, and the fingers need several
    control steps to follow; upstream's wrappers therefore repeat a decided command for 15 steps.
    Zeros inside a repetition are replaced by it; the opposite command replaces the repetition.
    Repetitions by the policy itself have no further effect: the target is clipped at the end of its
    range. A new instruction ends no repetition; in upstream's it does.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.reset()

    def reset(self) -> None:
        """Start without a repetition."""
        self._command, self._left = 0.0, 0

    def __call__(self, command: float) -> float:
        """What the simulator gets for `command` in [-1, 1] (+1 closes)."""
        if abs(command) > DECIDED:
            self._command, self._left = command, self.steps
        if self._left > 0:
            self._left -= 1
            return self._command
        return command if abs(command) >= KEEP else 0.0


class WidowXGripper:
    """The absolute gripper of the WidowX: +1 opens, -1 closes, and a command is always needed.

    Upstream binarises at 0; here a "keep" command repeats the last one (open at the start).
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The fingers start open."""
        self._last = 1.0

    def __call__(self, command: float) -> float:
        """What the simulator gets for `command` in [-1, 1] (+1 closes)."""
        if abs(command) >= KEEP:
            self._last = -1.0 if command > 0 else 1.0
        return self._last


class Adapter:
    """The conversions of one robot; holds the gripper's state during an episode."""

    def __init__(self, robot: str) -> None:
        """`robot` is SIMPLER's name, such as `google_robot_static` or `widowx`."""
        family = next((name for name in ROBOTS if robot.startswith(name)), None)
        if family is None:
            raise ValueError(
                f"robot: expected one of the families {', '.join(ROBOTS)}, got {robot!r}; "
                "add a row to eval.envs.simpler.adapters.ROBOTS"
            )
        self.row = ROBOTS[family]
        google = family == "google_robot"
        steps = self.row.sticky_gripper_steps
        self._gripper = GoogleGripper(steps) if google else WidowXGripper()

    def reset(self) -> None:
        """Start an episode."""
        self._gripper.reset()

    def to_simulator(self, control: Sequence[float] | np.ndarray) -> np.ndarray:
        """Contract's control (7,) -> simulator's action (7,) float32; `ValueError` if malformed."""
        values = check_control(control).astype(np.float32)
        values[6] = self._gripper(float(values[6]))
        return values

    def image(self, colour: np.ndarray) -> np.ndarray:
        """Rendered RGB(A) in [0, 1] (2H, 2W, 3 or 4) -> uint8 RGB (H, W, 3), each pixel a mean of
        four."""
        height, width = self.row.image_size
        if colour.shape[:2] != (2 * height, 2 * width):
            raise ValueError(
                f"camera: expected a picture of {2 * height} x {2 * width}, got "
                f"{colour.shape[0]} x {colour.shape[1]}; leave the camera's size alone"
            )
        pixels = np.clip(colour[..., :3], 0.0, 1.0)
        # In the order, and so to the bit, of a mean over two axes, which is several times slower.
        upper, lower = pixels[0::2], pixels[1::2]
        total = upper[:, 0::2] + upper[:, 1::2] + lower[:, 0::2] + lower[:, 1::2]
        return np.rint(255.0 * (0.25 * total)).astype(np.uint8)


def check_control(control: Sequence[float] | np.ndarray) -> np.ndarray:
    """`control` as float64 (7,); `ValueError` for another shape, NaN or infinity."""
    values = np.asarray(control, dtype=np.float64)
    if values.shape != (7,) or not np.isfinite(values).all():
        raise ValueError(
            f"expected a finite action of shape (7,), got {values.shape}: {values}; "
            "check the policy's denormalisation"
        )
    return values


def relative_pose(base: np.ndarray, tool: np.ndarray) -> np.ndarray:
    """The tool in the base frame.

    Args:
        base, tool: world poses (7,), m and quaternion **wxyz** (SAPIEN's order).

    Returns:
        float32 (7,), m and quaternion **xyzw** with w >= 0, as the embedded simulator reports it.
    """
    inverse = base[3:7] * np.array([1.0, -1.0, -1.0, -1.0])
    position = rotate(inverse, tool[:3] - base[:3])
    w, x, y, z = multiply(inverse, tool[3:7])
    quaternion = np.array([x, y, z, w]) * (1.0 if w >= 0 else -1.0)
    return np.concatenate([position, quaternion]).astype(np.float32)


def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Hamilton product of two quaternions wxyz (4,)."""
    scalar = left[0] * right[0] - left[1:] @ right[1:]
    vector = left[0] * right[1:] + right[0] * left[1:] + np.cross(left[1:], right[1:])
    return np.concatenate([[scalar], vector])


def rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """`vector` (3,) turned by a unit quaternion wxyz (4,)."""
    turn = 2.0 * np.cross(quaternion[1:], vector)
    return vector + quaternion[0] * turn + np.cross(quaternion[1:], turn)
