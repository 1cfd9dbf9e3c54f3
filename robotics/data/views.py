"""Which camera each window is seen through, where a table lets others stand in for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from robotics.data.frame_store import FrameStore
from robotics.embodiment.robot import Robot

_STREAM = 14  # separates these draws from others with the same seed


class Views:
    """The pictures of a model's cameras, each drawn from the recorded cameras that may give them.

    Args:
        robot: the table.
        cameras: names of the model's.
        store: frames of all that are recorded.
        present: recorded camera with a `present` flag -> bool (steps,).
        seed: of the draws.
    """

    def __init__(
        self,
        robot: Robot,
        cameras: Sequence[str],
        store: FrameStore,
        present: Mapping[str, np.ndarray],
        seed: int,
    ) -> None:
        self.names = {name: (name, *robot.stand_ins(name, cameras)) for name in cameras}
        """Camera -> the recorded ones, itself first."""
        self.store, self.seed = store, seed
        self._present = {
            name: present[name] for name in sum(self.names.values(), ()) if name in present
        }

    def draw(self, steps: np.ndarray, epochs: np.ndarray) -> dict[str, np.ndarray]:
        """Camera -> int64 (B,) into its `names`: of those that are there at each step (B,), one
        that follows from the seed, the epoch and the step."""
        return {
            camera: self._draw(number, names, steps, epochs)
            for number, (camera, names) in enumerate(self.names.items())
        }

    def _draw(
        self, number: int, names: Sequence[str], steps: np.ndarray, epochs: np.ndarray
    ) -> np.ndarray:
        chosen = np.zeros(len(steps), np.int64)
        if len(names) == 1:
            return chosen
        there = np.stack([self._there(name, steps) for name in names], axis=1)
        for row, (step, epoch) in enumerate(zip(steps.tolist(), epochs.tolist(), strict=True)):
            choices = np.flatnonzero(there[row])
            if len(choices):
                generator = np.random.default_rng([self.seed, _STREAM, epoch, step, number])
                chosen[row] = choices[generator.integers(len(choices))]
        return chosen

    def _there(self, name: str, steps: np.ndarray) -> np.ndarray:
        flags = self._present.get(name)
        return np.ones(len(steps), bool) if flags is None else flags[steps]

    def valid(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """Camera -> bool (B,), whether there is a picture at each step; of those with a flag."""
        return {
            camera: np.any([self._there(name, steps) for name in names], axis=0)
            for camera, names in self.names.items()
            if any(name in self._present for name in names)
        }

    def current(self, camera: str, chosen: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) of the recorded steps (B,), seen through `chosen` (B,) of the camera's
        `names`."""
        return self._each(camera, chosen, lambda name, rows: self.store.read(name, steps[rows]))

    def frames(
        self, camera: str, chosen: np.ndarray, steps: np.ndarray, valid: np.ndarray
    ) -> np.ndarray:
        """uint8 (B, F, H, W, 3) of the recorded steps (B, F), zero where they are not valid, as
        `current`."""
        return self._each(
            camera, chosen, lambda name, rows: self.store.masked(name, steps[rows], valid[rows])
        )

    def _each(
        self, camera: str, chosen: np.ndarray, read: Callable[[str, Any], np.ndarray]
    ) -> np.ndarray:
        names = self.names[camera]
        if len(names) == 1:
            return read(camera, slice(None))
        rows = [chosen == number for number in range(len(names))]
        found = [read(name, here) for name, here in zip(names, rows, strict=True)]
        out = np.empty((len(chosen), *found[0].shape[1:]), np.uint8)
        for here, frames in zip(rows, found, strict=True):
            out[here] = frames
        return out
