"""What a task is, and the tasks that several simulators share.

Horizons, success conditions and the order of instructions follow SIMPLER's Google-robot tasks
(`simpler-env/SimplerEnv`). Tasks of a single simulator are in its folder.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One task, independent of the simulator."""

    name: str
    """Its name on the command line."""
    horizon: int
    """Control steps (3 Hz) after which the episode is truncated."""
    subtasks: tuple[str, ...]
    """Instructions in order; `{part}` and `{object}` are filled in per seed by the scene."""
    stages: tuple[str, ...]
    """Keys of `info["stages"]` that apply, in the order a successful episode passes them."""
    success: str
    """The success condition, in words."""
    robot: str = "google_robot"
    """The robot of the task: a policy controls one robot, and no mean covers two."""


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="open_drawer",
            horizon=113,
            subtasks=("open {top|middle|bottom} drawer",),
            stages=("handle_touched", "drawer_opened"),
            success="the named drawer is open by at least 0.15 m",
        ),
        Task(
            name="close_drawer",
            horizon=113,
            subtasks=("close {top|middle|bottom} drawer",),
            stages=("handle_touched", "drawer_closed"),
            success="the named drawer is open by at most 0.05 m",
        ),
        Task(
            name="open_drawer_place",
            horizon=200,
            subtasks=("open top drawer", "place apple into top drawer"),
            stages=("handle_touched", "drawer_opened", "object_grasped", "object_in_drawer"),
            success=(
                "second sub-task reached, the drawer open by at least 0.05 m and "
                "the apple has touched the inside of the drawer"
            ),
        ),
        Task(
            name="pick_coke_can",
            horizon=80,
            subtasks=("pick coke can",),
            stages=("object_grasped", "object_lifted"),
            success="the can is held and lifted",
        ),
        Task(
            name="move_near",
            horizon=80,
            subtasks=("move {object} near {object}",),
            stages=("object_grasped", "object_moved"),
            success="the first object stands near the second",
        ),
    )
}

ALL: tuple[str, ...] = tuple(TASKS)
"""Every task of the Google robot, in the order tables show them."""
