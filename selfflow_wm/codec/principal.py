"""Principal components as a codec's linear part: the axes, the scale of each, the map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from selfflow_wm.codec.base import take

_ROWS = 8192
"""Rows taken to float64 at a time."""


def principal_axes(
    chunks: Iterable[Float[Tensor, "r D"]], components: int
) -> tuple[Float[Tensor, "D C"], Float[Tensor, "C"]]:
    """The first axes of centred rows and the standard deviation along each, in float64.

    Each axis's largest weight is positive, so that the same rows give the same axes.
    """
    covariance, count = None, 0
    for chunk in chunks:
        product = chunk.T @ chunk
        covariance = product if covariance is None else covariance + product
        count += len(chunk)
    assert covariance is not None
    variance, vectors = torch.linalg.eigh(covariance / count)
    variance = variance.flip(0)[:components]
    basis = vectors.flip(1)[:, :components]
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    return basis * largest.sign(), variance.clamp(min=0.0).sqrt()


def subset(count: int, most: int, seed: int) -> slice | Int[Tensor, "n"]:
    """Which of `count` rows to fit on: all, or a random `most` of them."""
    if count <= most:
        return slice(None)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most]


def latent_scale(std: Float[Tensor, "C"], whitening: float, floor: float) -> Float[Tensor, "C"]:
    """What coefficients are divided by: max(std, floor)^p * g, g such that the mean variance of
    the latents is 1."""
    scale = std.clamp(min=floor) ** whitening
    return scale * ((std / scale) ** 2).mean().sqrt().clamp(min=1e-12)


def check_whitening(whitening: float) -> float:
    """`whitening`, if it is in [0, 1]."""
    if not 0.0 <= whitening <= 1.0:
        raise ValueError(f"expected whitening in [0, 1], got {whitening}")
    return float(whitening)


class PrincipalMap:
    """Rows (..., D) to latents (..., C) and back: (row - mean) @ basis / latent_scale.

    Args:
        mean, basis, std: what `fit` found; (D,), (D, C), (C,).
        whitening: p in [0, 1], see `PatchPCA`.
        floor: axes flatter than this fraction of the widest are not amplified.
    """

    def __init__(
        self, mean: Tensor, basis: Tensor, std: Tensor, whitening: float, floor: float
    ) -> None:
        self.mean, self.basis, self.std = (
            x.to(torch.float32).contiguous() for x in (mean, basis, std)
        )
        std = self.std.double()
        least = max(floor * float(std.max()), 1e-12)
        scale = latent_scale(std, whitening, least)
        self._encode = (self.basis.double() / scale).float()
        self._decode = (self.basis.double() * scale).T.contiguous().float()

    @classmethod
    def fit(
        cls,
        rows: Float[Tensor, "r D"],
        channels: int,
        whitening: float,
        *,
        floor: float,
        centre: bool = True,
        max_rows: int = 100_000,
        seed: int = 0,
    ) -> Self:
        """Fit on a random subset of `max_rows` rows. centre: subtract their mean."""
        rows = rows[subset(len(rows), max_rows, seed)]
        if len(rows) <= channels:
            raise ValueError(
                f"expected more than {channels} tokens to fit, got {len(rows)}; give more samples "
                "or keep fewer channels"
            )
        mean = torch.zeros(rows.shape[1], dtype=torch.float64)
        if centre:
            mean = sum((chunk.double().sum(0) for chunk in rows.split(_ROWS)), mean) / len(rows)
        centred = (chunk.double() - mean for chunk in rows.split(_ROWS))
        return cls(mean, *principal_axes(centred, channels), whitening, floor)

    def encode(self, rows: Float[Tensor, "... D"]) -> Float[Tensor, "... C"]:
        return (rows - self.mean.to(rows.device)) @ self._encode.to(rows.device)

    def decode(self, latents: Float[Tensor, "... C"]) -> Float[Tensor, "... D"]:
        return latents.float() @ self._decode.to(latents.device) + self.mean.to(latents.device)

    def state(self, prefix: str = "") -> dict[str, Tensor]:
        """The fitted tensors, their names after `prefix`."""
        return {
            f"{prefix}mean": self.mean,
            f"{prefix}basis": self.basis,
            f"{prefix}std": self.std,
        }

    @classmethod
    def from_state(
        cls,
        tensors: Mapping[str, Tensor],
        size: int,
        channels: int,
        whitening: float,
        *,
        floor: float,
        prefix: str = "",
    ) -> Self:
        """The inverse of `state`, for rows of `size` = D values."""
        return cls(
            take(tensors, f"{prefix}mean", (size,)),
            take(tensors, f"{prefix}basis", (size, channels)),
            take(tensors, f"{prefix}std", (channels,)),
            whitening,
            floor,
        )
