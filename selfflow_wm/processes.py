"""Child processes: their environment, how they end, and their errors in one line."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping

import psutil

_BLAS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ONE_THREAD: dict[str, str] = dict.fromkeys(_BLAS, "1")
"""For BLAS and OpenMP, which read it when numpy is imported."""


@contextlib.contextmanager
def started_with(variables: Mapping[str, str]) -> Iterator[None]:
    """Children started inside have these environment variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def kill_tree(pid: int) -> None:
    """Kill a process and its descendants; a hung child would outlive its parent."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        _kill([process, *process.children(recursive=True)])


def end_with_parent() -> None:
    """End this process with what it started as soon as its parent is gone, whatever ended that.

    For a process of `multiprocessing`; a parent that was killed could tell it nothing, and it would
    keep running until its job is over.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        _kill(psutil.Process().children(recursive=True))
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def error_line(error: BaseException) -> str:
    """An exception in one line: type, message and the innermost place it came from."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()
