"""One episode of a LeRobot data set by the paths of a robot's table, or column by column."""

from __future__ import annotations

from typing import Any

import numpy as np

from robotics.data.lerobot.columns import read_columns
from robotics.data.lerobot.frames import EpisodePictures, Videos
from robotics.data.lerobot.info import EpisodePlace, LeRobotInfo
from robotics.data.lerobot.video import TOLERANCE
from robotics.data.rlds.convert import selected
from robotics.data.rlds.schema import Leaf
from robotics.embodiment.columns import Column

TASK = "task"
"""Path of the text of a row's `task_index`."""


def stored_columns(info: LeRobotInfo) -> dict[str, Leaf]:
    """Keys of the paths that a table can name, and what they hold.

    Features of steps ("action"), the task ("task"), and of the episode, with a leading "/" in the
    table: further columns of meta/episodes, or a feature's value in the last row.
    """
    found = {f"steps/{TASK}": Leaf("bytes_list", 1)}
    for name, feature in info.features.items():
        kind = "float_list" if feature.dtype.startswith("float") else "int64_list"
        text = feature.picture or feature.dtype == "string"
        leaf = Leaf("bytes_list", 1) if text else Leaf(kind, feature.width)
        found[f"steps/{name}"] = leaf
        if not feature.picture:
            found[name] = leaf
    for name, value in (info.episodes[0].values if info.episodes else {}).items():
        values = value if isinstance(value, list) else [value]
        kind = "float_list"
        if values and isinstance(values[0], (str, bytes)):
            kind = "bytes_list"
        elif values and isinstance(values[0], (bool, int)):
            kind = "int64_list"
        found[name] = Leaf(kind, len(values))
    return found


class EpisodeColumns:
    """`robotics.data.rlds.convert.Columns` of an episode; nothing is read before it is asked for.

    Raises:
        ValueError: rows that are not the ones that meta/episodes and fps promise.
    """

    def __init__(self, info: LeRobotInfo, place: EpisodePlace, videos: Videos) -> None:
        self.info, self.place, self.videos = info, place, videos
        self.where, self.steps = f"{info.directory}, episode {place.number}", place.length
        self._columns: dict[str, Any] = {}
        self._pictures: dict[str, EpisodePictures] = {}
        self.timestamps = self._timestamps() if self.steps else np.zeros(0)

    def _timestamps(self) -> np.ndarray:
        """(T,) seconds since the episode began, checked against fps and the rows' order."""
        fps = self.info.fps
        if "frame_index" in self.info.features:
            numbers = self.column("frame_index")[:, 0]
            if (np.diff(numbers) != 1).any():
                step = int(np.argmax(np.diff(numbers) != 1))
                raise ValueError(
                    f"{self.where}: expected frame_index {numbers[step] + 1} in row {step + 1}, "
                    f"got {numbers[step + 1]}; rows are missing or out of order"
                )
        if "timestamp" not in self.info.features:
            return np.arange(self.steps) / fps
        times = self.column("timestamp")[:, 0].astype(np.float64)
        off = np.abs(times - times[0] - np.arange(self.steps) / fps) > TOLERANCE / fps
        if off.any():
            step = int(np.argmax(off))
            rate = (self.steps - 1) / max(times[-1] - times[0], 1e-9)
            raise ValueError(
                f"{self.where}: expected timestamps {1 / fps:.4f} s apart by fps {fps:g} of "
                f"info.json, got {times[step]:.4f} s in row {step} ({rate:.4g} fps on average); "
                "correct fps or resample the episode"
            )
        return times

    def column(self, name: str) -> Any:
        """A feature: numbers (T, width) in their own type, texts, or `EpisodePictures`."""
        if name == TASK and name not in self.info.features:
            return self._tasks()
        if self.info.features[name].picture:
            return self.pictures(name)
        if name not in self._columns:
            numbers = [
                key
                for key, feature in self.info.features.items()
                if not feature.picture and feature.dtype != "string"
            ]
            wanted = [name] if self.info.features[name].dtype == "string" else numbers
            self._columns |= read_columns(self.info, self.place, wanted)
        return self._columns[name]

    def pictures(self, name: str) -> EpisodePictures:
        """A camera's pictures, every one of which is there."""
        if name not in self._pictures:
            if self.info.features[name].dtype == "video":
                video, numbers = self.videos.frames(self.place, name, self.timestamps)
                self._pictures[name] = EpisodePictures(video=video, numbers=numbers)
            else:
                encoded: Any = read_columns(self.info, self.place, [name])[name]
                self._pictures[name] = EpisodePictures(encoded)
        return self._pictures[name]

    def _tasks(self) -> list[str]:
        numbers = self.column("task_index")[:, 0]
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self.info.tasks):
            raise ValueError(
                f"{self.where}: expected task_index of the {len(self.info.tasks)} tasks in "
                f"meta/tasks.parquet, got {numbers.max()}; copy the data set again"
            )
        return [self.info.tasks[number] for number in numbers]

    # ------------------------------------------------------------------ by a table's paths

    def images(self, place: Column) -> EpisodePictures:
        """JPEG or PNG of every step."""
        feature = self.info.features.get(place.name)
        if feature is None or not feature.picture:
            raise ValueError(
                f"{self.where}: expected pictures in {place.name!r}, got "
                f"{feature.dtype if feature else 'no such feature'}; the cameras are "
                f"{', '.join(self.info.cameras)}"
            )
        return self.pictures(place.name)

    def array(self, place: Column, width: int | None) -> np.ndarray:
        """(steps, width) values of a column, in their own type."""
        if place.of_step:
            values = self.column(place.name)
        else:
            values = np.tile(np.reshape(self._of_episode(place), (1, -1)), (self.steps, 1))
        return selected(values, place, width)  # pyright: ignore

    def texts(self, place: Column) -> list[str]:
        """The text, or the task, of every step."""
        values = self.column(place.name) if place.of_step else [self._of_episode(place)]
        return [str(value) for value in (values if place.of_step else values * self.steps)]

    def one(self, place: Column) -> Any:
        """The single value of an episode's feature."""
        value = self._of_episode(place)
        values = np.reshape(np.asarray(value), -1)
        if len(values) != 1:
            raise ValueError(
                f"{self.where}: expected one value of {place.key!r}, got {len(values)}"
            )
        return values[0].item()

    def first(self, place: Column) -> Any:
        """A value to filter by: of the episode, or of its first step."""
        value = self.column(place.name)[0] if place.of_step else self._of_episode(place)
        if isinstance(value, str):
            return value
        values = np.reshape(np.asarray(value), -1)
        index = 0 if place.values is None else place.values.start
        if len(values) <= index:
            raise ValueError(f"{self.where}: expected a value of {place.key!r}, got none")
        return values[index].item()

    def _of_episode(self, place: Column) -> Any:
        if place.key in self.place.values:
            return self.place.values[place.key]
        return self.column(place.key)[-1]
