"""Video codecs with a causal time grid: the first frame alone, then groups of four."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from selfflow_wm.codec.base import Codec, check_frames, check_latents
from selfflow_wm.codec.weights import BATCH_VALUES, in_batches

GROUP = 4
"""Frames in a latent frame after the first, which holds one."""

EncodeGroup = Callable[[UInt8[Tensor, "... t H W 3"]], Float[Tensor, "... h*w C"]]
DecodeGroup = Callable[[Float[Tensor, "... h*w C"]], UInt8[Tensor, "... t H W 3"]]


def latent_frames(frames: int) -> int:
    """floor(1 + (T - 1) / 4): the latent frames that `frames` = T >= 1 frames fill."""
    if frames < 1:
        raise ValueError(f"expected frames >= 1, got {frames}")
    return 1 + (frames - 1) // GROUP


def pad_clip(
    clip: UInt8[Tensor, "... t H W 3"], frames: int
) -> tuple[UInt8[Tensor, "... T H W 3"], Bool[Tensor, "T"]]:
    """A shorter clip, its last frame repeated up to T = `frames`, and which frames are real."""
    length = clip.shape[-4]
    if not 1 <= length <= frames:
        raise ValueError(
            f"expected a clip of 1..{frames} frames, got {length}; cut it into windows"
        )
    index = torch.arange(frames, device=clip.device).clamp(max=length - 1)
    return clip.index_select(clip.ndim - 4, index), torch.arange(frames) < length


class VideoCodec(Codec):
    """Codecs of clips of T = 1 + 4 k frames: grid (1 + k, h, w).

    A latent frame depends on its own frames and on earlier ones only. So a clip can be coded
    group by group (`encode_stream`), in memory that does not grow with its length, and the
    latents are those of the whole clip. A first frame alone is a picture of the same codec.
    """

    modality = "video"
    frames_per_latent = GROUP
    """In a latent frame after the first, which holds one."""
    image_size: tuple[int, int]
    """(H, W) of the frames, pixels."""
    frames: int
    """T, frames of one clip."""

    @abstractmethod
    def encode_group(self) -> EncodeGroup:
        """A function to call with the groups of one clip in order; it may keep state."""

    @abstractmethod
    def decode_group(self) -> DecodeGroup:
        """The same for its latent frames; 1 frame from the first, 4 from each other."""

    def encode(self, frames: UInt8[Tensor, "... T H W 3"]) -> Float[Tensor, "... n C"]:
        """Latents of whole clips of T = `self.frames` frames, of as many at once as memory
        allows."""
        if frames.ndim < 4 or frames.shape[-4] != self.frames:
            raise ValueError(
                f"expected frames (..., {self.frames}, H, W, 3), got {tuple(frames.shape)}; pad "
                "shorter clips with pad_clip, or use encode_stream for another length"
            )
        tokens = in_batches(
            lambda clips: torch.cat(list(self.encode_stream([clips])), dim=-2),
            frames.reshape(-1, *frames.shape[-4:]),
            self._budget(frames.shape[-4:].numel()),
        )
        return tokens.view(*frames.shape[:-4], *tokens.shape[1:])

    def decode(self, latents: Float[Tensor, "... n C"]) -> UInt8[Tensor, "... T H W 3"]:
        """The clips that latents stand for, clipped to uint8."""
        check_latents(latents, self)
        frames = in_batches(
            lambda rows: torch.cat(
                list(self.decode_stream(rows.chunk(self.grid[0], dim=-2))), dim=-4
            ),
            latents.reshape(-1, *latents.shape[-2:]),
            self._budget(latents.shape[-2:].numel()),
        )
        return frames.view(*latents.shape[:-2], *frames.shape[1:])

    def _budget(self, values: int) -> int:
        """For `in_batches` of clips that hold so many `values`: what is at work at a time are the
        pixels of one group of each."""
        pixels = GROUP * 3 * self.image_size[0] * self.image_size[1]
        return max(1, BATCH_VALUES // pixels) * values

    def encode_stream(
        self, chunks: Iterable[UInt8[Tensor, "... t H W 3"]]
    ) -> Iterator[Float[Tensor, "... h*w C"]]:
        """One latent frame after the other, from a clip of any length in chunks of any length.

        Raises:
            ValueError: at the end, when frames are left that fill no group.
        """
        encode, rest, first = self.encode_group(), None, True
        for chunk in chunks:
            check_frames(chunk, self.image_size)
            rest = chunk if rest is None else torch.cat([rest, chunk], dim=-4)
            while rest.shape[-4] >= (size := 1 if first else GROUP):
                group, rest = rest.tensor_split([size], dim=-4)
                yield encode(group)
                first = False
        if rest is None or rest.shape[-4]:
            count = 0 if rest is None else rest.shape[-4]
            raise ValueError(
                f"expected a clip of 1 + 4 k frames, got {count} frames after the last full "
                "group; leave them out, or pad the clip with pad_clip"
            )

    def decode_stream(
        self, latents: Iterable[Float[Tensor, "... h*w C"]]
    ) -> Iterator[UInt8[Tensor, "... t H W 3"]]:
        """The frames (1, then 4 at a time) of latent frames that come one after the other."""
        decode = self.decode_group()
        for latent in latents:
            yield decode(latent)

    def token_valid(self, valid: Bool[Tensor, "... T"]) -> Bool[Tensor, "... n"]:
        """Which tokens stand for real frames only; `valid`: which frames of a clip are real.

        A clip of t real frames fills the first floor(1 + (t - 1) / 4) latent frames. A group
        that is real in part is not valid: its latents hold the padding too.
        """
        if valid.shape[-1] != self.frames:
            raise ValueError(f"expected valid (..., {self.frames}), got {tuple(valid.shape)}")
        groups = valid[..., 1:].unflatten(-1, (-1, GROUP)) if self.frames > 1 else None
        latent = valid[..., :1]
        if groups is not None:
            latent = torch.cat([latent, groups.all(-1)], dim=-1)
        return latent.repeat_interleave(self.grid[1] * self.grid[2], dim=-1)


def check_clip_length(frames: int) -> int:
    """`frames`, if it is 1 + 4 k."""
    if frames < 1 or (frames - 1) % GROUP:
        below = max(1, frames - (frames - 1) % GROUP)
        raise ValueError(
            f"expected clips of 1 + 4 k frames, got {frames}; use {below} or {below + GROUP}"
        )
    return int(frames)
