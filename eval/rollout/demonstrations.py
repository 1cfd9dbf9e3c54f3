"""Demonstrations of the scripted expert under perturbed execution, attempt by attempt.

What is executed is the expert's action plus Gaussian noise, what is recorded is the expert's own
action at the state the noise led to (DART, Laskey et al. 2017): a policy trained on it has seen
how to recover. Likewise an episode sometimes goes on after the expert said "terminate", so that
the data hold more than one step that says so.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.envs.contract import Backend
from eval.envs.registry import make_env, prepare_rendering, versions
from eval.envs.tasks import get_task, train_seed
from eval.policies.make import ExpertPolicy, executed_path
from eval.policies.spec import EXECUTED
from eval.rollout.episode import run_episode
from eval.rollout.watchdog import Beating
from eval.rollout.workers import Outcome, Pool
from robotics.data.episodes import EpisodeRecorder
from robotics.embodiment.control import Action, Observation

MOST_DELAYS = 3
"""A terminate is held back at most this many times in a row."""
MOST_FAILURES = (20, 3)
"""A task is given up after 20 + 3 failures per wanted episode: its expert is broken."""


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
    """Probability of holding a terminate back, each time, up to `MOST_DELAYS` in a row."""


class PerturbedExpert(ExpertPolicy):
    """The expert with perturbed execution; `meant` is its own action of the last step."""

    def __init__(self, perturbation: Perturbation) -> None:
        super().__init__()
        self._perturbation = perturbation
        self._rng = np.random.default_rng(0)
        self._delays = 0
        self.meant = Action(np.zeros(7, np.float32))

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode with its own noise, which follows from its seed alone."""
        super().reset(instruction, seed)
        self._rng = np.random.default_rng([0xDA27, seed or 0])
        self._delays = 0

    def act(self, observation: Observation | None) -> Action:
        """The expert's action as it is to be executed."""
        self.meant = super().act(observation)
        p = self._perturbation
        # Drawn at every step, so that one choice does not shift the noise of all later steps.
        noise = self._rng.normal(size=6) * ([p.position_noise] * 3 + [p.rotation_noise] * 3)
        perturbed = self._rng.random() < p.noise_probability
        hold_back = self._rng.random() < p.terminate_delay and self._delays < MOST_DELAYS
        self._delays = self._delays + 1 if self.meant.terminate and hold_back else 0
        control = np.array(self.meant.control, dtype=np.float32)
        if perturbed:
            control[:6] += noise.astype(np.float32)
        return Action(control, self.meant.terminate and not hold_back)


@dataclass
class DemonstrationWatcher:
    """Records the observation, what the expert meant, and what was executed."""

    policy: PerturbedExpert
    needs_image: bool = True
    recorder: EpisodeRecorder = field(default_factory=EpisodeRecorder)
    executed: list[Action] = field(default_factory=list)

    def step(
        self, observation: Observation, action: Action, instruction: str, info: dict[str, Any]
    ) -> None:
        """Keep one step."""
        self.recorder.add(observation, self.policy.meant, instruction, float(info["success"]))
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
    """A task to try the simulator with, so that one that can't start says so at once."""

    def __call__(self, start: int = 0) -> Collector:
        prepare_rendering(self.backend)
        collector = Collector(self)
        collector.open(self.first)
        return collector


class Collector:
    """Runs one attempt per call and writes it to the dataset when it succeeds."""

    def __init__(self, setup: CollectSetup) -> None:
        from robotics.data.rlds import EpisodeWriter

        self._setup = setup
        self._writer = EpisodeWriter(setup.out, provenance=setup.provenance)
        self._policy = PerturbedExpert(setup.perturbation)
        self._env: Any = None
        self._task = ""

    def open(self, name: str) -> None:
        """Have the environment of task `name` ready, its simulator started."""
        if self._task == name:
            return
        self.close()
        task = get_task(name)
        self._env = make_env(self._setup.backend, task)
        if begin := getattr(self._env.unwrapped, "start_simulator", None):
            begin()
        self._task = name
        self._policy.attach(self._env, task, self._setup.backend)

    def __call__(self, job: tuple[str, int], beat: Callable[[], None]) -> dict[str, Any]:
        """Attempt (task, seed): {"kept": bool, "steps": int}."""
        task, seed = get_task(job[0]), job[1]
        self.open(task.name)
        watcher = DemonstrationWatcher(self._policy)
        try:
            result = run_episode(self._env, self._policy, task, seed, [watcher, Beating(beat)])
        except Exception:
            self.close()  # its state can't be trusted any more
            raise
        key = episode_key(task.name, seed)
        if result.success:
            embodiment = self._env.unwrapped.embodiment
            save_executed(Path(self._setup.out), task.name, seed, watcher.executed, embodiment)
            episode = watcher.recorder.build(success=True)
            self._writer.write(key, episode, task=task.name, seed=seed)
        else:
            self._writer.discard(key, task=task.name, seed=seed, steps=result.steps)
        return {"kept": result.success, "steps": result.steps}

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            self._env.close()
        self._env, self._task = None, ""


