"""Decoded frames kept in RAM within a budget: a frame that windows share is decoded once."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


class FrameCache:
    """The frames used last, up to a number of bytes; other frames are decoded when asked for.

    A reader keeps no other pixels, so its memory does not grow with the data set. Several threads
    may ask at once; a frame that two of them miss is then decoded by both.

    Args:
        budget: bytes; 0 keeps nothing and only decodes a batch's repeated frames once.
        image_size: height and width of the frames.
        threads: that decode what the main thread asks for. Others decode by themselves: they read
            ahead, and are several already.
    """

    def __init__(self, budget: int, image_size: tuple[int, int], threads: int = 1) -> None:
        if budget < 0 or threads < 1:
            raise ValueError(
                f"expected a budget >= 0 bytes and threads >= 1, got {budget} and {threads}."
            )
        self.shape = (*image_size, 3)
        self.capacity = int(budget) // int(np.prod(self.shape))
        """Frames that fit."""
        self.decoded = 0
        """Frames decoded so far."""
        self._threads = threads
        self._clear()

    def _clear(self) -> None:
        # The system gives pages when they are first written: an unused budget costs nothing.
        self._kept = np.empty((self.capacity, *self.shape), np.uint8)
        self._slots: OrderedDict[int, int] = OrderedDict()  # least recently used first
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._lock = threading.Lock()  # of the slots and what is in them

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: it starts with an empty cache."""
        local = ("_kept", "_slots", "_pool", "_lock")
        return {name: value for name, value in vars(self).items() if name not in local}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._clear()

    def copy(
        self, keys: np.ndarray, out: list[np.ndarray], decode: Callable[[int], np.ndarray]
    ) -> None:
        """Write the frame of each of `keys` (n,) into its array of `out`, uint8 (H, W, 3).

        decode: gives the frame of the i-th key; called once for keys that repeat.
        """
        missing: dict[int, list[int]] = {}
        with self._lock:
            for row, key in enumerate(keys.tolist()):
                slot = self._slots.get(key)
                if slot is None:
                    missing.setdefault(key, []).append(row)
                else:
                    self._slots.move_to_end(key)
                    out[row][...] = self._kept[slot]
        rows = list(missing.values())

        def fill(part: list[list[int]]) -> None:
            for same in part:
                frame = decode(same[0])
                for row in same:
                    out[row][...] = frame

        helped = threading.current_thread() is threading.main_thread() and self._threads > 1
        if not helped or len(rows) < 2:
            fill(rows)
        else:
            parts = [rows[number :: self._threads] for number in range(self._threads)]
            list(self._executor().map(fill, parts))
        with self._lock:
            self.decoded += len(rows)
            for key, same in missing.items():
                self._keep(key, out[same[0]])

    def _keep(self, key: int, frame: np.ndarray) -> None:
        if not self.capacity or key in self._slots:  # another thread was faster
            return
        if len(self._slots) < self.capacity:
            slot = len(self._slots)
        else:
            slot = self._slots.popitem(last=False)[1]
        self._kept[slot] = frame
        self._slots[key] = slot

    def _executor(self) -> ThreadPoolExecutor:
        """Threads do not survive a fork: one pool per process."""
        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():
                self._pool = (os.getpid(), ThreadPoolExecutor(self._threads))
            return self._pool[1]
