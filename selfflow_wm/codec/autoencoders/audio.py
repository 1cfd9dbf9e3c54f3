"""Oobleck: sound."""

from __future__ import annotations

import os
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from selfflow_wm.codec.autoencoders.folder import Autoencoder
from selfflow_wm.codec.base import AudioCodec, check_latents
from selfflow_wm.codec.weights import BATCH_VALUES, in_batches


class OobleckAudio(Autoencoder, AudioCodec):
    """Stable Audio's convolutional autoencoder of waveforms, and those trained from it.

    Latents are the mode of the posterior times `scale`; the published ones are used with 1.
    Long clips go through in tiles of `TILE` tokens with `MARGIN` on each side, more than the
    network sees, so the result is that of the whole clip.

    Args:
        samples: S, of one clip in each channel, divisible by the network's hop.
        weights, dtype, weights_sha256: as `SDVAE`.
        scale: factor of the latents.
    """

    kind = "oobleck_audio"
    network_class = "AutoencoderOobleck"

    TILE = 512
    MARGIN = 64
    """Tokens. The published encoder and decoder see fewer than 32 on each side."""

    def __init__(
        self,
        samples: int,
        weights: str | os.PathLike[str],
        dtype: str = "float32",
        weights_sha256: str | None = None,
        scale: float = 1.0,
    ) -> None:
        self._open(weights, dtype, weights_sha256)
        self.hop = int(self.network.hop_length)
        if samples < 1 or samples % self.hop:
            raise ValueError(
                f"expected samples divisible by {self.hop}, got {samples}; cut or pad the clips"
            )
        self.samples, self.sample_rate = int(samples), int(self.settings.sampling_rate)
        self.audio_channels = int(self.settings.audio_channels)
        self.channels = int(self.settings.decoder_input_channels)
        self.grid, self.scale = (samples // self.hop, 1, 1), float(scale)

    def encode(
        self, waveform: Float[Tensor, "... A S"], sample_rate: int
    ) -> Float[Tensor, "... n C"]:
        """Tokens of float waveforms; ValueError at another sample rate or length."""
        self.check_waveform(waveform, sample_rate)
        network = self._moved(waveform.device)

        def encode(rows: Tensor) -> Tensor:
            return network.encode(rows.to(self._type)).latent_dist.mode().float()

        rows = waveform.reshape(-1, *waveform.shape[-2:])
        latents = self._tiled(encode, rows, self.hop, 1)
        tokens = rearrange(latents, "b c n -> b n c") * self.scale
        return tokens.reshape(*waveform.shape[:-2], *tokens.shape[1:])

    def decode(self, latents: Float[Tensor, "... n C"]) -> Float[Tensor, "... A S"]:
        """The waveforms of tokens, float32, not clipped."""
        check_latents(latents, self)
        network = self._moved(latents.device)

        def decode(rows: Tensor) -> Tensor:
            return network.decode(rows.to(self._type)).sample.float()

        rows = rearrange(latents.float() / self.scale, "... n c -> ... c n")
        waveform = self._tiled(decode, rows.reshape(-1, *rows.shape[-2:]), 1, self.hop)
        return waveform.reshape(*latents.shape[:-2], *waveform.shape[1:])

    def _tiled(self, function: Any, rows: Tensor, step_in: int, step_out: int) -> Tensor:
        """`function` of `rows` (b, c, tokens * step_in), tile by tile, margins cut off."""
        parts, tokens = [], self.grid[0]
        budget = max(1, BATCH_VALUES // (self.samples * self.audio_channels)) * rows[:1].numel()
        for start in range(0, tokens, self.TILE):
            stop = min(start + self.TILE, tokens)
            low, high = max(0, start - self.MARGIN), min(tokens, stop + self.MARGIN)
            part = in_batches(function, rows[..., low * step_in : high * step_in], budget)
            parts.append(part[..., (start - low) * step_out : (stop - low) * step_out])
        return torch.cat(parts, dim=-1)
