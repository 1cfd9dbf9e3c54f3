"""Reading TFDS datasets in RT-1's format: splits by tensorflow-datasets, records by ourselves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

from robotics.episodes import Episode
from robotics.rlds import tfrecord
from robotics.rlds.schema import decode_episode, load_tfds


class ShardSlice(NamedTuple):
    """The part of one shard that belongs to a split."""

    path: Path
    first: int
    count: int
    total: int
    """Records the whole shard holds, according to the metadata."""


def split_shards(directory: str | os.PathLike[str], split: str = "train") -> list[ShardSlice]:
    """The files and records of a split, resolved by tensorflow-datasets.

    Args:
        directory: a TFDS dataset directory (it holds `dataset_info.json`).
        split: any read instruction: "train", "train[:90%]", "train[100:200]", "train[90%:]".

    Raises:
        ValueError: no dataset there, or no such split.
    """
    directory = Path(directory)
    if not (directory / "dataset_info.json").is_file():
        raise ValueError(
            f"expected a TFDS dataset with dataset_info.json, got {directory} without it; "
            "name the version directory, and finalize() a collection before reading it."
        )
    splits = load_tfds().builder_from_directory(str(directory)).info.splits
    try:
        instructions = splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"expected a split or slice of {sorted(splits)} such as 'train[:90%]', got {split!r}: "
            f"{error}"
        ) from error
    return [
        ShardSlice(
            Path(item.filename),
            item.skip,
            item.examples_in_shard - item.skip if item.take < 0 else item.take,
            item.examples_in_shard,
        )
        for item in instructions
    ]


def index_shard(shard: ShardSlice) -> list[tfrecord.RecordSpan]:
    """Spans of the whole shard, checked against the metadata's count."""
    if not shard.path.is_file():
        raise ValueError(f"expected shard {shard.path}, got no such file; copy the dataset again.")
    spans = tfrecord.index_records(shard.path)
    if len(spans) != shard.total:
        raise ValueError(
            f"{shard.path}: expected {shard.total} records by dataset_info.json, got {len(spans)}; "
            "copy the dataset again."
        )
    return spans


class EpisodeReader(Sequence[Episode]):
    """Episodes of a split by number; each is read, checked and parsed when asked for."""

    def __init__(self, directory: str | os.PathLike[str], split: str = "train") -> None:
        self._records: list[tuple[Path, int, tfrecord.RecordSpan]] = []
        for shard in split_shards(directory, split):
            spans = index_shard(shard)
            numbers = range(shard.first, shard.first + shard.count)
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
        return read_episode(*self._records[index])

    def __iter__(self) -> Iterator[Episode]:
        return (read_episode(*record) for record in self._records)


def read_episode(path: Path, number: int, span: tfrecord.RecordSpan) -> Episode:
    """Record `number` of a shard as an episode, its checksum verified."""
    return decode_episode(tfrecord.read_record(path, span, number), f"{path}, record {number}")


def read_episodes(directory: str | os.PathLike[str], split: str = "train") -> EpisodeReader:
    """Episodes of `split` (for slices see `split_shards`), in the order of the files."""
    return EpisodeReader(directory, split)
