"""Run every episode of a plan in worker processes and record the outcomes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eval.envs.contract import Limits
from eval.envs.registry import find_simulator
from eval.envs.robots import robot_of
from eval.policies.make import make_policy
from eval.policies.spec import PolicySpec
from eval.results.records import EpisodeLog, Record, write_json
from eval.rollout.episode import EpisodeResult, Watcher, run_episode
from eval.rollout.executors import make_pool
from eval.rollout.plan import EpisodePlan, Job
from eval.rollout.workers import Outcome
from robotics.embodiment.control import Policy
from robotics.embodiment.robot import Robot

CHECKED = 8
"""Start states that workers try before their first episode, each another one, so that a bad state
makes one worker fail to start and not the whole run."""


class VideoWatcher(Watcher, Protocol):
    """A watcher that writes a video, which gets its name once it is complete."""

    def abort(self) -> None:
        """Remove what was written of an episode that did not end."""
        ...


MakeVideo = Callable[[Path, int], VideoWatcher]
"""Called with the file and the task's horizon; picklable. Unfinished files start with a dot."""


class EpisodeRunner:
    """Holds a simulator's environment of one task at a time, and a policy.

    Args:
        backend: names the simulator.
        policy: builds the policy for the environments of a robot.
        limits: passed on to a simulator that runs in a child process.
    """

    def __init__(
        self, backend: str, policy: Callable[[Robot], Policy], limits: Limits | None = None
    ) -> None:
        self.simulator = find_simulator(backend)
        self.simulator.prepare()
        self.policy: Any = None
        self.env: Any = None
        self._make_policy, self._limits, self._task = policy, limits, ""

    def open(self, name: str) -> None:
        """Make the environment of task `name` and the policy, and start the simulator.

        If the simulator can't start, the worker then fails before its first episode, rather than
        every episode failing.
        """
        if self._task == name:
            return
        self.close()
        task = self.simulator.tasks[name]
        self.env = self.simulator.make_env(task, self._limits)
        if self.policy is None:
            self.policy = self._make_policy(robot_of(self.env))
        if attach := getattr(self.policy, "attach", None):  # a privileged policy's
            attach(self.env, task, self.simulator)
        if begin := getattr(self.env.unwrapped, "start_simulator", None):
            begin()
        self._task = name

    def run(
        self, name: str, seed: int, watchers: list[Watcher], beat: Callable[[], None]
    ) -> EpisodeResult:
        """Run one episode; after an exception everything is rebuilt for the next."""
        try:
            self.open(name)
            task = self.simulator.tasks[name]
            return run_episode(self.env, self.policy, task, seed, watchers, beat)
        except Exception:
            self.close()  # its state can't be trusted any more
            self.policy = None
            raise

    def close(self) -> None:
        """Close the environment."""
        if self.env is not None:
            self.env.close()
        self.env, self._task = None, ""


@dataclass(frozen=True)
class EvalSetup:
    """Builds an `Evaluator` in a worker process; its `ValueError`s are about the user's input."""

    policy: PolicySpec
    backend: str
    out: str
    first: tuple[Job, ...]
    """The first few episodes; each launch of a worker tries a different one."""
    video: MakeVideo | None = None
    limits: Limits | None = None

    def __call__(self, start: int = 0) -> Evaluator:
        job = self.first[start % len(self.first)]
        evaluator = Evaluator(self)
        evaluator.open(job.task)
        if self.policy.kind in ("checkpoint", "remote") or any(job.video for job in self.first):
            # Render once, so that a machine that can't fails before the first episode.
            evaluator.env.reset(seed=job.seed)
            evaluator.env.unwrapped.camera_image()
        return evaluator


