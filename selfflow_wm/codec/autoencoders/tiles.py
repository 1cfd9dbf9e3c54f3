"""Pictures too large for a network in one piece: overlapping tiles, blended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Tiles:
    """Windows of `size` x `size` tokens that cover a grid; neighbours share a quarter or more.

    Attributes:
        grid: (h, w) tokens.
        size: tokens on a side of a window, at least 4, or None: one window, the whole grid.
    """

    grid: tuple[int, int]
    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 4:
            raise ValueError(f"expected tiles of at least 4 tokens, got {self.size}; take larger")

    @cached_property
    def windows(self) -> list[tuple[range, range]]:
        """Rows and columns of each window, in tokens."""
        rows, columns = (_spans(length, self.size) for length in self.grid)
        return list(product(rows, columns))

    def cut(self, picture: Float[Tensor, "... H W"], step: int) -> list[Tensor]:
        """The windows of a picture with `step` pixels to a token."""
        return [
            picture[..., y.start * step : y.stop * step, x.start * step : x.stop * step]
            for y, x in self.windows
        ]

    def blend(self, parts: Sequence[Float[Tensor, "... Hw Ww"]], step: int) -> Tensor:
        """One picture of `parts`, those of `windows` with `step` pixels to a token.

        Where windows overlap their weights rise and fall linearly and are made to sum to 1.
        """
        if len(self.windows) == 1:
            return parts[0]
        height, width = (step * length for length in self.grid)
        total = parts[0].new_zeros((*parts[0].shape[:-2], height, width))
        weight = parts[0].new_zeros((height, width))
        for part, (y, x) in zip(parts, self.windows, strict=True):
            at = slice(y.start * step, y.stop * step), slice(x.start * step, x.stop * step)
            ramps = [_ramp(len(side) * step).to(weight) for side in (y, x)]
            ramp = rearrange(ramps[0], "h -> h 1") * ramps[1]
            total[..., at[0], at[1]] += ramp * part
            weight[at] += ramp
        return total / weight


def _spans(length: int, size: int | None) -> list[range]:
    """Windows along one side; the last ends with it."""
    if size is None or size >= length:
        return [range(length)]
    stride = size - size // 4
    starts = [*range(0, length - size, stride), length - size]
    return [range(start, start + size) for start in starts]


def _ramp(length: int) -> Tensor:
    """1 in the middle, falling over a quarter to either end; never 0."""
    edge = max(1, length // 4)
    up = (torch.arange(length) + 0.5) / edge
    return torch.minimum(up, up.flip(0)).clamp(max=1.0)
