"""The embedded simulator; importing it registers its environments with gymnasium."""

from __future__ import annotations

import gymnasium

from eval.sim.gl import ensure_gl
from eval.tasks import TASKS

ensure_gl()

_ENTRY_POINTS = {
    "open_drawer": "eval.sim.drawer_tasks:OpenDrawer",
    "close_drawer": "eval.sim.drawer_tasks:CloseDrawer",
    "open_drawer_place": "eval.sim.drawer_tasks:OpenDrawerPlace",
    "pick_coke_can": "eval.sim.table_tasks:PickCokeCan",
    "move_near": "eval.sim.table_tasks:MoveNear",
}

for _name, _entry in _ENTRY_POINTS.items():
    gymnasium.register(
        id=TASKS[_name].env_id,
        entry_point=_entry,
        kwargs={"horizon": TASKS[_name].horizon},
        order_enforce=False,
    )
