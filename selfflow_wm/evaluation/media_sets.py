"""Two sets of media to compare: .npz archives and folders, a sample at a time, all cut alike."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_wm.data.excerpts import Unreadable
from selfflow_wm.data.files import MediaFile, find_media
from selfflow_wm.data.folders import PICTURES, AudioFolder, VideoFolder, open_picture


@dataclass(frozen=True)
class Cut:
    """What samples of both sets are cut to; None if not given."""

    frames: int | None = None
    """Of videos: the first ones."""
    size: tuple[int, int] | None = None
    """(H, W) of videos. Those of folders are scaled to cover it."""
    samples: int | None = None
    """Of sounds: the first ones."""
    sample_rate: int | None = None
    """Hz of sounds; nothing is resampled."""
    fps: float | None = None
    """Of the videos of folders; None takes any."""


CONCERNS: Mapping[str, Sequence[str]] = {
    "image": (),
    "video": ("frames", "size", "fps"),
    "audio": ("samples", "sample_rate"),
}
"""The fields of `Cut` that there are of each modality."""

NOUNS = {"image": "pictures", "video": "videos", "audio": "sounds"}


@dataclass(frozen=True)
class MediaSet:
    """Samples of one modality: image uint8 (H, W, 3), of several sizes in a folder; video uint8
    (T, H, W, 3); audio float32 (S), channels mixed."""

    path: Path
    count: int
    samples: Callable[[], Iterator[np.ndarray]]
    """Reads them in order, one in memory. ValueError names a file that is damaged or too short."""


def open_sets(modality: str, paths: Sequence[Path], cut: Cut) -> tuple[list[MediaSet], Cut]:
    """The sets at `paths`, each an .npz (arr_0, as python -m selfflow_wm.sample writes it) or a
    folder, and the cut that they share: what `cut` leaves open is that of the archives.

    Only headers and names are read. Raises:
        ValueError: nothing there, fewer than two samples, arrays of another kind, or of other
            shapes than asked for or than each other's; or a folder without the length or
            size its media should have.
    """
    archives = {path: open_archive(path, modality) for path in paths if not path.is_dir()}
    cut = _complete(modality, cut, archives)
    sets = [
        archives[path].cut(cut) if path in archives else _folder(path, modality, cut)
        for path in paths
    ]
    for media in sets:
        if media.count < 2:
            raise ValueError(
                f"{media.path}: expected two samples or more, got {media.count}; take more"
            )
    return sets, cut


def _complete(modality: str, cut: Cut, archives: Mapping[Path, Archive]) -> Cut:
    for field in fields(cut):
        if getattr(cut, field.name) is not None and field.name not in CONCERNS[modality]:
            kind = next(kind for kind, names in CONCERNS.items() if field.name in names)
            raise ValueError(
                f"{_flag(field.name)}: expected with {kind} features, got {modality} ones; leave "
                "it out"
            )
    for name in {"video": ("frames", "size"), "audio": ("samples",)}.get(modality, ()):
        there = {path: archive.measures[name] for path, archive in archives.items()}
        wanted = getattr(cut, name)
        if wanted is None and not there:
            raise ValueError(
                f"{_flag(name)}: expected it for two folders of {NOUNS[modality]}, got none; give "
                "it"
            )
        if wanted is None:
            wanted = next(iter(there.values()))
        for path, got in there.items():
            # Longer ones can be cut when asked to, by the user and not by the other archive.
            if not (got == wanted or name != "size" and getattr(cut, name) and got > wanted):
                remedy = "the sizes of archives have to agree"
                if name != "size":
                    remedy = f"cut all with {_flag(name)} {min(there.values())}"
                raise ValueError(f"{path}: expected {name} {wanted}, got {got}; {remedy}")
        cut = replace(cut, **{name: wanted})
    return cut


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class Archive:
    """arr_0 of an .npz, of which one sample at a time is read."""

    path: Path
    modality: str
    shape: tuple[int, ...]
    kind: np.dtype

    @property
    def measures(self) -> dict[str, Any]:
        """By the names of `Cut`."""
        if self.modality == "video":
            return {"frames": self.shape[1], "size": self.shape[2:4]}
        return {"samples": self.shape[2]} if self.modality == "audio" else {}

    def cut(self, cut: Cut) -> MediaSet:
        """Its samples, cut."""

        def samples() -> Iterator[np.ndarray]:
            for array in self:
                if self.modality == "audio":
                    yield array[:, : cut.samples].astype(np.float32).mean(0)
                else:
                    yield array[: cut.frames] if self.modality == "video" else array

        return MediaSet(self.path, self.shape[0], samples)

    def __iter__(self) -> Iterator[np.ndarray]:
        size = int(np.prod(self.shape[1:])) * self.kind.itemsize
        with zipfile.ZipFile(self.path) as file, file.open("arr_0.npy") as stream:
            _header(stream)
            for number in range(self.shape[0]):
                try:
                    data = stream.read(size)
                except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                    raise ValueError(f"{self.path}: damaged at sample {number}: {error}") from None
                if len(data) < size:
                    raise ValueError(f"{self.path}: ends at sample {number} of {self.shape[0]}")
                yield np.frombuffer(data, self.kind).reshape(self.shape[1:])


def open_archive(path: Path, modality: str) -> Archive:
    """The header of arr_0; ValueError unless it is image uint8 (N, H, W, 3), video uint8 (N, T, H,
    W, 3) or audio float (N, A, S)."""
    try:
        with zipfile.ZipFile(path) as file, file.open("arr_0.npy") as stream:
            shape, fortran, kind = _header(stream)
    except (OSError, KeyError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected a folder of {NOUNS[modality]}, or an .npz with arr_0, got {error}; "
            "check the path"
        ) from None
    if modality == "audio":
        wanted, fits = "float (N, A, S)", kind.kind == "f" and len(shape) == 3
    else:
        axes = 4 if modality == "image" else 5
        wanted = f"uint8 (N, {'T, ' if axes == 5 else ''}H, W, 3)"
        fits = kind == np.uint8 and len(shape) == axes and shape[-1] == 3
    if not fits or fortran or 0 in shape[1:]:
        raise ValueError(
            f"{path}: expected arr_0 {wanted}, got {kind} {shape}"
            + (" in Fortran order" if fortran else "")
            + "; is it of another modality than --features?"
        )
    return Archive(path, modality, shape, kind)


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether in Fortran order, type); the stream stands at the first sample then."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _folder(path: Path, modality: str, cut: Cut) -> MediaSet:
    if modality == "image":
        files, read = find_media(path, PICTURES), lambda file: np.array(open_picture(file))
    elif modality == "video":
        assert cut.frames is not None and cut.size is not None
        videos = VideoFolder(path, cut.size, cut.frames, fps=cut.fps)
        files, read = videos.files, lambda file: videos.decode(file)["video"]
    else:
        if cut.sample_rate is None:
            raise ValueError(
                f"{path}: expected the rate of its sounds, got none; give --sample-rate HZ"
            )
        assert cut.samples is not None
        sounds = AudioFolder(path, cut.sample_rate, cut.samples, channels=None)
        files, read = sounds.files, lambda file: sounds.decode(file)["audio"].mean(0)
    return MediaSet(path, len(files), lambda: (_read(file, read, modality, cut) for file in files))


def _read(
    file: MediaFile, read: Callable[[MediaFile], np.ndarray], modality: str, cut: Cut
) -> np.ndarray:
    """The beginning of a file; ValueError for one that is damaged or shorter than the cut."""
    try:
        sample = read(file)
    except Unreadable as error:
        raise ValueError(
            f"{file.name}: expected {NOUNS[modality]}, got {error}; remove it, a distance is of "
            "all files"
        ) from None
    name = {"video": "frames", "audio": "samples"}.get(modality)
    if name and len(sample) < getattr(cut, name):
        raise ValueError(
            f"{file.name}: expected {getattr(cut, name)} {name}, got {len(sample)}; remove it, "
            f"or cut all with --{name} {len(sample)}"
        )
    return sample
