"""Raw samples to batches of latents, each modality through its own codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfflow_wm.codec import AudioCodec, Codec, ImageCodec, VideoCodec, encode_text, pad_clip
from selfflow_wm.data.modes import Mode
from selfflow_wm.data.source import Sample
from selfflow_wm.devices import to_device
from selfflow_wm.layout import Batch, Layout

FAMILIES: dict[str, type[Codec]] = {"image": ImageCodec, "video": VideoCodec, "audio": AudioCodec}


class SampleEncoder:
    """Samples of one mode to a `Batch`. Codecs work on `device`, where the batch is left.

    layout: whose rows named image, video and audio the codecs must fit. codecs: by modality.

    Raises:
        ValueError: a row without a codec, a codec of another kind, grid or width than its row.
    """

    def __init__(
        self,
        layout: Layout,
        codecs: Mapping[str, Codec],
        device: torch.device | str = "cpu",
    ) -> None:
        self.layout, self.codecs, self.device = layout, dict(codecs), torch.device(device)
        for row in layout.modalities:
            if row.name not in self.codecs:
                raise ValueError(
                    f"expected a codec for each of {layout.names}, got none for {row.name!r}; "
                    f"set codec.{row.name}"
                )
            codec = self.codecs[row.name]
            if not isinstance(codec, FAMILIES.get(row.name, Codec)):
                raise ValueError(
                    f"codec.{row.name}: expected a codec of {row.name}, got {codec.kind}, one of "
                    f"{codec.modality}"
                )
            if (codec.grid, codec.channels) != (row.grid, row.channels):
                raise ValueError(
                    f"codec.{row.name}: expected tokens {row.grid} of {row.channels} values, as "
                    f"the layout says, got {codec.grid} of {codec.channels} from {codec.kind}; "
                    f"change layout.rows.{row.name} or the codec's sizes"
                )

    def __call__(self, samples: Sequence[Sample], mode: Mode) -> Batch:
        """The clean latents of `mode`'s modalities; ValueError for samples that do not fit."""
        latents, valid = {}, {}
        for name in self.layout.present(mode.present):
            latents[name], valid[name] = getattr(self, f"_{name}")(samples)
        ids, mask = encode_text([one["caption"] for one in samples], self.layout.text_length)
        return Batch(
            latents,
            valid,
            to_device(ids, self.device),
            to_device(mask, self.device),
            given=frozenset(self.layout.present(mode.given)),
        )

    def _image(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        codec: Any = self.codecs["image"]
        pictures = [one["image"] if "image" in one else one["video"][0] for one in samples]
        frames = self._stack("image", pictures, (*codec.image_size, 3), "resize or crop them")
        latents = codec.encode(frames)
        return latents, torch.ones(latents.shape[:2], dtype=torch.bool, device=self.device)

    def _video(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        codec: Any = self.codecs["video"]
        clips, valid = [], []
        for one in samples:
            clip, real = pad_clip(torch.as_tensor(np.asarray(one["video"])), codec.frames)
            clips.append(clip.numpy())
            valid.append(codec.token_valid(real))
        shape = (codec.frames, *codec.image_size, 3)
        frames = self._stack("video", clips, shape, "resize or crop the frames")
        return codec.encode(frames), to_device(torch.stack(valid), self.device)

    def _audio(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        codec: Any = self.codecs["audio"]
        for one in samples:
            if int(one["sample_rate"]) != codec.sample_rate:
                raise ValueError(
                    f"audio: expected {codec.sample_rate} Hz, got {one['sample_rate']} Hz "
                    f"(caption {one['caption']!r}); resample the data, nothing is resampled here"
                )
        clips = [_padded(np.asarray(one["audio"], np.float32), codec.samples) for one in samples]
        lengths = torch.tensor([min(np.shape(one["audio"])[-1], codec.samples) for one in samples])
        shape = (codec.audio_channels, codec.samples)
        waveforms = self._stack("audio", clips, shape, "cut the clips, mix the channels")
        latents = codec.encode(waveforms, codec.sample_rate)
        return latents, to_device(codec.token_valid(lengths), self.device)

    def _stack(
        self, name: str, arrays: Sequence[Any], shape: tuple[int, ...], remedy: str
    ) -> Tensor:
        """The arrays as one tensor on the device; ValueError unless each has `shape`."""
        for array in arrays:
            if tuple(np.shape(array)) != shape:
                raise ValueError(
                    f"{name}: expected samples of shape {shape}, as codec.{name} takes them, got "
                    f"{tuple(np.shape(array))}; {remedy}, or change codec.{name}"
                )
        stacked = torch.from_numpy(np.stack([np.asarray(one) for one in arrays]))
        return to_device(stacked, self.device)

    def decode(self, latents: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """What tokens (B, n, C) stand for, by modality: image uint8 (B, H, W, 3), video uint8
        (B, T, H, W, 3), audio float32 (B, S), mono, in [-1, 1]."""
        arrays = {}
        for name, value in latents.items():
            codec: Any = self.codecs[name]
            made = codec.decode(value.float()).cpu().numpy()
            arrays[name] = made.mean(1).clip(-1, 1) if name == "audio" else made
        return arrays

    def pixels(self, batch: Batch, name: str) -> Tensor | None:
        """The frames uint8 (B, T, H, W, 3) that clean latents stand for; None for audio."""
        codec: Any = self.codecs[name]
        if isinstance(codec, ImageCodec):
            return codec.decode(batch.latents[name])[:, None]
        return codec.decode(batch.latents[name]) if isinstance(codec, VideoCodec) else None


def _padded(clip: np.ndarray, samples: int) -> np.ndarray:
    """A shorter clip (A, s) with silence up to `samples`."""
    missing = max(0, samples - clip.shape[-1])
    return np.pad(clip, [(0, 0)] * (clip.ndim - 1) + [(0, missing)])
