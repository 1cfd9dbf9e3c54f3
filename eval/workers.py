"""Worker processes that each hold an environment and a policy and run one job at a time.

Processes are spawned, never forked: an OpenGL context or a thread pool does not survive a fork.
A job that raises, or that takes its process down with it, comes back as an error in its own
name; the other jobs go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, cast

from eval.rollout import error_line


class WorkerSetupError(ValueError):
    """A worker could not build its environment or policy; its message is meant for the user."""


class JobRunner(Protocol):
    """Built once in each worker; called once per job; closed at the end."""

    def __call__(self, job: Any) -> Any: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What a job came to: `value`, or one line of `error`."""

    job: Any
    value: Any = None
    error: str | None = None


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Children started inside see one BLAS/OpenMP thread (they read it when numpy is imported)."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Pool:
    """`workers` processes running `setup()`'s result; `workers=0` runs jobs in this process.

    `setup` must be picklable. Entering starts the processes and waits until every one is ready;
    a `ValueError` in `setup` becomes a `WorkerSetupError` here.
    """

    def __init__(self, setup: Callable[[], JobRunner], workers: int) -> None:
        self._setup = setup
        self._count = workers
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[Connection, Any] = {}
        self._busy: dict[Connection, Any] = {}
        self._local: JobRunner | None = None

    def __enter__(self) -> Pool:
        try:
            if self._count == 0:
                self._local = self._setup()
            else:
                for connection in [self._start() for _ in range(self._count)]:
                    self._await_ready(connection)
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
            while (job := next_job()) is not None:
                yield _run_job(self._local, job)
            return
        while True:
            for connection in [c for c in self._workers if c not in self._busy]:
                job = next_job()
                if job is None:
                    break
                self._busy[self._send(connection, job)] = job
            if not self._busy:
                return
            for ready in wait(list(self._busy)):
                yield self._collect(cast(Connection, ready))

    def close(self) -> None:
        """End every process, whatever it is doing."""
        for connection, process in self._workers.items():
            connection.close()
            process.terminate()
        for process in self._workers.values():
            process.join()
        self._workers.clear()
        self._busy.clear()
        if self._local is not None:
            self._local.close()
        self._local = None

    def _start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._setup), daemon=True)
        with single_threaded():
            process.start()
        theirs.close()
        self._workers[ours] = process
        return ours

    def _send(self, connection: Connection, job: Any) -> Connection:
        """Send to this worker, or to a new one where it died while it had nothing to do."""
        try:
            connection.send(job)
        except OSError:
            self._workers.pop(connection).join()
            connection.close()
            connection = self._start()
            self._await_ready(connection)
            connection.send(job)
        return connection

    def _await_ready(self, connection: Connection) -> None:
        try:
            kind, message = connection.recv()
        except EOFError:
            process = self._workers[connection]
            process.join()
            kind, message = "setup", f"a worker process died at its start ({_death(process)})"
        if kind != "ready":
            raise WorkerSetupError(message)

    def _collect(self, connection: Connection) -> Outcome:
        job = self._busy.pop(connection)
        try:
            return connection.recv()
        except EOFError:
            process = self._workers.pop(connection)
            process.join()
            connection.close()
            outcome = Outcome(job, error=f"the worker process died ({_death(process)})")
        self._await_ready(self._start())
        return outcome


def _serve(connection: Connection, setup: Callable[[], JobRunner]) -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = setup()
    except ValueError as error:
        connection.send(("setup", str(error)))
        return
    except Exception as error:
        connection.send(("setup", f"a worker could not start: {error_line(error)}"))
        return
    connection.send(("ready", ""))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            connection.send(_run_job(run, connection.recv()))


def _run_job(run: JobRunner, job: Any) -> Outcome:
    try:
        return Outcome(job, value=run(job))
    except Exception as error:
        return Outcome(job, error=error_line(error))


def _death(process: Any) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + ("; out of memory?" if name == "SIGKILL" else "")
    return f"exit code {code}"


def default_workers() -> int:
    """One worker per available core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, 8))
