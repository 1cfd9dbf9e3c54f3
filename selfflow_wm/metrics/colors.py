"""Naming pixels by the toy world's colours, and finding connected patches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8
from skimage.measure import label, regionprops

from selfflow_wm.data.toy.config import PALETTE

LIMIT = 70.0
"""Distance in RGB beyond which a pixel has no name."""

COLORS = tuple(PALETTE)

Patch = Any
"""Connected pixels of one colour, the RegionProperties of scikit-image."""


def name_pixels(
    video: UInt8[np.ndarray, "T H W 3"],
    colors: Sequence[tuple[int, int, int]] = tuple(PALETTE.values()),
    limit: float = LIMIT,
) -> Int[np.ndarray, "T H W"]:
    """Index of the nearest of `colors`, -1 where none is within `limit`."""
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8:
        raise ValueError(
            f"expected a uint8 video (T, H, W, 3), got {video.dtype} {video.shape}; decode it first"
        )
    values = video.astype(np.float32)
    distance = np.stack(
        [((values - np.array(color, np.float32)) ** 2).sum(-1) for color in colors], -1
    )
    return np.where(distance.min(-1) < limit**2, distance.argmin(-1), -1)


def patches(mask: Bool[np.ndarray, "H W"], least: float) -> list[Patch]:
    """Connected parts (8 neighbours) of at least `least` pixels, the largest first."""
    found = [part for part in regionprops(label(mask, connectivity=2)) if part.area >= least]
    return sorted(found, key=lambda part: -part.area)


def center(part: Patch) -> tuple[float, float]:
    """(x, y) of a part's centroid; pixel i covers [i, i + 1)."""
    y, x = part.centroid
    return x + 0.5, y + 0.5
