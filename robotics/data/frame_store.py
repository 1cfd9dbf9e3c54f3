"""Frames of a data set by camera and step, wherever its readers keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from robotics.data.cache.frames import FrameCache
from robotics.data.recordings import Frames, RecordedSteps


class DamagedFrame(ValueError):
    """A frame that cannot be decoded."""

    def __init__(self, message: str, step: int, place: str) -> None:
        super().__init__(message)
        self.step, self.place = step, place
        """place: the file."""


class FrameStore:
    """The frames of all parts of a data set, numbered one part after the other.

    Args:
        parts: what was recorded.
        image_sizes: camera -> height and width of its frames; these cameras are there.
        cache_mb: MB of decoded frames kept in memory, as many of each camera; None: the parts'
            frames are decoded already.
        threads: that decode what is missing.
    """

    def __init__(
        self,
        parts: Sequence[RecordedSteps],
        image_sizes: Mapping[str, tuple[int, int]],
        cache_mb: float | None,
        threads: int,
    ) -> None:
        self.image_sizes = dict(image_sizes)
        self.frames: dict[str, list[Frames]] = {
            name: [part.frames[name] for part in parts] for name in image_sizes
        }
        """Camera -> the frames of every part."""
        self.starts = np.cumsum([0] + [len(part) for part in parts])
        """Number of every part's first frame, and the number of frames at the end."""
        self.caches: dict[str, FrameCache] = {}
        """Camera -> decoded frames in memory; empty where they are read from disk."""
        pixels = sum(height * width for height, width in image_sizes.values())
        for name, size in image_sizes.items():
            if cache_mb is not None:
                budget = int(cache_mb * 1e6 * size[0] * size[1] / pixels)
                self.caches[name] = FrameCache(budget, size, threads)

    def read(self, camera: str, steps: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3) of the steps (n,); DamagedFrame where one cannot be decoded."""
        out = np.empty((len(steps), *self.image_sizes[camera], 3), np.uint8)
        self._copy(camera, steps, list(out))
        return out

    def masked(self, camera: str, steps: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """uint8 (B, F, H, W, 3) of the steps (B, F), zero where they are not valid."""
        out = np.zeros((*steps.shape, *self.image_sizes[camera], 3), np.uint8)
        self._copy(camera, steps[valid], [out[row, place] for row, place in np.argwhere(valid)])
        return out

    def _copy(self, camera: str, steps: np.ndarray, out: list[np.ndarray]) -> None:
        parts = np.searchsorted(self.starts, steps, side="right") - 1
        places = steps - self.starts[parts]
        frames = self.frames[camera]

        def decode(number: int) -> np.ndarray:
            part = frames[parts[number]]
            try:
                return part.decode(int(places[number]))
            except ValueError as error:
                place = str(getattr(part, "path", "the data set"))
                raise DamagedFrame(str(error), int(steps[number]), place) from error

        if camera in self.caches:
            self.caches[camera].copy(steps, out, decode)
            return
        for target, part, place in zip(out, parts, places, strict=True):
            frames[part].read_into(int(place), target)
