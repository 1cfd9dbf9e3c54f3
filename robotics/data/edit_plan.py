"""Which episodes of which data sets an edit writes, and what it does to each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from robotics.data.rlds import storage
from robotics.data.rlds.reader import ShardSlice, record_features, split_shards
from robotics.data.rlds.schema import Leaf, stored_features

INFO, FEATURES = "dataset_info.json", "features.json"


@dataclass(frozen=True)
class Edit:
    """What to change. Episodes are words such as "train:3,17-20"; with several sources "2/train:3"
    is the second one's."""

    delete: Sequence[str] = ()
    keep: Sequence[str] = ()
    """Of the splits that are named, these episodes alone; other splits stay whole."""
    relabel: Sequence[tuple[str, str]] = ()
    """Episodes and their instruction from now on."""
    relabel_text: Sequence[tuple[str, str]] = ()
    """An instruction as it is, and as it is to be."""
    trim_idle: Sequence[str] | None = None
    """Episodes whose idle beginning and end are cut off; empty: all; None: none."""
    spec: str | None = None
    """Table that says where instructions, states and actions are; None: a shipped one that fits."""


@dataclass(frozen=True)
class Source:
    """A data set to read."""

    directory: str
    info: Mapping[str, Any]
    features: str
    """Text of features.json."""
    stored: Mapping[str, Leaf]
    splits: Mapping[str, list[ShardSlice]]

    def count(self, split: str) -> int:
        """Episodes of a split, by the metadata."""
        return sum(shard.total for shard in self.splits[split])


class Row(NamedTuple):
    """An episode that is written."""

    number: int
    """In the source's split."""
    record: int
    """In its shard."""
    text: str | None
    """New instruction."""
    trim: bool


Key = tuple[int, str]
"""Number of the source, name of the split."""


def open_source(directory: str) -> Source:
    """Read a data set's metadata.

    Raises:
        ValueError: none there, or none on a disk.
    """
    if storage.is_url(directory):
        raise ValueError(f"expected a data set on a disk, got {directory}; copy it first")
    path = Path(directory).expanduser()
    if (path / "meta" / "info.json").is_file():
        raise ValueError(
            f"expected an RLDS data set, got LeRobot's {directory}; write python -m "
            f"robotics.convert lerobot-to-rlds {directory} {directory}-rlds, and edit that"
        )
    stored = stored_features(record_features(str(path)))
    info = json.loads((path / INFO).read_text())
    names = [row["name"] for row in info.get("splits", [])]
    splits = {name: split_shards(str(path), name) for name in names}
    return Source(str(directory), info, (path / FEATURES).read_text(), stored, splits)


def check_alike(sources: Sequence[Source]) -> None:
    """ValueError unless all have the features of the first, in files of one format."""
    first = sources[0]
    for other in sources[1:]:
        differing = sorted(
            key
            for key in first.stored.keys() | other.stored.keys()
            if first.stored.get(key) != other.stored.get(key)
        )
        if differing:
            raise ValueError(
                f"expected the features of {first.directory}, got others in {other.directory}: "
                f"{', '.join(differing[:5])}; merge sets of one schema alone, and train on several "
                "by a mixture"
            )
        if first.info.get("fileFormat") != other.info.get("fileFormat"):
            raise ValueError(
                f"expected files of {first.info.get('fileFormat')}, got "
                f"{other.info.get('fileFormat')} in {other.directory}; convert one of them"
            )


# ---------------------------------------------------------------- which episodes


def episodes(word: str, sources: Sequence[Source]) -> tuple[Key, list[int]]:
    """Parse "train:3,17-20" or "2/train:3".

    Raises:
        ValueError: another form, or no such source, split or episode.
    """
    match = re.fullmatch(r"(?:(\d+)/)?([^:/]+):(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)", word)
    if match is None:
        raise ValueError(
            f"expected episodes as SPLIT:NUMBERS, got {word!r}; write train:3,17-20 for episodes 3 "
            "and 17 to 20 of train"
        )
    place, split, ranges = match.groups()
    if place is None and len(sources) > 1:
        raise ValueError(
            f"expected the number of a source with the episodes, got {word!r}; write 1/{word} for "
            "those of the first"
        )
    source = int(place or 1) - 1
    if not 0 <= source < len(sources):
        raise ValueError(f"expected a source from 1 to {len(sources)}, got {word!r}; correct it")
    known = sources[source].splits
    if split not in known:
        raise ValueError(f"expected a split out of {', '.join(known)}, got {word!r}; write one")
    numbers: list[int] = []
    for piece in ranges.split(","):
        first, _, last = piece.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    count = sources[source].count(split)
    if not numbers or max(numbers) >= count:
        raise ValueError(
            f"expected episodes from 0 to {count - 1} of {split}, got {word!r}; correct it"
        )
    return (source, split), sorted(set(numbers))


def _chosen(words: Sequence[str], sources: Sequence[Source]) -> dict[Key, set[int]]:
    found: dict[Key, set[int]] = {}
    for word in words:
        key, numbers = episodes(word, sources)
        found.setdefault(key, set()).update(numbers)
    return found


Plan = dict[Key, list[tuple[ShardSlice, list[Row]]]]


def plan(sources: Sequence[Source], change: Edit) -> Plan:
    """The episodes to write, by source, split and shard; ValueError where nothing is left."""
    delete, keep = _chosen(change.delete, sources), _chosen(change.keep, sources)
    trim = None if change.trim_idle is None else _chosen(change.trim_idle, sources)
    texts: dict[Key, dict[int, str]] = {}
    for word, text in change.relabel:
        key, numbers = episodes(word, sources)
        texts.setdefault(key, {}).update(dict.fromkeys(numbers, text))
    rows: Plan = {}
    for place, source in enumerate(sources):
        for split, shards in source.splits.items():
            key, first = (place, split), 0
            planned = []
            for shard in shards:
                numbers = range(first, first + shard.total)
                first += shard.total
                left = [
                    Row(n, n - numbers.start, texts.get(key, {}).get(n),
                        trim is not None and (not trim or n in trim.get(key, ())))
                    for n in numbers
                    if n not in delete.get(key, ()) and (key not in keep or n in keep[key])
                ]  # fmt: skip
                if left:
                    planned.append((shard, left))
            rows[key] = planned
    for split in {split for _, split in rows}:
        if not any(rows[key] for key in rows if key[1] == split):
            raise ValueError(
                f"expected episodes that stay in {split}, got none; keep at least one, such as "
                f"--keep {split}:0"
            )
    return rows
