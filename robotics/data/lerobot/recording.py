"""A LeRobot data set, opened with a robot's table: `robotics.data.recordings.Recording`.

Numbers are read from the parquet files. Frames are decoded from the videos when they are asked for,
or decoded once, episodes in a row, and kept: `PART` episodes in one entry of the cache, so that an
interrupted build loses little and slices of the data set share entries.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.cache.entries import PRESENT, EntryWriter, pixels_file
from robotics.data.episodes import Episode
from robotics.data.images import resize_image, turn_image
from robotics.data.lerobot.episode import EpisodeColumns, stored_columns
from robotics.data.lerobot.frames import PictureFrames, VideoFrames, Videos
from robotics.data.lerobot.info import EpisodePlace, LeRobotInfo, read_info
from robotics.data.lerobot.mapping import TABLE
from robotics.data.recordings import Frames, Reading, RecordedSteps, Source
from robotics.data.rlds.convert import NoSteps, check_features, convert, kept
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.frames import DecodedFrames
from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from selfflow_wm.files import locked
from selfflow_wm.progress import Progress

PART = 32
"""Episodes whose decoded frames are kept together."""
VERSION = 1
"""Raise it when the meaning of a cached array changes."""

Spec = str | Path | Mapping[str, Any] | Robot | None


class LeRobotRecording:
    """A LeRobot data set of format v3.

    Args:
        directory: holds meta/info.json.
        spec: the robot's table, see `robotics.embodiment.tables.load_robot`.
        cameras: names of those to read; default: those the table uses.

    Raises:
        ValueError: no such data set, one whose description contradicts itself, or a table that
            does not fit it: a path that is not there, another size or another rate.
    """

    def __init__(
        self, directory: str | Path, spec: Spec = None, cameras: Sequence[str] | None = None
    ) -> None:
        self.info = read_info(Path(directory))
        if spec is None:
            near = Path(directory) / TABLE
            known = f"spec={near}" if near.is_file() else "spec=so101 or the path of a yaml"
            raise ValueError(
                f"{directory}: expected the robot's table beside a LeRobot data set, got none; "
                f"write {known}, or let python -m robotics.inspect {directory} propose one"
            )
        self.robot, self.directory = load_robot(spec), str(directory)
        self.cameras = tuple(row.name for row in self.robot.used_cameras(cameras))
        check_table(self.info, self.robot, self.cameras)
        self.format = _Format(self.robot, self.cameras)

    def steps(self, split: str, reading: Reading) -> tuple[list[RecordedSteps], list[Source]]:
        """The steps of a split or slice, and where they are from, see `Recording`."""
        places = self.info.select(split)
        videos = Videos(self.info, reading.cache_dir)
        if reading.decoded:
            parts, sources = self._decoded(places, reading, videos)
        else:
            parts, sources = self._stored(places, reading, videos)
        if not sum(len(part) for part in parts):
            left_out = reading.faults.summary() or f"it has {len(places)} of them"
            raise ValueError(
                f"expected episodes with steps in {split!r} of {self.directory}, got none; "
                f"{left_out} of {len(self.info.episodes)}"
            )
        if (reading.faults.found or reading.faults.empty) and reading.progress:
            print(reading.faults.summary(), file=sys.stderr)
        return parts, sources

    def episodes(
        self, split: str, cameras: Sequence[str] | None = None, faults: Faults | None = None
    ) -> Iterator[Episode]:
        """The episodes of a split; pictures of videos are decoded when they are asked for."""
        faults = faults or Faults()
        videos = Videos(self.info)
        names = tuple(row.name for row in self.robot.used_cameras(cameras or self.cameras))
        for place in self.info.select(split):
            episode = self._episode(place, videos, faults, names)
            if episode is not None:
                yield episode

    def _episode(
        self, place: EpisodePlace, videos: Videos, faults: Faults, cameras: Sequence[str]
    ) -> Episode | None:
        """None for one that is left out, counted."""
        try:
            columns = EpisodeColumns(self.info, place, videos)
            if place.length and not kept(columns, self.robot):
                faults.filtered += 1
                return None
            return convert(columns, self.robot, cameras)
        except NoSteps:
            faults.empty += 1
        except ValueError as error:
            faults.report(error, place.data, place.number)
        return None

    # ------------------------------------------------------------------ decoded when asked for

    def _stored(
        self, places: Sequence[EpisodePlace], reading: Reading, videos: Videos
    ) -> tuple[list[RecordedSteps], list[Source]]:
        found = _Collected(self.format, len(places))
        frames = {name: _Places() for name in reading.cameras}
        with _bar(len(places), "indexing episodes", reading) as bar:
            for number, place in enumerate(places):
                episode = self._episode(place, videos, reading.faults, self.cameras)
                bar.add()
                if episode is not None:
                    found.add(number, episode)
                    for name, rows in frames.items():
                        rows.add(number, len(episode), episode.cameras.get(name))
        rows = {
            name: collected.frames(self, name, reading, places)
            for name, collected in frames.items()
        }
        steps = found.steps(rows)
        digest = hashlib.sha256()
        for place in places:
            digest.update(_identity(place))
        name = f"lerobot-v{VERSION}-{digest.hexdigest()[:20]}-{self._way(reading)}"
        return [steps], [Source(name, 0, len(steps))]

    # ------------------------------------------------------------------ decoded once

    def _decoded(
        self, places: Sequence[EpisodePlace], reading: Reading, videos: Videos
    ) -> tuple[list[RecordedSteps], list[Source]]:
        first, last = (places[0].number, places[-1].number + 1) if places else (0, 0)
        groups = [
            self.info.episodes[start : start + PART]
            for start in range(first // PART * PART, last, PART)
        ]
        entries = [self._entry(group, reading) for group in groups]
        missing = sum(
            len(group) for group, entry in zip(groups, entries, strict=True) if not entry.is_dir()
        )
        parts, sources = [], []
        with _bar(missing, "decoding episodes", reading) as bar:
            for group, entry in zip(groups, entries, strict=True):
                if not entry.is_dir():
                    with locked(entry.with_suffix(".lock")):
                        if not entry.is_dir():
                            self._build(entry, group, reading, videos, bar.add)
                whole = self._load(entry, group, reading)
                begin = max(first - group[0].number, 0)
                end = min(last - group[0].number, len(group))
                parts.append(whole.episodes(begin, end - begin))
                before = int(whole.lengths[:begin].sum())
                sources.append(Source(entry.name, before, len(parts[-1])))
        return parts, sources

    def _way(self, reading: Reading) -> str:
        """How frames are made of the recording."""
        sizes = "-".join(f"{height}x{width}" for height, width in reading.image_sizes.values())
        return f"{self.robot.fingerprint(self.cameras)}-{sizes}"

    def _entry(self, group: Sequence[EpisodePlace], reading: Reading) -> Path:
        digest = hashlib.sha256()
        for place in group:
            digest.update(_identity(place))
        name = f"lerobot-v{VERSION}-{digest.hexdigest()[:20]}-{self._way(reading)}"
        return reading.cache_dir / name

    def _build(
        self,
        entry: Path,
        group: Sequence[EpisodePlace],
        reading: Reading,
        videos: Videos,
        on_episode: Callable[[], None],
    ) -> None:
        unfinished = entry.with_suffix(".partial")  # only the lock's holder touches it
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        found = Faults(reading.faults.on_error)
        with ThreadPoolExecutor(reading.threads) as pool, ExitStack() as files:
            writing = EntryWriter(self.format, reading, len(group), unfinished, files)  # pyright: ignore
            for number, place in enumerate(group):
                episode = self._episode(place, videos, found, self.cameras)
                if episode is not None:
                    try:
                        # A camera's frames in their order; cameras beside each other.
                        tasks = [
                            pool.submit(self._pixels, name, images, reading)
                            for name, images in episode.cameras.items()
                        ]
                        pixels = dict(
                            zip(episode.cameras, [task.result() for task in tasks], strict=True)
                        )
                    except ValueError as error:
                        where = f"{self.directory}, episode {place.number}: {error}"
                        found.report(ValueError(where), place.data, place.number)
                    else:
                        writing.add(number, episode, pixels)
                on_episode()
            writing.close()
        note = {
            "skipped": [(fault.record, fault.path, fault.reason) for fault in found.found],
            "filtered": found.filtered,
            "empty": found.empty,
        }
        (unfinished / "left_out.json").write_text(json.dumps(note))
        unfinished.rename(entry)

    def _pixels(self, camera: str, images: Any, reading: Reading) -> list[bytes]:
        turn, size = self.robot.camera(camera).rotate, reading.image_sizes[camera]
        return [
            resize_image(turn_image(images.decode(step), turn), size).tobytes()
            for step in range(len(images))
        ]

    def _load(self, entry: Path, group: Sequence[EpisodePlace], reading: Reading) -> RecordedSteps:
        with np.load(entry / "steps.npz", allow_pickle=False) as arrays:
            steps = {name: arrays[name] for name in arrays.files}
        left_out = json.loads((entry / "left_out.json").read_text())
        reading.faults.filtered += left_out["filtered"]
        reading.faults.empty += left_out["empty"]
        for number, path, reason in left_out["skipped"]:
            reading.faults.report(ValueError(reason), path, number)
        count = int(steps["lengths"].sum())
        frames: dict[str, Frames] = {}
        for name, size in reading.image_sizes.items():
            path = pixels_file(entry, name)
            if path.stat().st_size != count * size[0] * size[1] * 3:
                raise ValueError(
                    f"{path}: expected {count} frames of {size[0]} x {size[1]}, got another size; "
                    "delete its directory, it is built again from the data."
                )
            frames[name] = DecodedFrames(path, count, size)
        present = {
            name.removeprefix(PRESENT): steps.pop(name)
            for name in list(steps)
            if name.startswith(PRESENT)
        }
        return RecordedSteps(frames, **steps, present=present)


@dataclass(frozen=True)
class _Format:
    """What `EntryWriter` asks of a format."""

    robot: Robot
    cameras: tuple[str, ...]


def check_table(info: LeRobotInfo, robot: Robot, cameras: Sequence[str] | None = None) -> None:
    """Check a robot's table against a data set.

    Raises:
        ValueError: a path that is not there or of another kind, another size or another rate.
    """
    where = str(info.directory)
    check_features(robot, stored_columns(info), where, cameras)
    for row in robot.used_cameras(cameras):
        name = column(row.path).name
        feature = info.features.get(name)
        if feature is None or not feature.picture:
            raise ValueError(
                f"{where}: expected pictures in {row.path!r} for cameras.{row.name} of robot "
                f"{robot.name}; the cameras are {', '.join(info.cameras)}"
            )
        if row.size is not None and row.size != feature.size:
            raise ValueError(
                f"{where}: expected pictures of {list(row.size)} for cameras.{row.name} of robot "
                f"{robot.name}, got {list(feature.size)}; write size: {list(feature.size)}"
            )
    if abs(robot.rate - info.fps) > 0.01 * info.fps:
        raise ValueError(
            f"{where}: expected a table of {info.fps:g} steps a second, the fps of meta/info.json, "
            f"got rate {robot.rate:g} of robot {robot.name}; write rate: {info.fps:g}"
        )


class _Collected:
    """The arrays of several episodes."""

    def __init__(self, format: _Format, episodes: int) -> None:
        robot = format.robot
        self.texts = len(robot.instruction.paths)
        self.columns: dict[str, list[np.ndarray]] = {
            "state": [np.zeros((0, robot.state_width), np.float32)],
            "action": [np.zeros((0, robot.action_width), np.float32)],
            "terminate": [np.zeros(0, bool)],
        }
        self.instructions: list[tuple[str, ...]] = []
        self.lengths = np.zeros(episodes, np.int64)
        flagged = [name for name in format.cameras if robot.camera(name).present is not None]
        self.present = {name: np.zeros(episodes, bool) for name in flagged}

    def add(self, number: int, episode: Episode) -> None:
        for name, rows in self.columns.items():
            rows.append(getattr(episode, name))
        self.instructions += episode.instructions
        self.lengths[number] = len(episode)
        for name, flags in self.present.items():
            flags[number] = name in episode.cameras

    def steps(self, frames: Mapping[str, Frames]) -> RecordedSteps:
        flat = np.array([text for row in self.instructions for text in row], dtype=np.str_)
        names, ids = np.unique(flat, return_inverse=True)
        return RecordedSteps(
            frames,
            **{name: np.concatenate(rows) for name, rows in self.columns.items()},
            instruction_id=ids.reshape(len(self.instructions), self.texts).astype(np.int32),
            instructions=names,
            lengths=self.lengths,
            present=self.present,
        )


class _Places:
    """Where one camera's frames lie."""

    def __init__(self) -> None:
        self.files: dict[Path, int] = {}
        self.indices: list[Any] = []
        self.first: list[np.ndarray] = [np.zeros(0, np.int32)]
        self.second: list[np.ndarray] = [np.zeros(0, np.int32)]

    def add(self, number: int, steps: int, pictures: Any) -> None:
        """pictures: `EpisodePictures` of episode `number`; None: the camera was absent."""
        if pictures is None:
            self.first.append(np.full(steps, -1, np.int32))
            self.second.append(np.zeros(steps, np.int32))
        elif pictures.video is None:
            self.first.append(np.full(steps, number, np.int32))
            self.second.append(np.arange(steps, dtype=np.int32))
        else:
            path = pictures.video.path
            if path not in self.files:
                self.files[path] = len(self.indices)
                self.indices.append(pictures.video)
            self.first.append(np.full(steps, self.files[path], np.int32))
            self.second.append(pictures.numbers.astype(np.int32))

    def frames(
        self,
        recording: LeRobotRecording,
        name: str,
        reading: Reading,
        places: Sequence[EpisodePlace],
    ) -> Frames:
        camera = recording.robot.camera(name)
        first, second = np.concatenate(self.first), np.concatenate(self.second)
        size, feature = reading.image_sizes[name], column(camera.path).name
        if recording.info.features[feature].dtype == "video":
            return VideoFrames(self.indices, first, second, size, camera.rotate)
        info = recording.info
        return PictureFrames(info, feature, places, first, second, size, camera.rotate)


def _identity(place: EpisodePlace) -> bytes:
    """Changes when an episode's files or its place in them do."""
    rows: list[Any] = [place.number, place.length, list(place.tasks), repr(place.values)]
    for path, *times in [(place.data,), *place.videos.values()]:
        status = os.stat(path) if path.is_file() else None
        file = (status.st_size, status.st_mtime_ns) if status else None
        rows.append([path.name, file, times])
    return json.dumps(rows).encode()


def _bar(total: int, description: str, reading: Reading) -> Progress:
    return Progress(total, description=description, unit="episode", quiet=not reading.progress)
