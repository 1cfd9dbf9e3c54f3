"""Pictures through a codec and back, with their PSNR."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.cli import Parser, at_least, compute_device, one_of, perform

EPILOG = """\
The figure has a row for each picture: original, reconstruction, four times their difference.
patch_pca is fitted on the very pictures that it then reconstructs.

examples:
  python -m selfflow_wm.evaluate reconstruct a.png b.jpg --codec tae_flux2 --weights weights/taef2
  python -m selfflow_wm.evaluate reconstruct a.png --codec patch_pca --patch 16 --channels 128
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    return perform(_parser(), _run, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m selfflow_wm.evaluate reconstruct",
        description="Encode and decode pictures, print the PSNR, draw a figure.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="picture files")
    add("--codec", required=True, metavar="KIND", help="patch_pca, tae_flux2, sd_vae or flux2_ae")
    add("--weights", type=Path, metavar="DIR", help="folder of published weights (a local one)")
    add("--size", type=at_least(1), nargs=2, default=(256, 256), metavar=("H", "W"),
        help="pixels: the pictures are scaled to cover and cropped (256 256)")  # fmt: skip
    add("--dtype", default="float32", choices=("float32", "bfloat16"), help="of a network")
    add("--patch", type=at_least(1), default=16, help="patch_pca: side in pixels (16)")
    add("--channels", type=at_least(1), default=128, help="patch_pca: values (128)")
    parser.add_shared("out", required=False, default=Path("reconstruction.png"), metavar="PNG",
                      help="the figure (%(default)s)")  # fmt: skip
    parser.add_shared("device")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    import torch

    from selfflow_wm.codec import codec_kinds
    from selfflow_wm.codec.reconstruct import psnr, read_picture

    one_of("--codec", arguments.codec, codec_kinds("image"))
    height, width = arguments.size
    pictures = torch.stack([read_picture(path, (height, width)) for path in arguments.images])
    codec = _codec(arguments, pictures)
    back = codec.decode(codec.encode(pictures.to(compute_device(arguments.device)))).cpu()
    scores = psnr(pictures, back)
    for path, score in zip(arguments.images, scores.tolist(), strict=True):
        print(f"{path.name}: {score:.2f} dB")
    tokens = codec.grid[1] * codec.grid[2]
    print(
        f"mean: {float(scores.mean()):.2f} dB, {codec.kind} {height}x{width}, "
        f"{tokens} tokens of {codec.channels} values"
    )
    _draw(arguments.out, pictures, back)
    print(f"figure: {arguments.out}")


def _codec(arguments: argparse.Namespace, pictures: Any) -> Any:
    from selfflow_wm.codec import PatchPCA, codec_from_config

    config = {"kind": arguments.codec, "image_size": list(arguments.size)}
    if arguments.codec == PatchPCA.kind:
        config |= {"patch": arguments.patch, "channels": arguments.channels}
    else:
        weights = None if arguments.weights is None else str(arguments.weights)
        config |= {"weights": weights, "dtype": arguments.dtype}
    codec = codec_from_config(config)
    return codec.fit(pictures) if isinstance(codec, PatchPCA) else codec


def _draw(path: Path, pictures: Any, back: Any) -> None:
    import torch
    from einops import rearrange
    from PIL import Image

    from selfflow_wm.files import atomic_file

    difference = (4 * (pictures.int() - back.int()).abs()).clamp(max=255).to(torch.uint8)
    table = rearrange([pictures, back, difference], "k b h w c -> (b h) (k w) c")
    with atomic_file(path) as temporary:
        Image.fromarray(table.numpy()).save(temporary, format="PNG")