class Evaluator(EpisodeRunner):
    """One episode per call."""

    def __init__(self, setup: EvalSetup) -> None:
        self._setup = setup
        super().__init__(
            setup.backend, lambda robot: make_policy(setup.policy, robot), setup.limits
        )

    def __call__(self, job: Job, beat: Callable[[], None]) -> Record:
        """Run an episode; its line of `episodes.jsonl`."""
        started, videos = time.monotonic(), []
        path = Path(self._setup.out, "videos", f"{job.task}-{job.seed}.mp4")
        if job.video and self._setup.video:
            path.parent.mkdir(parents=True, exist_ok=True)
            videos.append(self._setup.video(path, self.simulator.tasks[job.task].horizon))
        try:
            result = self.run(job.task, job.seed, [*videos], beat)
        except Exception:
            for video in videos:
                video.abort()
            raise
        return {
            "status": "success" if result.success else "failure",
            "index": job.index,
            **result.to_record(),
            **_cell(self.env),
            "wall_s": round(time.monotonic() - started, 3),
            "video": f"videos/{path.name}" if videos else None,
        }


def _cell(env: Any) -> dict[str, Any]:
    """The name of the start state, for simulators that enumerate theirs, and the stand-ins in it,
    if any."""
    scene = env.unwrapped
    found = {"cell": getattr(scene, "cell", None), "stand_ins": getattr(scene, "stand_ins", None)}
    return {name: value for name, value in found.items() if value}


def evaluate(
    plan: EpisodePlan,
    log: EpisodeLog,
    video: MakeVideo | None = None,
    on_episode: Callable[[Record], None] = lambda record: None,
) -> None:
    """Run the episodes of `plan` that `log` lacks and append them; `on_episode(record)` after each.

    video: records an episode; None records none.
    """
    pending = [job for job in plan.jobs() if not log.done(job.task, job.seed)]
    first = tuple((pending or _videos_to_record(plan, log))[:CHECKED])
    if not first:
        _begin(plan, log)
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_removing_partial_videos(plan.out))
        policy = plan.policy
        if plan.batch_inference:
            from eval.policies.inference import shared

            policy = stack.enter_context(shared(policy, plan.batch_inference))
        backend = plan.simulator.backend
        setup = EvalSetup(policy, backend, str(plan.out), first, video, plan.limits)
        pool = stack.enter_context(
            make_pool(plan.executor, setup, plan.workers, limits=plan.limits, retries=plan.retries)
        )
        _begin(plan, log)
        # Another run may have done some while this one waited for its workers.
        queue = iter([job for job in pending if not log.done(job.task, job.seed)])
        for outcome in pool.run(lambda: next(queue, None)):
            record = _record(outcome)
            log.append(record)
            on_episode(record)
        queue = iter(_videos_to_record(plan, log))
        for outcome in pool.run(lambda: next(queue, None)):
            record, known = _record(outcome), log.records[outcome.job.task, outcome.job.seed]
            # An episode is a function of its seed. If it ended differently this time, the video
            # does not show what was counted and is left out.
            if record["status"] == known["status"]:
                log.append({**known, "video": record["video"]})


def _begin(plan: EpisodePlan, log: EpisodeLog) -> None:
    log.begin()
    write_json(plan.out / "plan.json", plan.describe())


@contextlib.contextmanager
def _removing_partial_videos(out: Path) -> Iterator[None]:
    """Remove the partial videos of workers that were killed while writing them."""
    try:
        yield
    finally:
        for path in (out / "videos").glob(".*"):
            path.unlink(missing_ok=True)


def _videos_to_record(plan: EpisodePlan, log: EpisodeLog) -> list[Job]:
    """Episodes to rerun with video: those requested by number, and a success and a failure of each
    task.

    Which episodes succeed is known only afterwards, and rendering all of them would cost more than
    repeating one. A share records no extra ones: with many shares that would be most of the work.
    """
    jobs = []
    for task, seeds in plan.seeds.items():
        records = [log.records[task, seed] for seed in seeds if (task, seed) in log.records]
        ended = [record for record in records if record["status"] != "error"]
        chosen = [r for r in ended if r["seed"] in plan.videos_of and not r.get("video")]
        for status in ("success", "failure") if plan.videos and not plan.shard else ():
            those = [record for record in ended if record["status"] == status]
            if those and not any(r.get("video") or r in chosen for r in those):
                chosen.append(those[0])
        jobs += [Job(task, record["seed"], record["index"], video=True) for record in chosen]
    return jobs


def _record(outcome: Outcome) -> Record:
    """The line of `episodes.jsonl`; `retry_errors` lists the errors of earlier tries."""
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
