"""Worker processes that each hold an environment and a policy and run one job at a time.

A worker and its parent share one number: the worker's deadline. Every step of an episode extends
it; a parent that sees it expire kills the worker, whatever it is doing. Processes are spawned,
never forked: an OpenGL context or a thread pool does not survive a fork. A job that raises, hangs,
or crashes its process is retried, in a new process if the old one is lost, and finally becomes an
error of this job alone; the others continue.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from eval.envs.contract import Limits
from selfflow_wm.processes import ONE_THREAD, end_with_parent, error_line, kill_tree, started_with


class WorkerSetupError(ValueError):
    """A worker could not build its environment or policy; its message is meant for the user."""


class JobRunner(Protocol):
    """Built once in each worker; called once per job; closed at the end."""

    def __call__(self, job: Any, beat: Callable[[], None]) -> Any:
        """Do `job`; call `beat` after each step, or the worker counts as hung."""
        ...

    def close(self) -> None: ...


class Setup(Protocol):
    """Builds the `JobRunner` in a worker; picklable."""

    def __call__(self, start: int = 0) -> JobRunner:
        """`start`: index of this launch of a worker, so that each launch can check a different
        start state and a single bad state can't keep all workers from starting."""
        ...


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job: `value`, or one line of `error`."""

    job: Any
    value: Any = None
    error: str | None = None
    retried: tuple[str, ...] = ()
    """Why each earlier try failed."""


@dataclass(frozen=True)
class Attempt:
    """A job to do and the errors of earlier tries."""

    job: Any
    failed: tuple[str, ...] = ()


RENDERER_THREADS = {"LP_NUM_THREADS": "1"}
"""For Mesa's software renderer, which otherwise uses every core in each of several workers."""


class Heartbeat:
    """The deadline they share. `context`: of multiprocessing; can be sent to a spawned process."""

    def __init__(self, context: Any, limits: Limits) -> None:
        self.limits = limits
        # Read and written without a lock: the deadline is one aligned double, and the number of
        # steps is only used in messages.
        self._shared = context.RawArray("d", 2)
        self.begin()

    def begin(self) -> None:
        """Called by the parent: the worker is about to start, or to get an episode."""
        self._shared[1] = 0
        self._shared[0] = time.monotonic() + self.limits.reset

    def beat(self) -> None:
        """Called by the worker: another step is done."""
        self._shared[1] += 1
        self._shared[0] = time.monotonic() + self.limits.step

    def left(self) -> float:
        """Seconds until the worker counts as hung; negative once it does."""
        return self._shared[0] - time.monotonic()

    def reason(self) -> str:
        """What took too long."""
        steps = int(self._shared[1])
        if steps == 0:
            return f"the start up to the first step took more than {self.limits.reset:g} s"
        return f"the step after {steps} steps took more than {self.limits.step:g} s"


class Worker:
    """One process, its end of the pipe and what it is doing."""

    def __init__(
        self, context: Any, setup: Setup, start: int, limits: Limits, variables: Mapping[str, str]
    ) -> None:
        self.attempt: Attempt | None = None
        self.ready = False
        self.heart = Heartbeat(context, limits)
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, setup, start, self.heart), daemon=True
        )
        with started_with(variables):
            self.process.start()
        theirs.close()

    def end(self) -> None:
        """Kill the process and its descendants, whatever it is doing."""
        self.connection.close()
        if self.process.exitcode is None:  # else its pid may have been reused
            kill_tree(self.process.pid)
            self.process.join()

    def cause_of_death(self) -> str:
        """How the process died, which has closed its pipe; cleans up after it."""
        self.process.join(10)
        self.end()
        return _death(self.process)


