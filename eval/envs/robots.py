"""The robot of an environment, as a table."""

from __future__ import annotations

from typing import Any

from robotics.embodiment.control import tool_robot
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import TABLES, load_robot


def robot_of(env: Any) -> Robot:
    """What the environment states as `robot`; of one that states only `embodiment`, the name of a
    shipped table, a `tool_robot` with that table's rate and picture size.

    Raises:
        ValueError: neither, or an embodiment without a table.
    """
    scene = env.unwrapped
    robot, embodiment = getattr(scene, "robot", None), getattr(scene, "embodiment", None)
    if isinstance(robot, Robot):
        return robot
    if not isinstance(embodiment, str) or not (TABLES / f"{embodiment}.yaml").is_file():
        raise ValueError(
            f"robot: expected an environment that states its robot, got {type(scene).__name__} "
            f"with {embodiment or 'none'!r}; give it an attribute robot = tool_robot(NAME, "
            "rate=HZ, camera_size=(H, W)) of robotics.embodiment.control, or a table of its own"
        )
    table = load_robot(embodiment)
    return tool_robot(table.embodiment, table.rate, table.used_cameras()[0].size)
