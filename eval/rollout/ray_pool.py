"""Episodes as calls of Ray actors, on this machine or a cluster; same interface as `Pool`.

Each actor is a pool of one worker process, which handles crashes, hangs and retries exactly as
without Ray; only the loss of an actor itself is handled here.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from eval.envs.contract import Limits
from eval.rollout.workers import Attempt, Outcome, Pool, Setup, WorkerSetupError

STARTS = 3
"""How often starting Ray is tried."""


def require_ray() -> Any:
    """Import ray; `ValueError` naming the extra where it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry

    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ValueError(
            f"executor: expected Ray to be installed, got none ({error}); "
            "pip install 'selfflow-wm[ray]', or leave --executor out"
        ) from None


class Host:
    """The actor: one worker process, one job at a time.

    path: `sys.path` of the run, so that workers find its modules as spawned processes would.
    """

    def __init__(
        self, setup: Setup, limits: Limits, retries: int, start: int, path: Sequence[str]
    ) -> None:
        sys.path += [folder for folder in path if folder not in sys.path]
        self._pool = Pool(setup, 1, limits=limits, retries=retries, first_start=start)

    def open(self) -> str | None:
        """Start the worker; returns what the user has to fix, or None."""
        try:
            self._pool.__enter__()
        except WorkerSetupError as error:
            return str(error)
        return None

    def run(self, job: Any) -> Outcome | str:
        """Do a job; returns an error message if the worker could not be restarted."""
        jobs = iter([job])
        try:
            (outcome,) = self._pool.run(lambda: next(jobs, None))
        except WorkerSetupError as error:
            return str(error)
        return outcome

    def close(self) -> None:
        """End the worker."""
        self._pool.close()


class RayPool:
    """`workers` actors; see `Pool` for the arguments and for what `run` does.

    Uses the cluster at RAY_ADDRESS, else starts one that ends with the pool. Every machine of a
    cluster needs this project, the checkpoint and the run's directory under the same paths.
    """

    def __init__(self, setup: Setup, workers: int, *, limits: Limits, retries: int) -> None:
        self._ray = require_ray()
        self._setup, self._count, self._limits, self._retries = setup, workers, limits, retries
        self._started_here = False
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Attempt]] = {}
        self._starts = 0

    def __enter__(self) -> RayPool:
        try:
            self._connect()
            actors = [self._actor() for _ in range(max(1, self._count))]
            self._idle = [self._opened(actor, opening) for actor, opening in actors]
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, next_job: Callable[[], Any]) -> Iterator[Outcome]:
        """Outcomes as they come; `next_job()` gives a job, or None when there is none now."""
        again: deque[Attempt] = deque()
        while True:
            while self._idle:
                attempt = again.popleft() if again else _attempt(next_job())
                if attempt is None:
                    break
                actor = self._idle.pop()
                self._busy[actor.run.remote(attempt.job)] = actor, attempt
            if not self._busy:
                return
            (done, *_), _ = self._ray.wait(list(self._busy))
            actor, attempt = self._busy.pop(done)
            try:
                outcome = self._ray.get(done)
            except self._ray.exceptions.RayError as error:
                self._idle.append(self._opened(*self._actor()))
                reason = f"the Ray actor was lost: {' '.join(str(error).split())[:300]}"
                if len(attempt.failed) < self._retries:
                    again.append(Attempt(attempt.job, (*attempt.failed, reason)))
                    continue
                yield Outcome(attempt.job, error=reason, retried=attempt.failed)
                continue
            if isinstance(outcome, str):
                raise WorkerSetupError(outcome)
            self._idle.append(actor)
            yield replace(outcome, retried=(*attempt.failed, *outcome.retried))

    def close(self) -> None:
        """End the actors, and Ray itself where it was started here."""
        if not self._ray.is_initialized():
            return
        actors = [*self._idle, *(actor for actor, _ in self._busy.values())]
        closing = [actor.close.remote() for actor in self._idle]
        self._ray.wait(closing, num_returns=len(closing), timeout=10) if closing else None
        for actor in actors:
            self._ray.kill(actor)
        self._idle.clear()
        self._busy.clear()
        if self._started_here:
            self._ray.shutdown()

    def _connect(self) -> None:
        if not self._ray.is_initialized():
            self._begin()
            self._started_here = True
        cores = self._ray.cluster_resources().get("CPU", 0)
        if cores < self._count:
            raise ValueError(
                f"workers: expected at most one for each of the cluster's {cores:g} cores, got "
                f"{self._count}; use fewer --workers"
            )

    def _begin(self) -> None:
        """Connect to the cluster, or start one. Ray gives its processes 15 s and 30 s to start,
        hard-coded, which a busy machine may exceed once; hence several tries."""
        quiet = {"logging_level": "ERROR", "log_to_driver": False}
        if os.environ.get("RAY_ADDRESS"):
            self._ray.init(**quiet)
            return
        for left in reversed(range(STARTS)):
            try:
                self._ray.init(
                    address="local", num_cpus=max(1, self._count), include_dashboard=False, **quiet
                )
                return
            except Exception as error:  # Ray raises just this when one of its processes is late
                self._ray.shutdown()
                if not left:
                    raise ValueError(
                        f"executor: expected Ray to start on this machine; got, {STARTS} times, "
                        f"{' '.join(str(error).split())[:300]}; try again when the machine "
                        "is less busy, start Ray beforehand and set RAY_ADDRESS=auto, or leave "
                        "--executor out"
                    ) from None

    def _actor(self) -> tuple[Any, Any]:
        actor = self._ray.remote(Host).options(num_cpus=1).remote(
            self._setup, self._limits, self._retries, self._starts, sys.path
        )  # fmt: skip
        self._starts += 1
        return actor, actor.open.remote()

    def _opened(self, actor: Any, opening: Any) -> Any:
        try:
            problem = self._ray.get(opening)
        except self._ray.exceptions.RayError as error:
            problem = f"a Ray actor could not start: {' '.join(str(error).split())[:300]}"
        if problem is not None:
            raise WorkerSetupError(problem)
        return actor


def _attempt(job: Any) -> Attempt | None:
    return None if job is None else Attempt(job)
