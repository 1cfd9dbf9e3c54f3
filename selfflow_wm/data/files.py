"""Media files with their captions: in folders, with sidecars, or in tars in WebDataset's manner."""

from __future__ import annotations

import json
import sys
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CAPTIONS = (".txt", ".json")


@dataclass(frozen=True)
class MediaFile:
    """One file, or one member of a tar, and its caption."""

    name: str
    """For messages: the path, or TAR/MEMBER."""
    path: Path
    offset: int | None
    """Where the member's bytes start in the tar; None for a file of its own."""
    size: int
    """Of the member, bytes."""
    caption: str

    def read(self) -> bytes:
        """The bytes; OSError when they cannot be read."""
        with self.path.open("rb") as stream:
            if self.offset is None:
                return stream.read()
            stream.seek(self.offset)
            return stream.read(self.size)


def find_media(root: Path, suffixes: Collection[str]) -> list[MediaFile]:
    """The media files under `root` and in its *.tar, in the order of their names.

    Links are followed, hidden files and folders left out; the number of other files is printed to
    stderr. The caption of a file is its sidecar's: NAME.txt, or "caption" (or "text")
    of NAME.json; else, outside tars, the name of its folder below `root` (class folders); else
    none. In a tar, members that share the name up to the first dot belong together.

    Raises:
        ValueError: no directory, nothing found, a damaged tar, or a caption that is not UTF-8 or
            not what it should be; always with the file's name.
    """
    if not root.is_dir():
        raise ValueError(f"expected a directory, got nothing at {root}; check the path")
    found, others = [], Counter()
    try:
        for path in sorted(_walk(root)):
            suffix = path.suffix.lower()
            if suffix == ".tar":
                found += _tar_members(path, suffixes, others)
            elif suffix in suffixes:
                found.append(MediaFile(str(path), path, None, 0, _sidecar(path, root)))
            elif suffix not in CAPTIONS:
                others[suffix or "no suffix"] += 1
    except OSError as error:
        raise ValueError(
            f"{error.filename or root}: expected to read it, got {error.strerror}; fix its "
            "permissions"
        ) from None
    known = ", ".join(sorted(suffixes))
    if not found:
        raise ValueError(
            f"expected files of {known} (or .tar of them) under {root}, got none"
            + (f" but {_counts(others)}" if others else "")
            + "; check the path"
        )
    if others:
        sys.stderr.write(
            f"note: {root}: left out {_counts(others)}; taken are {len(found)} of {known}\n"
        )
    return found


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """What lies below, but folders; a link to a folder that holds it is not followed."""
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):  # such as .DS_Store, ._a.jpg, .ipynb_checkpoints
            continue
        if path.is_dir():
            yield from _walk(path, (*above, real))
        else:
            yield path


def _counts(others: Counter[str]) -> str:
    return ", ".join(f"{count} of {suffix}" for suffix, count in others.most_common(5)) + (
        f" and {len(others) - 5} more sorts" if len(others) > 5 else ""
    )


def _sidecar(path: Path, root: Path) -> str:
    for suffix in CAPTIONS:
        beside = path.with_suffix(suffix)
        if beside.is_file():
            return _caption(beside.read_bytes(), str(beside))
    if path.parent == root:
        return ""
    if _broken(path.parent.name):
        raise ValueError(f"{path.parent!r}: expected a class folder named in UTF-8; rename it")
    return path.parent.name.replace("_", " ")


def _tar_members(path: Path, suffixes: Collection[str], others: Counter[str]) -> list[MediaFile]:
    """Those of `suffixes`; counts the `others`."""
    sidecars: dict[tuple[str, str], tuple[bytes, str]] = {}
    media: list[tuple[str, tarfile.TarInfo]] = []
    try:
        with tarfile.open(path, "r:") as archive:  # not compressed: members are sought
            for member in archive:
                place = PurePosixPath(member.name)
                stem, _, rest = place.name.partition(".")
                if not member.isfile() or not stem:  # hidden
                    continue
                key, suffix = str(place.parent / stem), "." + rest.lower()
                if suffix in CAPTIONS:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    sidecars[key, suffix] = stream.read(), f"{path}/{member.name}"
                elif suffix in suffixes:
                    media.append((key, member))
                else:
                    others[suffix] += 1
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{path}: expected an uncompressed tar, got {error}; write it again, or remove it"
        ) from None

    def caption(key: str) -> str:
        given = (sidecars[key, suffix] for suffix in CAPTIONS if (key, suffix) in sidecars)
        return next((_caption(*one) for one in given), "")

    return [
        MediaFile(f"{path}/{m.name}", path, m.offset_data, m.size, caption(key)) for key, m in media
    ]


def _caption(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig")  # some editors begin with a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: expected a caption in UTF-8, got {error}; convert it (iconv -t utf-8)"
        ) from None
    if not name.endswith(".json"):
        return text.strip()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: expected JSON, got {error}; fix the file") from None
    found = [value.get(key) for key in ("caption", "text")] if isinstance(value, dict) else []
    for caption in found:
        if isinstance(caption, str):
            if _broken(caption):
                break
            return caption.strip()
    raise ValueError(f'{name}: expected {{"caption": a string}}, got {text[:60]!r}; fix the file')


def _broken(text: str) -> bool:
    """Whether it holds lone surrogates, which UTF-8 cannot encode."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)
