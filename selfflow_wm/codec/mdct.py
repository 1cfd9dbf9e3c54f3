"""Waveforms to lapped cosine transforms: an invertible audio codec that needs no download."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from selfflow_wm.codec.base import AudioCodec, check_latents
from selfflow_wm.codec.principal import PrincipalMap, check_whitening

_FLOOR = 1e-3


class MDCTCodec(AudioCodec):
    """One token for every `hop` samples: the principal components of its MDCT coefficients.

    The modified discrete cosine transform with the sine window (Princen and Bradley 1987),
    written as a rotation of the samples around each border between hops and a DCT-IV of each
    hop. Nothing overlaps the two ends of a clip, so S samples give exactly S coefficients and
    the transform is orthonormal: with all components kept, decoding is exact up to rounding,
    and what dropping some costs is the energy in them. Stereo is coded as (left + right) and
    (left - right), over sqrt(2).

    Latents are scaled as those of `PatchPCA`: `whitening` = p lifts the quiet, high
    frequencies, from 0 (not at all) to 1 (all components have variance 1).

    Args:
        sample_rate: Hz.
        samples: S, of one clip in each channel, divisible by `hop`.
        hop: samples of a token, even; 25 tokens a second are sample_rate / 25.
        channels: components kept, at most hop * audio_channels.
        audio_channels: 1 (mono) or 2 (stereo).
        whitening: p in [0, 1].
    """

    kind = "mdct"

    def __init__(
        self,
        sample_rate: int,
        samples: int,
        hop: int,
        channels: int,
        audio_channels: int = 1,
        whitening: float = 0.5,
    ) -> None:
        if hop < 2 or hop % 2 or samples < 1 or samples % hop:
            raise ValueError(
                f"expected samples divisible by an even hop, got {samples} and {hop}; cut or pad "
                "the clips"
            )
        if audio_channels not in (1, 2):
            raise ValueError(f"expected audio_channels 1 or 2, got {audio_channels}; mix them")
        if not 1 <= channels <= hop * audio_channels:
            raise ValueError(f"expected channels in 1..{hop * audio_channels}, got {channels}")
        if sample_rate < 1:
            raise ValueError(f"expected sample_rate >= 1 Hz, got {sample_rate}")
        self.sample_rate, self.samples, self.hop = int(sample_rate), int(samples), int(hop)
        self.channels, self.audio_channels = int(channels), int(audio_channels)
        self.whitening = check_whitening(whitening)
        self.grid = (samples // hop, 1, 1)
        self._map: PrincipalMap | None = None

    def fit(
        self,
        waveform: Float[Tensor, "... A S"],
        sample_rate: int,
        max_tokens: int = 100_000,
        seed: int = 0,
    ) -> MDCTCodec:
        """Fit on clips, on a random subset of `max_tokens` of their tokens. Returns self."""
        rows = self._transform(self.check_waveform(waveform, sample_rate)).flatten(0, -2)
        self._map = PrincipalMap.fit(
            rows,
            self.channels,
            self.whitening,
            floor=_FLOOR,
            centre=False,  # silence is zero
            max_rows=max_tokens,
            seed=seed,
        )
        return self

    def _transform(self, waveform: Float[Tensor, "... A S"]) -> Float[Tensor, "... n A*hop"]:
        blocks = _mid_side(waveform.float()).unflatten(-1, (-1, self.hop))
        return rearrange(mdct(blocks), "... a n m -> ... n (a m)")

    def encode(
        self, waveform: Float[Tensor, "... A S"], sample_rate: int
    ) -> Float[Tensor, "... n C"]:
        """Latents of float waveforms; ValueError at another sample rate or length."""
        rows = self._transform(self.check_waveform(waveform, sample_rate))
        return self.fitted(self._map).encode(rows)

    def decode(self, latents: Float[Tensor, "... n C"]) -> Float[Tensor, "... A S"]:
        """The waveforms that latents stand for, float32, not clipped."""
        rows = self.fitted(self._map).decode(check_latents(latents, self))
        blocks = rearrange(rows, "... n (a m) -> ... a n m", a=self.audio_channels)
        return _mid_side(inverse_mdct(blocks).flatten(-2))

    def state_dict(self) -> dict[str, Tensor]:
        return self.fitted(self._map).state()

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MDCTCodec:
        codec = cls.from_config(config)
        codec._map = PrincipalMap.from_state(
            tensors,
            codec.hop * codec.audio_channels,
            codec.channels,
            codec.whitening,
            floor=_FLOOR,
        )
        return codec


def mdct(blocks: Float[Tensor, "... n M"]) -> Float[Tensor, "... n M"]:
    """Orthonormal MDCT of consecutive blocks of M samples, M even."""
    return _rotate(blocks, 1.0) @ _dct_iv(blocks)


def inverse_mdct(coefficients: Float[Tensor, "... n M"]) -> Float[Tensor, "... n M"]:
    """The blocks of samples that `mdct` came from."""
    return _rotate(coefficients @ _dct_iv(coefficients), -1.0)


def _dct_iv(like: Tensor) -> Tensor:
    """The symmetric orthonormal matrix sqrt(2 / M) cos(pi / M (i + 1/2) (k + 1/2))."""
    size = like.shape[-1]
    half = torch.arange(size, dtype=torch.float64) + 0.5
    matrix = math.sqrt(2 / size) * torch.cos(math.pi / size * half[:, None] * half)
    return matrix.to(like)


def _rotate(blocks: Tensor, direction: float) -> Tensor:
    """Turn each pair of samples mirrored at an inner border by the angle of the sine window.

    DCT-IV continues a block evenly at its left and oddly at its right: hence the one plus and
    the one minus. Far from the border the angle goes to zero.
    """
    half = blocks.shape[-1] // 2
    place = torch.arange(half, dtype=torch.float64) + 0.5 + half
    angle = math.pi / (4 * half) * place
    inside, outside = angle.sin().to(blocks), (direction * angle.cos()).to(blocks)
    right = blocks[..., 1:, :half]
    left = blocks[..., :-1, half:].flip(-1)
    turned = blocks.clone()
    turned[..., 1:, :half] = inside * right + outside * left
    turned[..., :-1, half:] = (inside * left - outside * right).flip(-1)
    return turned


def _mid_side(waveform: Float[Tensor, "... A S"]) -> Float[Tensor, "... A S"]:
    """Left and right to middle and side, and back: its own inverse. Mono stays."""
    if waveform.shape[-2] == 1:
        return waveform
    left, right = waveform.unbind(-2)
    return torch.stack([left + right, left - right], dim=-2) * math.sqrt(0.5)
