"""Principal components of space-time patches: a causal video autoencoder of two matmuls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from selfflow_wm.codec.base import check_frames, check_image_size
from selfflow_wm.codec.principal import PrincipalMap, check_whitening, subset
from selfflow_wm.codec.video import (
    GROUP,
    DecodeGroup,
    EncodeGroup,
    VideoCodec,
    check_clip_length,
    latent_frames,
)

_FLOOR = 1e-3


class PatchVideo(VideoCodec):
    """`patch` x `patch` pixels of the first frame, and of each group of four, to components.

    The first frame has components of its own: a still patch holds 3 patch^2 values, one of a
    group 4 * 3 patch^2. Both give `channels` values, scaled as those of `PatchPCA`.

    Args:
        image_size: (H, W) pixels, both divisible by `patch`.
        frames: T = 1 + 4 k.
        patch: side of a patch in pixels.
        channels: components kept, at most 3 * patch^2.
        whitening: p in [0, 1], see `PatchPCA`.
    """

    kind = "patch_video"

    def __init__(
        self,
        image_size: Sequence[int],
        frames: int,
        patch: int,
        channels: int,
        whitening: float = 0.5,
    ) -> None:
        height, width = check_image_size(image_size, patch)
        if not 1 <= channels <= 3 * patch**2:
            raise ValueError(f"expected channels in 1..{3 * patch**2}, got {channels}")
        self.image_size, self.frames = (height, width), check_clip_length(frames)
        self.patch, self.channels = int(patch), int(channels)
        self.whitening = check_whitening(whitening)
        self.grid = (latent_frames(frames), height // patch, width // patch)
        self._maps: tuple[PrincipalMap, PrincipalMap] | None = None
        """Of first frames and of groups."""

    def fit(
        self, frames: UInt8[Tensor, "... T H W 3"], max_patches: int = 50_000, seed: int = 0
    ) -> PatchVideo:
        """Fit on clips of T frames (at least 5), `max_patches` patches of each kind.

        Stills for the first-frame components are taken from the whole clip. Returns self.
        """
        check_frames(frames, self.image_size)
        if frames.ndim < 4 or frames.shape[-4] != max(self.frames, 1 + GROUP):
            raise ValueError(
                f"expected frames (..., {max(self.frames, 1 + GROUP)}, H, W, 3), got "
                f"{tuple(frames.shape)}; cut the clips into windows of that length"
            )
        groups = rearrange(frames[..., 1:, :, :, :], "... (g t) h w c -> (... g) t h w c", t=GROUP)
        stills = frames.flatten(0, -4)[:, None]
        first, later = (
            PrincipalMap.fit(
                _pick(self._rows(group), max_patches, seed),
                self.channels,
                self.whitening,
                floor=_FLOOR,
            )
            for group in (stills, groups)
        )
        self._maps = first, later
        return self

    def _rows(self, group: UInt8[Tensor, "... t H W 3"]) -> UInt8[Tensor, "... n D"]:
        return rearrange(
            group,
            "... t (h p) (w q) c -> ... (h w) (t p q c)",
            p=self.patch,
            q=self.patch,
        )

    def encode_group(self) -> EncodeGroup:
        first, later = self.fitted(self._maps)

        def encode(group: UInt8[Tensor, "... t H W 3"]) -> Float[Tensor, "... h*w C"]:
            part = first if group.shape[-4] == 1 else later
            return part.encode(self._rows(group).float() / 127.5 - 1.0)

        return encode

    def decode_group(self) -> DecodeGroup:
        # The first latent frame, and only that, stands for one frame.
        maps, started = self.fitted(self._maps), False

        def decode(latents: Float[Tensor, "... h*w C"]) -> UInt8[Tensor, "... t H W 3"]:
            nonlocal started
            pixels = (maps[started].decode(latents) + 1.0) * 127.5
            frames = rearrange(
                pixels.round().clamp(0, 255).to(torch.uint8),
                "... (h w) (t p q c) -> ... t (h p) (w q) c",
                h=self.grid[1],
                t=GROUP if started else 1,
                p=self.patch,
                q=self.patch,
            )
            started = True
            return frames

        return decode

    def state_dict(self) -> dict[str, Tensor]:
        first, later = self.fitted(self._maps)
        return first.state("first.") | later.state("group.")

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PatchVideo:
        codec = cls.from_config(config)
        size = 3 * codec.patch**2
        first, later = (
            PrincipalMap.from_state(
                tensors, rows, codec.channels, codec.whitening, floor=_FLOOR, prefix=prefix
            )
            for rows, prefix in ((size, "first."), (GROUP * size, "group."))
        )
        codec._maps = first, later
        return codec


def _pick(rows: UInt8[Tensor, "... D"], count: int, seed: int) -> Float[Tensor, "r D"]:
    """At most `count` of the patches, in [-1, 1]: the rest never leaves uint8."""
    rows = rows.flatten(0, -2)
    return rows[subset(len(rows), count, seed)].float() / 127.5 - 1.0
