"""Data sets behind a URL such as gs://bucket/set/1.0.0, read by byte ranges (the extra `gcs`).

Reading a shard takes a few of `pathlib.Path`'s methods. Local files stay `Path`s; `RemoteFile` has
the same ones and asks fsspec. What cannot be reached is a `ConnectionError`, never damage:
leaving out "damaged" episodes because a network was down would train on another data set.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

BLOCK = 65536
"""Bytes fetched when a header is asked for: small records' next headers lie in it, and for large
ones it takes no longer than 16 bytes would."""
SMALL = 1024
"""Reads up to this many bytes are of headers."""
THREADS = 32
"""Requests under way at a time where many shards are asked about."""
_VERSION = (
    "generation", "etag", "ETag", "md5Hash", "crc32c", "mtime", "updated", "LastModified",
    "last_modified", "created",
)  # fmt: skip
"""What file systems of fsspec call a file's content or the time of its last change."""

T = TypeVar("T")
R = TypeVar("R")


class Status(NamedTuple):
    """The part of `os.stat_result` that is known of a remote file."""

    st_size: int


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL, with the methods of `pathlib.Path` that reading a shard uses."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Without its directory."""
        return self.url.rsplit("/", 1)[-1]

    def is_file(self) -> bool:
        """Whether it is there; ConnectionError if that cannot be found out."""
        try:
            return _ask(self.url, "info")["type"] == "file"
        except FileNotFoundError:
            return False

    def stat(self) -> Status:
        """Its size.

        Raises:
            ValueError: the server does not tell.
        """
        size = _ask(self.url, "info")["size"]
        if size is None:
            raise ValueError(
                f"expected a server that tells sizes, got none for {self.url}; copy it"
            )
        return Status(int(size))

    def open(self, mode: str = "rb", buffering: int = 0) -> RangeReader:
        """A reader of byte ranges, see `RangeReader`; nothing is requested yet."""
        if mode != "rb":
            raise ValueError(f"expected mode 'rb' of {self.url}, got {mode!r}; it is only read")
        return RangeReader(self.url)


class RangeReader:
    """Reads ranges of a remote file: small reads out of a block, large ones as they are asked."""

    def __init__(self, url: str) -> None:
        self._url, self._position = url, 0
        self._first, self._block = 0, b""

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._block = b""

    def seek(self, position: int) -> int:
        """Move to a byte, counted from the beginning."""
        self._position = position
        return position

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, fewer only where the file ends."""
        begin = self._position - self._first
        if begin < 0 or begin + count > len(self._block):
            end = self._position + (BLOCK if count <= SMALL else count)
            self._block = _ask(self._url, "cat_file", self._position, end)
            self._first, begin = self._position, 0
        data = self._block[begin : begin + count]
        self._position += len(data)
        return data


def is_url(place: object) -> bool:
    """Whether a data set's place is a URL; those are strings, which a `Path` would change."""
    return isinstance(place, str) and "://" in place


def expanded(place: str) -> str:
    """A user's ~ written out; a URL as it is."""
    return place if is_url(place) else str(Path(place).expanduser())


def located(path: str | os.PathLike[str] | RemoteFile) -> Path | RemoteFile:
    """A file to read, wherever it is."""
    if isinstance(path, RemoteFile):
        return path
    return RemoteFile(str(path)) if is_url(path) else Path(path)


def identity(path: Path | RemoteFile) -> str | None:
    """Changes when the file does; None where the server tells neither time nor content."""
    if isinstance(path, Path):
        status = path.stat()
        return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    told = _ask(path.url, "info")
    version = [f"{key}={told[key]}" for key in _VERSION if told.get(key) is not None]
    return "|".join([path.url, str(told["size"]), *version]) if version else None


def copy_metadata(url: str, into: Path) -> None:
    """Copy the few small files that a data set's directory holds beside its shards.

    Raises:
        FileNotFoundError: no such directory.
    """
    for row in _ask(url, "ls", True):  # kept by gcsfs, which then knows every shard's `info`
        name = row["name"].rsplit("/", 1)[-1]
        if name and row["type"] == "file" and "-of-" not in name:
            (into / name).write_bytes(_ask(f"{url.rstrip('/')}/{name}", "cat_file"))


def mapped(function: Callable[[T], R], items: Iterable[T], remote: bool) -> list[R]:
    """`function` of all items, of remote ones many at a time: each waits for its server."""
    if not remote:
        return [function(item) for item in items]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


def _ask(url: str, question: str, *words: Any) -> Any:
    """Ask the URL's file system, which fsspec keeps and opens again after a fork."""
    try:
        import fsspec

        system, path = fsspec.url_to_fs(url)
    except ImportError as error:
        raise ImportError(
            f"{url} needs fsspec and its file system: pip install 'selfflow-wm[gcs]' for gs:// "
            f"({error})"
        ) from error
    try:
        return getattr(system, question)(path, *words)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"expected {url}, got no such file or directory") from error
    except Exception as error:  # each file system raises different ones
        raise ConnectionError(
            f"{url}: expected an answer, got {type(error).__name__}: {error}; check the address, "
            "the network and the credentials, and rerun"
        ) from error
