"""SIMPLER's tasks: the Google robot's, which other simulators have too, and four WidowX tasks."""

from __future__ import annotations

from eval.envs.tasks import ALL, TASKS, Task

_BRIDGE_STAGES = ("object_grasped", "object_moved", "object_on_target")
WIDOWX: dict[str, Task] = {
    name: Task(
        name=name,
        horizon=horizon,
        subtasks=(instruction,),
        stages=_BRIDGE_STAGES,
        success="the object rests on its target",
        robot="widowx",
    )
    for name, horizon, instruction in (
        ("widowx_spoon_on_towel", 60, "put the spoon on the towel"),
        ("widowx_carrot_on_plate", 60, "put carrot on plate"),
        ("widowx_stack_cube", 60, "stack the green block on the yellow block"),
        ("widowx_put_eggplant_in_basket", 120, "put eggplant into yellow basket"),
    )
}
SIMPLER_TASKS: dict[str, Task] = {**TASKS, **WIDOWX}
GROUPS: dict[str, tuple[str, ...]] = {"all": ALL, "widowx": tuple(WIDOWX)}
"""Groups: all tasks of a robot."""
