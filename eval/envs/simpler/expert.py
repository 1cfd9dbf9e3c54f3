"""A privileged controller for SIMPLER's Google-robot tasks: the positive control and demonstrator.

Reads poses from the simulator and acts through the same seven numbers as any policy. Runs in the
simulator's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from eval.envs.simpler.drawers import CLOSED_AT, OPEN_AT, Drawer, pull_open, push_closed
from eval.envs.simpler.motions import OPEN, Arm, Moves
from eval.envs.simpler.objects import apple_into_drawer, move_near, pick
from robotics.embodiment.control import Action

_OPEN_ENOUGH, _OPEN_WIDE = OPEN_AT + 0.015, 0.22
"""m; how far a drawer is opened if that is the task, and if something is placed into it."""
_SECOND = 1
"""Upstream's number of the last sub-task."""
_NEAR = ("all_obj_keep_height", "moved_correct_obj", "near_tgt_obj", "is_closest_to_tgt")
"""Upstream's conditions for `move_near`; all must hold."""


class Expert:
    """Acts in the environment of a `Scene`; one instance per episode."""

    def __init__(self, env: Any, task: str) -> None:
        plans: dict[str, Callable[[], Moves]] = {
            "open_drawer": self._open,
            "close_drawer": self._close,
            "open_drawer_place": self._open_and_place,
            "pick_coke_can": lambda: pick(self._arm, env),
            "move_near": lambda: move_near(self._arm, env),
        }
        if task not in plans:
            raise ValueError(
                f"expert: expected one of {', '.join(plans)}, got {task}; "
                "use another control, such as --policy random"
            )
        self._env, self._task = env, task
        self._arm = Arm(env)
        self._plan = plans[task]()

    def act(self) -> Action:
        """The next action in the current state; stands still when the plan is over."""
        action = next(self._plan, None)
        if action is not None:
            return action
        # Terminate only after success: a failed episode runs to its horizon.
        return Action(np.zeros(7, np.float32), self._done())

    def _done(self) -> bool:
        """Whether the simulator would call the episode a success if it ended now."""
        # Upstream's `evaluate` counts its calls, so only read what it has stored.
        if self._task == "pick_coke_can":
            return bool(self._env.lifted_obj)
        stats = self._env.episode_stats
        if self._task == "move_near":
            return bool(all(stats[name] for name in _NEAR))
        travel = Drawer(self._env).travel
        if self._task == "close_drawer":
            return travel <= CLOSED_AT - 0.005
        if self._task == "open_drawer":
            return travel >= OPEN_AT
        inside = travel >= 0.06 and stats["has_contact"] >= 1
        return self._env.cur_subtask_id == _SECOND and bool(inside)

    # --- plans ---------------------------------------------------------------------------------
    def _open(self) -> Moves:
        yield from pull_open(self._arm, Drawer(self._env), _OPEN_ENOUGH)

    def _close(self) -> Moves:
        yield from push_closed(self._arm, Drawer(self._env))

    def _open_and_place(self) -> Moves:
        drawer = Drawer(self._env)
        yield from pull_open(self._arm, drawer, _OPEN_WIDE)
        place, turn = self._arm.tool, self._arm.turn
        yield from self._arm.hold(place, turn, OPEN, 2)
        # What a policy does when the drawer is open; otherwise the protocol does it at step 100.
        while drawer.travel >= OPEN_AT and self._env.cur_subtask_id != _SECOND:
            action, *_ = self._arm.toward(place + [0.0, 0.0, 0.05], turn, OPEN, 0.02)
            yield Action(action.control, True)
        yield from apple_into_drawer(self._arm, self._env, self._done)
