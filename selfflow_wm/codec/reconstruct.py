"""Pictures from files, and how well they come back from a codec (`evaluate reconstruct`)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from selfflow_wm.cli import run_evaluate


def read_picture(path: Path, size: tuple[int, int]) -> UInt8[Tensor, "H W 3"]:
    """An RGB picture, scaled to cover (H, W) and cropped in the middle."""
    try:
        with Image.open(path) as image:
            picture = to_rgb(image)
    except Exception as error:  # Pillow's decoders raise many kinds of errors for damaged files
        raise ValueError(f"{path}: expected a picture, got none: {error}; check the path") from None
    return cover(picture, size)


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture as viewers show it: turned as its EXIF says, transparency over white, 16 bits of
    grey scaled to 8 (Pillow's own conversion clips them)."""
    picture.load()
    with suppress(Exception):  # damaged EXIF, for which Pillow raises many kinds of errors
        ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode.startswith("I"):  # 16 bits; older versions of Pillow open them in 32
        grey = np.asarray(picture).astype(np.int64)
        return Image.fromarray(((grey + 128) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def cover(picture: Image.Image, size: tuple[int, int]) -> UInt8[Tensor, "H W 3"]:
    """An RGB picture scaled to cover (H, W) and cropped in the middle."""
    height, width = size
    scale = max(height / picture.height, width / picture.width)
    picture = picture.resize(
        (max(width, round(picture.width * scale)), max(height, round(picture.height * scale))),
        Image.Resampling.LANCZOS,
    )
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return torch.from_numpy(np.array(picture.crop((left, top, left + width, top + height))))


def psnr(images: UInt8[Tensor, "B H W 3"], others: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B"]:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / mean squared error); inf when equal."""
    error = (images.float() - others.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(255.0**2 / error)


if __name__ == "__main__":
    run_evaluate("reconstruct")
