"""Frames of video files by time, exactly: of an episode in a row, or one at a time.

A file's index (the time of every frame, and which ones can be started from) is made of its packets
alone, without decoding. An episode's frames are those whose times its rows ask for; every one must
be there, once, and none between them. To get at a frame, the decoder starts from the last key frame
before it, or goes on where it stopped if that is nearer.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.lerobot.info import present

OPEN_DECODERS = 8
"""Files that are kept open by a process."""
TOLERANCE = 0.25
"""How far a frame may lie from the time its row states, in frames."""


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a file in the order in which they are shown."""

    path: Path
    time_base: float
    """Seconds of one unit of `pts`."""
    pts: np.ndarray
    """int64 (n,) presentation times, rising."""
    key: np.ndarray
    """bool (n,): frames from which decoding can start."""
    size: tuple[int, int]
    """Height and width."""

    def find(self, seconds: np.ndarray, fps: float, where: str) -> np.ndarray:
        """int64 (T,): the frames at these times (rising, one a step), none left out between them.

        Raises:
            ValueError: the file has no frame at one of these times, or further ones between them.
        """
        times = self.pts * self.time_base
        found = np.searchsorted(times, seconds - TOLERANCE / fps)
        within = np.minimum(found, len(times) - 1)
        wrong = (found >= len(times)) | (np.abs(times[within] - seconds) > TOLERANCE / fps)
        if wrong.any():
            step = int(np.argmax(wrong))
            raise ValueError(
                f"{where}: expected a frame at {seconds[step]:.3f} s of {self.path} for step {step}"
                f", got {_nearest(times, seconds[step])} of {len(times)} frames"
                f"{self._rate(fps)}; the video is shorter than its episode, or of another rate"
            )
        if (np.diff(found) != 1).any():
            step = int(np.argmax(np.diff(found) != 1))
            raise ValueError(
                f"{where}: expected one frame a step in {self.path}, got "
                f"{found[step + 1] - found[step]} from step {step} to {step + 1}{self._rate(fps)}; "
                "encode the video with the data set's fps"
            )
        return found

    def _rate(self, fps: float) -> str:
        if len(self.pts) < 2:
            return ""
        own = 1 / (float(np.median(np.diff(self.pts))) * self.time_base)
        return f" ({own:g} fps against {fps:g} of info.json)" if abs(own - fps) > 0.01 * fps else ""


def _nearest(times: np.ndarray, wanted: float) -> str:
    near = times[np.argmin(np.abs(times - wanted))] if len(times) else None
    return "none" if near is None else f"the nearest at {near:.3f} s"


def read_index(path: Path) -> VideoIndex:
    """Read a file's packets, without decoding them.

    Raises:
        ValueError: missing, no video, or damaged.
    """
    with _opened(path) as container:
        stream = _stream(container, path)
        try:
            packets = [
                (packet.pts, packet.is_keyframe)
                for packet in container.demux(stream)
                if packet.size and packet.pts is not None and not packet.is_discard
            ]
        except _errors() as error:
            raise _damaged(path, error) from error
        size = (stream.codec_context.height, stream.codec_context.width)
        time_base = float(stream.time_base)
    packets.sort()
    pts = np.array([row[0] for row in packets], np.int64)
    if not len(pts) or (np.diff(pts) <= 0).any():
        raise ValueError(
            f"{path}: expected frames at rising times, got {len(pts)} packets of "
            f"{len(np.unique(pts))} times; encode the video again"
        )
    return VideoIndex(path, time_base, pts, np.array([row[1] for row in packets], bool), size)


def _opened(path: Path) -> Any:
    import av

    try:
        return av.open(str(present(path)), metadata_errors="ignore")
    except _errors() as error:
        raise _damaged(path, error) from error


def _errors() -> tuple[type[Exception], ...]:
    """What PyAV raises at damaged files."""
    from av.error import FFmpegError

    return OSError, FFmpegError


def _stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise ValueError(f"{path}: expected a video, got a file without one; copy it again")
    return container.streams.video[0]


def _damaged(path: Path, error: object) -> ValueError:
    return ValueError(f"{path}: expected a readable video, got {error}; copy it again")


