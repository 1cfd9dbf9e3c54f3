"""Latents to pictures: the codec in our checkpoints, or Stable Diffusion's autoencoder."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from selfflow_wm.codec import SDVAE, Codec, ImageCodec
from selfflow_wm.layout import Modality


class CodecDecoder:
    """Turns a batch of tokens into pictures by an `ImageCodec` on `device`; ValueError when its
    latents are not the model's."""

    def __init__(
        self,
        codec: Codec,
        image: Modality,
        device: torch.device | str = "cpu",
        name: str | None = None,
    ) -> None:
        if not isinstance(codec, ImageCodec) or (codec.grid, codec.channels) != (
            image.grid,
            image.channels,
        ):
            raise ValueError(
                f"expected an image codec of grid {image.grid} and {image.channels} channels, got "
                f"{codec.kind} with {codec.grid} and {codec.channels}; the checkpoint is mixed up"
            )
        self.codec, self.device = codec, torch.device(device)
        self.name = name or f"codec {codec.hash()[:12]}"

    def __call__(self, latents: Float[Tensor, "B n C"]) -> UInt8[Tensor, "B H W 3"]:
        return self.codec.decode(latents.float().to(self.device)).cpu()


def vae_decoder(path: Path, image: Modality, device: torch.device | str) -> CodecDecoder:
    """Stable Diffusion's autoencoder from a local folder in diffusers' format, in float32."""
    try:
        codec = SDVAE.for_tokens(image.grid, image.channels, path)
    except ValueError as error:
        raise ValueError(f"--vae {path}: {error}; or leave --vae out to get latents") from None
    return CodecDecoder(codec, image, device, name=f"vae {Path(path).resolve().name}")
