"""Files and directories that appear whole or not at all, and where checkpoints lie.

Torch is not needed for any of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
"""The shipped ones, by name."""


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


def newest_checkpoint(path: Path | str) -> Path:
    """The checkpoint that is meant by `path`: its own directory, that of a run, which stands for
    its newest one, or a name in `CHECKPOINTS`. Whether there is one is not looked at."""
    path = Path(path).expanduser()
    if not path.exists() and len(path.parts) == 1 and (CHECKPOINTS / path).is_dir():
        path = CHECKPOINTS / path
    inside = path / "checkpoint"
    return inside if not (path / "config.json").is_file() and inside.is_dir() else path


def checkpoint_digest(path: Path) -> str:
    """SHA-256 (hex) of a checkpoint: of a file, or of the names and contents of a directory's
    .safetensors and .json files."""
    if not path.is_dir():
        return file_digest(path)
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix in (".safetensors", ".json"):
            digest.update(file.name.encode() + b"\0" + bytes.fromhex(file_digest(file)))
    return digest.hexdigest()


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
