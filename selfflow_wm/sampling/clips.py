"""Video, audio, and video with its sound from a picture: decoding, mp4 and WAV files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfflow_wm.codec import AudioCodec, VideoCodec
from selfflow_wm.codec.reconstruct import read_picture
from selfflow_wm.data import JOINT, MODES
from selfflow_wm.files import file_digest
from selfflow_wm.sampling.parts import Parts
from selfflow_wm.training.model_files import SavedModel
from selfflow_wm.videos import write_sound, write_video

SHOWN = 64
"""Samples that are also written as mp4 or WAV files; the arrays have all."""
_BLOCK = 16
SOUND = "sound"
"""Name of the sound's array in the parts of video with its sound."""


class Clips:
    """The inputs of `modality` (video, audio or video_audio) beside captions, and its outputs.

    Args:
        saved: a model of several modalities, with the codecs of those.
        modality: a mode of pretraining that is not images.
        fps: of the videos; None: that of the model's training.
        pictures: files that video_audio begins from, in turn.
        device: where codecs work.

    Raises:
        ValueError: a codec, the frame rate or pictures are missing, or not called for.
    """

    def __init__(
        self,
        saved: SavedModel,
        modality: str,
        fps: float | None,
        pictures: Sequence[Path],
        device: torch.device | str = "cpu",
    ) -> None:
        self.modality, self.mode = modality, MODES[modality]
        self.codecs: dict[str, Any] = saved.codecs
        self.device = torch.device(device)
        if lacking := [name for name in self.mode.present if name not in saved.codecs]:
            raise ValueError(
                f"--modality {modality}: expected a model of {', '.join(self.mode.present)}, got "
                f"one of {', '.join(saved.model.layout.names)}; it has no {lacking[0]}"
            )
        if bool(pictures) != bool(self.mode.given):
            raise ValueError(
                f"--images: expected {'pictures to begin from' if self.mode.given else 'none'} for "
                f"--modality {modality}, got {len(pictures)}; "
                f"{'name some' if self.mode.given else 'leave it out'}"
            )
        if absent := [path for path in pictures if not path.is_file()]:
            raise ValueError(f"--images: expected picture files, got none at {absent[0]}")
        for path in pictures:  # before the run's directory is claimed for them
            read_picture(path, (1, 1))
        self.pictures = tuple(pictures)
        self.fps = fps or trained_fps(saved.training)
        if "video" in self.mode.generated and not self.fps:
            raise ValueError(
                "--fps: expected the frame rate of the videos, got none, and none in the model's "
                "configuration; give --fps"
            )

    @property
    def name(self) -> str:
        """Identifies the codecs, for the settings of a run."""
        return " ".join(self.codecs[name].hash()[:12] for name in self.mode.present)

    @property
    def digests(self) -> list[str]:
        """Of the pictures, 16 hex digits each."""
        return [file_digest(path)[:16] for path in self.pictures]

    def given(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Clean latents of the pictures that samples `numbers` begin from."""
        latents = {}
        for name in self.mode.given:
            codec = self.codecs[name]
            rows = [self.pictures[number % len(self.pictures)] for number in numbers]
            frames = torch.stack([read_picture(path, codec.image_size) for path in rows])
            latents[name] = codec.encode(frames.to(self.device))
        return latents

    def decode(self, latents: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """`samples`: video uint8 (B, T, H, W, 3) or audio float32 (B, A, S); of both, `samples`
        is the video and `sound` the audio."""
        arrays = {
            name: self.codecs[name].decode(value.to(self.device)).cpu().numpy()
            for name, value in latents.items()
        }
        first = arrays.pop(self.mode.generated[0])
        return {"samples": first, **({SOUND: arrays["audio"]} if arrays else {})}

    def write(self, parts: Parts, count: int) -> list[Path]:
        """Write the arrays of a complete run, and its first samples as mp4 or WAV files."""
        written, path = [parts.assemble("samples.npz", count)], parts.out
        if self.modality == JOINT:
            written.append(parts.assemble("sound.npz", count, SOUND))
        codec = self.codecs[self.mode.generated[0]]
        for number, row in enumerate(parts.rows(min(count, SHOWN))):
            if isinstance(codec, VideoCodec):
                path = parts.out / "videos" / f"{number:05d}.mp4"
                self._write_video(path, row["samples"], row.get(SOUND))
            elif isinstance(codec, AudioCodec):
                path = parts.out / "sounds" / f"{number:05d}.wav"
                write_sound(path, row["samples"].T, codec.sample_rate)
            else:
                raise AssertionError(codec.kind)
        return [*written, path.parent]

    def _write_video(self, path: Path, frames: np.ndarray, sound: np.ndarray | None) -> None:
        height, width = (-side % _BLOCK for side in frames.shape[1:3])
        frames = np.pad(frames, ((0, 0), (0, height), (0, width), (0, 0)))
        assert self.fps is not None
        if sound is None:
            write_video(path, frames, self.fps)
        else:
            write_video(path, frames, self.fps, sound.mean(0), self.codecs["audio"].sample_rate)


def trained_fps(training: Mapping[str, Any]) -> float | None:
    """The frame rate of the clips that a model was trained on, if its configuration tells."""
    world = (training.get("toy") or {}).get("world") or {}
    return training.get("fps") or world.get("fps")
