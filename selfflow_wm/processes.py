"""Child processes: their environment, how they end, and their errors in one line."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

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
    """Kill a process and its descendants, deepest last; a hung child would outlive its parent.

    Descendants are found in `/proc`; where there is none, only the process itself is killed.
    """
    _kill([pid, *_descendants(pid)])


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
        _kill(_descendants(os.getpid()))
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def error_line(error: BaseException) -> str:
    """An exception in one line: type, message and the innermost place it came from."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"


def _kill(processes: list[int]) -> None:
    for each in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in brackets may hold anything; the parent is the second field after it.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found
