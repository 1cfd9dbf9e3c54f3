"""Video as change: latents of future frames relative to those of the current frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from selfflow_wm.codec.base import (
    Codec,
    ImageCodec,
    codec_from_config,
    codec_from_state,
    part_of,
    prefixed,
    take,
)

_FLOOR = 0.1
"""Smallest channel scale, as a fraction of the root mean square scale over channels."""


class ResidualCodec(Codec):
    """(z(frame) - z(reference)) / scale_c, with z an image codec: zero repeats the reference.

    scale_c is the root mean square (about zero) of channel c's residual over the moving
    tokens: those with more than the average squared residual. Most tokens of a scene do not
    move, and a scale over all of them would give what does move a variance far above 1.

    Args:
        base: a fitted image codec (grid (1, h, w)).
        frames: T, future frames in one sample.
    """

    kind = "residual"
    modality = "video"
    frames_per_latent = 1

    def __init__(self, base: ImageCodec, frames: int) -> None:
        if base.grid[0] != 1:
            raise ValueError(f"expected an image codec with grid (1, h, w), got {base.grid}")
        if frames < 1:
            raise ValueError(f"expected frames >= 1, got {frames}")
        self.base, self.frames = base, int(frames)
        self.channels = base.channels
        self.grid = (self.frames, *base.grid[1:])
        self._scale: Tensor | None = None

    @property
    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "frames": self.frames, "base": self.base.config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ResidualCodec:
        return cls(_image_codec(codec_from_config(config["base"])), config["frames"])

    def fit(
        self,
        frames: UInt8[Tensor, "... T H W 3"],
        reference: UInt8[Tensor, "... H W 3"],
    ) -> ResidualCodec:
        """Fit the scales on future frames and the frame each set started from. Returns self."""
        residual = self._residual(frames, self.base.encode(reference)).flatten(0, -2).double()
        energy = residual.square().mean(-1)
        # ">=" keeps every token when all move alike (and when none does).
        scale = residual[energy >= energy.mean()].square().mean(0).sqrt()
        overall = scale.square().mean().sqrt()
        scale = scale.clamp(min=_FLOOR * float(overall)) if overall > 0 else scale + 1.0
        self._scale = scale.float()
        return self

    def _residual(self, frames: Tensor, reference_latents: Tensor) -> Tensor:
        """(..., T, n, C) differences to the reference, in the base codec's units."""
        if frames.ndim < 4 or frames.shape[-4] != self.frames:
            raise ValueError(
                f"expected frames (..., {self.frames}, H, W, 3), got {tuple(frames.shape)}"
            )
        return self.base.encode(frames) - reference_latents.unsqueeze(-3)

    def encode(
        self,
        frames: UInt8[Tensor, "... T H W 3"],
        reference: UInt8[Tensor, "... H W 3"] | None = None,
        *,
        reference_latents: Float[Tensor, "... n C"] | None = None,
    ) -> Float[Tensor, "... T*n C"]:
        """Latents of `frames` relative to `reference`, given as a frame or as base latents."""
        reference_latents = self._reference(reference, reference_latents)
        return self._scaled(self._residual(frames, reference_latents))

    def relative(
        self,
        latents: Float[Tensor, "... T n C"],
        reference_latents: Float[Tensor, "... n C"],
    ) -> Float[Tensor, "... T*n C"]:
        """`encode` of frames whose base latents are at hand."""
        if latents.ndim < 3 or latents.shape[-3] != self.frames:
            raise ValueError(
                f"expected latents (..., {self.frames}, n, C), got {tuple(latents.shape)}"
            )
        return self._scaled(latents - reference_latents.unsqueeze(-3))

    def _scaled(self, residual: Tensor) -> Tensor:
        scale = self.fitted(self._scale).to(residual.device)
        return rearrange(residual / scale, "... t n c -> ... (t n) c")

    def decode(
        self,
        latents: Float[Tensor, "... T*n C"],
        reference: UInt8[Tensor, "... H W 3"] | None = None,
        *,
        reference_latents: Float[Tensor, "... n C"] | None = None,
    ) -> UInt8[Tensor, "... T H W 3"]:
        """The frames that `latents` and the reference stand for."""
        reference_latents = self._reference(reference, reference_latents)
        residual = latents * self.fitted(self._scale).to(latents.device)
        residual = rearrange(residual, "... (t n) c -> ... t n c", t=self.frames)
        return self.base.decode(residual + reference_latents.unsqueeze(-3))

    def token_valid(self, valid: Bool[Tensor, "... T"]) -> Bool[Tensor, "... T*n"]:
        """Which tokens stand for real frames; `valid`: which frames are real."""
        return valid.repeat_interleave(self.grid[1] * self.grid[2], dim=-1)

    def _reference(self, reference: Tensor | None, latents: Tensor | None) -> Tensor:
        if reference is not None and latents is None:
            return self.base.encode(reference)
        if reference is None and latents is not None:
            return latents
        raise ValueError("expected either a reference frame or its latents, got both or none")

    def state_dict(self) -> dict[str, Tensor]:
        return prefixed("base", self.base.state_dict()) | {"scale": self.fitted(self._scale)}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ResidualCodec:
        base = codec_from_state(config["base"], part_of(tensors, "base"))
        codec = cls(_image_codec(base), config["frames"])
        codec._scale = take(tensors, "scale", (codec.channels,))
        return codec


def _image_codec(base: Codec) -> ImageCodec:
    if not isinstance(base, ImageCodec):
        raise ValueError(f"expected an image codec as base, got {base.kind!r}")
    return base
