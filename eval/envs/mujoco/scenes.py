"""The embedded simulator's scenes; importing this registers them with gymnasium."""

from __future__ import annotations

import gymnasium

from eval.envs.mujoco.gl import ensure_gl
from eval.envs.tasks import TASKS

ensure_gl()

_SCENES = {
    "open_drawer": ("OpenDrawer", "drawer_tasks"),
    "close_drawer": ("CloseDrawer", "drawer_tasks"),
    "open_drawer_place": ("OpenDrawerPlace", "drawer_tasks"),
    "pick_coke_can": ("PickCokeCan", "table_tasks"),
    "move_near": ("MoveNear", "table_tasks"),
}
ENV_IDS = {task: f"selfflow_wm/{scene}-v0" for task, (scene, _) in _SCENES.items()}
"""Task -> the gymnasium id of its scene."""

for _name, (_scene, _module) in _SCENES.items():
    gymnasium.register(
        id=ENV_IDS[_name],
        entry_point=f"eval.envs.mujoco.{_module}:{_scene}",
        kwargs={"horizon": TASKS[_name].horizon},
        order_enforce=False,
    )
