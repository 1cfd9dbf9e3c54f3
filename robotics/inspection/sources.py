"""Opening a data set of any format without the table of a robot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robotics.data.rlds import storage
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.raw import RawEpisode, RawPlace, RawSource, rlds_source
from robotics.data.rlds.schema import Leaf


@dataclass(frozen=True)
class LeRobotSource:
    """`RawSource` of a LeRobot data set, read in place."""

    directory: str | os.PathLike[str]
    split: str
    raw: Any
    """`robotics.data.lerobot.raw.RawLeRobot`."""

    @property
    def name(self) -> str:
        """Of the directory."""
        return Path(self.directory).resolve().name

    @property
    def rate(self) -> float | None:
        """The data set's fps."""
        return float(self.raw.info.fps)

    @property
    def total(self) -> int:
        """Episodes of the split."""
        return len(self.raw.places)

    @property
    def stored(self) -> Mapping[str, Leaf]:
        """Flattened key -> how it is stored."""
        return self.raw.stored

    @property
    def shapes(self) -> Mapping[str, str]:
        """Flattened key -> shape and type, for people."""
        return self.raw.shapes

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Flattened key -> names of its values."""
        return self.raw.names

    def places(self, faults: Faults) -> list[RawPlace]:
        """Every episode of the split, with its number in the whole one where this is a slice."""
        whole = self.raw.info.select(self.split.partition("[")[0])
        numbers = {place.number: number for number, place in enumerate(whole)}
        return [
            RawPlace(numbers[place.number], self.directory, place.number, place)
            for place in self.raw.places
        ]

    def read(self, place: RawPlace) -> RawEpisode:
        """One episode; ValueError where it is damaged."""
        return self.raw.read(place.span)


def open_source(directory: str | os.PathLike[str], split: str = "train") -> RawSource:
    """A TFDS data set (local or at a URL) or a local LeRobot data set.

    Raises:
        ValueError: neither is there, unreadable metadata, no such split.
    """
    remote = storage.is_url(directory)
    if not remote and (Path(directory) / "meta" / "info.json").is_file():
        from robotics.data.lerobot.raw import raw_lerobot  # pyarrow and PyAV only where needed

        return LeRobotSource(directory, split, raw_lerobot(Path(directory), split))
    return rlds_source(directory, split)
