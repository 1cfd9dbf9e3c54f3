"""Wan 2.2's autoencoder: video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from selfflow_wm.codec.autoencoders.folder import Autoencoder
from selfflow_wm.codec.autoencoders.tiles import Tiles
from selfflow_wm.codec.video import (
    GROUP,
    DecodeGroup,
    EncodeGroup,
    VideoCodec,
    check_clip_length,
    latent_frames,
)
from selfflow_wm.codec.weights import from_pixels, to_pixels


class WanVideo(Autoencoder, VideoCodec):
    """Wan 2.2's causal video autoencoder: 48 channels at 1/16, four frames to one.

    Each channel is normalised by latents_mean and latents_std of the folder's config.json. The
    groups of a clip go through the network one at a time; what its causal convolutions need of
    the past is kept between them, so that a stream gives what the whole clip would.

    Args:
        image_size: (H, W) pixels, divisible by 16 (Wan 2.2; 8 for Wan 2.1).
        frames: T = 1 + 4 k.
        tile: pixels on a side of overlapping tiles that go through the network one at a time, for
            frames that do not fit in memory; None: whole frames. The network's attention then sees
            a tile and not the frame, so that latents differ a little: another codec.
        weights, dtype, weights_sha256: as `SDVAE`.
    """

    kind = "wan_video"
    network_class = "AutoencoderKLWan"

    def __init__(
        self,
        image_size: Sequence[int],
        frames: int,
        weights: str | os.PathLike[str],
        dtype: str = "float32",
        weights_sha256: str | None = None,
        tile: int | None = None,
    ) -> None:
        self._open(weights, dtype, weights_sha256)
        height, width = image_size
        side = int(self.settings.scale_factor_spatial)
        if height % side or width % side or int(self.settings.scale_factor_temporal) != GROUP:
            raise ValueError(
                f"expected frames divisible by {side} of a network with 4 frames a latent, got "
                f"{tuple(image_size)} and {self.settings.scale_factor_temporal}; resize the frames"
            )
        self.image_size, self.frames = (int(height), int(width)), check_clip_length(frames)
        self.grid = (latent_frames(frames), height // side, width // side)
        if tile is not None and tile % side:
            raise ValueError(f"expected tiles divisible by {side}, got {tile}; round it")
        self.tile, self._side = tile, side
        self._tiles = Tiles(self.grid[1:], None if tile is None else tile // side)
        self.channels = int(self.settings.z_dim)
        self.shift = torch.tensor(self.settings.latents_mean, dtype=torch.float32)
        self.scale = torch.tensor(self.settings.latents_std, dtype=torch.float32)

    def identity(self) -> dict[str, Any]:
        # Whole frames are what was done before there were tiles: the hash stays what it was.
        whole = {"tile"} if self.tile is None else set()
        return {name: value for name, value in super().identity().items() if name not in whole}

    def encode_group(self) -> EncodeGroup:
        from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

        caches = [_conv_cache(self.network.encoder) for _ in self._tiles.windows]

        def encode(group: UInt8[Tensor, "... t H W 3"]) -> Float[Tensor, "... h*w C"]:
            network, leading = self._moved(group.device), group.shape[:-4]
            video = rearrange(group.reshape(-1, *group.shape[-4:]), "b t h w c -> b c t h w")
            video = from_pixels(video, self._type)
            parts = []
            with torch.no_grad():
                for part, cache in zip(self._tiles.cut(video, self._side), caches, strict=True):
                    if self.settings.patch_size is not None:
                        part = patchify(part, patch_size=self.settings.patch_size)
                    hidden = network.encoder(part, feat_cache=cache, feat_idx=[0])
                    parts.append(network.quant_conv(hidden)[:, : self.channels].float())
            raw = self._tiles.blend(parts, 1)
            tokens = self._normalize(rearrange(raw, "b c 1 h w -> b (h w) c"))
            return tokens.view(*leading, *tokens.shape[1:])

        return encode

    def decode_group(self) -> DecodeGroup:
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        caches = [_conv_cache(self.network.decoder) for _ in self._tiles.windows]
        options = {"first_chunk": True}

        def decode(latents: Float[Tensor, "... h*w C"]) -> UInt8[Tensor, "... t H W 3"]:
            network, leading = self._moved(latents.device), latents.shape[:-2]
            raw = self._restore(latents.float())
            raw = rearrange(
                raw.reshape(-1, *latents.shape[-2:]), "b (h w) c -> b c 1 h w", h=self.grid[1]
            )
            parts = []
            with torch.no_grad():
                for part, cache in zip(self._tiles.cut(raw, 1), caches, strict=True):
                    hidden = network.post_quant_conv(part.to(self._type))
                    part = network.decoder(hidden, feat_cache=cache, feat_idx=[0], **options)
                    if self.settings.patch_size is not None:
                        part = unpatchify(part, patch_size=self.settings.patch_size)
                    parts.append(part)
            options.clear()
            video = self._tiles.blend(parts, self._side)
            frames = rearrange(to_pixels(video), "b c t h w -> b t h w c")
            return frames.reshape(*leading, *frames.shape[1:])

        return decode


def _conv_cache(network: Any) -> list[Any]:
    """An empty place for each causal convolution's last frames, as the network counts them."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    return [None] * sum(isinstance(module, WanCausalConv3d) for module in network.modules())
