"""A privileged controller for SIMPLER's drawer tasks: the positive control of an installation.

Reads poses from the simulator and acts through the same seven numbers as any policy. Plans are
generators of actions that look at the present state before every step, so they correct what
perturbed execution does to them. Runs in the simulator's interpreter.

The drawers' handles have no collision mesh in SIMPLER: a drawer is opened by hooking the fingers
over the upper edge of its front panel and drawing back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from robotics.control import Action

OPEN_AT = 0.15
"""m; upstream's threshold for an open drawer."""
OPEN, KEEP, CLOSE = -1.0, 0.0, 1.0
_STEP, _TURN = 0.08, 0.35
"""Most a single action moves (m) and turns (rad) the tool."""
EDGE = {"top": 0.70, "middle": 0.455, "bottom": 0.21}
"""Height (m) of the tool when it hooks a drawer's panel."""
_HOOK_X, _AWAY, _PULL = -0.01, 0.16, 0.27
_TILT_PULL, _TILT_GRASP = 45.0, 70.0
_DROP = np.array([0.13, 0.0, 0.83])
"""Where over the open drawer the apple is let go (y follows the apple)."""

TASKS = ("open_drawer", "close_drawer", "open_drawer_place")
"""What it can do."""

Moves = Iterator[np.ndarray]


def tilted(degrees: float, quarter: int = 0) -> np.ndarray:
    """Tool orientation (3, 3) that approaches away from the robot and down by `degrees`.

    Columns: x, closing direction y, approach z. `quarter` turns the fingers about the approach by
    that many right angles.
    """
    angle = np.deg2rad(degrees)
    approach = np.array([-np.cos(angle), 0.0, -np.sin(angle)])
    closing = np.array([np.sin(angle), 0.0, -np.cos(angle)])
    matrix = np.stack([np.cross(closing, approach), closing, approach], axis=1)
    return Rotation.from_rotvec(approach * quarter * np.pi / 2).as_matrix() @ matrix


