"""Pictures of what was predicted beside what happened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def strip(rows: Sequence[Sequence[np.ndarray]], gap: int = 4) -> np.ndarray:
    """uint8 frames (H, W, 3) in rows and columns -> one image on white, `gap` pixels apart.

    A None leaves its place white. All frames have one size.
    """
    size = next(frame.shape for row in rows for frame in row if frame is not None)
    height, width, _ = size
    columns = max(len(row) for row in rows)
    canvas = np.full(
        (len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8
    )
    for r, row in enumerate(rows):
        for c, frame in enumerate(row):
            if frame is not None:
                top, left = r * (height + gap), c * (width + gap)
                canvas[top : top + height, left : left + width] = frame
    return canvas


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a uint8 RGB image, making its directory."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write_mp4(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write uint8 RGB frames as H.264, making its directory; odd sizes are padded by ffmpeg."""
    import imageio.v2 as imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.mimwrite(path, list(frames), fps=fps, macro_block_size=2)
