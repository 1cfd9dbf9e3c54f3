"""Samples to look at: named rows of pictures, frames and waveforms, and lines of text, stacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from textwrap import wrap

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

SIDE, FRAMES = 96, 8
"""Pixels of a picture's longer side, and pictures in a row at most."""
_GAP, _LINE, _NAME, _WAVE = 4, 16, 150, 36
_WIDTH = FRAMES * (SIDE + _GAP)
_INK, _QUIET, _PAPER, _BLUE, _RED = "#22242a", "#70747e", "#ffffff", "#465c82", "#dc322f"


def stacked(rows: Sequence[Image.Image]) -> Image.Image:
    """One picture of rows below each other."""
    sheet = Image.new("RGB", (_NAME + _WIDTH, sum(row.height for row in rows)), _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def text(line: str) -> Image.Image:
    """A row of text."""
    return _row(_LINE, line)[0]


def columns(lines: Sequence[str], side: int = SIDE) -> Image.Image:
    """Text for each picture of a row of `pictures`."""
    row, paint = _row(_LINE)
    for column, line in enumerate(lines):
        paint.text((_NAME + column * (side + _GAP), 1), line, _QUIET, font())
    return row


def media(
    name: str,
    sample: Mapping[str, np.ndarray],
    times: Sequence[float] | np.ndarray = (),
    sample_rate: float = 1,
) -> list[Image.Image]:
    """A row for each modality of a sample: image (n, H, W, 3), video (T, H, W, 3), audio (S)."""
    return [
        waveform(name, value, times, sample_rate) if key == "audio" else pictures(name, value)
        for key, value in sample.items()
    ]


def pictures(name: str, images: Sequence[np.ndarray] | np.ndarray, side: int = SIDE) -> Image.Image:
    """A row of uint8 pictures (H, W, 3), up to `FRAMES` of them and evenly spaced."""
    row, _ = _row(side + _GAP, name)
    shown = np.linspace(0, len(images) - 1, min(FRAMES, len(images))).round().astype(int)
    for column, number in enumerate(shown):
        picture = Image.fromarray(np.asarray(images[number]))
        scale = side / max(picture.size)
        smooth = Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.NEAREST
        size = [max(1, round(scale * length)) for length in picture.size]
        row.paste(picture.resize(size, smooth), (_NAME + column * (side + _GAP), 0))
    return row


def waveform(
    name: str,
    audio: Float[np.ndarray, "S"],
    times: Sequence[float] | np.ndarray = (),
    sample_rate: float = 1,
) -> Image.Image:
    """A row with the extremes of the samples under each column, and a red tick at each of `times`
    (s). Sounds that go beyond [-1, 1] are scaled to it."""
    row, paint = _row(_WAVE + _GAP, name)
    audio = audio / max(1.0, float(np.abs(audio).max(initial=0.0)))
    width, middle = _WIDTH - _GAP, _WAVE / 2
    edges = np.linspace(0, len(audio), width + 1).round().astype(int)
    for x in range(width):
        first = min(edges[x], len(audio) - 1)
        piece = 0.92 * middle * audio[first : max(first + 1, edges[x + 1])]
        at = _NAME + x
        paint.line((at, middle - piece.max(), at, middle - piece.min()), _BLUE)
    for time in times:
        x = _NAME + time * sample_rate / len(audio) * width
        paint.line((x, 0, x, _WAVE), _RED)
    return row


def _row(height: int, name: str = "") -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A blank row with its name at the left, over several lines where it is high enough."""
    row = Image.new("RGB", (_NAME + _WIDTH, height), _PAPER)
    paint = ImageDraw.Draw(row)
    lines = [name] if height <= _LINE else wrap(name.replace("_", " "), 24)
    top = (height - 13 * len(lines)) // 2
    for number, line in enumerate(lines):
        paint.text((2, top + 13 * number), line, _INK, font())
    return row, paint


@cache
def font() -> ImageFont.FreeTypeFont:
    """Of all that is written into pictures."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), 11)
