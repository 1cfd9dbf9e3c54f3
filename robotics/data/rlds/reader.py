"""Reading TFDS datasets: splits by tensorflow-datasets, TFRecord and ArrayRecord by ourselves."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, overload

import numpy as np

from robotics.data.episodes import Episode
from robotics.data.rlds import arrayrecord, storage, tfrecord
from robotics.data.rlds.convert import NoSteps, RecordColumns, check_features, convert, kept
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.schema import Leaf, load_tfds, stored_features
from robotics.data.rlds.storage import RemoteFile
from robotics.data.rlds.tfrecord import RecordSpan
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from selfflow_wm.files import atomic_file

CONTAINERS: dict[str, ModuleType] = {"tfrecord": tfrecord, "array_record": arrayrecord}
"""File formats of tensorflow-datasets that are read, each `index_records` and `read_record`."""


class ShardSlice(NamedTuple):
    """The part of one shard that belongs to a split."""

    path: Path | RemoteFile
    first: int
    count: int
    total: int
    """Records the whole shard holds, according to the metadata."""


def _builder(directory: str | os.PathLike[str]) -> Any:
    if not storage.is_url(directory):
        return _local_builder(Path(directory), str(directory))
    with tempfile.TemporaryDirectory() as metadata:
        try:
            storage.copy_metadata(str(directory), Path(metadata))
        except FileNotFoundError as error:
            raise ValueError(f"expected a TFDS dataset, got {error}") from error
        return _local_builder(Path(metadata), str(directory))


def _local_builder(metadata: Path, directory: str) -> Any:
    """tensorflow-datasets' view of `metadata`, which is `directory` or a copy of its metadata."""
    if not (metadata / "dataset_info.json").is_file():
        raise ValueError(
            f"expected a TFDS dataset with dataset_info.json, got {directory} without it; "
            "pass the version directory (SET/1.0.0); if it is a collection that was interrupted, "
            "rerun its eval.collect command."
        )
    tfds = load_tfds()
    try:
        builder = tfds.builder_from_directory(str(metadata))
        _ = builder.info.splits, builder.info.features
    except ImportError:
        raise
    except Exception as error:  # json's, protobuf's or tensorflow-datasets'
        raise ValueError(
            f"{directory}: expected readable dataset_info.json and features.json, got "
            f"{type(error).__name__}: {error}; copy the dataset again."
        ) from error
    return builder


def split_shards(directory: str | os.PathLike[str], split: str = "train") -> list[ShardSlice]:
    """The files and records of a split, resolved by tensorflow-datasets.

    Args:
        directory: a TFDS dataset directory (it holds `dataset_info.json`), or the URL of one with
            TFRecord files.
        split: any read instruction: "train", "train[:90%]", "train[100:200]", "train[90%:]".

    Raises:
        ValueError: no dataset there, unreadable metadata, another file format, or no such split.
    """
    info = _builder(directory).info
    if info.file_format.value not in CONTAINERS:
        raise ValueError(
            f"{directory}: expected files of {sorted(CONTAINERS)}, got {info.file_format.value}."
        )
    remote = storage.is_url(directory)
    if remote and info.file_format.value != "tfrecord":
        raise ValueError(
            f"{directory}: expected TFRecord files at a URL, got {info.file_format.value}, "
            "whose library opens local files only; copy the dataset to a disk."
        )
    try:
        instructions = info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"expected a split or slice of {sorted(info.splits)} such as 'train[:90%]', got "
            f"{split!r}: {error}"
        ) from error
    base = f"{directory}".rstrip("/")
    return [
        ShardSlice(
            RemoteFile(f"{base}/{Path(item.filename).name}") if remote else Path(item.filename),
            item.skip,
            item.examples_in_shard - item.skip if item.take < 0 else item.take,
            item.examples_in_shard,
        )
        for item in instructions
    ]


class RecordFormat(NamedTuple):
    """What is needed to make episodes of a dataset's records."""

    robot: Robot
    stored: Mapping[str, Leaf]
    cameras: tuple[str, ...]
    """Those that are read."""

    def decode(self, path: Path | RemoteFile, number: int, span: RecordSpan) -> Episode | None:
        """Record `number` of a shard, its checksum verified; None if a filter leaves it out."""
        return self.parse(
            container(path).read_record(path, span, number), f"{path}, record {number}"
        )

    def parse(self, record: bytes, where: str) -> Episode | None:
        """A record's data as an episode; None if a filter leaves it out."""
        columns = RecordColumns(record, where, self.stored, self.robot, self.cameras)
        if not kept(columns, self.robot):
            return None
        return convert(columns, self.robot, self.cameras)


def record_format(
    directory: str | os.PathLike[str],
    spec: str | Path | Mapping[str, Any] | Robot | None,
    cameras: Sequence[str] | None = None,
) -> RecordFormat:
    """A robot's table (see `load_robot`), checked against the dataset's features.

    Raises:
        ValueError: the dataset or the table is wrong, or one does not fit the other.
    """
    robot = load_robot(spec)
    names = tuple(row.name for row in robot.used_cameras(cameras))
    stored = stored_features(record_features(directory))
    check_features(robot, stored, str(directory), names)
    return RecordFormat(robot, stored, names)


def record_features(directory: str | os.PathLike[str]) -> Any:
    """The `tfds.features.FeaturesDict` of a dataset."""
    return _builder(directory).info.features


def container(path: Path | RemoteFile) -> ModuleType:
    """The module that reads a shard, by its name."""
    return CONTAINERS["array_record" if ".array_record-" in path.name else "tfrecord"]


