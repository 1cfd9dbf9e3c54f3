"""Which part of a long video or sound a pass over the data reads, and reading it."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

GOLDEN = (5**0.5 - 1) / 2
MICROSECONDS = 1_000_000
"""A second in the unit of a file's duration."""


class Unreadable(Exception):
    """A file that cannot be decoded."""


def start_of(length: int, wanted: int, lap: int) -> int:
    """Where the excerpt of pass `lap` begins, in 0..length - wanted.

    Pass 0 takes the beginning; later ones frac(lap * golden ratio) of the way, which after any
    number of passes lies about evenly over the file (the additive recurrence of Kronecker).
    """
    return round((lap * GOLDEN) % 1.0 * max(0, length - wanted))


class Clip(NamedTuple):
    """Frames in a row of a video, as players show them."""

    pictures: list[Image.Image]
    start: float
    """s, when the first of them is shown."""
    rate: float | None
    """Frames a second."""
    drift: float
    """The largest distance of a frame from its time at that rate, in frames; 0 if unknown."""


def read_clip(av: Any, data: io.BytesIO, wanted: int, lap: int) -> Clip:
    """`wanted` frames of the first video track, or all there are if those are fewer.

    Raises:
        OSError, av.error.FFmpegError: as PyAV does at damaged files.
        Unreadable: no video track, no frames, or a file that was cut off.
    """
    with _open(av, data) as container:
        stream = _first(container.streams.video, "video")
        promised, rate = stream.frames, stream.average_rate
        step = 0.0 if not rate else 1.0 / float(rate)
        guess = promised or _by_duration(container, stream)
        skipped = start_of(guess, wanted, lap) if step else 0
        start = _begin(stream) + skipped * step
        if skipped:
            _seek(container, stream, start)
        pictures, times = [], []
        for frame in container.decode(stream):
            if skipped and frame.time is not None and frame.time < start - step / 2:
                continue
            times.append(frame.time)
            pictures.append(_picture(frame))
            if len(pictures) == wanted:
                break
    if skipped and not promised and len(pictures) < wanted:  # shorter than it says
        return read_clip(av, data, wanted, 0)
    if not pictures:
        raise Unreadable("no frames")
    # A truncated file still opens if its header comes first. Headers may count a frame too many,
    # and 0 means that there is no count.
    if len(pictures) < 0.9 * min(promised - skipped, wanted):
        raise Unreadable(f"{skipped + len(pictures)} of {promised} frames")
    first = start if times[0] is None else times[0]
    told = [(n, time) for n, time in enumerate(times) if time is not None and step]
    drift = max((abs(time - first - n * step) / step for n, time in told), default=0.0)
    return Clip(pictures, first, None if not rate else float(rate), drift)


_BT709 = 1
_FULL = 2
_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
    -90: Image.Transpose.ROTATE_270,
}
"""By degrees, counterclockwise."""


def _picture(frame: Any) -> Image.Image:
    """RGB, upright, by the matrix that the frame names."""
    options = {}
    if frame.colorspace == _BT709:
        # PyAV takes every frame for BT.601 unless both matrices are named.
        full = frame.color_range == _FULL
        options = {"src_colorspace": "ITU709", "dst_colorspace": "ITU601"}
        options |= {"src_color_range": "JPEG" if full else "MPEG", "dst_color_range": "JPEG"}
    picture = frame.to_image(**options).convert("RGB")
    turn = _TURNS.get(round(getattr(frame, "rotation", 0)))  # absent from PyAV before 14
    return picture if turn is None else picture.transpose(turn)


def read_track(av: Any, data: io.BytesIO, start: float, wanted: int) -> tuple[int, np.ndarray]:
    """(rate, float32 (A, S)) of the first sound track from `start` s on, S at least `wanted` where
    it is long enough; silence where it begins later. Raises what `read_clip` does."""
    with _open(av, data) as container:
        stream = _first(container.streams.audio, "sound")
        rate = int(stream.rate)
        if start > _begin(stream):
            _seek(container, stream, start)
        # Another sample format, the same rate and channels.
        convert = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        parts, late = [], 0
        for frame in container.decode(stream):
            if not parts:
                late = round(((start if frame.time is None else frame.time) - start) * rate)
            parts += [part.to_ndarray() for part in convert.resample(frame)]
            if late + sum(part.shape[1] for part in parts) >= wanted:
                break
    if not parts:
        raise Unreadable("no sound")
    waveform = np.concatenate(parts, axis=1).astype(np.float32)
    return rate, np.pad(waveform, ((0, 0), (max(late, 0), 0)))[:, max(-late, 0) :]


def _open(av: Any, data: io.BytesIO) -> Any:
    data.seek(0)
    return av.open(data, metadata_errors="ignore")  # titles in any encoding; they are not read


def _first(streams: Any, kind: str) -> Any:
    if not streams:
        raise Unreadable(f"no {kind} track")
    return streams[0]


def _begin(stream: Any) -> float:
    """s, the time stamp of the stream's beginning."""
    return float((stream.start_time or 0) * stream.time_base)


def _by_duration(container: Any, stream: Any) -> int:
    """About the frames of a stream whose header does not count them; 0 if neither it nor the
    file's, as Matroska and WebM have it, says how long it is."""
    if stream.duration is not None:
        return int(stream.duration * stream.time_base * stream.average_rate)
    return int((container.duration or 0) * stream.average_rate / MICROSECONDS)


def _seek(container: Any, stream: Any, seconds: float) -> None:
    """To the last key frame before."""
    container.seek(int(seconds / stream.time_base), stream=stream)
