"""ArrayRecord files without TensorFlow: the library reads and writes, the index is built here.

ArrayRecord is Riegeli underneath: chunks with a 40-byte header (among others the size and a hash of
the chunk's data), interrupted every 64 KiB by a block header. Hopping over the headers finds files
that were cut off, which the library takes for empty ones, and names the content without reading it.
Records are compressed, so nothing finer than a record can be read.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any, BinaryIO

from robotics.data.rlds import tfrecord
from robotics.data.rlds.tfrecord import RecordSpan

_BLOCK = 65536
_BLOCK_HEADER = 24
_CHUNK = struct.Struct("<5Q")  # hash of the rest, data size, data hash, type | records << 8, size
_TYPES = b"smprt"


def _library() -> Any:
    try:
        # A compiled module, which type checkers cannot see.
        from array_record.python import array_record_module  # pyright: ignore
    except ImportError as error:
        raise ImportError(
            "ArrayRecord files need their library: pip install 'selfflow-wm[array_record]'"
        ) from error
    return array_record_module


def index_records(path: str | os.PathLike[str]) -> list[RecordSpan]:
    """One span for every record; `offset` is the record's number, `length` unknown (0).

    `checksum` identifies the whole file by its chunks' sizes and hashes.

    Raises:
        ValueError: truncated or no ArrayRecord file, naming file and byte.
    """
    path = Path(path)
    content = _chunks(path)
    try:
        count = _open(path).num_records()
    except Exception as error:  # whatever the library makes of a damaged footer
        raise _damaged(path, None, str(error)) from error
    return [RecordSpan(number, 0, content) for number in range(count)]


def read_record(path: str | os.PathLike[str], span: RecordSpan, number: int) -> bytes:
    """The data of one record, its hash verified by the library.

    Raises:
        ValueError: the data does not match its hash, or there is no such record.
    """
    try:
        (record,) = _open(Path(path)).read([span.offset])
    except Exception as error:  # whatever the library makes of damaged chunks
        raise _damaged(path, number, str(error).splitlines()[0]) from error
    return record


def write(path: str | os.PathLike[str], records: list[bytes]) -> None:
    """Write a file with one chunk per record, as tensorflow-datasets does."""
    writer = open_writer(path)
    for record in records:
        writer.write(record)
    writer.close()


def open_writer(path: str | os.PathLike[str]) -> Any:
    """The library's writer, with `write` and `close`, of a file with one chunk per record."""
    return _library().ArrayRecordWriter(str(path), "group_size:1")


def repack(directory: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Copy a TFRecord dataset to `out` (new or empty) as an ArrayRecord dataset, shard by shard."""
    directory, out = Path(directory), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for shard in sorted(directory.glob("*.tfrecord-*")):
        spans = tfrecord.index_records(shard)
        name = shard.name.replace(".tfrecord-", ".array_record-")
        write(out / name, [tfrecord.read_record(shard, span, i) for i, span in enumerate(spans)])
    shutil.copyfile(directory / "features.json", out / "features.json")
    info = json.loads((directory / "dataset_info.json").read_text())
    info["fileFormat"] = "array_record"
    (out / "dataset_info.json").write_text(json.dumps(info, indent=2))
    return out


def _open(path: Path) -> Any:
    status = path.stat()
    return _reader(str(path), status.st_size, status.st_mtime_ns, os.getpid())


@functools.lru_cache(maxsize=8)
def _reader(path: str, size: int, changed: int, process: int) -> Any:
    """Keyed by size and time so that a rewritten file is opened again, and by process because
    the library's threads do not survive a fork."""
    del size, changed, process
    return _library().ArrayRecordReader(path, "readahead_buffer_size:0")


def _chunks(path: Path) -> int:
    """A number that identifies the content; every chunk must be whole."""
    size, position = path.stat().st_size, 0
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while position < size:
            begin = position
            header, position = _read(file, position, _CHUNK.size)
            if len(header) < _CHUNK.size:
                raise _damaged(path, None, f"header cut off at byte {begin} of {size}")
            _, length, _, kind, _ = _CHUNK.unpack(header)
            if kind & 0xFF not in _TYPES:
                raise _damaged(path, None, f"no chunk at byte {begin} of {size}")
            position = max(_skip(position, length), begin + (kind >> 8))
            digest.update(header)
    if position != size or size == 0:
        raise _damaged(path, None, f"needs bytes up to {position}, the file has {size}")
    return int.from_bytes(digest.digest()[:8], "little")


def _read(file: BinaryIO, position: int, count: int) -> tuple[bytes, int]:
    """`count` bytes from `position` on without block headers, and where they end."""
    data = b""
    while len(data) < count:
        position += _BLOCK_HEADER * (position % _BLOCK == 0)
        take = min(count - len(data), _BLOCK - position % _BLOCK)
        file.seek(position)
        part = file.read(take)
        data, position = data + part, position + take
        if len(part) < take:
            break
    return data, position


def _skip(position: int, count: int) -> int:
    """Where `count` bytes from `position` on end, block headers not counted."""
    if count == 0:
        return position
    payload = _BLOCK - _BLOCK_HEADER
    inside = position % _BLOCK
    start = max(inside - _BLOCK_HEADER, 0)  # payload bytes of this block that lie before
    blocks, rest = divmod(start + count - 1, payload)
    return position - inside + blocks * _BLOCK + _BLOCK_HEADER + rest + 1


def _damaged(path: str | os.PathLike[str], number: int | None, reason: str) -> ValueError:
    record = "" if number is None else f", record {number}"
    return ValueError(
        f"{path}{record}: {reason}; expected a complete ArrayRecord file. "
        "Copy or generate the file again."
    )
