"""Which part of a long video or sound a pass over the data reads, and reading it."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

GOLDEN = (5**0.5 - 1) / 2


class Unreadable(Exception):
    """A file that cannot be decoded."""


def start_of(length: int, wanted: int, lap: int) -> int:
    """Where the excerpt of pass `lap` begins, in 0..length - wanted.

    Pass 0 takes the beginning; later ones frac(lap * golden ratio) of the way, which after any
    number of passes lies about evenly over the file (the additive recurrence of Kronecker).
    """
    return round((lap * GOLDEN) % 1.0 * max(0, length - wanted))


class Clip(NamedTuple):
    """Frames in a row of a video."""

    pictures: list[Image.Image]
    start: float
    """s, when the first of them is shown."""
    rate: float | None
    """Frames a second."""


def read_clip(av: Any, data: io.BytesIO, wanted: int, lap: int) -> Clip:
    """`wanted` frames of the first video track, or all there are if those are fewer.

    Raises:
        OSError, IndexError, av.error.FFmpegError: as PyAV does at damaged files.
        Unreadable: no frames, or a file that was cut off.
    """
    with av.open(data) as container:
        stream = container.streams.video[0]
        promised, rate = stream.frames, stream.average_rate
        step = 0.0 if not rate else 1.0 / float(rate)
        skipped = start_of(promised or _by_duration(stream), wanted, lap) if step else 0
        start = _begin(stream) + skipped * step
        if skipped:
            _seek(container, stream, start)
        pictures, first = [], start
        for frame in container.decode(stream):
            time = start if frame.time is None else frame.time
            if skipped and time < start - step / 2:
                continue
            first = first if pictures else time
            pictures.append(frame.to_image().convert("RGB"))
            if len(pictures) == wanted:
                break
    if not pictures:
        raise Unreadable("no frames")
    # A file that was cut off still opens, where its header comes first. Headers may count a frame
    # too many; one without a count says 0.
    if len(pictures) < 0.9 * min(promised - skipped, wanted):
        raise Unreadable(f"{skipped + len(pictures)} of {promised} frames")
    return Clip(pictures, first, None if not rate else float(rate))


def read_track(av: Any, data: io.BytesIO, start: float, wanted: int) -> tuple[int, np.ndarray]:
    """(rate, float32 (A, S)) of the first sound track from `start` s on, S at least `wanted` where
    it is long enough; silence where it begins later. Raises what PyAV does, IndexError for none."""
    data.seek(0)
    with av.open(data) as container:
        stream = container.streams.audio[0]
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
        raise IndexError("no sound")
    waveform = np.concatenate(parts, axis=1).astype(np.float32)
    return rate, np.pad(waveform, ((0, 0), (max(late, 0), 0)))[:, max(-late, 0) :]


def _begin(stream: Any) -> float:
    """s, the time stamp of the stream's beginning."""
    return float((stream.start_time or 0) * stream.time_base)


def _by_duration(stream: Any) -> int:
    """Frames of a stream whose header does not count them; 0 if it does not say how long it is."""
    if stream.duration is None:
        return 0
    return int(stream.duration * stream.time_base * stream.average_rate)


def _seek(container: Any, stream: Any, seconds: float) -> None:
    """To the last key frame before."""
    container.seek(int(seconds / stream.time_base), stream=stream)