def pixels(frame: Any) -> np.ndarray:
    """A decoded frame as uint8 (H, W, 3) RGB; 8 bits are taken of deeper ones."""
    return frame.to_ndarray(format="rgb24", **_one_thread())


@functools.cache
def _one_thread() -> dict[str, int]:
    """PyAV 17 converts colours with threads of its own unless told otherwise."""
    import av

    return {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}


class VideoDecoder:
    """Decodes frames of one file; where it stands is kept from one request to the next.

    One thread at a time: `decode` takes decoders out of a pool.
    """

    def __init__(self, index: VideoIndex) -> None:
        self.index = index
        self._container = _opened(index.path)
        self._stream = _stream(self._container, index.path)
        # Threads inside a decoder delay the first frame after a start, and several decoders run
        # beside each other.
        self._stream.codec_context.thread_count = 1
        self._keys = np.flatnonzero(index.key)
        self._frames: Iterator[Any] | None = None
        self._next = 0
        """Frame that the decoder gives next."""

    def close(self) -> None:
        """Close the file."""
        self._frames = None
        self._container.close()

    def __getitem__(self, number: int) -> np.ndarray:
        """A frame, uint8 (H, W, 3); ValueError where it is damaged."""
        try:
            frame = self._advance(number)
        except _errors() as error:
            self._frames = None
            raise ValueError(
                f"{self.index.path}: frame {number} does not decode: {error}; copy the file again"
            ) from error
        if frame is None:
            self._frames = None
            raise ValueError(
                f"{self.index.path}: expected frame {number} of {len(self.index.pts)}, got none "
                "there; copy the file again"
            )
        return pixels(frame)

    def _advance(self, number: int) -> Any:
        wanted = int(self.index.pts[number])
        start = int(np.searchsorted(self._keys, number, "right")) - 1  # the last one at or before
        nearer = self._next <= number and (start < 0 or self._next >= self._keys[start])
        if self._frames is not None and nearer:
            return self._until(wanted)
        # A start may land behind the frame, where frames are stored in another order than they are
        # shown; then from the key frame before.
        for key in [*self._keys[: start + 1][::-1], 0]:
            self._start(int(self.index.pts[key]))
            frame = self._until(wanted)
            if frame is not None:
                return frame
        return None

    def _start(self, pts: int) -> None:
        self._container.seek(pts, stream=self._stream, backward=True, any_frame=False)
        self._frames = self._container.decode(self._stream)

    def _until(self, pts: int) -> Any:
        """The frame of this time; None if the decoder is past it or at the end."""
        assert self._frames is not None
        for frame in self._frames:
            if frame.pts is None or frame.pts < pts:
                continue
            self._next = int(np.searchsorted(self.index.pts, frame.pts)) + 1
            return frame if frame.pts == pts else None
        self._next = len(self.index.pts)
        return None


class _Pool:
    """Open decoders that nobody uses at the moment; the least recently used is closed."""

    def __init__(self) -> None:
        self._idle: OrderedDict[int, VideoDecoder] = OrderedDict()
        self._lock = threading.Lock()
        self._left: list[Any] = []
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        """In a child: leave the parent's decoders alone. Freeing one would wait for threads that
        only the parent has."""
        self._left.append(self._idle)
        self._idle, self._lock = OrderedDict(), threading.Lock()

    def take(self, index: VideoIndex) -> VideoDecoder:
        with self._lock:
            for key in reversed(self._idle):
                if self._idle[key].index is index or _same(self._idle[key].index, index):
                    return self._idle.pop(key)
        return VideoDecoder(index)

    def give(self, decoder: VideoDecoder) -> None:
        with self._lock:
            self._idle[id(decoder)] = decoder
            old = self._idle.popitem(last=False)[1] if len(self._idle) > OPEN_DECODERS else None
        if old is not None:
            old.close()


def _same(one: VideoIndex, other: VideoIndex) -> bool:
    return one.path == other.path and np.array_equal(one.pts, other.pts)


_POOL = _Pool()


def decode(index: VideoIndex, number: int) -> np.ndarray:
    """Frame `number` of a file, uint8 (H, W, 3); ValueError where it is damaged.

    Decoders are kept open, so frames asked for in their order cost one decoded frame each.
    """
    decoder = _POOL.take(index)
    try:
        return decoder[number]
    finally:
        _POOL.give(decoder)
