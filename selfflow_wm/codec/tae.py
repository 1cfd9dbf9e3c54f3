"""TAEF2: a small convolutional autoencoder of FLUX.2's latents (madebyollin/taesd, MIT)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from selfflow_wm.codec.base import (
    ImageCodec,
    check_frames,
    check_image_size,
    check_latents,
    part_of,
    prefixed,
    take,
)
from selfflow_wm.codec.weights import (
    compute_dtype,
    find_weights,
    in_batches,
    pack_patches,
    unpack_patches,
)

FILES = {"encoder": "taef2_encoder.safetensors", "decoder": "taef2_decoder.safetensors"}

_WIDTH, _LATENT, _DOWN, _PACK = 64, 32, 8, 2
_STD_FLOOR = 1e-3


class _Block(nn.Module):
    """relu(three convolutions + input), its input first corrected by a wide 1 x 1 branch."""

    def __init__(self, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(_WIDTH, _WIDTH),
            nn.ReLU(),
            _conv(_WIDTH, _WIDTH),
            nn.ReLU(),
            _conv(_WIDTH, _WIDTH),
        )
        self.pool = None
        if pool:
            wide = 4 * _WIDTH
            self.pool = nn.Sequential(
                nn.Conv2d(_WIDTH, wide, 1, bias=False),
                nn.GroupNorm(4, wide),
                nn.ReLU(),
                nn.Conv2d(wide, _WIDTH, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _Bound(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


def _conv(inputs: int, outputs: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def make_encoder() -> nn.Sequential:
    """RGB in [0, 1] (B, 3, H, W) -> (B, 32, H / 8, W / 8); the names of the published file."""
    layers: list[nn.Module] = [_conv(3, _WIDTH), _Block()]
    for stage in range(3):
        layers.append(_conv(_WIDTH, _WIDTH, stride=2, bias=False))
        layers += [_Block(pool=stage == 2) for _ in range(3)]
    return nn.Sequential(*layers, _conv(_WIDTH, _LATENT))


def make_decoder() -> nn.Sequential:
    """(B, 32, h, w) -> RGB in about [0, 1] (B, 3, 8 h, 8 w)."""
    layers: list[nn.Module] = [_Bound(), _conv(_LATENT, _WIDTH), nn.ReLU()]
    for stage in range(3):
        layers += [_Block(pool=stage == 0) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), _conv(_WIDTH, _WIDTH, bias=False)]
    return nn.Sequential(*layers, _Block(), _conv(_WIDTH, 3))


class TAEFlux2(ImageCodec):
    """FLUX.2's tokens from a network of 1.3M parameters each way: 16 x 16 pixels, 128 values.

    The network's 32 channels at 1/8 are packed 2 x 2 as (channel, row, column), FLUX.2's order.
    FLUX.2 then normalises the 128 values by statistics that are stored with its own autoencoder
    and not here: `fit` takes them from pictures. Unfitted, the shift is 0 and the scale 1.

    A checkpoint holds the weights (5 MB), so loading it needs no other file.

    Args:
        image_size: (H, W) pixels, both divisible by 16.
        weights: folder of taef2_encoder.safetensors and taef2_decoder.safetensors; None: the
            folder that SELFFLOW_WEIGHTS names.
        dtype: "float32" or "bfloat16", of the network; latents are float32.
    """

    kind = "tae_flux2"

    def __init__(
        self,
        image_size: Sequence[int],
        weights: str | os.PathLike[str] | None = None,
        dtype: str = "float32",
    ) -> None:
        self._prepare(image_size, dtype)
        folder = find_weights(weights, FILES["encoder"])
        self._load({part: _read(folder / file) for part, file in FILES.items()})

    def _prepare(self, image_size: Sequence[int], dtype: str) -> None:
        side = _DOWN * _PACK
        height, width = self.image_size = check_image_size(image_size, side)
        self.dtype = dtype
        self._type = compute_dtype(dtype)
        self.grid = (1, height // side, width // side)
        self.channels = _LATENT * _PACK**2
        self.shift, self.scale = torch.zeros(self.channels), torch.ones(self.channels)

    def _load(self, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._tensors = {
            name: value.contiguous()
            for part, tensors in parts.items()
            for name, value in prefixed(part, tensors).items()
        }
        self._encoder, self._decoder = make_encoder(), make_decoder()
        for part, network in (("encoder", self._encoder), ("decoder", self._decoder)):
            try:
                network.load_state_dict(parts[part], strict=True)
            except RuntimeError as error:
                raise ValueError(
                    f"expected the tensors of {FILES[part]}, got others: {error}; is it another "
                    "autoencoder?"
                ) from None
            network.eval().requires_grad_(False).to(self._type)

    @property
    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "image_size": list(self.image_size), "dtype": self.dtype}

    def fit(self, images: UInt8[Tensor, "... H W 3"]) -> Self:
        """Shift and scale each of the 128 values to mean 0 and variance 1 over `images`."""
        rows = self._raw(images).flatten(0, -2).double()
        self.shift = rows.mean(0).float()
        self.scale = rows.std(0, correction=0).clamp(min=_STD_FLOOR).float()
        return self

    def _raw(self, images: UInt8[Tensor, "... H W 3"]) -> Float[Tensor, "... n C"]:
        check_frames(images, self.image_size)
        self._encoder.to(images.device)

        def encode(pixels: Tensor) -> Tensor:
            planes = rearrange(pixels, "b h w c -> b c h w").float() / 255.0
            return self._encoder(planes.to(self._type)).float()

        latents = in_batches(encode, images.flatten(0, -4) if images.ndim > 3 else images[None])
        tokens = pack_patches(latents, _PACK)
        return tokens.view(*images.shape[:-3], *tokens.shape[1:])

    def encode(self, images: UInt8[Tensor, "... H W 3"]) -> Float[Tensor, "... n C"]:
        """Tokens of uint8 images, normalised by `shift` and `scale`."""
        raw = self._raw(images)
        return (raw - self.shift.to(raw.device)) / self.scale.to(raw.device)

    def decode(self, latents: Float[Tensor, "... n C"]) -> UInt8[Tensor, "... H W 3"]:
        """The images of tokens, rounded and clipped to uint8."""
        check_latents(latents, self)
        device = latents.device
        self._decoder.to(device)
        raw = latents.float() * self.scale.to(device) + self.shift.to(device)
        planes = unpack_patches(raw.reshape(-1, *raw.shape[-2:]), self.grid, _PACK)

        def decode(rows: Tensor) -> Tensor:
            pixels = self._decoder(rows.to(self._type)).float()
            return (255 * pixels).round().clamp(0, 255).to(torch.uint8)

        # Counted in pixels: decoding makes 24 values of every one it reads.
        pixels = in_batches(decode, planes, budget=1 << 20)
        pixels = rearrange(pixels, "b c h w -> b h w c")
        return pixels.view(*latents.shape[:-2], *self.image_size, 3)

    def state_dict(self) -> dict[str, Tensor]:
        return {**self._tensors, "shift": self.shift, "scale": self.scale}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TAEFlux2:
        codec = cls.__new__(cls)
        codec._prepare(config["image_size"], config["dtype"])
        codec._load({part: part_of(tensors, part) for part in FILES})
        codec.shift = take(tensors, "shift", (codec.channels,))
        codec.scale = take(tensors, "scale", (codec.channels,))
        return codec


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"expected {path.name} in {path.parent}, got none; put both files there")
    return load_file(path)
