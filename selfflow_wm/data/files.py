"""Media files with their captions: in folders, with sidecars, or in tars in WebDataset's manner."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection
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

    The caption of a file is its sidecar's: NAME.txt, or "caption" (or "text") of NAME.json; else
    the name of its folder below `root` (class folders); else none. In a tar, members that share
    the name up to the first dot belong together.

    Raises:
        ValueError: no directory, nothing found, a damaged tar, or a caption that is not UTF-8 or
            not what it should be; always with the file's name.
    """
    if not root.is_dir():
        raise ValueError(f"expected a directory, got nothing at {root}; check the path")
    found = []
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() == ".tar":
            found += _tar_members(path, suffixes)
        elif path.suffix.lower() in suffixes and path.is_file():
            found.append(
                MediaFile(str(path), path, None, path.stat().st_size, _sidecar(path, root))
            )
    if not found:
        raise ValueError(
            f"expected files of {', '.join(sorted(suffixes))} (or .tar of them) under {root}, got "
            "none; check the path"
        )
    return found


def _sidecar(path: Path, root: Path) -> str:
    for suffix in CAPTIONS:
        beside = path.with_suffix(suffix)
        if beside.is_file():
            return _caption(beside.read_bytes(), str(beside))
    return path.parent.name.replace("_", " ") if path.parent != root else ""


def _tar_members(path: Path, suffixes: Collection[str]) -> list[MediaFile]:
    captions: dict[str, str] = {}
    media: list[tuple[str, tarfile.TarInfo]] = []
    try:
        with tarfile.open(path, "r:") as archive:  # not compressed: members are sought
            for member in archive:
                if not member.isfile():
                    continue
                place = PurePosixPath(member.name)
                stem, _, rest = place.name.partition(".")
                key, suffix = str(place.parent / stem), "." + rest.lower()
                if suffix in CAPTIONS:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    captions[key] = _caption(stream.read(), f"{path}/{member.name}")
                elif suffix in suffixes:
                    media.append((key, member))
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{path}: expected an uncompressed tar, got {error}; write it again, or take it away"
        ) from None
    return [
        MediaFile(f"{path}/{m.name}", path, m.offset_data, m.size, captions.get(key, ""))
        for key, m in media
    ]


def _caption(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: expected a caption in UTF-8, got {error}; convert it (iconv -t utf-8)"
        ) from None
    if not name.endswith(".json"):
        return text.strip()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: expected JSON, got {error}; mend the file") from None
    found = [value.get(key) for key in ("caption", "text")] if isinstance(value, dict) else []
    for caption in found:
        if isinstance(caption, str):
            return caption.strip()
    raise ValueError(f'{name}: expected {{"caption": a string}}, got {text[:60]!r}; mend the file')
