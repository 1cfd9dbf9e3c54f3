"""A codec that needs no fitting: images as the mean colours of small squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from selfflow_wm.codec import ImageCodec
from selfflow_wm.codec.base import check_frames, check_latents


class MeanPool(ImageCodec):
    """One token per `token` x `token` pixels, holding the mean RGB of its `cells` x `cells` cells.

    Latents are (mean / 255 - 0.5) * 4: about mean 0 and variance 1 for natural images.

    Args:
        image_size: (H, W) pixels, divisible by `token`.
        token: side of a token, pixels, divisible by `cells`.
        cells: cells on a side of a token; 3 * cells^2 values a token.
    """

    kind = "mean_pool"

    def __init__(self, image_size: Sequence[int], token: int = 16, cells: int = 4) -> None:
        height, width = (int(side) for side in image_size)
        if height % token or width % token or token % cells:
            raise ValueError(
                f"expected an image size divisible by token, and token by cells, got "
                f"{(height, width)}, {token} and {cells}; token=16, cells=4 fit most sizes"
            )
        self.image_size, self.token, self.cells = (height, width), int(token), int(cells)
        self.grid = (1, height // token, width // token)
        self.channels = 3 * cells**2

    @property
    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "image_size": list(self.image_size),
            "token": self.token,
            "cells": self.cells,
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing is fitted."""
        return {}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MeanPool:
        return cls.from_config(config)

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (..., H, W, 3) -> float32 (..., n, C)."""
        cells = rearrange(
            check_frames(images, self.image_size).float(),
            "... (h c1 p1) (w c2 p2) rgb -> ... (h w) (c1 c2 rgb) (p1 p2)",
            c1=self.cells, c2=self.cells,
            p1=self.token // self.cells, p2=self.token // self.cells,
        )  # fmt: skip
        return (cells.mean(-1) / 255 - 0.5) * 4

    def decode(self, latents: Tensor) -> Tensor:
        """float (..., n, C) -> uint8 (..., H, W, 3)."""
        side = self.token // self.cells
        colours = (check_latents(latents, self) / 4 + 0.5).mul(255).round().clamp(0, 255)
        cells = rearrange(
            colours.to(torch.uint8),
            "... (h w) (c1 c2 rgb) -> ... (h c1) (w c2) rgb",
            h=self.grid[1], c1=self.cells, c2=self.cells,
        )  # fmt: skip
        return repeat(cells, "... h w rgb -> ... (h p1) (w p2) rgb", p1=side, p2=side)
