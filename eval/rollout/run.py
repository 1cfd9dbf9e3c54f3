"""Run every episode of a plan in worker processes, and write down what each came to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.envs.registry import make_env, prepare_rendering
from eval.envs.tasks import get_task
from eval.policies.inference import shared
from eval.policies.make import attach, make_policy
from eval.policies.spec import PolicySpec
from eval.report.video import PARTIAL, VideoWatcher
from eval.results.records import EpisodeLog, Record, write_json
from eval.rollout.episode import run_episode
from eval.rollout.plan import Job, Plan
from eval.rollout.watchdog import Beating, Limits
from eval.rollout.workers import Outcome, Pool

CHECKED = 8
"""Start states that workers try before their first episode: one each, so that a bad one stops
one worker's start and not the run."""


@dataclass(frozen=True)
class EvalSetup:
    """Builds an `Evaluator` in a worker process; its `ValueError`s are about the user's input."""

    policy: PolicySpec
    backend: str
    out: str
    fps: float
    first: tuple[Job, ...]
    """The first few episodes; each start of a worker tries another one."""
    limits: Limits | None = None

    def __call__(self, start: int = 0) -> Evaluator:
        job = self.first[start % len(self.first)]
        prepare_rendering(self.backend)
        evaluator = Evaluator(self)
        evaluator.open(job.task)
        evaluator.start_simulator()
        if self.policy.kind in ("checkpoint", "remote") or any(job.film for job in self.first):
            evaluator.check_camera(job.seed)
        return evaluator


class Evaluator:
    """Holds an environment and a policy; one episode per call."""

    def __init__(self, setup: EvalSetup) -> None:
        self._setup = setup
        self._policy: Any = None
        self._env: Any = None
        self._task = ""

    def open(self, name: str) -> None:
        """Have the environment of task `name` and the policy ready."""
        if self._task == name:
            return
        self.close()
        task = get_task(name)
        self._env = make_env(self._setup.backend, task, self._setup.limits)
        if self._policy is None:
            self._policy = make_policy(self._setup.policy, self._env.unwrapped.embodiment)
        attach(self._policy, self._env, task, self._setup.backend)
        self._task = name

    def start_simulator(self) -> None:
        """Start a simulator in a process of its own, so that one that can't start is the worker's
        failure, before the first episode, and not every episode's."""
        if begin := getattr(self._env.unwrapped, "start_simulator", None):
            begin()

    def check_camera(self, seed: int) -> None:
        """Render once, so that a machine that can't says so before the first episode."""
        self._env.reset(seed=seed)
        self._env.unwrapped.camera_image()

    def __call__(self, job: Job, beat: Callable[[], None]) -> Record:
        """Run an episode; its line of `episodes.jsonl`."""
        started, films = time.monotonic(), []
        task = get_task(job.task)
        path = Path(self._setup.out, "videos", f"{job.task}-{job.seed}.mp4")
        if job.film:
            path.parent.mkdir(parents=True, exist_ok=True)
            films.append(VideoWatcher(path, task.horizon, self._setup.fps))
        try:
            self.open(job.task)
            watchers = [*films, Beating(beat)]
            result = run_episode(self._env, self._policy, task, job.seed, watchers)
        except Exception:
            for film in films:
                film.abort()
            self.close()  # its state can't be trusted any more
            self._policy = None
            raise
        return {
            "status": "success" if result.success else "failure",
            "index": job.index,
            **result.to_record(),
            **_cell(self._env),
            "wall_s": round(time.monotonic() - started, 3),
            "video": f"videos/{path.name}" if job.film else None,
        }

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            self._env.close()
        self._env, self._task = None, ""


def _cell(env: Any) -> dict[str, Any]:
    """The name of the start state, for simulators that enumerate theirs, and what was replaced in
    it, where something was."""
    scene = env.unwrapped
    found = {"cell": getattr(scene, "cell", None), "stand_ins": getattr(scene, "stand_ins", None)}
    return {name: value for name, value in found.items() if value}


def evaluate(
    plan: Plan, log: EpisodeLog, on_episode: Callable[[Record], None] = lambda record: None
) -> None:
    """Run what `log` lacks of `plan`, appending to it; `on_episode(record)` after each."""
    pending = [job for job in plan.jobs() if not log.done(job.task, job.seed)]
    first = tuple((pending or _showcase(plan, log))[:CHECKED])
    if not first:
        _begin(plan, log)
        return
    fps = plan.config["video"]["fps"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_no_torn_films(plan.out))
        policy = stack.enter_context(shared(plan.policy, plan.batch_inference))
        setup = EvalSetup(policy, plan.backend.name, str(plan.out), fps, first, plan.limits)
        pool = stack.enter_context(make_pool(plan, setup))
        _begin(plan, log)
        queue = iter(pending)
        for outcome in pool.run(lambda: next(queue, None)):
            record = _record(outcome)
            log.append(record)
            on_episode(record)
        queue = iter(_showcase(plan, log))
        for outcome in pool.run(lambda: next(queue, None)):
            record, known = _record(outcome), log.records[outcome.job.task, outcome.job.seed]
            # An episode is a function of its seed; if it was not this time, the film shows
            # something else than the result, and is left out.
            if record["status"] == known["status"]:
                log.append({**known, "video": record["video"]})


def make_pool(plan: Plan, setup: EvalSetup) -> Any:
    """The executor that the plan names; see `Pool`."""
    if plan.executor == "ray":
        from eval.rollout.ray_pool import RayPool

        return RayPool(setup, plan.workers, limits=plan.limits, retries=plan.retries)
    return Pool(setup, plan.workers, limits=plan.limits, retries=plan.retries)


def _begin(plan: Plan, log: EpisodeLog) -> None:
    log.begin()
    write_json(plan.out / "plan.json", plan.describe())


@contextlib.contextmanager
def _no_torn_films(out: Path) -> Iterator[None]:
    """Remove what workers that were ended in the middle of a film leave behind."""
    try:
        yield
    finally:
        for path in (out / "videos").glob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)


def _showcase(plan: Plan, log: EpisodeLog) -> list[Job]:
    """Episodes to run once more with the camera on: those asked for by number, and a success and a
    failure of each task.

    Which episodes succeed is known only afterwards, and rendering all of them would cost more
    than repeating one. A share films none extra: with many of them that would be most of the work.
    """
    jobs = []
    for task, seeds in plan.seeds.items():
        records = [log.records[task, seed] for seed in seeds if (task, seed) in log.records]
        ended = [record for record in records if record["status"] != "error"]
        chosen = [r for r in ended if r["seed"] in plan.films and not r.get("video")]
        for status in ("success", "failure") if plan.videos and not plan.shard else ():
            those = [record for record in ended if record["status"] == status]
            if those and not any(r.get("video") or r in chosen for r in those):
                chosen.append(those[0])
        jobs += [Job(task, record["seed"], record["index"], film=True) for record in chosen]
    return jobs


def _record(outcome: Outcome) -> Record:
    """The line of `episodes.jsonl`; `retry_errors` says why each earlier try was lost."""
    job = outcome.job
    tries: dict[str, Any] = {"retries": len(outcome.retried)}
    if outcome.retried:
        tries["retry_errors"] = list(outcome.retried)
    if outcome.error is None:
        return {**outcome.value, **tries}
    return {
        "status": "error", "index": job.index, "task": job.task, "seed": job.seed,
        "error": outcome.error, **tries, "video": None,
    }  # fmt: skip
