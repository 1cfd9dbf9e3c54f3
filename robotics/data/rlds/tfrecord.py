"""TFRecord files without TensorFlow: framing, checksums and an index by header-hopping.

A record is stored as `length u64 | masked crc32c of those 8 bytes | data | masked crc32c of data`,
little endian. Framed records can be concatenated, which is all that sharding needs.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from robotics.data.rlds.storage import RemoteFile, located

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


class RecordSpan(NamedTuple):
    """Where one record's data lies in its file."""

    offset: int
    length: int
    checksum: int
    """Masked crc32c of the data as stored, not yet verified."""

    @property
    def end(self) -> int:
        """First byte after the frame."""
        return self.offset + self.length + _FOOTER.size


def masked_crc(data: bytes) -> int:
    """The checksum TFRecord stores: crc32c rotated right by 15 bits plus a constant."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(record: bytes) -> bytes:
    """`record` with TFRecord's header and footer around it."""
    length = struct.pack("<Q", len(record))
    return b"".join(
        (length, _FOOTER.pack(masked_crc(length)), record, _FOOTER.pack(masked_crc(record)))
    )


def index_records(
    path: str | os.PathLike[str] | RemoteFile,
    on_damage: Callable[[ValueError, int], None] | None = None,
) -> list[RecordSpan]:
    """Spans of all records of a file, in order.

    Reads only the headers and footers (16 bytes a record), so a shard of gigabytes takes
    milliseconds; the data itself is checked by `read_record`.

    Args:
        path: the file.
        on_damage: takes the error and the number of the record it was found at; if it returns, the
            records before are the result (where the next one would begin is unknown).

    Raises:
        ValueError: truncated file or damaged header, naming file, record and byte.
    """
    path, spans = located(path), []
    try:
        for span in _hop(path):
            spans.append(span)
    except ValueError as error:
        if on_damage is None:
            raise
        on_damage(error, len(spans))
    return spans


def _hop(path: Path | RemoteFile) -> Iterator[RecordSpan]:
    size = path.stat().st_size
    position = number = 0
    with path.open("rb", buffering=0) as file:
        while position < size:
            file.seek(position)
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise _damaged(path, number, f"header cut off at byte {position} of {size}")
            length, length_crc = _HEADER.unpack(header)
            if masked_crc(header[:8]) != length_crc:
                raise _damaged(path, number, f"checksum of the length at byte {position}")
            offset = position + _HEADER.size
            end = offset + length + _FOOTER.size
            if end > size:
                raise _damaged(path, number, f"needs bytes up to {end}, the file has {size}")
            file.seek(offset + length)
            yield RecordSpan(offset, length, *_FOOTER.unpack(file.read(_FOOTER.size)))
            position, number = end, number + 1


def read_record(path: str | os.PathLike[str] | RemoteFile, span: RecordSpan, number: int) -> bytes:
    """The data of one record.

    Args:
        path: the file `span` was indexed from.
        span: where the record lies.
        number: the record's position in the file, for the message.

    Raises:
        ValueError: the data does not match its checksum.
    """
    with located(path).open("rb", buffering=0) as file:
        file.seek(span.offset)
        data = file.read(span.length)
    if len(data) != span.length:
        raise _damaged(path, number, f"expected {span.length} bytes, got {len(data)}")
    if masked_crc(data) != span.checksum:
        raise _damaged(path, number, "checksum of the data does not match")
    return data


def _damaged(path: object, number: int, reason: str) -> ValueError:
    return ValueError(
        f"{path}, record {number}: {reason}; expected a complete TFRecord. "
        "Copy or generate the file again."
    )
