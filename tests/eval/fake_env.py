"""A point robot behind the environment contract: milliseconds an episode, no simulator.

The tool starts at the origin and has to come near a goal drawn from the seed; in a task of two
sub-tasks it then has to reach a second one. Which episodes crash depends on the factory.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from eval.envs.tasks import Task
from robotics.embodiment.control import Action

HORIZON = 30
FORCED_SWITCH = 20
NEAR = 0.03


class PointEnv(gymnasium.Env):
    backend = "fake"
    embodiment = "embedded"

    def __init__(self, task: Task, *, crash_at: int | None = None, die_at: int | None = None):
        self.task = task
        self.horizon = HORIZON
        self.crash_at, self.die_at = crash_at, die_at
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.pictures = 0

    @property
    def instruction(self) -> str:
        return self.task.subtasks[self.subtask]

    @property
    def is_final_subtask(self) -> bool:
        return self.subtask == len(self.task.subtasks) - 1

    def advance_to_next_subtask(self) -> str:
        self.subtask = min(self.subtask + 1, len(self.task.subtasks) - 1)
        return self.instruction

    @property
    def goal(self) -> np.ndarray:
        return self.goals[self.subtask]

    def near(self) -> bool:
        return bool(np.linalg.norm(self.position - self.goal) < NEAR)

    def reset(self, *, seed: int | None = None, options: Any = None):
        super().reset(seed=seed)
        assert seed is not None
        self.env_seed, self.subtask, self.elapsed_steps = seed, 0, 0
        self.goals = self.np_random.uniform(-0.2, 0.2, (2, 3))
        self.position, self.closed = np.zeros(3), 0.0
        self.reached = dict.fromkeys(self.task.stages, False)
        return self._observe(), self._info()

    def step(self, action: np.ndarray):
        assert action.shape == (7,) and action.dtype == np.float32
        if self.crash_at is not None and self.env_seed % 10 == self.crash_at:
            raise RuntimeError("the <simulator> lost\na screw")
        if self.die_at is not None and self.env_seed % 10 == self.die_at:
            os._exit(3)
        if self.elapsed_steps == FORCED_SWITCH:
            self.advance_to_next_subtask()
        self.position = self.position + action[:3]
        self.closed = float(np.clip(action[6], 0, 1))
        self.elapsed_steps += 1
        if self.near():
            self.reached[self.task.stages[0]] = True
        info = self._info()
        return self._observe(), float(info["success"]), False, self.elapsed_steps >= HORIZON, info

    def camera_image(self) -> np.ndarray:
        self.pictures += 1
        image = np.full((256, 320, 3), 40, np.uint8)
        row, column = (128 + 400 * self.position[:2]).astype(int).clip(8, 247)
        image[row - 8 : row + 8, column - 8 : column + 8] = 220
        return image

    def _observe(self) -> dict[str, np.ndarray]:
        pose = np.concatenate([self.position, [0, 0, 0, 1]]).astype(np.float32)
        return {"tool_pose": pose, "gripper_closed": np.array([self.closed], np.float32)}

    def _info(self) -> dict[str, Any]:
        return {
            "instruction": self.instruction,
            "subtask": self.subtask,
            "success": self.is_final_subtask and self.near(),
            "stages": dict(self.reached),
            "elapsed_steps": self.elapsed_steps,
        }


class Expert:
    """Goes to the goal, at most 5 cm a step; says terminate when it is there."""

    def __init__(self, env: PointEnv) -> None:
        self.env = env.unwrapped

    def reset(self) -> None:
        pass

    def act(self) -> Action:
        way = self.env.goal - self.env.position
        length = np.linalg.norm(way)
        move = way * min(1.0, 0.05 / max(length, 1e-9))
        near = length < NEAR
        # Every fourth seed is one this expert can't do: it walks away.
        sign = -1.0 if self.env.env_seed % 4 == 2 else 1.0
        control = np.concatenate([sign * move, [0.1, 0.2, -0.3], [1.0 if near else -1.0]])
        return Action(control.astype(np.float32), bool(near))


def make(task: Task) -> PointEnv:
    return PointEnv(task)


def make_crashing(task: Task) -> PointEnv:
    return PointEnv(task, crash_at=3)


def make_dying(task: Task) -> PointEnv:
    return PointEnv(task, die_at=3)


class Flaky(PointEnv):
    """Dies or hangs at a step of seeds that end in 3, until there is a file at `FAKE_ENV_MARK`."""

    once = True
    hang = False

    def step(self, action: np.ndarray):
        mark = Path(os.environ["FAKE_ENV_MARK"])
        if self.env_seed % 10 == 3 and self.elapsed_steps == 5 and not mark.exists():
            if self.once:
                mark.touch()
            if self.hang:
                time.sleep(600)
            os._exit(3)
        return super().step(action)


def make_dying_once(task: Task) -> PointEnv:
    return Flaky(task)


def make_dying_until(task: Task) -> PointEnv:
    env = Flaky(task)
    env.once = False
    return env


def make_hanging_once(task: Task) -> PointEnv:
    env = Flaky(task)
    env.hang = True
    return env


class BadStart(PointEnv):
    """Takes its process down when it is reset to a seed that ends in 0."""

    def reset(self, *, seed: int | None = None, options: Any = None):
        if seed is not None and seed % 10 == 0:
            os._exit(4)
        return super().reset(seed=seed)


def make_bad_start(task: Task) -> PointEnv:
    return BadStart(task)


class BadReset(PointEnv):
    """Has no start state."""

    def reset(self, *, seed: int | None = None, options: Any = None):
        raise RuntimeError("the simulator lost\na screw")


def make_bad_reset(task: Task) -> PointEnv:
    return BadReset(task)


def make_other_robot(task: Task) -> PointEnv:
    env = PointEnv(task)
    env.embodiment = "google_robot"
    return env
