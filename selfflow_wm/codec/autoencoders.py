"""Published autoencoders through diffusers: SD-VAE, FLUX.2's, Wan 2.2's and Oobleck.

Their weights stay in the user's folder: a checkpoint records the folder and the sha256 of what
lies in it, and loading refuses other weights. diffusers is imported when one of them is made.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from selfflow_wm.codec.base import (
    AudioCodec,
    Codec,
    ImageCodec,
    check_frames,
    check_latents,
)
from selfflow_wm.codec.video import (
    GROUP,
    DecodeGroup,
    EncodeGroup,
    VideoCodec,
    check_clip_length,
    latent_frames,
)
from selfflow_wm.codec.weights import (
    BATCH_VALUES,
    compute_dtype,
    file_digest,
    find_weights,
    from_pixels,
    in_batches,
    pack_patches,
    to_pixels,
    unpack_patches,
)


class _Autoencoder(Codec):
    """A diffusers autoencoder from a local folder (config.json, *.safetensors), frozen."""

    network_class: ClassVar[str]

    def _open(
        self, weights: str | os.PathLike[str], dtype: str, weights_sha256: str | None
    ) -> None:
        """Load `self.network` and its `settings`; ValueError for absent or other weights."""
        folder = find_weights(weights, "config.json")
        settings = json.loads((folder / "config.json").read_text())
        found = settings.get("_class_name", self.network_class)
        if found != self.network_class:
            raise ValueError(
                f"{folder}: expected weights of {self.network_class}, got {found}; "
                f"{self.kind} is another autoencoder"
            )
        self.weights, self.dtype = str(weights), dtype
        self.weights_sha256 = _folder_digest(folder, settings)
        if weights_sha256 not in (None, self.weights_sha256):
            raise ValueError(
                f"{folder}: expected the weights {str(weights_sha256)[:12]} that the codec was "
                f"made with, got {self.weights_sha256[:12]}; put those into the folder"
            )
        network = _diffusers_class(self.network_class)
        self._type = compute_dtype(dtype)
        # Safetensors only, so nothing is unpickled; and never from the network.
        self.network = network.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True
        )
        self.network = self.network.to(dtype=self._type).eval().requires_grad_(False)
        self.settings = self.network.config

    def _moved(self, device: torch.device) -> Any:
        if self.network.device != device:
            self.network.to(device)
        return self.network

    def _common(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "dtype": self.dtype,
        }

    def identity(self) -> dict[str, Any]:
        # Where the weights lie does not matter, what they are does.
        return {name: value for name, value in self.config.items() if name != "weights"}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        return cls.from_config(config)


class _ImageAutoencoder(_Autoencoder, ImageCodec):
    """The 2-D ones: tokens are squares of latents, values as (channel, row, column)."""

    def _lay_out(self, image_size: Sequence[int], patch: int) -> None:
        height, width = image_size
        side = patch * 2 ** (len(self.settings.block_out_channels) - 1)
        if patch < 1 or height % side or width % side or min(height, width) < side:
            raise ValueError(
                f"expected an image size divisible by {side}, got {tuple(image_size)}; resize or "
                "crop the images"
            )
        self.image_size, self.patch = (int(height), int(width)), int(patch)
        self.grid = (1, height // side, width // side)
        self.channels = int(self.settings.latent_channels) * patch**2

    @abstractmethod
    def _normalize(self, tokens: Tensor) -> Tensor:
        """Raw tokens (b, n, C) to those a model sees."""

    @abstractmethod
    def _restore(self, tokens: Tensor) -> Tensor:
        """The inverse of `_normalize`."""

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

    @property
    def config(self) -> dict[str, Any]:
        return {**self._common(), "image_size": list(self.image_size), "patch": self.patch}

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

    @property
    def config(self) -> dict[str, Any]:
        return {**self._common(), "image_size": list(self.image_size)}

    def _normalize(self, tokens: Tensor) -> Tensor:
        return (tokens - self.shift.to(tokens.device)) / self.scale.to(tokens.device)

    def _restore(self, tokens: Tensor) -> Tensor:
        return tokens * self.scale.to(tokens.device) + self.shift.to(tokens.device)


class WanVideo(_Autoencoder, VideoCodec):
    """Wan 2.2's causal video autoencoder: 48 channels at 1/16, four frames to one.

    Each channel is normalised by latents_mean and latents_std of the folder's config.json. The
    groups of a clip go through the network one at a time; what its causal convolutions need of
    the past is kept between them, so that a stream gives what the whole clip would.

    Args:
        image_size: (H, W) pixels, divisible by 16 (Wan 2.2; 8 for Wan 2.1).
        frames: T = 1 + 4 k.
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
        self.channels = int(self.settings.z_dim)
        self.shift = torch.tensor(self.settings.latents_mean, dtype=torch.float32)
        self.scale = torch.tensor(self.settings.latents_std, dtype=torch.float32)

    @property
    def config(self) -> dict[str, Any]:
        sizes = {"image_size": list(self.image_size), "frames": self.frames}
        return {**self._common(), **sizes}

    def encode_group(self) -> EncodeGroup:
        from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

        cache: list[Any] = _conv_cache(self.network.encoder)

        def encode(group: UInt8[Tensor, "... t H W 3"]) -> Float[Tensor, "... h*w C"]:
            network, leading = self._moved(group.device), group.shape[:-4]
            video = rearrange(group.reshape(-1, *group.shape[-4:]), "b t h w c -> b c t h w")
            video = from_pixels(video, self._type)
            with torch.no_grad():
                if self.settings.patch_size is not None:
                    video = patchify(video, patch_size=self.settings.patch_size)
                hidden = network.encoder(video, feat_cache=cache, feat_idx=[0])
                raw = network.quant_conv(hidden)[:, : self.channels].float()
            tokens = rearrange(raw, "b c 1 h w -> b (h w) c")
            tokens = (tokens - self.shift.to(tokens.device)) / self.scale.to(tokens.device)
            return tokens.view(*leading, *tokens.shape[1:])

        return encode

    def decode_group(self) -> DecodeGroup:
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        cache: list[Any] = _conv_cache(self.network.decoder)
        options = {"first_chunk": True}

        def decode(latents: Float[Tensor, "... h*w C"]) -> UInt8[Tensor, "... t H W 3"]:
            network, leading = self._moved(latents.device), latents.shape[:-2]
            raw = latents.float() * self.scale.to(latents.device) + self.shift.to(latents.device)
            raw = rearrange(
                raw.reshape(-1, *latents.shape[-2:]), "b (h w) c -> b c 1 h w", h=self.grid[1]
            )
            with torch.no_grad():
                hidden = network.post_quant_conv(raw.to(self._type))
                video = network.decoder(hidden, feat_cache=cache, feat_idx=[0], **options)
                if self.settings.patch_size is not None:
                    video = unpatchify(video, patch_size=self.settings.patch_size)
            options.clear()
            frames = rearrange(to_pixels(video), "b c t h w -> b t h w c")
            return frames.reshape(*leading, *frames.shape[1:])

        return decode


class OobleckAudio(_Autoencoder, AudioCodec):
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

    @property
    def config(self) -> dict[str, Any]:
        return {**self._common(), "samples": self.samples, "scale": self.scale}

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


def _conv_cache(network: Any) -> list[Any]:
    """An empty place for each causal convolution's last frames, as the network counts them."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    return [None] * sum(isinstance(module, WanCausalConv3d) for module in network.modules())


def _diffusers_class(name: str) -> Any:
    try:
        return getattr(importlib.import_module("diffusers"), name)
    except (ImportError, AttributeError):
        raise ValueError(
            f"expected diffusers with {name}, which is not installed; "
            "pip install 'selfflow-wm[diffusers]'"
        ) from None


def _folder_digest(folder: Path, settings: Mapping[str, Any]) -> str:
    """sha256 of the settings (without diffusers' own notes, _*) and of every weights file."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"{folder}: expected weights as *.safetensors, got none; put them there yourself, "
            "nothing is downloaded"
        )
    known = {name: value for name, value in settings.items() if not name.startswith("_")}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for file in files:
        digest.update(f"|{file.name}|{file_digest(file)}".encode())
    return digest.hexdigest()
