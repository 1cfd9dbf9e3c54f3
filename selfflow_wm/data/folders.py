"""Folders of pictures, videos and sounds as sources.

A file that cannot be decoded is named on stderr, counted, and the next one stands in for it, so
that every number still gives the same sample. Of files longer than a sample every pass over the
data takes another part (`data.excerpts`). Sound at another rate is an error: nothing is resampled.
"""

from __future__ import annotations

import hashlib
import io
import sys
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from selfflow_wm.codec import AudioCodec, Codec, ImageCodec, VideoCodec
from selfflow_wm.codec.reconstruct import cover, to_rgb
from selfflow_wm.data.excerpts import Unreadable, read_clip, read_track, start_of
from selfflow_wm.data.files import MediaFile, find_media
from selfflow_wm.data.source import JOINT, Sample

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
LOUDEST = 8.0
"""Largest floating-point sample; above it, they are integers that were never scaled."""
UNTOLD = 0x7FFF0000
"""Bytes from which on a WAV's header was written before its length was known."""


class MediaFolder:
    """Samples of the media files under a folder or in its tars; see `data.files.find_media`.

    skipped: names and reasons of the files that could not be decoded so far.
    """

    kind: str
    suffixes: ClassVar[Collection[str]]

    def __init__(self, root: Path | str) -> None:
        self.files = find_media(Path(root), self.suffixes)
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.files)

    def captions(self) -> Iterator[tuple[str, str]]:
        """Name and caption of every file; nothing is decoded."""
        return ((file.name, file.caption) for file in self.files)

    def fingerprint(self) -> str:
        """Of the files' names: numbers stand for the same files only while it is the same."""
        names = "\n".join(file.name for file in self.files)
        return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()[:16]

    def __getitem__(self, index: int) -> Sample:
        return self.at(index)

    def at(self, index: int, lap: int = 0) -> Sample:
        """Sample `index` as pass number `lap` over the data takes it."""
        return self.among(range(len(self.files)), index, lap)

    def among(self, numbers: Sequence[int] | np.ndarray, index: int, lap: int = 0) -> Sample:
        """Sample numbers[index], or the first after it in `numbers` that can be decoded: what
        stands in for a training sample is no held-out one. ValueError when none can.

        lap: how many passes over the data came before; chooses the part of a long file.
        """
        for step in range(len(numbers)):
            file = self.files[int(numbers[(index + step) % len(numbers)])]
            if file.name in self.skipped:
                continue
            try:
                return {"caption": file.caption, **self.decode(file, lap)}
            except Unreadable as error:
                self.skipped[file.name] = str(error)
                sys.stderr.write(
                    f"warning: {file.name}: unreadable ({error}); skipped, {len(self.skipped)} of "
                    f"{len(self.files)} so far\n"
                )
        file = self.files[int(numbers[index])]
        raise ValueError(
            f"expected a readable {self.kind} file, got {len(numbers)} that are all unreadable, "
            f"such as {file.name}: {self.skipped[file.name]}; replace them"
        )

    @abstractmethod
    def decode(self, file: MediaFile, lap: int) -> dict[str, Any]:
        """What pass `lap` takes of the file; Unreadable for damage, ValueError for what does not
        fit."""


class ImageFolder(MediaFolder):
    """Pictures, scaled to cover (H, W) and cropped in the middle."""

    kind, suffixes = "image", PICTURES

    def __init__(self, root: Path | str, image_size: tuple[int, int]) -> None:
        super().__init__(root)
        self.image_size = image_size

    def decode(self, file: MediaFile, lap: int = 0) -> dict[str, Any]:
        return {"image": cover(open_picture(file), self.image_size).numpy()}


class AudioFolder(MediaFolder):
    """Sounds of one rate and number of channels (None takes any), `samples` of each."""

    kind, suffixes = "audio", SOUNDS

    def __init__(
        self, root: Path | str, sample_rate: int, samples: int, channels: int | None
    ) -> None:
        super().__init__(root)
        self.sample_rate, self.samples, self.channels = sample_rate, samples, channels

    def decode(self, file: MediaFile, lap: int = 0) -> dict[str, Any]:
        rate, waveform = _read_sound(file)
        peak = np.abs(waveform).max()  # NaN if one is
        if not peak <= LOUDEST:
            raise Unreadable(f"samples of up to {peak:g}, expected them in about [-1, 1]")
        waveform = check_sound(file.name, rate, waveform, self.sample_rate, self.channels)
        start = start_of(waveform.shape[1], self.samples, lap)
        return {"audio": waveform[:, start : start + self.samples], "sample_rate": rate}


