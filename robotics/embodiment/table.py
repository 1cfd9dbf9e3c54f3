"""What differs between robots, as a table; and the order of the action and proprioception vectors.

The model's action (8 values) is what RT-1's data holds, in RT-1's rotation convention:

| slice      | meaning                                            | range      |
|------------|----------------------------------------------------|------------|
| `POSITION` | Δxyz of the tool, m, robot base frame              |            |
| `ROTATION` | Δroll, pitch, yaw of the tool, rad, base frame     |            |
| `GRIPPER`  | closedness: +1 closes, -1 opens, 0 keeps           | [-1, 1]    |
| `TERMINATE`| +1 the sub-task is finished with this step, else -1| {-1, +1}   |

Proprioception (8 values): tool xyz (m), quaternion xyzw with x + y >= 0, gripper (1 closed).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ACTION_DIM = 8
ARM = slice(0, 6)
"""The values that are normalised by quantiles; gripper and terminate are left alone."""
POSITION = slice(0, 3)
ROTATION = slice(3, 6)
GRIPPER = 6
TERMINATE = 7

PROPRIO_DIM = 8


@dataclass(frozen=True)
class Embodiment:
    """Conventions of one robot and its controller."""

    name: str
    action_dim: int
    """Values of the model's action."""
    gripper_closes: Literal[1, -1]
    """Sign of the gripper command that closes, in the data and in the environment."""
    data_rotation: Literal["rpy", "axis_angle"]
    """Rotation deltas as recorded and as the model sees them."""
    control_rotation: Literal["rpy", "axis_angle"]
    """Rotation deltas as the environment takes them."""
    control_hz: float
    camera_size: tuple[int, int]
    """Height, width of the recorded camera image."""
    sticky_gripper_steps: int
    """Control steps a gripper command is repeated for (SIMPLER's Google robot moves its fingers by
    a relative target and needs this); 1 = no repetition."""


EMBODIMENTS: dict[str, Embodiment] = {
    row.name: row
    for row in (
        Embodiment("embedded", ACTION_DIM, 1, "rpy", "axis_angle", 3.0, (256, 320), 1),
        Embodiment("google_robot", ACTION_DIM, 1, "rpy", "axis_angle", 3.0, (256, 320), 15),
        # Bridge data and SIMPLER's WidowX: the sense of the gripper is inverted in the backend.
        Embodiment("widowx", ACTION_DIM, 1, "rpy", "axis_angle", 5.0, (240, 320), 1),
    )
}


def embodiment(name: str) -> Embodiment:
    """The row called `name`; `ValueError` with the known names otherwise."""
    if name not in EMBODIMENTS:
        raise ValueError(
            f"expected an embodiment out of {sorted(EMBODIMENTS)}, got {name!r}. "
            "Add a row to robotics.embodiment.table.EMBODIMENTS for a new robot."
        )
    return EMBODIMENTS[name]
