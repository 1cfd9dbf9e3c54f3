"""How long a worker may take, and how its parent knows that it hangs.

A worker and its parent share one number: the moment up to which the worker is trusted. Every step
of an episode moves it on; a parent that sees it pass ends the worker, whatever that is doing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robotics.embodiment.control import Action, Observation


@dataclass(frozen=True)
class Limits:
    """Seconds after which a worker counts as hung. Generous: a wrong guess costs an episode."""

    reset: float = 1200.0
    """From the start of an episode (building the environment included) to its first step's end;
    also for a worker to get ready. SIMPLER's first picture compiles shaders, 160 s on a busy
    machine."""
    step: float = 300.0
    """For each later step: picture, policy and simulator together."""


class Heartbeat:
    """The shared number. `context`: of multiprocessing; the object travels to a spawned process."""

    def __init__(self, context: Any, limits: Limits) -> None:
        self.limits = limits
        # Read and written without a lock: the deadline is one aligned double, and the number of
        # steps only words the message.
        self._shared = context.RawArray("d", 2)
        self.begin()

    def begin(self) -> None:
        """The parent's: the worker is about to start, or to get an episode."""
        self._shared[1] = 0
        self._shared[0] = time.monotonic() + self.limits.reset

    def beat(self) -> None:
        """The worker's: another step is done."""
        self._shared[1] += 1
        self._shared[0] = time.monotonic() + self.limits.step

    def left(self) -> float:
        """Seconds until the worker counts as hung; negative once it does."""
        return self._shared[0] - time.monotonic()

    def why(self) -> str:
        """What took too long, in words."""
        steps = int(self._shared[1])
        if steps == 0:
            return f"the start up to the first step took more than {self.limits.reset:g} s"
        return f"the step after {steps} steps took more than {self.limits.step:g} s"


@dataclass
class Beating:
    """A watcher of `run_episode` that calls `beat` after each step."""

    beat: Callable[[], None]
    needs_image: bool = False

    def step(
        self, observation: Observation, action: Action, instruction: str, info: dict[str, Any]
    ) -> None:
        """Alive."""
        self.beat()

    def end(self, observation: Observation, info: dict[str, Any]) -> None:
        """Alive; what follows is writing down."""
        self.beat()


def kill_tree(pid: int) -> None:
    """Kill a process and its descendants, deepest last; a hung simulator would outlive its parent.

    Descendants are found in `/proc`; where there is none, only the process itself is killed.
    """
    for each in [pid, *_descendants(pid)]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, signal.SIGKILL)


def end_with_parent() -> None:
    """End this process with what it started as soon as its parent is gone, whatever ended that.

    For a process of `multiprocessing`; a parent that was killed could tell it nothing, and it would
    go on until its job is over.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        for each in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


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
