"""Files and directories that appear whole or not at all; torch is not needed to write them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, whole or not at all; NaN and infinity are refused because other readers
    refuse them."""
    write_file(Path(path), json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file; ValueError names the file when it is missing or broken."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; is this a complete checkpoint?") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that becomes `path` when the block ends without an error.

    What stood at `path` is replaced. A crash inside the block leaves `path` as it was; one
    between the two renames leaves the old content beside it under a `.old` name, which the
    next call with the same path brings back or removes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.parent / f".{path.name}.old"
    recover(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        recover(path)
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path to write; it becomes `path` when the block ends without an error.

    A crash leaves the old file or the new, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.tmp-", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        temporary.chmod(0o644)  # mkstemp's files are for their owner alone
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_open(path: Path) -> Iterator[BinaryIO]:
    """A file to write to; it becomes `path` when the block ends without an error."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        yield file


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; text as UTF-8."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())


def check_out(path: Path) -> None:
    """`ValueError` unless results can be written into the directory `path`, which need not exist.

    Leaves nothing behind.
    """
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"out: expected a directory, got the file {place}; choose another --out")
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".selfflow_wm-", dir=place))
    except OSError as error:  # mode bits don't tell: root may write anywhere, but not to /proc
        raise ValueError(
            f"out: expected a directory that can be written, got {path} ({error.strerror}: "
            f"{place}); choose another --out"
        ) from None


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """One process at a time inside the block, the others wait.

    The system drops the lock of a process that ends, however it ends.

    Args:
        path: of the lock file, made.
        wait: False: `BlockingIOError` at once where another process is inside.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


_held: dict[Path, int] = {}
"""Lock files that this process holds, open until it ends."""


def hold(path: Path) -> str | None:
    """Lock `path`, a file that is made, until this process ends, however it ends. None, or who
    holds it if another process does.

    Where the file system has no locks, nobody is kept out. A process may hold a file twice; its
    children do not hold it.
    """
    path = path.resolve()
    if path in _held:
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with os.fdopen(descriptor) as file:
            return file.read(100).strip() or "another process"
    except OSError:  # no locks here, as on some network disks
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _held[path] = descriptor
    return None


def _let_go() -> None:
    while _held:
        os.close(_held.popitem()[1])


os.register_at_fork(after_in_child=_let_go)  # or a worker that outlives a run would hold its lock


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The sorted keys whose values differ between two mappings of JSON values."""
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def recover(path: Path) -> None:
    """Undo a replacement of `path` that a crash cut between its two renames."""
    old = path.parent / f".{path.name}.old"
    if not old.exists():
        return
    if path.exists():
        shutil.rmtree(old)
    else:
        old.rename(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
