"""Windows that make way for others because one of their frames proves undecodable."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence

import numpy as np

from robotics.data.frame_store import DamagedFrame
from robotics.data.rlds.faults import Faults

TRIES = 32
"""Windows tried in the place of one before the data set is given up."""
_STREAM = 12  # separates these draws from others with the same seed


class Replacements:
    """Which windows are shown instead of those with undecodable frames.

    A replacement follows from the seed and the window that was asked for alone: whoever reads it,
    in whichever batch, and whatever is known by then, gets the same.

    Args:
        windows: how many there are.
        episodes: recorded steps of every episode, in order.
        faults: where an episode is counted, once, when a frame of it is found.
        seed: of the draws.
    """

    def __init__(self, windows: int, episodes: Sequence[range], faults: Faults, seed: int) -> None:
        self.windows, self.faults, self.seed = windows, faults, seed
        self._starts = np.array([episode.start for episode in episodes])
        self._lock = threading.Lock()  # of adding; sets are replaced, so others may read
        self.damaged: frozenset[int] = frozenset()
        """Recorded steps with an undecodable frame, as far as they are known."""
        self._spoilt: frozenset[int] = frozenset()

    def add(self, error: DamagedFrame) -> None:
        """Remember a frame, and count its episode."""
        episode = int(np.searchsorted(self._starts, error.step, side="right"))
        with self._lock:
            self.damaged = self.damaged | {error.step}
            if episode in self._spoilt:
                return
            self._spoilt = self._spoilt | {episode}
            self.faults.report(error, error.place, None)
        print(f"its windows make way for others: {error}", file=sys.stderr, flush=True)

    def whole(
        self,
        asked: np.ndarray,
        shown: np.ndarray,
        tries: np.ndarray,
        frames: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """Windows (B,) without frames known to be damaged, in place of `shown` (B,), which stand
        for `asked` (B,).

        tries: (B,) how often each was replaced; changed.
        frames: gives the recorded steps (n, k) of the frames of windows (n,), -1 for none.
        """
        if not self.damaged:
            return shown
        bad, shown = np.array(sorted(self.damaged)), shown.copy()
        while True:
            rows = np.flatnonzero(np.isin(frames(shown), bad).any(axis=1))
            if not len(rows):
                return shown
            for row in rows.tolist():
                tries[row] += 1
                if tries[row] > TRIES:
                    raise ValueError(
                        f"expected windows whose frames decode, got {len(bad)} frames that don't: "
                        f"{self.faults.summary()}; copy the data set again."
                    )
                key = [self.seed, _STREAM, int(asked[row]), int(tries[row])]
                shown[row] = np.random.default_rng(key).integers(self.windows)
