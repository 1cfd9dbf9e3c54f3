"""What every codec has in common: its description, its state and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

_KINDS: dict[str, type[Codec]] = {}


class Codec(ABC):
    """uint8 frames (..., H, W, 3) to float32 latents (..., n, C) and back.

    The whole of a codec is `config` (JSON-able) and `state_dict()` (contiguous tensors, ready
    for safetensors); `codec_from_state(config, tensors)` rebuilds it. Codecs are immutable
    once fitted and hold no trainable parameter.
    """

    kind: ClassVar[str]
    grid: tuple[int, int, int]
    """(T, H, W) tokens of one sample; n = T * H * W, row-major."""
    channels: int
    """Values per token, C."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:  # an abstract family has none
            _KINDS[cls.kind] = cls

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON-able constructor arguments, with "kind"."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """The fitted tensors; ValueError before `fit`."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Codec:
        """The codec that `config` and `state_dict()` came from."""

    def hash(self) -> str:
        """sha256 (hex) of the configuration and of every tensor's name, type, shape and bytes."""
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            tensor = tensor.detach().cpu().contiguous()
            digest.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


class ImageCodec(Codec):
    """Codecs of single pictures: grid (1, h, w)."""

    image_size: tuple[int, int]
    """(H, W) of the pictures, pixels."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """uint8 (..., H, W, 3) -> float32 (..., n, C)."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """float (..., n, C) -> uint8 (..., H, W, 3), rounded and clipped."""


def codec_from_state(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Codec:
    """Rebuild any codec from its `config` and its `state_dict()`."""
    kind = config.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"expected a codec kind among {sorted(_KINDS)}, got {kind!r}")
    return _KINDS[kind].from_state(config, tensors)


def take(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """The float32 tensor `name` of a saved state; ValueError when missing or misshapen."""
    if name not in tensors:
        raise ValueError(f"expected the codec tensor {name!r}, got {sorted(tensors)}")
    if tuple(tensors[name].shape) != shape:
        raise ValueError(
            f"expected codec tensor {name!r} of shape {shape}, got {tuple(tensors[name].shape)}; "
            "the configuration and the tensors belong to different codecs"
        )
    return tensors[name].to(torch.float32).contiguous()


def check_frames(frames: Tensor, image_size: tuple[int, int]) -> Tensor:
    """`frames`, if they are uint8 (..., H, W, 3) of the right size."""
    if frames.dtype != torch.uint8 or tuple(frames.shape[-3:]) != (*image_size, 3):
        raise ValueError(
            f"expected uint8 frames (..., {image_size[0]}, {image_size[1]}, 3), got {frames.dtype} "
            f"{tuple(frames.shape)}; resize them or fit a codec for this size"
        )
    return frames
