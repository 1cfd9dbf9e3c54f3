"""Smooth drawing in pixel coordinates with fractions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from selfflow_wm.data.toy.config import Draw

Color = tuple[int, int, int]
Point = Sequence[float] | np.ndarray

_BITS = 4
"""Fractional bits of the coordinates OpenCV takes."""


class Canvas:
    """A picture drawn `scale` times as large and averaged down, so that edges are smooth.

    Coordinates are pixels of the finished picture, (x, y), pixel i covering [i, i + 1).
    """

    def __init__(self, background: UInt8[np.ndarray, "h w 3"], scale: int) -> None:
        self.array, self.scale = background.copy(), scale

    def disc(self, center: Point, radius: float, color: Color) -> None:
        """A filled circle."""
        radius = round(radius * self.scale * 2**_BITS)
        cv2.circle(self.array, self._point(center), radius, color, cv2.FILLED, cv2.LINE_8, _BITS)

    def line(self, start: Point, end: Point, width: float, color: Color) -> None:
        """A stroke with round ends."""
        cv2.line(
            self.array, self._point(start), self._point(end), color,
            max(1, round(width * self.scale)), cv2.LINE_8, _BITS,
        )  # fmt: skip

    def polygon(self, points: Any, color: Color) -> None:
        """A filled polygon."""
        corners = np.array([self._point(point) for point in points], dtype=np.int32)
        cv2.fillPoly(self.array, [corners], color, cv2.LINE_8, _BITS)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """A filled rectangle."""
        s = self.scale
        rows = slice(max(0, round(top * s)), max(0, round(bottom * s)))
        self.array[rows, max(0, round(left * s)) : max(0, round(right * s))] = color

    def finish(self) -> UInt8[np.ndarray, "H W 3"]:
        """The picture at its own size."""
        height, width = (side // self.scale for side in self.array.shape[:2])
        return cv2.resize(self.array, (width, height), interpolation=cv2.INTER_AREA)

    def _point(self, point: Point) -> tuple[int, int]:
        x, y = ((float(value) * self.scale - 0.5) * 2**_BITS for value in point)
        return round(x), round(y)


def scale_for(height: int, width: int) -> int:
    """How many times larger to draw: less for pictures that are large anyway."""
    return 4 if min(height, width) <= 160 else 2


def backdrop(draw: Draw, height: int, width: int) -> tuple[UInt8[np.ndarray, "h w 3"], int]:
    """A pale vertical gradient at the canvas' size, and the canvas' scale."""
    scale = scale_for(height, width)
    value = draw.uniform(196, 232)
    ends = np.array([[value + draw.uniform(-14, 14) for _ in range(3)] for _ in range(2)])
    mix = np.linspace(0, 1, height * scale)[:, None]
    column = (1 - mix) * ends[0] + mix * ends[1]
    column = column.round().clip(0, 255).astype(np.uint8)
    return np.repeat(column[:, None], width * scale, axis=1), scale


def outline(shape: str, radius: float) -> np.ndarray | None:
    """Corners of a shape of half-width `radius` about the origin, (n, 2); None for a circle."""
    third = 1 / 3
    corners = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -1), (1, 1), (-1, 1)],
        "diamond": [(0, -1), (1, 0), (0, 1), (-1, 0)],
        "cross": [
            (-third, -1), (third, -1), (third, -third), (1, -third), (1, third), (third, third),
            (third, 1), (-third, 1), (-third, third), (-1, third), (-1, -third), (-third, -third),
        ],
    }  # fmt: skip
    return None if shape == "circle" else radius * np.array(corners[shape], dtype=float)


def paint_shape(canvas: Canvas, shape: str, center: Point, radius: float, color: Color) -> None:
    """Paint one of `SHAPES`."""
    corners = outline(shape, radius)
    if corners is None:
        canvas.disc(center, radius, color)
    else:
        canvas.polygon(corners + np.asarray(center), color)