class Pool:
    """`workers` processes running `setup()`'s result; `workers=0` runs jobs in this process.

    Entering starts the processes and waits until every one is ready; a `ValueError` in `setup`
    becomes a `WorkerSetupError` here at once, anything else after `retries` more starts in a row.

    Args:
        setup: builds the runner in a worker.
        workers: how many.
        limits: when a worker counts as hung; not checked with `workers=0`.
        retries: how often a job that raised, hung or killed its worker is retried.
        first_start: index of the first worker's launch, see `Setup`.
    """

    def __init__(
        self, setup: Setup, workers: int, *, limits: Limits | None = None, retries: int = 0,
        first_start: int = 0,
    ) -> None:  # fmt: skip
        self._setup = setup
        self._count = workers
        self._limits = limits or Limits()
        self._retries = retries
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[Worker] = []
        self._local: JobRunner | None = None
        self._again: deque[Attempt] = deque()
        self._starts = first_start
        self._failed_starts = 0
        """In a row."""

    def __enter__(self) -> Pool:
        try:
            if self._count == 0:
                self._local = self._setup()
            while len(self._workers) < self._count or not all(w.ready for w in self._workers):
                while len(self._workers) < self._count:
                    self._start()
                for worker in self._await([w for w in self._workers if not w.ready]):
                    self._take(worker)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, next_job: Callable[[], Any]) -> Iterator[Outcome]:
        """Outcomes as they come; `next_job()` gives a job, or None when there is none now.

        It is asked again after every outcome, so later jobs may depend on earlier results.
        """
        if self._local is not None:
            while (attempt := self._next(next_job)) is not None:
                found = _run_job(self._local, attempt.job, lambda: None)
                if (outcome := self._settle(attempt, found)) is not None:
                    yield outcome
            return
        while True:
            while self._has_room() and (attempt := self._next(next_job)) is not None:
                self._give(attempt)
            busy = [worker for worker in self._workers if worker.attempt is not None]
            if not busy:
                return
            for worker in self._await(busy):
                if (outcome := self._take(worker)) is not None:
                    yield outcome

    def close(self) -> None:
        """End every process, whatever it is doing."""
        for worker in self._workers:
            if worker.ready and worker.attempt is None:
                worker.process.terminate()  # its simulator sees the pipe close and exits by itself
                worker.process.join(5)
            worker.end()
        self._workers.clear()
        self._again.clear()
        if self._local is not None:
            self._local.close()
        self._local = None

    def _has_room(self) -> bool:
        return len(self._workers) < self._count or any(w.attempt is None for w in self._workers)

    def _next(self, next_job: Callable[[], Any]) -> Attempt | None:
        if self._again:
            return self._again.popleft()
        job = next_job()
        return None if job is None else Attempt(job)

    def _start(self) -> Worker:
        variables = ONE_THREAD | (RENDERER_THREADS if self._count > 1 else {})
        worker = Worker(self._context, self._setup, self._starts, self._limits, variables)
        self._starts += 1
        self._workers.append(worker)
        return worker

    def _give(self, attempt: Attempt) -> None:
        """Hand over to an idle worker, or to a new one in place of a lost one."""
        worker = next((w for w in self._workers if w.attempt is None), None) or self._start()
        worker.attempt = attempt
        if worker.ready:
            self._send(worker)

    def _send(self, worker: Worker) -> None:
        assert worker.attempt is not None
        worker.heart.begin()
        try:
            worker.connection.send(worker.attempt.job)
        except OSError:  # it died while idle, which is not the job's fault
            self._workers.remove(worker)
            worker.cause_of_death()
            self._give(worker.attempt)

    @staticmethod
    def _await(workers: Sequence[Worker]) -> list[Worker]:
        """Workers that sent something, else those that hang."""
        by_connection = {worker.connection: worker for worker in workers}
        while True:
            left = max(0.0, min(worker.heart.left() for worker in workers))
            if ready := wait(list(by_connection), left):
                return [by_connection[connection] for connection in ready]  # type: ignore[index]
            if hung := [worker for worker in workers if worker.heart.left() <= 0]:
                return hung

    def _take(self, worker: Worker) -> Outcome | None:
        """Handle a worker's message or its loss; returns an outcome when a job is over."""
        message: Any = None
        try:
            if worker.connection.poll():
                message = worker.connection.recv()
            else:
                worker.end()
                reason = f"the worker process hung and was killed: {worker.heart.reason()}"
        except (EOFError, OSError):
            reason = f"the worker process died ({worker.cause_of_death()})"
        if message is None:
            self._workers.remove(worker)
            if not worker.ready:
                return self._start_failed(worker, reason, final=False)
            assert worker.attempt is not None
            return self._settle(worker.attempt, Outcome(worker.attempt.job, error=reason))
        if isinstance(message, Outcome):
            attempt, worker.attempt = worker.attempt, None
            assert attempt is not None
            return self._settle(attempt, message)
        kind, text = message
        if kind != "ready":
            self._workers.remove(worker)
            worker.end()
            return self._start_failed(worker, text, final=kind == "value")
        worker.ready, self._failed_starts = True, 0
        if worker.attempt is not None:
            self._send(worker)
        return None

    def _settle(self, attempt: Attempt, outcome: Outcome) -> Outcome | None:
        """The outcome with its history, or None if the job is to be retried."""
        if outcome.error is not None and len(attempt.failed) < self._retries:
            self._again.append(Attempt(attempt.job, (*attempt.failed, outcome.error)))
            return None
        return Outcome(outcome.job, outcome.value, outcome.error, attempt.failed)

    def _start_failed(self, worker: Worker, reason: str, *, final: bool) -> None:
        self._failed_starts += 1
        if final or self._failed_starts > self._retries:
            raise WorkerSetupError(reason)
        if worker.attempt is not None:
            self._again.appendleft(worker.attempt)


def _serve(connection: Connection, setup: Setup, start: int, heart: Heartbeat) -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    try:
        run = setup(start)
    except ValueError as error:
        connection.send(("value", str(error)))
        return
    except Exception as error:
        connection.send(("crash", f"a worker could not start: {error_line(error)}"))
        return
    connection.send(("ready", ""))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            connection.send(_run_job(run, connection.recv(), heart.beat))


def _run_job(run: JobRunner, job: Any, beat: Callable[[], None]) -> Outcome:
    try:
        return Outcome(job, value=run(job, beat))
    except Exception as error:
        return Outcome(job, error=error_line(error))


def _death(process: Any) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + ("; out of memory?" if name == "SIGKILL" else "")
    return f"exit code {code}"
