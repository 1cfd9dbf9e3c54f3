"""Policies that need no model: the simulator's expert, random actions, and a replay.

Privileged policies have `attach(env, task, simulator)`, which gives them the environment to act in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eval.envs.contract import Simulator
from eval.envs.robots import robot_of
from eval.envs.tasks import Task
from robotics.embodiment.control import CONTROL_DIM, Action, Observation, takes_tool_control

EXECUTED = "executed"
"""Folder in a collected dataset with the executed actions of each episode."""


class ExpertPolicy:
    """The simulator's scripted controller; reads privileged state, never observations."""

    needs_observation = False

    def __init__(self) -> None:
        self._expert: Any = None

    def attach(self, env: Any, task: Task, simulator: Simulator) -> None:
        """Act in `env` from now on."""
        self._expert = simulator.make_expert(env)

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode."""
        self._expert.reset()

    def instruct(self, instruction: str) -> None:
        """Nothing to do: the expert reads the sub-task from the environment."""

    def act(self, observation: Observation | None) -> Action:
        """The expert's action in the current state."""
        return self._expert.act()


class RandomPolicy:
    """Uniform actions within small bounds, seeded per episode; never terminates. For robots that
    are not moved by their tool, within the environment's action space.

    Args:
        translation: bound on each Δxyz, m.
        rotation: bound on each axis-angle component, rad.
    """

    needs_observation = False

    def __init__(self, translation: float = 0.02, rotation: float = 0.1) -> None:
        self._high = np.array([translation] * 3 + [rotation] * 3 + [1.0])
        self._low = -self._high
        self._rng = np.random.default_rng(0)

    def attach(self, env: Any, task: Task, simulator: Simulator) -> None:
        """Act in `env` from now on."""
        if takes_tool_control(robot_of(env)):
            return
        space = env.action_space
        if not np.isfinite([space.low, space.high]).all():
            raise ValueError(
                f"policy: expected an action space with bounds, got {space}; state some, or choose "
                "another --policy"
            )
        self._low, self._high = space.low, space.high

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode, whose random numbers follow from `seed`."""
        self._rng = np.random.default_rng(seed)

    def instruct(self, instruction: str) -> None:
        """Nothing to do."""

    def act(self, observation: Observation | None) -> Action:
        """A random action."""
        middle, half = (self._high + self._low) / 2, (self._high - self._low) / 2
        control = middle + self._rng.uniform(-1.0, 1.0, half.shape) * half
        return Action(control.astype(np.float32), False)


class ReplayPolicy:
    """Repeats what was executed when a demonstration was collected, from the same seed.

    The dataset records the expert's actions, which differ from the perturbed ones that moved the
    robot; `eval.collect` keeps those in a separate folder (see `executed_path`).
    """

    needs_observation = False

    def __init__(self, directory: Path, embodiment: str) -> None:
        self._directory = directory
        self._embodiment = embodiment
        self._task: Task | None = None
        self._control = np.zeros((0, CONTROL_DIM), np.float32)
        self._terminate = np.zeros(0, bool)
        self._step = 0

    def attach(self, env: Any, task: Task, simulator: Simulator) -> None:
        """Replay episodes of `task` from now on."""
        self._task = task
        for seed in replay_seeds(self._directory, task.name)[:1]:
            self.reset("", seed)  # refuse another robot's data before the first episode

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Load the executed actions of this task and seed."""
        assert self._task is not None and seed is not None
        path = executed_path(self._directory, self._task.name, seed)
        if not path.is_file():
            raise ValueError(
                f"replay: expected an executed episode {path}, got no such file; "
                "replay a seed that was collected"
            )
        with np.load(path, allow_pickle=False) as arrays:
            self._control, self._terminate = arrays["control"], arrays["terminate"]
            recorded = str(arrays["embodiment"])
        if recorded != self._embodiment:
            raise ValueError(
                f"replay: expected an episode of embodiment {self._embodiment}, got {recorded}; "
                "replay it on the simulator it was collected in"
            )
        self._step = 0

    def instruct(self, instruction: str) -> None:
        """Nothing to do."""

    def act(self, observation: Observation | None) -> Action:
        """The next executed action; stands still and terminates once they are used up."""
        if self._step >= len(self._control):
            return Action(np.zeros(self._control.shape[1:], np.float32), True)
        action = Action(self._control[self._step], bool(self._terminate[self._step]))
        self._step += 1
        return action


def executed_path(directory: Path, task: str, seed: int) -> Path:
    """`DIR/executed/<task>-<seed>.npz`: control (T, A) float32, terminate (T,) bool, embodiment."""
    return directory / EXECUTED / f"{task}-{seed}.npz"


def replay_seeds(directory: Path, task: str) -> list[int]:
    """Seeds of `task` that can be replayed, in ascending order."""
    return sorted(
        int(path.stem.rpartition("-")[2])
        for path in (directory / EXECUTED).glob(f"{task}-*.npz")
        if path.stem.rpartition("-")[0] == task
    )
