"""Camera images: encoded, decoded and resized the same way for data and policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from einops import rearrange

JPEG_QUALITY = 95
_PNG = b"\x89PNG\r\n\x1a\n"


def encode_image(image: np.ndarray) -> bytes:
    """uint8 (H, W, 3) RGB -> JPEG of quality 95, chroma 4:2:0 (as TensorFlow's encoder has it)."""
    import simplejpeg

    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(_checked(image)),
        quality=JPEG_QUALITY,
        colorspace="RGB",
        colorsubsampling="420",
    )


def decode_image(data: bytes, draft: tuple[int, int] | None = None) -> np.ndarray:
    """JPEG or PNG -> uint8 (H, W, 3) RGB; `ValueError` when it is neither or damaged.

    draft: height and width that will do. A JPEG is then decoded with fast arithmetic to the
    smallest eighth of its size that still holds them: at half size the pixels differ by about a
    grey level from those that are averaged after decoding in full.
    """
    if data[:8] == _PNG:
        import cv2

        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise ValueError(f"expected a PNG, got {len(data)} bytes that do not decode as one.")
        return image
    import simplejpeg

    if draft is None:
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    return simplejpeg.decode_jpeg(
        data,
        colorspace="RGB",
        min_height=draft[0],
        min_width=draft[1],
        fastdct=True,
        fastupsample=True,
    )


def turn_image(image: np.ndarray, degrees: int) -> np.ndarray:
    """uint8 (H, W, 3), turned clockwise by a multiple of 90 degrees; by 0 the same array."""
    if degrees % 360 == 0:
        return image
    return np.ascontiguousarray(np.rot90(image, -degrees // 90))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (*size, 3) by averaging areas; the same array if it fits already.

    Args:
        image: RGB image.
        size: height and width wanted.
    """
    import cv2

    height, width = size
    if _checked(image).shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def looks_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG has its header and its end; says nothing of what lies between.

    False too for pictures that decode although their end is unusual.
    """
    if data[:8] == _PNG:
        return data[12:16] == b"IHDR" and data[-8:-4] == b"IEND"
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return False
    import simplejpeg

    try:
        simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return True


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"expected an RGB image uint8 (H, W, 3), got {image.dtype} {image.shape}; "
            'environments give one with obs_mode="rgb".'
        )
    return image


def strip(rows: Sequence[Sequence[np.ndarray | None]], gap: int = 4) -> np.ndarray:
    """uint8 frames (H, W, 3) in rows and columns -> one image on white, `gap` pixels apart.

    A None leaves its place white. All frames have one size.
    """
    size = next(frame.shape for row in rows for frame in row if frame is not None)
    cells = np.full(
        (len(rows), max(map(len, rows)), size[0] + gap, size[1] + gap, 3), 255, np.uint8
    )
    for r, row in enumerate(rows):
        for c, frame in enumerate(row):
            if frame is not None:
                cells[r, c, : size[0], : size[1]] = frame
    canvas = rearrange(cells, "r c h w rgb -> (r h) (c w) rgb")
    return canvas[: len(canvas) - gap, : canvas.shape[1] - gap]


def beside(pictures: Sequence[np.ndarray], gap: int = 8) -> np.ndarray:
    """uint8 pictures (H, W, 3) of any sizes from left to right on white, `gap` pixels apart."""
    height = max(len(picture) for picture in pictures)
    columns = [
        np.pad(picture, [(0, height - len(picture)), (0, gap), (0, 0)], constant_values=255)
        for picture in pictures
    ]
    whole = np.concatenate(columns, axis=1)
    return whole[:, : whole.shape[1] - gap]


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
