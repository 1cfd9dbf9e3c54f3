"""What `meta/` of a LeRobot data set (format v3) says: features, rate, tasks, episodes' places."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

INFO = "meta/info.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
PICTURES = ("image", "video")
"""Types of features that are pictures."""
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Features of every data set."""
_OF_META = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")


@dataclass(frozen=True)
class Feature:
    """A column of the data set."""

    name: str
    dtype: str
    """numpy's name of the type, "string", "image" or "video"."""
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    """Of a vector's values, in their order; empty where the data set names none."""
    info: Mapping[str, Any] | None = None
    """The feature as info.json has it."""

    @property
    def width(self) -> int:
        """Values of a step."""
        return int(np.prod(self.shape, dtype=np.int64)) if self.shape else 1

    @property
    def picture(self) -> bool:
        """Whether it is pictures."""
        return self.dtype in PICTURES

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of pictures."""
        if len(self.shape) < 2:
            raise ValueError(f"{self.name}: expected (H, W, channels), got {list(self.shape)}")
        axes = dict(zip(self.names, self.shape, strict=False))
        if "height" in axes and "width" in axes:
            return axes["height"], axes["width"]
        if len(self.shape) == 3 and self.shape[0] in (1, 3, 4) and self.shape[2] not in (1, 3, 4):
            return self.shape[1], self.shape[2]
        return self.shape[0], self.shape[1]


class VideoPlace(NamedTuple):
    """Where an episode's video lies."""

    path: Path
    start: float
    """Seconds into the file of the first frame."""
    stop: float
    """Seconds into the file at which the last frame ends."""


@dataclass(frozen=True)
class EpisodePlace:
    """One row of meta/episodes."""

    number: int
    """`episode_index`."""
    length: int
    data: Path
    tasks: tuple[str, ...]
    videos: Mapping[str, VideoPlace]
    values: Mapping[str, Any]
    """What else the row holds, by column: features of the episode."""


@dataclass(frozen=True)
class LeRobotInfo:
    """The description of a data set."""

    directory: Path
    fps: float
    robot_type: str
    features: Mapping[str, Feature]
    tasks: tuple[str, ...]
    """By `task_index`."""
    episodes: tuple[EpisodePlace, ...]
    splits: Mapping[str, range]
    content: Mapping[str, Any]
    """info.json."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the features that are pictures."""
        return tuple(name for name, feature in self.features.items() if feature.picture)

    def select(self, split: str) -> list[EpisodePlace]:
        """The episodes of a split or slice: "train", "train[:90%]", "train[10:20]".

        Raises:
            ValueError: no such split.
        """
        match = re.fullmatch(r"([^\[\]]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?", split.strip())
        if match is None or match[1] not in self.splits:
            raise ValueError(
                f"{self.directory}: expected a split or slice of {sorted(self.splits)} such as "
                f"'train[:90%]', got {split!r}"
            )
        rows = self.splits[match[1]]
        start, stop = (_bound(match[n], len(rows)) for n in (2, 3))
        return [self.episodes[number] for number in rows[start:stop]]


def _bound(text: str | None, count: int) -> int | None:
    if text is None:
        return None
    return round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)


def read_info(directory: Path | str) -> LeRobotInfo:
    """Read and check a data set's description; neither data nor videos are opened.

    Raises:
        ValueError: no data set of format v3, or one whose description contradicts itself.
    """
    directory = Path(directory)
    content = _content(directory)
    features = {str(name): _feature(str(name), row) for name, row in content["features"].items()}
    fps = content.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not fps > 0:
        raise ValueError(f"{directory / INFO}: expected fps, frames a second, got {fps!r}")
    episodes = tuple(_episodes(directory, content, features))
    total = sum(place.length for place in episodes)
    for name, got in (("total_episodes", len(episodes)), ("total_frames", total)):
        if content.get(name) not in (None, got):
            raise ValueError(
                f"{directory}: expected {content[name]} by {name} of info.json, got {got} in "
                f"{EPISODES}; copy the data set again"
            )
    return LeRobotInfo(
        directory, float(fps), str(content.get("robot_type") or ""), features,
        _tasks(directory), episodes, _splits(directory, content, len(episodes)), content,
    )  # fmt: skip


def _content(directory: Path) -> dict[str, Any]:
    path = directory / INFO
    if not path.is_file():
        raise ValueError(f"expected a LeRobot data set with {INFO}, got {directory}")
    try:
        content = json.loads(path.read_text())
        version = str(content["codebase_version"])
        if not isinstance(content["features"], dict):
            raise KeyError("features")
    except (json.JSONDecodeError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected a LeRobot data set's description, got {error!r}; copy it again"
        ) from error
    if not version.startswith("v3."):
        raise ValueError(
            f"{directory}: expected LeRobot's format v3, got {version}; convert it: python -m "
            "lerobot.datasets.v30.convert_dataset_v21_to_v30 --repo-id=NAME --root=DIR (in an "
            "environment with lerobot)"
        )
    return content