def index_shard(
    shard: ShardSlice, faults: Faults | None = None, cache_dir: Path | None = None
) -> list[RecordSpan]:
    """Spans of the whole shard, checked against the metadata's count.

    Args:
        shard: any slice of it.
        faults: with the policy "skip", a damaged shard gives the records before the damage, a
            missing one none.
        cache_dir: where the spans are kept until size or time of the shard change; on a disk that
            seeks slowly, and over a network, the index of a large dataset takes minutes.
    """
    faults = faults or Faults()
    before = len(faults.found)
    if not shard.path.is_file():
        error = ValueError(f"expected shard {shard.path}, got {_beside(shard.path)}")
        faults.report(error, shard.path, None, shard.total)
        return []
    if _is_lfs_pointer(shard.path):
        error = ValueError(
            f"{shard.path}: expected a shard, got the pointer that Git LFS leaves in its place; "
            "run git lfs pull in the data set's repository"
        )
        faults.report(error, shard.path, None, shard.total)
        return []
    cached = None if cache_dir is None else _spans_path(shard.path, cache_dir)
    spans = None if cached is None else _load_spans(cached)
    if spans is None:
        spans = _find_spans(shard, faults)
        if cached is not None and len(faults.found) == before:
            _save_spans(cached, spans)
    if len(spans) != shard.total and len(faults.found) == before:
        error = ValueError(
            f"{shard.path}: expected {shard.total} records by dataset_info.json, got {len(spans)}; "
            "copy the dataset again."
        )
        faults.report(error, shard.path, None, max(shard.total - len(spans), 0))
        spans = spans[: shard.total]
    return spans


def _beside(path: Path | RemoteFile) -> str:
    """What there is of the split whose shard `path` is missing, and what to do."""
    first, _, total = path.name.rpartition("-of-")
    name = first.rpartition("-")[0]
    found = sorted(path.parent.glob(f"{name}-*-of-*")) if isinstance(path, Path) else []
    if not found:
        return "no such file; copy the dataset again."
    numbers = [file.name.removeprefix(f"{name}-").partition("-of-")[0] for file in found]
    many = f"{', '.join(numbers[:8])}{', …' if len(numbers) > 8 else ''}"
    return (
        f"{len(found)} of {int(total) if total.isdigit() else total} shards ({many}); copy the "
        "missing ones, or leave them out with on_error=skip"
    )


def _is_lfs_pointer(path: Path | RemoteFile) -> bool:
    """Whether a local file is the small text that stands for a large file in Git LFS."""
    if not isinstance(path, Path) or path.stat().st_size > 1024:
        return False
    return path.read_bytes().startswith(b"version https://git-lfs.github.com/spec/")


def _find_spans(shard: ShardSlice, faults: Faults) -> list[RecordSpan]:
    def lost(error: ValueError, number: int) -> None:
        faults.report(error, shard.path, number, max(shard.total - number, 0))

    if container(shard.path) is tfrecord:
        return tfrecord.index_records(shard.path, lost)
    try:
        return arrayrecord.index_records(str(shard.path))
    except ValueError as error:
        lost(error, 0)
        return []


def _spans_path(path: Path | RemoteFile, cache_dir: Path) -> Path | None:
    key = storage.identity(path)
    if key is None:  # a change could not be detected
        return None
    return cache_dir / f"spans-{hashlib.sha256(key.encode()).hexdigest()[:20]}.npy"


def _load_spans(path: Path) -> list[RecordSpan] | None:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError):  # none yet, or not one of ours: find them again
        return None
    if rows.dtype != np.dtype("<u8") or rows.ndim != 2 or rows.shape[1] != 3:
        return None
    return [RecordSpan(*row) for row in rows.tolist()]


def _save_spans(path: Path, spans: list[RecordSpan]) -> None:
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(spans, "<u8").reshape(-1, 3))


class EpisodeReader(Sequence[Episode]):
    """Episodes of a split by number, in the order of the files; each is read when asked for.

    Args:
        directory: TFDS dataset directory, or a URL, see `split_shards`.
        split: see `split_shards`.
        spec: the robot's table, see `load_robot`; RT-1's by default.
        cameras: names of those to read; default: those the table uses.
        on_error: "error", or "skip": iterating then continues after damage and counts it in
            `faults`. Asking for a damaged episode by number always raises.
        faults: where damage is counted instead, and its policy.

    Iterating leaves out episodes without steps and those that the table's filters drop; by number,
    such an episode raises `ValueError`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        split: str = "train",
        *,
        spec: str | Path | Mapping[str, Any] | Robot | None = None,
        cameras: Sequence[str] | None = None,
        on_error: str = "error",
        faults: Faults | None = None,
    ) -> None:
        self.faults = faults or Faults(on_error)
        self.format = record_format(directory, spec, cameras)
        self._records: list[tuple[Path | RemoteFile, int, RecordSpan]] = []
        for shard in split_shards(directory, split):
            spans = index_shard(shard, self.faults)
            numbers = range(shard.first, min(shard.first + shard.count, len(spans)))
            self._records += [(shard.path, number, spans[number]) for number in numbers]

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> list[Episode]: ...
    def __getitem__(self, index: int | slice) -> Episode | list[Episode]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        path, number, span = self._records[index]
        episode = self.format.decode(path, number, span)
        if episode is None:
            raise ValueError(
                f"{path}, record {number}: expected an episode that the filters of "
                f"{self.format.robot.name} keep; iterate over the reader to skip the others."
            )
        return episode

    def __iter__(self) -> Iterator[Episode]:
        for path, number, span in self._records:
            try:
                episode = self.format.decode(path, number, span)
            except NoSteps:
                self.faults.empty += 1
                continue
            except ValueError as error:
                self.faults.report(error, path, number)
                continue
            if episode is not None:
                yield episode
