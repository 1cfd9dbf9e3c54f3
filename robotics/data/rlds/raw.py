"""A record's columns as they are stored, without a robot's table.

For looking at data whose conventions are not known yet, or are doubted;
`robotics.data.rlds.convert` makes episodes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from robotics.data.rlds.convert import parse_example
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.reader import (
    ShardSlice,
    container,
    index_shard,
    record_features,
    split_shards,
)
from robotics.data.rlds.schema import Leaf, feature_shapes, stored_features
from robotics.data.rlds.storage import RemoteFile
from robotics.data.rlds.tfrecord import RecordSpan


@dataclass(frozen=True)
class RawEpisode:
    """The columns of one record that are stored as features.json states."""

    steps: int
    """Most common number of values, or of rows, among the columns of steps."""
    numbers: dict[str, np.ndarray]
    """Flattened key -> float64 (T, width) of a step's feature, (1, width) of the episode's."""
    texts: dict[str, list[bytes]]
    """Flattened key -> bytes of images or texts, T of a step's feature, 1 of the episode's."""
    problems: list[str]
    """Columns that are absent, of another kind or not as long as the others."""
    pictures: dict[str, Sequence[np.ndarray]] = field(default_factory=dict)
    """Flattened key -> T pictures uint8 (H, W, 3), of a source that holds no encoded ones (RLDS has
    them among `texts`)."""


def read_raw(record: bytes, where: str, stored: Mapping[str, Leaf]) -> RawEpisode:
    """Every column of a record; what is wrong with single ones is listed, not raised.

    Raises:
        ValueError: the record is not a `tf.train.Example`.
    """
    columns = parse_example(record, where).features.feature
    numbers: dict[str, np.ndarray] = {}
    texts: dict[str, list[bytes]] = {}
    problems = []
    for key, leaf in stored.items():
        kind = columns[key].WhichOneof("kind") if key in columns else "no such key"
        if kind != leaf.kind:
            problems.append(f"expected {key!r} as {leaf.kind}, got {kind}")
            continue
        values: Any = getattr(columns[key], leaf.kind).value
        if leaf.kind == "bytes_list":
            texts[key] = list(values)
        elif leaf.width and len(values) % leaf.width == 0:
            numbers[key] = np.array(values, np.float64).reshape(-1, leaf.width)
        elif leaf.width:
            problems.append(f"expected {leaf.width} values of {key!r} a step, got {len(values)}")
    lengths = [len(rows) for name, rows in [*numbers.items(), *texts.items()] if _of_step(name)]
    steps = max(set(lengths), key=lengths.count) if lengths else 0
    for rows in (numbers, texts):
        for key in [key for key, value in rows.items() if _of_step(key) and len(value) != steps]:
            problems.append(f"expected {steps} steps of {key!r}, got {len(rows.pop(key))}")
    return RawEpisode(steps, numbers, texts, problems)


def _of_step(key: str) -> bool:
    return key.startswith("steps/")


class RawPlace(NamedTuple):
    """Where one episode is."""

    number: int
    """In the order of the whole split, also where a slice of it is read."""
    path: Any
    record: int
    """In the file."""
    span: Any = None


class RawSource(Protocol):
    """A split's episodes as they are stored, of any format."""

    @property
    def directory(self) -> str | os.PathLike[str]: ...
    @property
    def split(self) -> str: ...
    @property
    def name(self) -> str:
        """Of the data set."""
        ...

    @property
    def rate(self) -> float | None:
        """Steps a second where the format states it."""
        ...

    @property
    def total(self) -> int:
        """Episodes of the split, by the metadata."""
        ...

    @property
    def stored(self) -> Mapping[str, Leaf]:
        """Flattened key ("steps/action") -> how it is stored."""
        ...

    @property
    def shapes(self) -> Mapping[str, str]:
        """Flattened key -> shape and type, for people."""
        ...

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Flattened key -> names of its values, where the format has them."""
        ...

    def places(self, faults: Faults) -> list[RawPlace]:
        """Every episode that is there; what is wrong with whole files goes to `faults`."""
        ...

    def read(self, place: RawPlace) -> RawEpisode:
        """One episode; ValueError where it is damaged."""
        ...


@dataclass(frozen=True)
class RldsSource:
    """`RawSource` of a TFDS data set."""

    directory: str | os.PathLike[str]
    split: str
    name: str
    shards: list[ShardSlice]
    stored: Mapping[str, Leaf]
    shapes: Mapping[str, str]
    rate: float | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    first: int = 0
    """Number of the first episode in the whole split, of which this may be a slice."""

    @property
    def total(self) -> int:
        """Episodes of the split, by the metadata."""
        return sum(shard.count for shard in self.shards)

    def places(self, faults: Faults) -> list[RawPlace]:
        """Every record that is there."""
        found: list[RawPlace] = []
        first = self.first
        for shard in self.shards:
            spans: Sequence[RecordSpan] = index_shard(shard, faults)
            last = min(shard.first + shard.count, len(spans))
            found += [
                RawPlace(first + record - shard.first, shard.path, record, spans[record])
                for record in range(shard.first, last)
            ]
            first += shard.count
        return found

    def read(self, place: RawPlace) -> RawEpisode:
        """One record; ValueError where it is damaged."""
        path: Path | RemoteFile = place.path
        record = container(path).read_record(path, place.span, place.record)
        return read_raw(record, f"{path}, record {place.record}", self.stored)


def rlds_source(directory: str | os.PathLike[str], split: str = "train") -> RldsSource:
    """Open a data set without a robot's table.

    Raises:
        ValueError: no data set there, unreadable metadata, another file format, no such split.
    """
    shards, features = split_shards(directory, split), record_features(directory)
    name = Path(shards[0].path.name).name.partition("-")[0] if shards else ""
    first = 0
    if shards and re.fullmatch(r"[^\[+]+\[.*\]", split):
        for shard in split_shards(directory, split.partition("[")[0]):
            if shard.path == shards[0].path:
                first += shards[0].first
                break
            first += shard.total
    return RldsSource(
        directory, split, name, shards, stored_features(features), feature_shapes(features),
        first=first,
    )  # fmt: skip
