"""Demonstrations of the scripted expert under perturbed execution, attempt by attempt.

The expert's action plus Gaussian noise is executed; the expert's action at the state that the noise
led to is recorded (DART, Laskey et al. 2017), so a policy trained on it has seen how to recover.
Likewise an episode sometimes continues after the expert's "terminate", so that the data hold more
than one such step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.envs.contract import Limits
from eval.envs.robots import robot_of
from eval.policies.scripted import ExpertPolicy, executed_path
from eval.rollout.run import EpisodeRunner
from robotics.data.episodes import EpisodeRecorder
from robotics.embodiment.control import Action, Observation
from selfflow_wm.files import atomic_open

MAX_DELAYS = 3
"""A terminate is delayed at most this many times in a row."""


@dataclass(frozen=True)
class Perturbation:
    """How the executed action differs from the expert's."""

    position_noise: float = 0.012
    """Standard deviation of the noise on each Δxyz, m."""
    rotation_noise: float = 0.03
    """Standard deviation of the noise on each axis-angle component, rad."""
    noise_probability: float = 0.3
    """Probability that a step is perturbed. Later actions of a chunk correct perturbations that
    its first observation cannot show: noise at every step would make most of them unpredictable,
    and a policy that samples them faithfully would shake."""
    terminate_delay: float = 0.5
    """Probability of delaying a terminate, each time, up to `MAX_DELAYS` in a row."""


class PerturbedExpert(ExpertPolicy):
    """The expert with perturbed execution; `intended` is its unperturbed last action."""

    def __init__(self, perturbation: Perturbation) -> None:
        super().__init__()
        self._perturbation = perturbation
        self._rng = np.random.default_rng(0)
        self._delays = 0
        self.intended = Action(np.zeros(7, np.float32))

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode, whose noise depends on its seed alone."""
        super().reset(instruction, seed)
        self._rng = np.random.default_rng([0xDA27, seed or 0])
        self._delays = 0

    def act(self, observation: Observation | None) -> Action:
        """The expert's action as it is to be executed."""
        self.intended = super().act(observation)
        p = self._perturbation
        # Drawn at every step, so that one decision does not shift the noise of all later steps.
        noise = self._rng.normal(size=6) * ([p.position_noise] * 3 + [p.rotation_noise] * 3)
        perturbed = self._rng.random() < p.noise_probability
        delay = self._rng.random() < p.terminate_delay and self._delays < MAX_DELAYS
        self._delays = self._delays + 1 if self.intended.terminate and delay else 0
        control = np.array(self.intended.control, dtype=np.float32)
        if perturbed:
            control[:6] += noise.astype(np.float32)
        return Action(control, self.intended.terminate and not delay)


@dataclass
class DemonstrationWatcher:
    """Records observations, the expert's intended actions, and the executed actions."""

    intended: Callable[[], Action]
    """The expert's unperturbed action of the last step."""
    needs_image: bool = True
    recorder: EpisodeRecorder = field(default_factory=EpisodeRecorder)
    executed: list[Action] = field(default_factory=list)

    def step(
        self, observation: Observation, action: Action, instruction: str, info: dict[str, Any]
    ) -> None:
        """Keep one step."""
        self.recorder.add(observation, self.intended(), instruction, float(info["success"]))
        self.executed.append(action)

    def end(self, observation: Observation, info: dict[str, Any]) -> None:
        """The last observation has no action and is not recorded, as in RT-1."""


@dataclass(frozen=True)
class CollectSetup:
    """Builds a `Collector` in a worker process."""

    out: str
    backend: str
    perturbation: Perturbation
    provenance: dict[str, Any]
    first: str
    """The task that the worker opens first, so that a simulator that can't start fails at once."""
    limits: Limits | None = None

    def __call__(self, start: int = 0) -> Collector:
        collector = Collector(self)
        collector.open(self.first)
        return collector


class Collector(EpisodeRunner):
    """One attempt per call, written to the dataset when it succeeds."""

    def __init__(self, setup: CollectSetup) -> None:
        from robotics.data.rlds import EpisodeWriter

        super().__init__(
            setup.backend, lambda robot: PerturbedExpert(setup.perturbation), setup.limits
        )
        self._out = Path(setup.out)
        self._writer = EpisodeWriter(setup.out, provenance=setup.provenance)

    def __call__(self, job: tuple[str, int], beat: Callable[[], None]) -> dict[str, Any]:
        """Attempt (task, seed): {"kept": bool}."""
        task, seed = job
        key = episode_key(task, seed)
        if key in self._writer:  # an earlier try crashed after writing it
            return {"kept": executed_path(self._out, task, seed).exists()}
        watcher = DemonstrationWatcher(lambda: self.policy.intended)
        result = self.run(task, seed, [watcher], beat)
        if result.success:
            embodiment = robot_of(self.env).embodiment
            save_executed(self._out, task, seed, watcher.executed, embodiment)
            self._writer.write(key, watcher.recorder.build(success=True), task=task, seed=seed)
        else:
            self._writer.discard(key, task=task, seed=seed, steps=result.steps)
        return {"kept": result.success}


def episode_key(task: str, seed: int) -> str:
    """The dataset's name for an episode."""
    return f"{task}-{seed}"


def save_executed(
    out: Path, task: str, seed: int, executed: Sequence[Action], embodiment: str
) -> None:
    """Write what a replay needs, atomically."""
    with atomic_open(executed_path(out, task, seed)) as file:
        np.savez(
            file,
            control=np.stack([action.control for action in executed]).astype(np.float32),
            terminate=np.array([action.terminate for action in executed], dtype=bool),
            embodiment=np.array(embodiment),
        )
