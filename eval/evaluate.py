"""Run every episode of a plan in worker processes, and put the results together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.backends import Backend, make_env, prepare_rendering, versions
from eval.metrics import HEADLINES, grouped, mean_of_tasks, means, summarize
from eval.policies import PolicySpec, attach, make_policy, trained
from eval.records import SCHEMA_VERSION, EpisodeLog, Record
from eval.rollout import run_episode
from eval.tasks import get_task
from eval.video import PARTIAL, VideoWatcher
from eval.workers import Outcome, Pool


@dataclass(frozen=True)
class Job:
    """One episode to run."""

    task: str
    seed: int
    index: int
    film: bool


@dataclass(frozen=True)
class EvalSetup:
    """Builds an `Evaluator` in a worker process; its `ValueError`s are about the user's input."""

    policy: PolicySpec
    backend: str
    out: str
    fps: float
    first: Job

    def __call__(self) -> Evaluator:
        prepare_rendering(self.backend)
        evaluator = Evaluator(self)
        evaluator.open(self.first.task)
        if self.policy.kind == "checkpoint" or self.first.film:
            evaluator.check_camera(self.first.seed)
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
        self._env = make_env(self._setup.backend, task)
        if self._policy is None:
            self._policy = make_policy(self._setup.policy, self._env.unwrapped.embodiment)
        attach(self._policy, self._env, task, self._setup.backend)
        self._task = name

    def check_camera(self, seed: int) -> None:
        """Render once, so that a machine that can't says so before the first episode."""
        self._env.reset(seed=seed)
        self._env.unwrapped.camera_image()

    def __call__(self, job: Job) -> Record:
        """Run an episode; its line of `episodes.jsonl`."""
        self.open(job.task)
        task, started, watchers = get_task(job.task), time.monotonic(), []
        path = Path(self._setup.out, "videos", f"{job.task}-{job.seed}.mp4")
        if job.film:
            path.parent.mkdir(parents=True, exist_ok=True)
            watchers.append(VideoWatcher(path, task.horizon, self._setup.fps))
        try:
            result = run_episode(self._env, self._policy, task, job.seed, watchers)
        except Exception:
            for watcher in watchers:
                watcher.abort()
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


def _cell(env: Any) -> dict[str, str]:
    """The name of the start state, for simulators that enumerate theirs."""
    name = getattr(env.unwrapped, "cell", None)
    return {} if name is None else {"cell": name}


@dataclass(frozen=True)
class Plan:
    """Everything that a run depends on."""

    tasks: tuple[str, ...]
    seeds: dict[str, list[int]]
    policy: PolicySpec
    checkpoint_sha256: str | None
    backend: Backend
    config: dict[str, Any]
    seed: int
    videos: int
    workers: int
    out: Path
    command: str

    def settings(self) -> dict[str, Any]:
        """What two runs must share to count as one; more episodes or workers may come later."""
        return {
            "simulator": self.backend.simulator,
            "protocol": self.backend.protocol,
            "tasks": list(self.tasks),
            "policy": self.policy.kind,
            "policy_options": self.policy.options,
            "checkpoint_sha256": self.checkpoint_sha256,
            "replay": self.policy.path if self.policy.kind == "replay" else None,
            "seed": self.seed,
            "versions": versions(self.backend),
        }

    def jobs(self) -> list[Job]:
        """Every episode, task after task."""
        return [
            Job(task, seed, index, index < self.videos)
            for task in self.tasks
            for index, seed in enumerate(self.seeds[task])
        ]


def evaluate(
    plan: Plan, log: EpisodeLog, on_episode: Callable[[Record], None] = lambda record: None
) -> None:
    """Run what `log` lacks of `plan`, appending to it; `on_episode(record)` after each."""
    pending = [job for job in plan.jobs() if not log.done(job.task, job.seed)]
    first = next(iter(pending or _showcase(plan, log)), None)
    if first is None:
        log.begin()
        return
    fps = plan.config["video"]["fps"]
    setup = EvalSetup(plan.policy, plan.backend.name, str(plan.out), fps, first)
    with _no_torn_films(plan.out), Pool(setup, plan.workers) as pool:
        log.begin()
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


@contextlib.contextmanager
def _no_torn_films(out: Path) -> Iterator[None]:
    """Remove what workers that were ended in the middle of a film leave behind."""
    try:
        yield
    finally:
        for path in (out / "videos").glob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)


def _showcase(plan: Plan, log: EpisodeLog) -> list[Job]:
    """Episodes to run once more with the camera on: a success and a failure of each task.

    Which episodes succeed is known only afterwards, and rendering all of them would cost more
    than repeating one.
    """
    jobs = []
    for task in plan.tasks if plan.videos else ():
        records = [log.records.get((task, seed)) for seed in plan.seeds[task]]
        for status in ("success", "failure"):
            those = [record for record in records if record and record["status"] == status]
            if those and not any(record.get("video") for record in those):
                jobs.append(Job(task, those[0]["seed"], those[0]["index"], film=True))
    return jobs


def _record(outcome: Outcome) -> Record:
    if outcome.error is None:
        return outcome.value
    job = outcome.job
    return {
        "status": "error", "index": job.index, "task": job.task, "seed": job.seed,
        "error": outcome.error, "video": None,
    }  # fmt: skip


def results(plan: Plan, log: EpisodeLog) -> dict[str, Any]:
    """What `results.json` holds."""
    wanted = {task: [log.records.get((task, seed)) for seed in plan.seeds[task]]
              for task in plan.tasks}  # fmt: skip
    ran = {task: [record for record in found if record] for task, found in wanted.items()}
    tasks = {task: summarize(task, found) for task, found in ran.items()}
    variants = _add_cells(plan.backend.protocol, ran, tasks)
    return {
        "schema_version": SCHEMA_VERSION,
        "simulator": plan.backend.simulator,
        "simulator_note": plan.backend.note,
        "protocol": plan.backend.protocol,
        "complete": all(record for found in wanted.values() for record in found),
        "policy": {
            "kind": plan.policy.kind,
            "path": plan.policy.path or None,
            "options": plan.policy.options,
            "checkpoint_sha256": plan.checkpoint_sha256,
            "training": trained(plan.policy),
        },
        "versions": versions(plan.backend),
        "config": plan.config,
        "seed": plan.seed,
        "seeds": plan.seeds,
        "command": plan.command,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "tasks": tasks,
        "mean": mean_of_tasks(tasks),
        "means": means(tasks, variants),
        "errors": sum(summary["errors"] for summary in tasks.values()),
    }


def _add_cells(
    protocol: str | None, ran: dict[str, list[Record]], tasks: dict[str, dict[str, Any]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Add rates by `variants` and by `cells` to the tasks' summaries, where a grid has them.

    Returns the rates by task, headline and variant, for the means. A cell that a protocol runs
    twice is one cell of two episodes.
    """
    from eval.simpler_backend.cells import cell_at

    found: dict[str, dict[str, dict[str, Any]]] = {}
    if protocol is None or protocol == "prepackaged":
        return found
    for task, records in ran.items():
        cells = [cell_at(task, protocol, record["seed"]) for record in records]
        tasks[task]["cells"] = grouped(records, [cell.start for cell in cells])
        variants = [cell.variant for cell in cells]
        if all(variants):
            found[task] = {
                headline: grouped(records, variants, metric)
                for headline, metric in zip(HEADLINES, ("success", "success_any"), strict=True)
            }
            tasks[task]["variants"] = found[task]["success_last_step"]
    return found
