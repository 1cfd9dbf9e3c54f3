"""The interface of codecs: their configuration, state, tokens and hash."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, ClassVar, Self, TypeVar

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from selfflow_wm.layout import Modality
from selfflow_wm.plugins import CODECS

Fitted = TypeVar("Fitted")

_KINDS: dict[str, type[Codec]] = {}


class Codec(ABC):
    """Raw samples (..., of `sample_shape`) to float32 latents (..., n, C) and back.

    The whole of a codec is `config` (JSON-able) and `state_dict()` (contiguous tensors, ready
    for safetensors); `codec_from_state(config, tensors)` rebuilds it. Codecs hold no trainable
    parameter, work where their input lies (CPU or GPU) and do not change once fitted.

    Their latents are shifted and scaled for a flow whose noise is N(0, I): about mean 0 and
    variance 1 over the data that the codec was fitted or trained on.
    """

    kind: ClassVar[str]
    modality: ClassVar[str]
    """"image", "video" or "audio": what a sample is."""
    grid: tuple[int, int, int]
    """(T, H, W) tokens of one sample; n = T * H * W, row-major."""
    channels: int
    """Values per token, C."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" not in cls.__dict__:  # an abstract family has none
            return
        if _is_own(cls) or cls.kind not in own_kinds():  # nobody can take a name of ours
            _KINDS[cls.kind] = cls

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able constructor arguments, with "kind": the attributes of their names."""
        named = {name: getattr(self, name) for name in signature(type(self)).parameters}
        return {"kind": self.kind} | {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in named.items()
        }

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """The fitted tensors; ValueError before `fit`."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Codec:
        """The codec that `config` and `state_dict()` came from."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The codec of these constructor arguments, not fitted yet if it is one to fit."""
        return cls(**{name: value for name, value in config.items() if name != "kind"})

    def identity(self) -> dict[str, Any]:
        """The part of `config` that decides the latents."""
        return self.config

    def hash(self) -> str:
        """sha256 (hex) of `identity()` and of every tensor's name, type, shape and bytes."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            tensor = tensor.detach().cpu().contiguous()
            digest.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def fitted(self, found: Fitted | None) -> Fitted:
        """`found`, unless it is None because `fit` was not called; then ValueError."""
        if found is None:
            name = type(self).__name__
            raise ValueError(f"expected a fitted {name}; call its fit, or load a saved one")
        return found

    def row(self, name: str | None = None, **fields: Any) -> Modality:
        """The layout's row for these latents. name: default `modality`; fields: of `Modality`."""
        return Modality(name or self.modality, self.grid, self.channels, **fields)


