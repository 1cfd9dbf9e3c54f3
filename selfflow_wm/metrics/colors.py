"""Naming pixels by the toy world's colours, and finding connected patches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8

from selfflow_wm.data.toy.config import PALETTE

LIMIT = 70.0
"""Distance in RGB beyond which a pixel has no name."""

COLORS = tuple(PALETTE)


@dataclass(frozen=True)
class Patch:
    """Connected pixels of one colour."""

    x: float
    """Of the centroid; pixel i covers [i, i + 1)."""
    y: float
    area: int
    box: tuple[int, int, int, int]
    """Left, top, right and bottom, the last two exclusive."""
    mask: Bool[np.ndarray, "h w"]
    """Within the box."""


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
    _, labels, stats, centers = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    found = []
    for n in range(1, len(stats)):
        left, top, width, height, area = (int(value) for value in stats[n])
        if area >= least:
            inside = labels[top : top + height, left : left + width] == n
            box = (left, top, left + width, top + height)
            x, y = centers[n] + 0.5
            found.append(Patch(float(x), float(y), area, box, inside))
    return sorted(found, key=lambda patch: -patch.area)
