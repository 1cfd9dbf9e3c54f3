"""Two codecs for one window: the current frame as a picture, the frames after it as a clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from selfflow_wm.codec.base import (
    Codec,
    ImageCodec,
    codec_from_config,
    codec_from_state,
    part_of,
    prefixed,
)
from selfflow_wm.codec.video import VideoCodec


class PairedCodec(Codec):
    """The current frame through an image codec (`base`), the clip after it through `video`.

    It is called as `ResidualCodec` is, but the clip's latents do not depend on the current frame:
    any reference is ignored.

    Args:
        base: of single frames.
        video: of clips, of the same frame size.
    """

    kind = "image_and_video"
    modality = "video"

    def __init__(self, base: Codec, video: Codec) -> None:
        if not isinstance(base, ImageCodec) or not isinstance(video, VideoCodec):
            raise ValueError(
                f"expected a codec of images and one of video, got {base.kind} ({base.modality}) "
                f"and {video.kind} ({video.modality})"
            )
        if base.image_size != video.image_size:
            raise ValueError(
                f"expected codecs of one frame size, got {base.image_size} and {video.image_size}"
            )
        self.base, self.video = base, video
        self.frames, self.grid, self.channels = video.frames, video.grid, video.channels
        self.frames_per_latent = video.frames_per_latent

    @property
    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "base": self.base.config, "video": self.video.config}

    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind, "base": self.base.identity(), "video": self.video.identity()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PairedCodec:
        return cls(codec_from_config(config["base"]), codec_from_config(config["video"]))

    def encode(
        self,
        frames: UInt8[Tensor, "... T H W 3"],
        reference: UInt8[Tensor, "... H W 3"] | None = None,
        *,
        reference_latents: Float[Tensor, "... m D"] | None = None,
    ) -> Float[Tensor, "... n C"]:
        """Latents of the clips."""
        return self.video.encode(frames)

    def decode(
        self,
        latents: Float[Tensor, "... n C"],
        reference: UInt8[Tensor, "... H W 3"] | None = None,
        *,
        reference_latents: Float[Tensor, "... m D"] | None = None,
    ) -> UInt8[Tensor, "... T H W 3"]:
        """The clips that latents stand for."""
        return self.video.decode(latents)

    def token_valid(self, valid: Bool[Tensor, "... T"]) -> Bool[Tensor, "... n"]:
        """Which tokens stand for real frames only, see `VideoCodec.token_valid`."""
        return self.video.token_valid(valid)

    def state_dict(self) -> dict[str, Tensor]:
        return prefixed("base", self.base.state_dict()) | prefixed("video", self.video.state_dict())

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PairedCodec:
        parts = (codec_from_state(config[p], part_of(tensors, p)) for p in ("base", "video"))
        return cls(*parts)