class ImageCodec(Codec):
    """Codecs of single pictures: grid (1, h, w)."""

    modality = "image"
    image_size: tuple[int, int]
    """(H, W) of the pictures, pixels."""

    @abstractmethod
    def encode(self, images: UInt8[Tensor, "... H W 3"]) -> Float[Tensor, "... n C"]:
        """uint8 (..., H, W, 3) -> float32 (..., n, C)."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "... n C"]) -> UInt8[Tensor, "... H W 3"]:
        """float (..., n, C) -> uint8 (..., H, W, 3), clipped."""


class AudioCodec(Codec):
    """Codecs of waveforms: grid (n, 1, 1), a token for every `hop` samples of all channels."""

    modality = "audio"
    sample_rate: int
    """Hz."""
    samples: int
    """Samples of one clip in each channel, S."""
    audio_channels: int
    """1 (mono) or 2 (stereo), A."""

    @abstractmethod
    def encode(
        self, waveform: Float[Tensor, "... A S"], sample_rate: int
    ) -> Float[Tensor, "... n C"]:
        """float (..., A, S) in about [-1, 1] at `sample_rate` Hz -> float32 (..., n, C)."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "... n C"]) -> Float[Tensor, "... A S"]:
        """float (..., n, C) -> float32 (..., A, S), not clipped."""

    def check_waveform(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """`waveform`, if it is one of this codec's clips; ValueError otherwise."""
        if sample_rate != self.sample_rate:
            raise ValueError(
                f"expected audio at {self.sample_rate} Hz, got {sample_rate} Hz; resample it, or "
                "make a codec for this rate"
            )
        shape = (self.audio_channels, self.samples)
        if not waveform.is_floating_point() or tuple(waveform.shape[-2:]) != shape:
            raise ValueError(
                f"expected float waveforms (..., {shape[0]}, {shape[1]}), got {waveform.dtype} "
                f"{tuple(waveform.shape)}; cut or pad the clip, mix its channels, divide int16 by "
                "32768"
            )
        return waveform

    def token_valid(self, lengths: Tensor) -> Bool[Tensor, "... n"]:
        """Which tokens a clip of `lengths` (...) samples, padded to S, fills entirely."""
        tokens = torch.arange(1, self.grid[0] + 1, device=lengths.device)
        return tokens * (self.samples // self.grid[0]) <= lengths[..., None]


def codec_from_state(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Codec:
    """Rebuild any codec from its `config` and its `state_dict()`."""
    return _kind(config).from_state(config, tensors)


def codec_from_config(config: Mapping[str, Any]) -> Codec:
    """A new codec of the registered kind `config["kind"]`, from its constructor arguments.

    Those that are fitted still need their `fit`; those of published weights are ready.
    """
    kind = _kind(config)
    try:
        return kind.from_config(config)
    except TypeError as error:
        raise ValueError(
            f"expected the arguments of {kind.__name__}, got {sorted(set(config) - {'kind'})}: "
            f"{error}; see its docstring"
        ) from None


def own_kinds() -> tuple[str, ...]:
    """The names of this project's codecs."""
    return tuple(kind for kind, cls in _KINDS.items() if _is_own(cls))


def _is_own(cls: type) -> bool:
    return cls.__module__.startswith("selfflow_wm.")


def codec_kinds(modality: str | None = None) -> tuple[str, ...]:
    """The registered names, of one modality or of all, those of other packages included."""
    CODECS.load_all()
    return tuple(sorted(kind for kind, cls in _KINDS.items() if modality in (None, cls.modality)))


def _kind(config: Mapping[str, Any]) -> type[Codec]:
    kind = config.get("kind")
    if kind in CODECS.names():
        CODECS.load(kind)  # which registers the class
    if kind not in _KINDS:
        raise ValueError(
            f"expected a codec kind among {sorted({*_KINDS, *CODECS.usable()})}, got {kind!r}; "
            f"correct it, or install the package that adds it (entry point group {CODECS.group})"
        )
    return _KINDS[kind]


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


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a part of a codec under "PREFIX.NAME"."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The inverse of `prefixed`; tensors of other parts are left out."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def check_image_size(image_size: Sequence[int], side: int) -> tuple[int, int]:
    """(H, W), if both are multiples of `side`, the pixels of a token."""
    height, width = image_size
    if side < 1 or height % side or width % side or min(height, width) < side:
        raise ValueError(
            f"expected an image size divisible by {side}, got {tuple(image_size)}; resize or crop "
            "the images, or take another patch"
        )
    return int(height), int(width)


def check_frames(frames: Tensor, image_size: tuple[int, int]) -> Tensor:
    """`frames`, if they are uint8 (..., H, W, 3) of the right size."""
    if frames.dtype != torch.uint8 or tuple(frames.shape[-3:]) != (*image_size, 3):
        raise ValueError(
            f"expected uint8 frames (..., {image_size[0]}, {image_size[1]}, 3), got {frames.dtype} "
            f"{tuple(frames.shape)}; resize them or fit a codec for this size"
        )
    return frames


def check_latents(latents: Tensor, codec: Codec) -> Tensor:
    """`latents`, if they are (..., n, C) of `codec`."""
    frames, height, width = codec.grid
    expected = (frames * height * width, codec.channels)
    if tuple(latents.shape[-2:]) != expected:
        raise ValueError(
            f"expected latents (..., {expected[0]}, {expected[1]}) of the codec {codec.kind}, got "
            f"{tuple(latents.shape)}; they come from another codec or another size"
        )
    return latents
