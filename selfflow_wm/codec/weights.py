"""Shared by codecs of published weights: finding the files, batches that fit, pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from selfflow_wm.files import file_digest as file_digest

VARIABLE = "SELFFLOW_WEIGHTS"
"""The environment variable with the folder in which weights are looked for."""

BATCH_VALUES = 1 << 24
"""Input values (pixels times channels, samples) that a network takes at once."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def find_weights(given: str | os.PathLike[str] | None, name: str) -> Path:
    """The folder of weights that contains the file `name`; nothing is ever downloaded.

    given: a folder. Where it is missing (a checkpoint that came from another machine), its last
    part is looked for in the folder that `SELFFLOW_WEIGHTS` names; None looks into that itself.
    Or OWNER/NAME or OWNER/NAME/FOLDER of a model in the Hugging Face hub's cache on this disk.

    Raises:
        ValueError: the file is in none of these places.
    """
    root = os.environ.get(VARIABLE)
    places = [] if given is None else [Path(given)]
    if root:
        places += [Path(root)] if given is None else [Path(root) / Path(given).name, Path(root)]
    places += _hub_cache(given)
    for place in places:
        if (place / name).is_file():
            return place
    raise ValueError(
        f"expected a folder of weights with {name}, got "
        + (", ".join(f"{place} without it" for place in places) or "no folder")
        + f"; put the files there yourself (nothing is downloaded) and give the folder as weights, "
        f"or set {VARIABLE} to it, or give OWNER/NAME/FOLDER of a model in the hub's cache"
    )


def _hub_cache(given: str | os.PathLike[str] | None) -> list[Path]:
    """The folder in the hub's cache (`HF_HUB_CACHE`, else `HF_HOME`/hub) of a model's newest
    snapshot: that of its branch main, as `huggingface-cli download` leaves it."""
    parts = () if given is None else Path(given).parts
    if len(parts) < 2 or Path(*parts).is_absolute() or ".." in parts:
        return []
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    model = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{'--'.join(parts[:2])}"
    main = model / "refs" / "main"
    if not main.is_file():
        return []
    return [(model / "snapshots" / main.read_text().strip()).joinpath(*parts[2:])]


def compute_dtype(name: str) -> torch.dtype:
    """The type of weights and activations; ValueError for any but float32 and bfloat16."""
    if name not in DTYPES:
        raise ValueError(f"expected dtype out of {sorted(DTYPES)}, got {name!r}")
    return DTYPES[name]


def in_batches(
    function: Callable[[Tensor], Tensor], rows: Tensor, budget: int = BATCH_VALUES
) -> Tensor:
    """`function` of `rows` (B, ...) without gradient, as many rows at once as `budget` values
    allow, and half as many after each time that the GPU's memory does not suffice."""
    size = max(1, budget // max(1, rows[:1].numel()))
    done, start = [], 0
    with torch.no_grad():
        while start < len(rows) or not done:
            try:
                part = function(rows[start : start + size])
            except torch.cuda.OutOfMemoryError:
                if size == 1:
                    raise
                size = max(1, size // 2)
                torch.cuda.empty_cache()
                continue
            done.append(part)
            start += size
    return torch.cat(done)


def to_pixels(images: Float[Tensor, "b 3 ..."]) -> UInt8[Tensor, "b 3 ..."]:
    """[-1, 1] to uint8, rounded and clipped."""
    return (127.5 * (images.float() + 1)).round().clamp(0, 255).to(torch.uint8)


def from_pixels(images: UInt8[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    """uint8 to [-1, 1]."""
    return (images.float() / 127.5 - 1.0).to(dtype)


def pack_patches(latents: Float[Tensor, "b c H W"], patch: int) -> Float[Tensor, "b n C"]:
    """Squares of latents to tokens, row-major; values in the order (channel, row, column)."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def unpack_patches(
    tokens: Float[Tensor, "b n C"], grid: tuple[int, int, int], patch: int
) -> Float[Tensor, "b c H W"]:
    """The inverse of `pack_patches` for tokens of `grid` = (1, h, w)."""
    return rearrange(
        tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=grid[1], w=grid[2], p=patch, q=patch
    )