def episode_key(task: str, seed: int) -> str:
    """The dataset's name for an episode."""
    return f"{task}-{seed}"


def save_executed(
    out: Path, task: str, seed: int, executed: Sequence[Action], embodiment: str
) -> None:
    """Write what a replay needs, atomically."""
    path = executed_path(out, task, seed)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        control=np.stack([action.control for action in executed]).astype(np.float32),
        terminate=np.array([action.terminate for action in executed], dtype=bool),
        embodiment=np.array(embodiment),
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(buffer.getvalue())
    partial.replace(path)


class Schedule:
    """Which attempts to make: per task, seeds in order, until enough of them succeeded.

    No more attempts are under way than successes are missing, so that the episodes kept are the
    first `wanted` successes in the order of seeds, however many workers there are.
    """

    def __init__(self, wanted: dict[str, int], seed: int, out: Path, done: set[str]) -> None:
        self.wanted = wanted
        self.kept = dict.fromkeys(wanted, 0)
        self.failed = dict.fromkeys(wanted, 0)
        self.errors: list[str] = []
        self.resumed = 0
        self.current = ""
        """Task of the latest attempt."""
        self._seed, self._out, self._done = seed, out, done
        self._next = dict.fromkeys(wanted, 0)
        self._flying = dict.fromkeys(wanted, 0)

    def next_job(self) -> tuple[str, int] | None:
        """The next (task, seed); task after task, since a new task needs a new environment."""
        for task in self.wanted:
            while self._open(task):
                seed = train_seed(self._seed, self._next[task])
                self._next[task] += 1
                if episode_key(task, seed) not in self._done:
                    self._flying[task] += 1
                    return task, seed
                self.resumed += 1
                kept = executed_path(self._out, task, seed).exists()
                self._count(task, kept)
        return None

    def record(self, outcome: Outcome) -> None:
        """Take note of what an attempt came to."""
        task, seed = outcome.job
        self._flying[task] -= 1
        if outcome.error:
            self.errors.append(f"{task} seed {seed}: {outcome.error}")
        self.current = task
        self._count(task, outcome.error is None and outcome.value["kept"])

    @property
    def short(self) -> list[str]:
        """Tasks that were given up."""
        return [task for task in self.wanted if self.kept[task] < self.wanted[task]]

    def _open(self, task: str) -> bool:
        few, share = MOST_FAILURES
        missing = self.wanted[task] - self.kept[task] - self._flying[task]
        return missing > 0 and self.failed[task] < few + share * self.wanted[task]

    def _count(self, task: str, kept: bool) -> None:
        (self.kept if kept else self.failed)[task] += 1


def starts(backend: Backend) -> str:
    """How the starts of demonstrations differ from those that are tested, in one line."""
    if backend.protocol is None:
        return "training seeds 0 to 999,999; tests use 1,000,000 and up"
    from eval.envs.simpler.training import STARTS

    return STARTS


def collect(
    wanted: dict[str, int],
    out: Path,
    *,
    backend: Backend,
    perturbation: Perturbation,
    seed: int = 0,
    workers: int = 1,
    on_attempt: Callable[[Schedule], None] = lambda schedule: None,
) -> Schedule:
    """Collect `wanted[task]` successful episodes of each task into the dataset at `out`.

    Continues what an earlier, interrupted or smaller run left there. `workers=0` stays in this
    process. `on_attempt(schedule)` is called after every attempt.

    Raises:
        ValueError: `out` holds other data, or data collected under other settings.
    """
    from robotics.data.rlds import EpisodeWriter

    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a directory; got the file {out}; remedy: choose another")
    for task in wanted:
        train_seed(seed, wanted[task] - 1)
    if backend.protocol not in (None, "train"):
        raise ValueError(
            f"backend: expected SIMPLER's training starts (protocol train); got {backend.name}, "
            "which are its test cells; remedy: give --backend simpler alone"
        )
    provenance = {
        "simulator": backend.simulator,
        "policy": "scripted expert",
        "position_noise": perturbation.position_noise,
        "rotation_noise": perturbation.rotation_noise,
        "noise_probability": perturbation.noise_probability,
        "terminate_delay": perturbation.terminate_delay,
        "versions": {k: v for k, v in versions(backend).items() if k not in ("python", "torch")},
    }
    if backend.protocol is not None:
        provenance["starts"] = starts(backend)
    prepare_rendering(backend.name)
    writer = EpisodeWriter(out, provenance=provenance)
    (out / EXECUTED).mkdir(exist_ok=True)
    schedule = Schedule(wanted, seed, out, writer.done())
    setup = CollectSetup(str(out), backend.name, perturbation, provenance, next(iter(wanted)))
    with Pool(setup, workers) as pool:
        for outcome in pool.run(schedule.next_job):
            schedule.record(outcome)
            on_attempt(schedule)
    if sum(schedule.kept.values()):
        writer.finalize()
    return schedule
