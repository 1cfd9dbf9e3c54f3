"""Motions of SIMPLER's Google robot for the scripted expert: bounded steps toward a pose.

Every motion is a generator of actions that reads the current state before each step, so it corrects
the effects of perturbed execution, and ends when it has arrived. The simulator follows
about a third of a command, 0.025 m of 0.08: limits on steps are generous and end only motions
that are stuck. Runs in the simulator's interpreter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from robotics.embodiment.control import Action

OPEN, KEEP, CLOSE = -1.0, 0.0, 1.0
"""Gripper commands; the fingers' target is relative, so that one command moves all the way."""
STEP, TURN = 0.08, 0.35
"""Most a single action moves (m) and turns (rad) the tool."""
_PATIENCE, _PROGRESS, _ARM_LENGTH = 5, 0.008, 0.2
"""A motion that came no nearer than `_PROGRESS` (m; a rad counts as `_ARM_LENGTH`) in `_PATIENCE`
steps is at a limit of the arm or against something."""

Moves = Iterator[Action]


def tilted(degrees: float, quarter: int = 0) -> np.ndarray:
    """Tool orientation (3, 3) that approaches away from the robot and down by `degrees`.

    Columns: x, closing direction y, approach z. `quarter` turns the fingers about the approach by
    that many right angles: 0 closes them in the vertical plane, 1 and -1 sideways.
    """
    angle = np.deg2rad(degrees)
    approach = np.array([-np.cos(angle), 0.0, -np.sin(angle)])
    closing = np.array([np.sin(angle), 0.0, -np.cos(angle)])
    matrix = np.stack([np.cross(closing, approach), closing, approach], axis=1)
    return Rotation.from_rotvec(approach * quarter * np.pi / 2).as_matrix() @ matrix


class Arm:
    """The arm of a SIMPLER environment; poses are in the world frame, m."""

    def __init__(self, env: Any) -> None:
        self._env = env

    @property
    def tool(self) -> np.ndarray:
        """Position of the tool (3,)."""
        return np.array(self._env.tcp.pose.p, dtype=np.float64)

    @property
    def turn(self) -> np.ndarray:
        """Orientation of the tool (3, 3)."""
        return self._env.tcp.pose.to_transformation_matrix()[:3, :3]

    def toward(
        self, place: np.ndarray, turn: np.ndarray, grip: float, step: float = STEP,
        most: float = TURN,
    ) -> tuple[Action, float, float]:  # fmt: skip
        """One action toward a pose, and the distance (m) and angle (rad) that are left."""
        base = self._env.agent.robot.pose.to_transformation_matrix()[:3, :3]
        shift = base.T @ (place - self.tool)
        twist = Rotation.from_matrix(base.T @ turn @ self.turn.T @ base).as_rotvec()
        far, angle = float(np.linalg.norm(shift)), float(np.linalg.norm(twist))
        shift *= min(1.0, step / max(far, 1e-9))
        twist *= min(1.0, most / max(angle, 1e-9))
        return Action(np.array([*shift, *twist, grip], np.float32)), far, angle

    def go(
        self, place: np.ndarray, turn: np.ndarray, grip: float, *, near: float = 0.012,
        aligned: float = 0.08, step: float = STEP, steps: int = 45,
    ) -> Moves:  # fmt: skip
        """Move until the tool is `near` (m) and `aligned` (rad), gets no nearer, or for `steps`."""
        left: list[float] = []
        for _ in range(steps):
            action, far, angle = self.toward(place, turn, grip, step)
            left.append(far + _ARM_LENGTH * angle)
            stuck = len(left) > _PATIENCE and left[-_PATIENCE - 1] - left[-1] < _PROGRESS
            if stuck or (far < near and angle < aligned):
                return
            yield action

    def hold(self, place: np.ndarray, turn: np.ndarray, grip: float, steps: int) -> Moves:
        """Stay at a pose, with small corrections."""
        for _ in range(steps):
            yield self.toward(place, turn, grip, 0.02, 0.1)[0]
