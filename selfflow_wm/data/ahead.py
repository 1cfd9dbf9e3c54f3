"""Reading ahead: threads read the samples of the next batches while a step trains on the last.

What a batch holds is decided by the stream in its own order, before any of it is read, so batches
are the same whether they are read ahead or not, and by however many threads.

Threads, not processes: decoding, resizing and copying pictures release the interpreter's lock, so
threads keep as many cores busy. They share what is cached in memory, no batch is copied between
processes, and they end with the process, however it ends.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from selfflow_wm.layout import Batch

AHEAD = 4
"""Batches read ahead by default."""
MOST = 4
"""Threads by default, where there are cores for them."""


class Draws(Protocol):
    """A stream of batches whose next batch is made in three parts: what it is to hold, which moves
    the stream's position; its samples, read by any thread; and the batch."""

    def draw(self) -> Any:
        """What the next batch holds; cheap, and the only part that moves the position."""
        ...

    def read(self, draw: Any, /) -> Any:
        """The samples, from disk; depends on `draw` alone, and may run in several threads."""
        ...

    def encode(self, samples: Any, draw: Any, /) -> Batch:
        """The batch, on the device; in the calling thread."""
        ...

    def __next__(self) -> Batch:
        """The three in a row."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class _Pending:
    draw: Any
    samples: Future[Any]
    after: dict[str, Any]
    """The stream's state behind this draw."""


class ReadAhead:
    """The batches of `stream`, bit for bit and in its order, with the samples of the next ones read
    by threads in the meantime.

    The state is that of `stream` after the batch that was handed out last: what was only read ahead
    is read again after resuming. An error in reading is raised by `next` when the batch that it is
    of is due, as it is without threads, and leaves the position before that batch.

    Memory: the samples of at most `ahead` batches beside the one in use.

    Args:
        stream: from now on used through this alone.
        workers: threads, each of which reads a whole batch.
        ahead: batches that are read, or being read, before they are due; no fewer than `workers`
            are.

    Raises:
        ValueError: fewer than one thread or one batch.
    """

    def __init__(self, stream: Draws, workers: int = 2, ahead: int = AHEAD) -> None:
        if workers < 1 or ahead < 1:
            raise ValueError(
                f"expected at least one worker and one batch ahead, got workers={workers} and "
                f"ahead={ahead}; workers=0 reads every batch when it is due"
            )
        self.stream, self.workers, self.ahead = stream, int(workers), max(int(ahead), int(workers))
        self._pending: deque[_Pending] = deque()
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="read-ahead")
        self._state = stream.state_dict()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        try:
            # One more than `ahead`: the one that is due.
            while len(self._pending) <= self.ahead:
                draw = self.stream.draw()
                samples = self._pool.submit(self.stream.read, draw)
                self._pending.append(_Pending(draw, samples, self.stream.state_dict()))
            due = self._pending.popleft()
            batch = self.stream.encode(due.samples.result(), due.draw)
        except BaseException:
            self.load_state_dict(self._state)
            raise
        self._state = due.after
        return batch

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position behind the last batch that `next` returned."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at `state`; what was read ahead is dropped."""
        for one in self._pending:
            one.samples.cancel()
        self._pending.clear()
        self.stream.load_state_dict(state)
        self._state = self.stream.state_dict()


def reading_threads(workers: int | None, ahead: int, device: torch.device) -> int:
    """How many threads the configuration's `workers` and `ahead` ask for beside a step on `device`.

    workers: None leaves a step on the CPU, which needs the cores itself, without any, and gives one
    elsewhere up to `MOST` out of this process's share of the cores.

    Raises:
        ValueError: workers below 0 or ahead below 1, or no whole numbers.
    """
    stated = {"workers": (0 if workers is None else workers, 0, 2), "ahead": (ahead, 1, AHEAD)}
    for name, (value, least, example) in stated.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(
                f"{name}: expected a whole number of at least {least}, got {value!r}; write "
                f"{name}={example}"
            )
    if workers is not None:
        return workers
    if device.type == "cpu":
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MOST, len(os.sched_getaffinity(0)) // processes))
