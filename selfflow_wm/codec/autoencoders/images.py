"""SD-VAE and FLUX.2's autoencoder: pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Self

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from selfflow_wm.codec.autoencoders.folder import Autoencoder
from selfflow_wm.codec.base import ImageCodec, check_frames, check_image_size, check_latents
from selfflow_wm.codec.weights import (
    BATCH_VALUES,
    find_weights,
    from_pixels,
    in_batches,
    pack_patches,
    to_pixels,
    unpack_patches,
)


class _ImageAutoencoder(Autoencoder, ImageCodec):
    """The 2-D ones: tokens are squares of latents, values as (channel, row, column)."""

    def _lay_out(self, image_size: Sequence[int], patch: int) -> None:
        side = patch * 2 ** (len(self.settings.block_out_channels) - 1)
        height, width = self.image_size = check_image_size(image_size, side)
        self.patch = int(patch)
        self.grid = (1, height // side, width // side)
        self.channels = int(self.settings.latent_channels) * patch**2

    def _pixels(self, images: Tensor) -> Tensor:
        return to_pixels(images)

    def encode(self, images: UInt8[Tensor, "... H W 3"]) -> Float[Tensor, "... n C"]:
        """Tokens of uint8 images: the mode of the posterior, normalised."""
        check_frames(images, self.image_size)
        network = self._moved(images.device)

        def encode(rows: Tensor) -> Tensor:
            planes = rearrange(from_pixels(rows, self._type), "b h w c -> b c h w")
            return network.encode(planes).latent_dist.mode().float()

        latents = in_batches(encode, images.reshape(-1, *images.shape[-3:]))
        tokens = self._normalize(pack_patches(latents, self.patch))
        return tokens.view(*images.shape[:-3], *tokens.shape[1:])

    def decode(self, latents: Float[Tensor, "... n C"]) -> UInt8[Tensor, "... H W 3"]:
        """The images of tokens."""
        check_latents(latents, self)
        network = self._moved(latents.device)
        tokens = self._restore(latents.float().reshape(-1, *latents.shape[-2:]))
        planes = unpack_patches(tokens, self.grid, self.patch)

        def decode(rows: Tensor) -> Tensor:
            return self._pixels(network.decode(rows.to(self._type)).sample)

        height, width = self.image_size
        budget = max(1, BATCH_VALUES // (3 * height * width)) * planes[:1].numel()
        pixels = rearrange(in_batches(decode, planes, budget), "b c h w -> b h w c")
        return pixels.view(*latents.shape[:-2], *self.image_size, 3)


class SDVAE(_ImageAutoencoder):
    """Stable Diffusion's autoencoder (sd-vae-ft-ema): 4 channels at 1/8, times 0.18215.

    Latents are (mode - shift_factor) * scaling_factor of the folder's config.json. Decoded
    pixels are floor(127.5 * (x + 1)), as the reference batches of ADM's evaluation suite
    expect (not rounded).

    Args:
        image_size: (H, W) pixels, divisible by 8 * patch.
        weights: folder in diffusers' format.
        patch: side of a token in latents; 2 gives 16 values.
        dtype: "float32" or "bfloat16".
        weights_sha256: refuse other weights than these.
    """

    kind = "sd_vae"
    network_class = "AutoencoderKL"

    def __init__(
        self,
        image_size: Sequence[int],
        weights: str | os.PathLike[str],
        patch: int = 2,
        dtype: str = "float32",
        weights_sha256: str | None = None,
    ) -> None:
        self._open(weights, dtype, weights_sha256)
        self._lay_out(image_size, patch)
        self.shift = float(getattr(self.settings, "shift_factor", None) or 0.0)
        self.scale = float(self.settings.scaling_factor)

    @classmethod
    def for_tokens(
        cls, grid: tuple[int, int, int], channels: int, weights: str | os.PathLike[str]
    ) -> Self:
        """The codec of tokens of this grid and width; ValueError when there is none."""
        folder = find_weights(weights, "config.json")
        settings = json.loads((folder / "config.json").read_text())
        latent = int(settings.get("latent_channels", 4))
        patch = round((channels / latent) ** 0.5)
        if latent * patch**2 != channels:
            raise ValueError(
                f"{weights}: expected tokens of {latent} * patch^2 values, got {channels}; the "
                "model was trained on another autoencoder"
            )
        side = patch * 2 ** (len(settings.get("block_out_channels", (64,))) - 1)
        return cls((grid[1] * side, grid[2] * side), weights, patch)

    def _normalize(self, tokens: Tensor) -> Tensor:
        return (tokens - self.shift) * self.scale

    def _restore(self, tokens: Tensor) -> Tensor:
        return tokens / self.scale + self.shift

    def _pixels(self, images: Tensor) -> Tensor:
        return (127.5 * (images.float() + 1)).clamp(0, 255).to(torch.uint8)


class Flux2AE(_ImageAutoencoder):
    """FLUX.2's autoencoder: 32 channels at 1/8, packed 2 x 2 to 128 values a token.

    Each of the 128 is normalised by the running mean and variance (plus batch_norm_eps) of the
    batch norm that is stored with the weights.

    Args: as `SDVAE`, the patch being the weights' own; (H, W) divisible by 16.
    """

    kind = "flux2_ae"
    network_class = "AutoencoderKLFlux2"

    def __init__(
        self,
        image_size: Sequence[int],
        weights: str | os.PathLike[str],
        dtype: str = "float32",
        weights_sha256: str | None = None,
    ) -> None:
        self._open(weights, dtype, weights_sha256)
        self._lay_out(image_size, int(self.settings.patch_size[0]))
        norm = self.network.bn
        # In float32, whatever the network computes in.
        self.shift = norm.running_mean.float().clone()
        variance = norm.running_var.float() + float(self.settings.batch_norm_eps)
        self.scale = variance.sqrt()