class Expert:
    """Acts in the environment of a `Scene`; one instance per episode."""

    def __init__(self, env: Any, task: str) -> None:
        if task not in TASKS:
            raise ValueError(
                f"expert: expected one of {', '.join(TASKS)}; got {task}; "
                "remedy: use another control, such as --policy random"
            )
        plans = (self._open_only, self._close, self._open_and_place)  # in the order of TASKS
        self._env = env
        self._terminate = False
        self._plan = plans[TASKS.index(task)]()

    def act(self) -> Action:
        """The next action from the present state; standing still when the plan is over."""
        self._terminate = False
        control = next(self._plan, None)
        if control is None:
            # Give up only where it changes nothing: a failed episode runs to its horizon.
            return Action(np.zeros(7, np.float32), self._env_says_success())
        return Action(control.astype(np.float32), self._terminate)

    # --- state ---------------------------------------------------------------------------------
    def _env_says_success(self) -> bool:
        travel, task = self._travel(), type(self._env).__name__
        if "Close" in task and "Place" not in task:
            return travel <= 0.045
        if "Place" in task:
            stats = self._env.episode_stats
            return self._env.cur_subtask_id == 1 and travel >= 0.06 and stats["has_contact"] >= 1
        return travel >= OPEN_AT

    def _travel(self) -> float:
        return float(self._env.art_obj.get_qpos()[self._env.joint_idx])

    def _tool(self) -> np.ndarray:
        return np.array(self._env.tcp.pose.p, dtype=np.float64)

    def _apple(self) -> np.ndarray:
        return np.array(self._env.obj.pose.p, dtype=np.float64)

    # --- motions -------------------------------------------------------------------------------
    def _toward(
        self, place: np.ndarray, turn: np.ndarray, grip: float, step: float = _STEP,
        most: float = _TURN,
    ) -> tuple[np.ndarray, float, float]:  # fmt: skip
        """One action toward a world pose, and the distance (m) and angle (rad) that are left."""
        base = self._env.agent.robot.pose.to_transformation_matrix()
        tool = self._env.tcp.pose.to_transformation_matrix()
        shift = base[:3, :3].T @ (place - tool[:3, 3])
        rotation = base[:3, :3].T @ turn @ tool[:3, :3].T @ base[:3, :3]
        twist = Rotation.from_matrix(rotation).as_rotvec()
        far, angle = float(np.linalg.norm(shift)), float(np.linalg.norm(twist))
        shift *= min(1.0, step / max(far, 1e-9))
        twist *= min(1.0, most / max(angle, 1e-9))
        return np.concatenate([shift, twist, [grip]]), far, angle

    def _go(
        self, place: np.ndarray, turn: np.ndarray, grip: float, steps: int, *,
        near: float = 0.012, aligned: float = 0.08, step: float = _STEP,
    ) -> Moves:  # fmt: skip
        for _ in range(steps):
            action, far, angle = self._toward(place, turn, grip, step)
            if far < near and angle < aligned:
                return
            yield action

    def _hold(self, place: np.ndarray, turn: np.ndarray, grip: float, steps: int) -> Moves:
        for _ in range(steps):
            yield self._toward(place, turn, grip, 0.02, 0.1)[0]

    # --- plans ---------------------------------------------------------------------------------
    def _open_only(self) -> Moves:
        yield from self._pull_open(OPEN_AT + 0.01)
        self._terminate = True
        yield np.zeros(7)

    def _pull_open(self, enough: float) -> Moves:
        turn, height = tilted(_TILT_PULL), EDGE[self._env.drawer_id]
        hook = np.array([_HOOK_X, 0.0, height])
        for _ in range(3):
            yield from self._go(hook + [_AWAY, 0.0, 0.03], turn, KEEP, 25)
            yield from self._go(hook, turn, KEEP, 10, step=0.05)
            yield from self._hold(hook, turn, CLOSE, 3)
            # The planner follows about a third of each command: 24 steps are some 0.3 m.
            for _ in range(24):
                if self._travel() >= enough:
                    return
                yield self._toward(hook + [_PULL + 0.05, 0.0, 0.0], turn, KEEP, 0.04, 0.1)[0]
            if self._travel() >= OPEN_AT:
                return
            yield from self._hold(self._tool() + [0.0, 0.0, 0.05], turn, OPEN, 2)

    def _close(self) -> Moves:
        turn = tilted(_TILT_PULL)
        panel = EDGE[self._env.drawer_id] - 0.06
        yield from self._go(np.array([0.40, 0.0, panel + 0.02]), turn, CLOSE, 25, near=0.03)
        for _ in range(40):
            if self._travel() <= 0.01:
                break
            yield self._toward(np.array([-0.05, 0.0, panel]), turn, CLOSE, 0.05, 0.1)[0]
        self._terminate = self._env_says_success()
        yield np.zeros(7)

    def _open_and_place(self) -> Moves:
        yield from self._pull_open(_PULL - 0.05)
        turn, place = tilted(_TILT_PULL), self._tool()
        yield from self._hold(place, turn, OPEN, 2)
        # What a policy says when the drawer is open; the protocol does it at step 100 otherwise.
        self._terminate = self._travel() >= OPEN_AT and self._env.cur_subtask_id == 0
        yield self._toward(place + [0.02, 0.0, 0.22], turn, KEEP)[0]
        self._terminate = False
        yield from self._go(place + [0.02, 0.0, 0.22], turn, KEEP, 6)
        turn = yield from self._grasp()
        yield from self._let_go(turn)
        self._terminate = self._env_says_success()
        yield np.zeros(7)

    def _grasp(self) -> Any:
        """Take the apple, with another closing direction at each try; returns the orientation."""
        start = self._apple()
        turn = tilted(_TILT_GRASP)
        over = np.array([0.12, start[1], start[2] + 0.20])
        yield from self._go(over, turn, KEEP, 10, near=0.03, aligned=0.2)
        for quarter in (0, -1, 1):
            turn = tilted(_TILT_GRASP, quarter)
            approach = turn[:, 2]
            target = self._apple() + 0.03 * approach
            yield from self._go(target - 0.12 * approach, turn, OPEN, 10)
            yield from self._go(target, turn, OPEN, 8, near=0.008, step=0.05)
            yield from self._hold(target, turn, CLOSE, 3)
            yield from self._go(target + [0.0, 0.0, 0.12], turn, KEEP, 6, step=0.06)
            if self._apple()[2] - start[2] > 0.04:
                break
        return turn

    def _let_go(self, turn: np.ndarray) -> Moves:
        held = self._apple() - self._tool()
        drop = _DROP + [0.0, self._apple()[1], 0.0]
        for height in (0.17, 0.0):
            target = drop + [0.0, 0.0, height] - held
            yield from self._go(target, turn, KEEP, 8, near=0.02, step=0.06)
        for _ in range(8):
            if self._env_says_success():
                return
            yield from self._hold(drop - held, turn, OPEN, 1)
