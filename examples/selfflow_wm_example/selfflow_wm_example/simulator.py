"""A minimal simulator: a point that has to reach a goal, and an expert that moves it there."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from eval.envs.contract import Limits, Simulator
from eval.envs.tasks import Task
from robotics.embodiment.control import Action

REACH = Task(
    name="reach",
    horizon=30,
    subtasks=("reach the light square",),
    stages=("near",),
    success="the point is within 2 cm of the goal",
    robot="point",
)
NEAR = 0.02
"""m from the goal."""


class Point(Simulator):
    """`--backend point`."""

    name = "point"
    title = "the point simulator"
    note = "an example"
    tasks = {"reach": REACH}

    def make_env(self, task: Task, limits: Limits | None = None) -> PointEnv:
        return PointEnv(task)

    def make_expert(self, env: Any) -> PointExpert:
        return PointExpert(env.unwrapped)


class PointEnv(gymnasium.Env):
    """The point starts at the origin; the goal follows from the seed."""

    embodiment = "embedded"
    is_final_subtask = True

    def __init__(self, task: Task) -> None:
        self.task, self.instruction = task, task.subtasks[0]
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.observation_space = spaces.Dict(
            tool_pose=spaces.Box(-5.0, 5.0, (7,), np.float32),
            gripper_closed=spaces.Box(0.0, 1.0, (1,), np.float32),
        )

    def advance_to_next_subtask(self) -> str:
        """There is only one sub-task."""
        return self.instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.goal = self.np_random.uniform(-0.2, 0.2, 3)
        self.position, self.steps, self.was_near = np.zeros(3), 0, False
        return self._observe(), self._info()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.position = self.position + action[:3]
        self.steps += 1
        info = self._info()
        over = self.steps >= self.task.horizon
        return self._observe(), float(info["success"]), False, over, info

    def camera_image(self) -> np.ndarray:
        """The view from above, uint8 (256, 320, 3): the goal grey, the point white."""
        image = np.full((256, 320, 3), 40, np.uint8)
        for place, colour in ((self.goal, 150), (self.position, 255)):
            row, column = (np.array([128, 160]) + 400 * place[:2]).astype(int).clip(8, 247)
            image[row - 8 : row + 8, column - 8 : column + 8] = colour
        return image

    def _observe(self) -> dict[str, np.ndarray]:
        pose = np.concatenate([self.position, [0, 0, 0, 1]]).astype(np.float32)
        return {"tool_pose": pose, "gripper_closed": np.zeros(1, np.float32)}

    def _info(self) -> dict[str, Any]:
        near = bool(np.linalg.norm(self.goal - self.position) < NEAR)
        self.was_near |= near
        return {
            "instruction": self.instruction, "subtask": 0, "success": near,
            "stages": {"near": self.was_near}, "elapsed_steps": self.steps,
        }  # fmt: skip


class PointExpert:
    """Moves straight to the goal, at most 5 cm per step, and terminates there."""

    def __init__(self, env: PointEnv) -> None:
        self._env = env

    def reset(self) -> None:
        """Nothing to reset."""

    def act(self) -> Action:
        """The next action in the simulator's current state."""
        way = self._env.goal - self._env.position
        length = float(np.linalg.norm(way))
        move = way * min(1.0, 0.05 / max(length, 1e-9))
        return Action(np.concatenate([move, np.zeros(4)]).astype(np.float32), length < NEAR)
