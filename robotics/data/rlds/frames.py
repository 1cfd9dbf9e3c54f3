"""The frame of any step, read when asked for: decoded pixels from a file, or a JPEG from its shard.

Both read into the caller's array, with plain reads: a memory map's pages would count towards the
process's memory and grow with the data set.

Images straight from the shard (`StoredFrames`) are for data sets too large for decoded frames. What
that costs is a JPEG a frame read; what it saves is the disk (a window's frames are all that is ever
touched) and the wait before the first batch.
"""

from __future__ import annotations

import copy
import functools
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from crc32c import crc32c

from robotics.data.images import decode_image, resize_image, turn_image
from robotics.data.rlds import tfrecord
from robotics.data.rlds.reader import container
from robotics.data.rlds.storage import RemoteFile
from robotics.data.rlds.tfrecord import RecordSpan

PLACE = np.dtype([("record", "<u4"), ("offset", "<u8"), ("length", "<u4"), ("crc", "<u4")])
"""Where an encoded image lies: number of its record, byte in the record's data, length, crc32c."""


def find_images(record: bytes, number: int, images: Sequence[bytes]) -> np.ndarray:
    """Places (T,) of `images`, which were parsed out of `record` in this order.

    They are searched for: wherever the bytes are found, they are the image's bytes.
    """
    places = np.zeros(len(images), PLACE)
    position = 0
    for row, image in enumerate(images):
        found = record.find(image, position)
        if found < 0:  # cannot be in one list's order; look everywhere
            found = record.index(image)
        places[row] = (number, found, len(image), crc32c(image))
        position = found + len(image)
    return places


class SharedFile:
    """A local file read at positions, by threads and forked processes alike.

    It is opened when it is first read and not kept open for long: a set may have a thousand shards.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._inode = path, path.stat().st_ino

    def read(self, count: int, position: int) -> bytes:
        """Up to `count` bytes, fewer only where the file ends."""
        file = self._open()  # held: another thread may push it out and close it
        return os.pread(file.fileno(), count, position)

    def read_into(self, out: memoryview, position: int) -> int:
        """Fill `out` as far as the file goes; returns the number of bytes."""
        file = self._open()
        return os.preadv(file.fileno(), [out], position)

    def _open(self) -> io.FileIO:
        try:
            return _opened(self.path, self._inode)
        except OSError as error:
            raise ValueError(
                f"{self.path}: expected the file that was there when the data set was opened, got "
                f"{error.strerror}; put it back and start again."
            ) from error


@functools.lru_cache(maxsize=32)
def _opened(path: Path, inode: int) -> io.FileIO:
    """inode: a file put in this one's place is another file."""
    return path.open("rb", buffering=0)


class DecodedFrames:
    """Frames uint8 (H, W, 3) of a shard's steps, one after the other in a file.

    Args:
        path: the file.
        count: frames.
        image_size: their height and width.
        first: number of the first of them in the file.
    """

    def __init__(self, path: Path, count: int, image_size: tuple[int, int], first: int = 0) -> None:
        self.path, self.count, self.image_size, self.first = path, count, image_size, first
        self._file = SharedFile(path)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, steps: slice) -> DecodedFrames:
        start, stop, _ = steps.indices(self.count)
        part = copy.copy(self)
        part.count, part.first = max(stop - start, 0), self.first + start
        return part

    def decode(self, step: int) -> np.ndarray:
        """One frame."""
        out = np.empty((*self.image_size, 3), np.uint8)
        self.read_into(step, out)
        return out

    def read_into(self, step: int, out: np.ndarray) -> None:
        """Fill `out`, a contiguous uint8 (H, W, 3)."""
        flat = out.reshape(-1)
        got = self._file.read_into(flat.data, (self.first + step) * len(flat))
        if got != len(flat):
            raise ValueError(
                f"{self.path}: expected {len(flat)} bytes of frame {self.first + step}, got {got}; "
                "delete its directory, it is built again from the data."
            )


class StoredFrames:
    """Frames uint8 (H, W, 3) of a shard's steps by number, decoded when asked for.

    Args:
        path: the shard.
        spans: of its records.
        places: (n,) of `PLACE`; of length 0: there is no image, the frame is black.
        image_size: height and width wanted.
        draft: decode JPEGs no larger than need be, see `robotics.data.images.decode_image`.
        turn: degrees by which the images are turned, see `robotics.data.images.turn_image`.
    """

    def __init__(
        self,
        path: Path | RemoteFile,
        spans: Sequence[RecordSpan],
        places: np.ndarray,
        image_size: tuple[int, int],
        draft: bool = False,
        turn: int = 0,
    ) -> None:
        self.path, self.spans, self.places, self.image_size = path, spans, places, image_size
        self.draft, self.turn = draft, turn
        # A shard that is missing has no records, and nothing of it is ever read.
        self._file = SharedFile(path) if isinstance(path, Path) and len(spans) else None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, steps: slice) -> StoredFrames:
        part = copy.copy(self)
        part.places = self.places[steps]
        return part

    def decode(self, step: int) -> np.ndarray:
        """One frame; ValueError where it is damaged."""
        number, _, length, _ = self.places[step].item()
        if not length:
            return np.zeros((*self.image_size, 3), np.uint8)
        height, width = self.image_size
        draft = (width, height) if self.turn % 180 else (height, width)
        data = self.encoded(step)
        try:
            image = decode_image(data, draft if self.draft else None)
        except ValueError as error:
            raise ValueError(f"{self.path}, record {number}: undecodable image: {error}") from error
        return resize_image(turn_image(image, self.turn), self.image_size)

    def read_into(self, step: int, out: np.ndarray) -> None:
        """Fill `out`, uint8 (H, W, 3)."""
        out[...] = self.decode(step)

    def encoded(self, step: int) -> bytes:
        """The encoded image, its checksum verified.

        Raises:
            ValueError: the shard changed or was damaged since it was indexed.
        """
        number, offset, length, crc = self.places[step].item()
        span = self.spans[number]
        if container(self.path) is not tfrecord:
            record = _record(self.path, span, number)
            data = record[offset : offset + length]
        elif self._file is not None:
            data = self._file.read(length, span.offset + offset)
        else:
            with self.path.open("rb") as file:
                file.seek(span.offset + offset)
                data = file.read(length)
        if crc32c(data) != crc:
            raise ValueError(
                f"{self.path}, record {number}: checksum of the image at byte {offset} does not "
                "match; the file changed since it was indexed. Copy it again, delete the cache."
            )
        return data


@functools.lru_cache(maxsize=4)
def _record(path: Path | RemoteFile, span: RecordSpan, number: int) -> bytes:
    """The frames of a window lie in one record, which can only be read as a whole."""
    return container(path).read_record(path, span, number)
