"""The embedded simulator; importing it registers its environments with gymnasium."""

from __future__ import annotations

import gymnasium

from eval.envs.mujoco.gl import ensure_gl
from eval.envs.tasks import TASKS

ensure_gl()

_ENTRY_POINTS = {
    "open_drawer": "eval.envs.mujoco.drawer_tasks:OpenDrawer",
    "close_drawer": "eval.envs.mujoco.drawer_tasks:CloseDrawer",
    "open_drawer_place": "eval.envs.mujoco.drawer_tasks:OpenDrawerPlace",
    "pick_coke_can": "eval.envs.mujoco.table_tasks:PickCokeCan",
    "move_near": "eval.envs.mujoco.table_tasks:MoveNear",
}

for _name, _entry in _ENTRY_POINTS.items():
    gymnasium.register(
        id=TASKS[_name].env_id,
        entry_point=_entry,
        kwargs={"horizon": TASKS[_name].horizon},
        order_enforce=False,
    )
