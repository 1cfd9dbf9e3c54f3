"""python -m selfflow_wm.codec.reconstruct: pictures through a codec and back, with their PSNR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from selfflow_wm.cli import Parser, at_least, exit_code, run_main
from selfflow_wm.codec.base import ImageCodec, codec_from_config, codec_kinds
from selfflow_wm.codec.patch_pca import PatchPCA

EPILOG = """\
The figure has a row for each picture: original, reconstruction, four times their difference.
patch_pca is fitted on the very pictures that it then reconstructs.

examples:
  python -m selfflow_wm.codec.reconstruct a.png b.jpg --codec tae_flux2 --weights weights/taef2
  python -m selfflow_wm.codec.reconstruct a.png --codec patch_pca --patch 16 --channels 128
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    arguments = _parser().parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m selfflow_wm.codec.reconstruct",
        description="Encode and decode pictures, print the PSNR, draw a figure.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    kinds = codec_kinds("image")
    add("images", nargs="+", type=Path, metavar="IMAGE", help="picture files")
    add("--codec", required=True, choices=kinds, help="one of " + ", ".join(kinds))
    add("--weights", type=Path, metavar="DIR", help="folder of published weights (a local one)")
    add("--size", type=at_least(1), nargs=2, default=(256, 256), metavar=("H", "W"),
        help="pixels: the pictures are scaled to cover and cropped (default 256 256)")  # fmt: skip
    add("--dtype", default="float32", choices=("float32", "bfloat16"), help="of a network")
    add("--patch", type=at_least(1), default=16, help="patch_pca: side in pixels (default 16)")
    add("--channels", type=at_least(1), default=128, help="patch_pca: values (default 128)")
    add("--device", default="cpu", help="cpu or cuda (default cpu)")
    add("--out", type=Path, default=Path("reconstruction.png"), metavar="PNG", help="the figure")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    height, width = arguments.size
    pictures = torch.stack([read_picture(path, (height, width)) for path in arguments.images])
    codec = _codec(arguments, pictures)
    back = codec.decode(codec.encode(pictures.to(arguments.device))).cpu()
    scores = psnr(pictures, back)
    for path, score in zip(arguments.images, scores.tolist(), strict=True):
        sys.stdout.write(f"{path.name}: {score:.2f} dB\n")
    tokens = codec.grid[1] * codec.grid[2]
    sys.stdout.write(
        f"mean: {float(scores.mean()):.2f} dB, {codec.kind} {height}x{width}, "
        f"{tokens} tokens of {codec.channels} values\n"
    )
    _draw(arguments.out, pictures, back)
    sys.stdout.write(f"figure: {arguments.out}\n")
    return 0


def _codec(arguments: argparse.Namespace, pictures: Tensor) -> ImageCodec:
    config = {"kind": arguments.codec, "image_size": list(arguments.size)}
    if arguments.codec == PatchPCA.kind:
        config |= {"patch": arguments.patch, "channels": arguments.channels}
    else:
        weights = None if arguments.weights is None else str(arguments.weights)
        config |= {"weights": weights, "dtype": arguments.dtype}
    codec = codec_from_config(config)
    assert isinstance(codec, ImageCodec)
    return codec.fit(pictures) if isinstance(codec, PatchPCA) else codec


def read_picture(path: Path, size: tuple[int, int]) -> UInt8[Tensor, "H W 3"]:
    """An RGB picture, scaled to cover (H, W) and cropped in the middle."""
    try:
        with Image.open(path) as image:
            picture = to_rgb(image)
    except Exception as error:  # Pillow's decoders raise errors of many sorts at damaged files
        raise ValueError(f"{path}: expected a picture, got none: {error}; check the path") from None
    return cover(picture, size)


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture as viewers show it: turned as its EXIF says, transparency over white, 16 bits of
    grey scaled to 8 (Pillow's own conversion clips them)."""
    picture.load()
    with suppress(Exception):  # damaged EXIF, at which Pillow raises errors of many sorts
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


def _draw(path: Path, pictures: Tensor, back: Tensor) -> None:
    difference = (4 * (pictures.int() - back.int()).abs()).clamp(max=255).to(torch.uint8)
    table = rearrange([pictures, back, difference], "k b h w c -> (b h) (k w) c")
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(table.numpy()).save(temporary, format="PNG")
    temporary.replace(path)


if __name__ == "__main__":
    run_main(main)
