"""Writes mp4 files (H.264, yuv420p), with sound if there is any, and WAV files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from selfflow_wm.files import atomic_file, atomic_open


def open_mp4(path: Path, width: int, height: int, fps: float, sound: Path | None = None) -> Any:
    """A generator that takes uint8 RGB frames by `send` and finishes the file on `close`.

    width, height: pixels, multiples of 16. sound: a WAV file to go with the frames.
    """
    import imageio_ffmpeg

    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,  # pyright: ignore[reportArgumentType]  (ffmpeg takes fractions)
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=16,
        quality=None,  # pyright: ignore[reportArgumentType]  (None leaves it to -crf)
        output_params=["-crf", "24", "-preset", "veryfast", "-threads", "1",
                       "-movflags", "+faststart", *([] if sound is None else ["-b:a", "48k"])],
        ffmpeg_log_level="error",
        audio_path=None if sound is None else str(sound),
        audio_codec=None if sound is None else "aac",
    )  # fmt: skip
    writer.send(None)
    return writer


def write_video(
    path: Path,
    frames: UInt8[np.ndarray, "T H W 3"],
    fps: float,
    audio: Float[np.ndarray, "S"] | None = None,
    sample_rate: int = 0,
    scale: int = 1,
) -> None:
    """One clip as `path`, whole or not at all; its sides times `scale` are multiples of 16.

    audio: mono in [-1, 1] at `sample_rate` Hz.
    """
    frames = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = frames.shape[1:3]
    with tempfile.TemporaryDirectory() as folder, atomic_file(path) as temporary:
        sound = None
        if audio is not None:
            sound = Path(folder) / "sound.wav"
            write_sound(sound, audio, sample_rate)
        video = Path(folder) / "video.mp4"
        writer = open_mp4(video, width, height, fps, sound)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        temporary.write_bytes(video.read_bytes())


def write_sound(path: Path, audio: Float[np.ndarray, "S *A"], sample_rate: int) -> None:
    """A WAV file of 16 bits, whole or not at all. audio: (S) or (S, A), clipped to [-1, 1]."""
    from scipy.io import wavfile

    with atomic_open(path) as file:
        wavfile.write(file, sample_rate, (audio.clip(-1, 1) * 32767).astype(np.int16))
