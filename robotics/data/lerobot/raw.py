"""An episode's columns as they are stored, without a robot's table.

For looking at data whose conventions are not known yet, or are doubted, as
`robotics.data.rlds.raw` does with RLDS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robotics.data.lerobot.episode import TASK, EpisodeColumns, stored_columns
from robotics.data.lerobot.frames import Videos
from robotics.data.lerobot.info import EpisodePlace, LeRobotInfo, read_info
from robotics.data.rlds.raw import RawEpisode
from robotics.data.rlds.schema import Leaf


@dataclass(frozen=True)
class RawLeRobot:
    """A split's episodes, and how their columns are stored."""

    info: LeRobotInfo
    places: list[EpisodePlace]
    stored: Mapping[str, Leaf]
    """Flattened key ("steps/action", "steps/task") -> kind and width."""
    shapes: Mapping[str, str]
    """Flattened key -> type and shape, for people."""
    names: Mapping[str, tuple[str, ...]]
    """Flattened key -> names of a vector's values, where the data set has them."""
    videos: Videos

    def read(self, place: EpisodePlace) -> RawEpisode:
        """Every column of an episode; what is wrong with single ones is listed, not raised.

        Numbers are float64 (T, width). Pictures are sequences of bytes that are read, or decoded
        and encoded as PNG, when they are asked for; their `decode` gives pixels.

        Raises:
            ValueError: the rows cannot be read, or are not those that meta/episodes promises.
        """
        columns = EpisodeColumns(self.info, place, self.videos)
        numbers: dict[str, np.ndarray] = {}
        texts: dict = {}
        problems: list[str] = []
        for name, feature in self.info.features.items():
            key = f"steps/{name}"
            try:
                if feature.picture:
                    texts[key] = columns.pictures(name)
                elif feature.dtype == "string":
                    texts[key] = [text.encode() for text in columns.column(name)]
                else:
                    numbers[key] = columns.column(name).astype(np.float64)
            except ValueError as error:
                problems.append(str(error))
        try:
            texts[f"steps/{TASK}"] = [text.encode() for text in columns.column(TASK)]
        except (KeyError, ValueError) as error:
            problems.append(f"{columns.where}: no tasks: {error}")
        for name, value in place.values.items():
            if isinstance(value, str):
                texts[name] = [value.encode()]
            elif value is not None:
                numbers[name] = np.asarray(value, np.float64).reshape(1, -1)
        return RawEpisode(place.length, numbers, texts, problems)


def raw_lerobot(directory: Path | str, split: str, cache_dir: Path | None = None) -> RawLeRobot:
    """Open a data set without a robot's table.

    Raises:
        ValueError: no data set of format v3 there, no such split.
    """
    info = read_info(directory)
    shapes = {f"steps/{TASK}": "text"}
    for name, feature in info.features.items():
        size = ", ".join(map(str, feature.shape))
        shapes[f"steps/{name}"] = f"{feature.dtype} ({size})" if size else feature.dtype
    for name, value in (info.episodes[0].values if info.episodes else {}).items():
        shapes[name] = "text" if isinstance(value, str) else type(value).__name__
    names = {f"steps/{name}": row.names for name, row in info.features.items() if row.names}
    stored = {key: leaf for key, leaf in stored_columns(info).items() if key in shapes}
    places = info.select(split)
    return RawLeRobot(info, places, stored, shapes, names, Videos(info, cache_dir))