class VideoFolder(MediaFolder):
    """`frames` frames in a row of videos, scaled to cover (H, W) and cropped.

    audio: the codec of their sound; with it, the kind is video with audio and the sound at the same
    time is read too. fps: frames a second that all must have; None takes any.
    """

    kind, suffixes = "video", VIDEOS

    def __init__(
        self,
        root: Path | str,
        image_size: tuple[int, int],
        frames: int,
        audio: AudioCodec | None = None,
        fps: float | None = None,
    ) -> None:
        import av

        self.av: Any = av
        super().__init__(root)
        self.image_size, self.frames, self.audio, self.fps = image_size, frames, audio, fps
        if audio is not None:
            self.kind = JOINT

    def decode(self, file: MediaFile, lap: int = 0) -> dict[str, Any]:
        audio, sound = self.audio, None
        try:
            data = io.BytesIO(file.read())
            clip = read_clip(self.av, data, self.frames, lap)
            if audio is not None:
                sound = read_track(self.av, data, clip.start, audio.samples)
        except (OSError, self.av.error.FFmpegError) as error:
            raise Unreadable(getattr(error, "strerror", None) or error) from None
        check_frame_rate(file.name, clip.rate, self.fps)
        if self.fps is not None and clip.drift > 0.5:
            raise ValueError(
                f"{file.name}: expected frames at an even rate, got one {clip.drift:.1f} frames "
                f"beside its time; convert the file (ffmpeg -i IN -r {self.fps:g} OUT), nothing is "
                "resampled here"
            )
        pictures = [cover(picture, self.image_size).numpy() for picture in clip.pictures]
        sample: dict[str, Any] = {"video": np.stack(pictures)}
        if sound is not None and audio is not None:
            rate, waveform = sound
            waveform = check_sound(
                file.name, rate, waveform, audio.sample_rate, audio.audio_channels
            )
            sample |= {"audio": waveform[:, : audio.samples], "sample_rate": rate}
        return sample


def open_picture(file: MediaFile) -> Image.Image:
    """The picture in RGB; Unreadable for damage, and for sizes that could fill the memory."""
    most = Image.MAX_IMAGE_PIXELS
    try:
        with Image.open(io.BytesIO(file.read())) as picture:
            # Not by turning Pillow's warning into an error: that is for one thread only.
            if most and picture.width * picture.height > most:
                raise Unreadable(f"{picture.width} x {picture.height} pixels, above {most}")
            return to_rgb(picture)
    except Unreadable:
        raise
    except UnidentifiedImageError:  # its message is only the address of the bytes
        raise Unreadable("not a picture") from None
    # Pillow's decoders raise many kinds of errors for damaged files.
    except Exception as error:
        raise Unreadable(error) from None


def open_folder(
    kind: str, root: Path, codecs: Mapping[str, Codec], fps: float | None = None
) -> MediaFolder:
    """The source of `kind` under `root`, cut to what the codecs take. fps: see `VideoFolder`."""
    image, video, audio = (codecs.get(name) for name in ("image", "video", "audio"))
    if kind == "image" and isinstance(image, ImageCodec):
        return ImageFolder(root, image.image_size)
    if kind == "audio" and isinstance(audio, AudioCodec):
        return AudioFolder(root, audio.sample_rate, audio.samples, audio.audio_channels)
    if kind == "video" and isinstance(video, VideoCodec):
        return VideoFolder(root, video.image_size, video.frames, fps=fps)
    if kind == JOINT and isinstance(video, VideoCodec) and isinstance(audio, AudioCodec):
        return VideoFolder(root, video.image_size, video.frames, audio, fps)
    raise ValueError(f"expected codecs for {kind}, got {sorted(codecs)}; set codec.*")


def check_frame_rate(name: str, rate: float | None, expected: float | None) -> None:
    """ValueError for a rate (Hz) more than 1% beside the expected one, if one is."""
    if expected is not None and (rate is None or abs(rate / expected - 1) > 0.01):
        raise ValueError(
            f"{name}: expected {expected:g} frames a second, got {rate and f'{rate:g}'}; convert "
            f"the file (ffmpeg -i IN -r {expected:g} OUT), or state the rate of your videos with "
            "fps=RATE (null: any); nothing is resampled here"
        )


def check_sound(
    name: str, rate: int, waveform: np.ndarray, expected_rate: int, channels: int | None
) -> np.ndarray:
    """`waveform` (A, S), if its rate and channels (None: any) are as expected; ValueError
    otherwise."""
    if rate != expected_rate:
        raise ValueError(
            f"{name}: expected audio at {expected_rate} Hz, got {rate} Hz; resample the file "
            f"(ffmpeg -i IN -ar {expected_rate} OUT), nothing is resampled here"
        )
    if channels is not None and len(waveform) != channels:
        raise ValueError(
            f"{name}: expected {channels} channels, got {len(waveform)}; mix the file "
            f"(ffmpeg -i IN -ac {channels} OUT)"
        )
    return waveform


def _read_sound(file: MediaFile) -> tuple[int, np.ndarray]:
    """(rate, float32 (A, S))."""
    import soundfile

    try:
        data = file.read()
        counted = int.from_bytes(data[4:8], "big" if data[:4] == b"RIFX" else "little")
        # Of a truncated WAV, the rest would be read. Some headers count themselves.
        if data[:3] == b"RIF" and len(data) < counted < UNTOLD:
            raise Unreadable(f"{len(data)} of {counted + 8} bytes")
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            rate, promised = sound.samplerate, sound.frames
            values = sound.read(dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
        raise Unreadable(getattr(error, "error_string", error)) from None
    if not values.size:
        raise Unreadable("no samples")
    # MP3s that were cut off still open; a length that is not known is far above all there are.
    if len(values) < 0.9 * promised and promised < 1 << 62:
        raise Unreadable(f"{len(values)} of {promised} samples")
    return int(rate), np.ascontiguousarray(values.T)
