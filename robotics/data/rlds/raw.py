"""A record's columns as they are stored, without a robot's table.

For looking at data whose conventions are not known yet, or are doubted;
`robotics.data.rlds.convert` makes episodes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robotics.data.rlds.convert import parse_example
from robotics.data.rlds.reader import ShardSlice, record_features, split_shards
from robotics.data.rlds.schema import Leaf, feature_shapes, stored_features


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


@dataclass(frozen=True)
class RawFormat:
    """A split's records and how they are stored."""

    shards: list[ShardSlice]
    stored: Mapping[str, Leaf]
    shapes: Mapping[str, str]
    """Flattened key -> shape and type as features.json has them, for people."""


def raw_format(directory: str | os.PathLike[str], split: str) -> RawFormat:
    """Open a data set without a robot's table.

    Raises:
        ValueError: no data set there, unreadable metadata, another file format, no such split.
    """
    shards, features = split_shards(directory, split), record_features(directory)
    return RawFormat(shards, stored_features(features), feature_shapes(features))