def _feature(name: str, row: Any) -> Feature:
    try:
        return Feature(
            name, str(row["dtype"]), tuple(map(int, row["shape"])), _names(row.get("names")), row
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(
            f"features.{name} of {INFO}: expected dtype, shape and names, got {row!r}"
        ) from error


def _names(value: Any) -> tuple[str, ...]:
    """Names in their order, out of a list or a dictionary of lists."""
    if isinstance(value, Mapping):
        rows = list(value.values())
        if rows and all(isinstance(row, int) for row in rows):  # {"x": 0, "y": 1}
            return tuple(map(str, sorted(value, key=lambda key: value[key])))
        return tuple(name for row in rows for name in _names(row))
    if isinstance(value, str):
        return (value,)
    return tuple(str(name) for name in value or ())


def present(path: Path) -> Path:
    """`path`, if a file with content is there.

    Raises:
        ValueError: it is missing, or what Git LFS leaves in a file's place.
    """
    if not path.is_file():
        raise ValueError(f"expected {path}, got no such file; copy the data set again")
    if path.stat().st_size < 1024:
        with path.open("rb") as file:
            if file.read(64).startswith(b"version https://git-lfs.github.com/spec/"):
                raise ValueError(
                    f"{path}: expected its content, got the pointer that Git LFS leaves in its "
                    "place; run git lfs pull in the data set's repository"
                )
    return path


def open_parquet(path: Path) -> pq.ParquetFile:
    """A parquet file; ValueError where it is missing or damaged."""
    try:
        return pq.ParquetFile(present(path))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: expected a parquet file, got {error}; copy it again, or finish the "
            "recording with dataset.finalize()"
        ) from error


def _tasks(directory: Path) -> tuple[str, ...]:
    path = directory / TASKS
    rows = open_parquet(path).read().to_pydict()
    texts = [name for name in rows if name != "task_index"]
    if "task_index" not in rows or len(texts) != 1:
        raise ValueError(f"{path}: expected task_index and the tasks, got {sorted(rows)}")
    tasks = dict(zip(rows["task_index"], rows[texts[0]], strict=True))
    if sorted(tasks) != list(range(len(tasks))):
        raise ValueError(f"{path}: expected task_index 0 to {len(tasks) - 1}, got {sorted(tasks)}")
    return tuple(str(tasks[number]) for number in range(len(tasks)))


def _splits(directory: Path, content: Mapping[str, Any], count: int) -> dict[str, range]:
    found = {}
    for name, text in (content.get("splits") or {}).items():
        match = re.fullmatch(r"(\d+):(\d+)", str(text))
        if match is None or not int(match[1]) <= int(match[2]) <= count:
            raise ValueError(
                f"{directory / INFO}: expected splits such as 0:{count}, got {name}: {text!r}"
            )
        found[str(name)] = range(int(match[1]), int(match[2]))
    return found or {"train": range(count)}


# ---------------------------------------------------------------- meta/episodes


def is_bookkeeping(column: str) -> bool:
    """Whether a column of meta/episodes is the format's, not one of the data set's own."""
    places = ("data/chunk_index", "data/file_index", "videos/", "meta/episodes/", "stats/")
    return column in _OF_META or column.startswith(places)


def _episodes(
    directory: Path, content: Mapping[str, Any], features: Mapping[str, Feature]
) -> Iterator[EpisodePlace]:
    videos = [name for name, feature in features.items() if feature.dtype == "video"]
    paths = sorted((directory / EPISODES).glob("*/*.parquet"))
    if not paths:
        raise ValueError(f"expected {directory / EPISODES}/chunk-000/file-000.parquet, got none")
    expected = 0
    for path in paths:
        file = open_parquet(path)
        wanted = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        lacking = {"episode_index", "length", "data/chunk_index", "data/file_index"} - set(wanted)
        for name in videos:
            lacking |= {f"videos/{name}/{end}" for end in _VIDEO} - set(wanted)
        if lacking:
            raise ValueError(f"{path}: expected columns {sorted(lacking)}, got none; copy it again")
        for row in file.read(wanted).to_pylist():
            if row["episode_index"] != expected:
                raise ValueError(
                    f"{path}: expected episode_index {expected}, got {row['episode_index']}; copy "
                    "the data set again"
                )
            expected += 1
            yield _episode(directory, content, videos, row)


_VIDEO = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


def _episode(
    directory: Path, content: Mapping[str, Any], videos: Sequence[str], row: Mapping[str, Any]
) -> EpisodePlace:
    number, length = row["episode_index"], row["length"]
    where = f"{directory}, episode {number}"
    if not isinstance(length, int) or length < 0:
        raise ValueError(f"{where}: expected its length in meta/episodes, got {length!r}")
    first, last = (row.get(f"dataset_{end}_index") for end in ("from", "to"))
    if first is not None and last is not None and last - first != length:
        raise ValueError(
            f"{where}: expected {length} rows by length in meta/episodes, got {last - first} by "
            f"dataset_from_index and dataset_to_index"
        )
    places = {}
    for name in videos:
        chunk, file, start, stop = (row[f"videos/{name}/{end}"] for end in _VIDEO)
        template = content.get("video_path") or VIDEO_PATH
        path = template.format(video_key=name, chunk_index=chunk, file_index=file)
        places[name] = VideoPlace(directory / path, float(start), float(stop))
    template = content.get("data_path") or DATA_PATH
    data = template.format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
    others = {key: value for key, value in row.items() if not is_bookkeeping(key)}
    tasks = tuple(map(str, row.get("tasks") or ()))
    return EpisodePlace(number, length, directory / data, tasks, places, others)
