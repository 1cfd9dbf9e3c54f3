"""Writing LeRobot data sets (format v3) with pyarrow and PyAV; lerobot itself is not needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robotics.data.images import decode_image
from robotics.data.lerobot import arrow, statistics
from robotics.data.lerobot.arrow import BOOKKEEPING
from robotics.data.lerobot.encoding import CODECS, VideoFile
from robotics.data.lerobot.info import DATA_PATH, EPISODES, INFO, TASKS, VIDEO_PATH, Feature
from selfflow_wm.files import write_json

VERSION = "v3.0"
FILE_FRAMES = 10_000
"""Frames after which the next episode begins new files."""
CHUNK_FILES = 1000


class LeRobotWriter:
    """Writes a new data set, in one piece: it appears under its name when `finish` is done.

    Until then it is a directory beside it, `.NAME.partial`. Files there that are complete are
    kept: a writer that is opened again with the same arguments goes on after their episodes
    (`done`), one with other arguments begins anew.

    Args:
        directory: new.
        features: of the data set, but for LeRobot's bookkeeping; pictures are of type "image"
            (kept as they are encoded) or "video".
        fps: steps a second.
        robot_type: LeRobot's name of the robot.
        codec: of videos, out of `CODECS`.
        provenance: JSON values that say what is written, for going on after an interruption.
        file_frames: see `FILE_FRAMES`.

    Raises:
        ValueError: the directory is there already, or features that LeRobot cannot hold.
    """

    def __init__(
        self,
        directory: Path,
        features: Mapping[str, Feature],
        fps: float,
        *,
        robot_type: str = "",
        codec: str = "av1",
        provenance: Any = None,
        file_frames: int = FILE_FRAMES,
    ) -> None:
        self.directory = Path(directory)
        if self.directory.exists():
            raise ValueError(
                f"expected a new directory, got {directory}; choose another or delete it"
            )
        _check_features(features, codec)
        self.features, self.fps, self.robot_type = dict(features), float(fps), robot_type
        self.codec, self.file_frames = codec, file_frames
        self._partial = self.directory.with_name(f".{self.directory.name}.partial")
        self._written = self._reopen([arrow.to_json(row) for row in features.values()], provenance)
        self._file: _OpenFile | None = None

    def _reopen(self, features: Any, provenance: Any) -> list[dict[str, Any]]:
        """What complete files hold."""
        settings = json.loads(
            json.dumps([VERSION, features, self.fps, self.codec, self.file_frames, provenance])
        )
        path = self._partial / "settings.json"
        if not path.is_file() or json.loads(path.read_text()) != settings:
            shutil.rmtree(self._partial, ignore_errors=True)
            write_json(path, settings)
        files = sorted((self._partial / "written").glob("*.json"))
        return [json.loads(file.read_text()) for file in files]

    @property
    def done(self) -> int:
        """Episodes in complete files."""
        return sum(len(row["episodes"]) for row in self._written)

    @property
    def tasks(self) -> list[str]:
        """Distinct tasks so far, by their numbers."""
        found = dict.fromkeys(task for row in self._written for task in row["tasks"])
        return list(found | dict.fromkeys(self._file.tasks if self._file else ()))

    def add(
        self,
        columns: Mapping[str, Any],
        tasks: Sequence[str],
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Append an episode.

        Args:
            columns: by feature: numbers (T, ...), T texts, or T pictures: encoded (of "image"
                and "video") or, of "video", uint8 (H, W, 3).
            tasks: the task of every step.
            values: of the episode, kept in meta/episodes: texts, numbers or lists of numbers.
        """
        if self._file is None:
            known = self.tasks
            self._file = _OpenFile(self, len(self._written), self.done, known)
        self._file.add(columns, tasks, values or {})
        if self._file.frames >= self.file_frames:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            content = self._file.close()
            # The commit: files without this note are written again.
            write_json(self._partial / "written" / f"{len(self._written):06d}.json", content)
            self._written.append(content)
            self._file = None

    def abort(self) -> None:
        """Close what is open and not complete."""
        if self._file is not None:
            self._file.abort()
            self._file = None

    def finish(self, complete: Callable[[Path], None] = lambda directory: None) -> int:
        """Write the metadata and put the data set in its place; returns the number of episodes.

        complete: writes further files into the directory before.
        """
        self._close()
        rows = [row for file in self._written for row in file["episodes"]]
        if not rows:
            raise ValueError("expected at least one episode, got none")
        self._write_tasks()
        self._write_statistics(rows)
        self._write_episodes(rows)
        self._write_info(rows)
        complete(self._partial)
        shutil.rmtree(self._partial / "written")
        (self._partial / "settings.json").unlink()
        self._partial.rename(self.directory)
        return len(rows)

    def path(self, kind: str, number: int, camera: str = "") -> Path:
        """Of a data ("data") or video file."""
        chunk, file = divmod(number, CHUNK_FILES)
        template = DATA_PATH if kind == "data" else VIDEO_PATH
        name = template.format(video_key=camera, chunk_index=chunk, file_index=file)
        found = self._partial / name
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    def _write_tasks(self) -> None:
        path = self._partial / TASKS
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(arrow.tasks_table(self.tasks), path)

    def _write_statistics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Exact ones of numbers; those of pictures out of the episodes' samples."""
        found = {}
        paths = [self.path("data", number) for number in range(len(self._written))]
        for name, feature in {**self.features, **BOOKKEEPING}.items():
            if feature.picture:
                if known := [r["stats"][name] for r in rows if name in r["stats"]]:
                    found[name] = statistics.pooled(known)
            elif feature.dtype != "string":
                chunks = [pq.read_table(path, columns=[name]).column(0) for path in paths]
                values = np.concatenate([arrow.flat_numbers(chunk) for chunk in chunks])
                shape = feature.shape or (1,)
                found[name] = statistics.of_numbers(values.reshape(-1, *shape))
        plain = {
            name: {key: np.asarray(value).tolist() for key, value in row.items()}
            for name, row in found.items()
        }
        write_json(self._partial / "meta" / "stats.json", arrow.finite(plain))

    def _write_episodes(self, rows: Sequence[Mapping[str, Any]]) -> None:
        flat = []
        for row in rows:
            flat.append(
                {
                    **row["place"],
                    **row["values"],
                    **{
                        f"stats/{name}/{key}": value
                        for name, stats in row["stats"].items()
                        for key, value in stats.items()
                    },
                    "meta/episodes/chunk_index": 0,
                    "meta/episodes/file_index": 0,
                }
            )
        names = dict.fromkeys(name for row in flat for name in row)
        table = pa.table({name: [row.get(name) for row in flat] for name in names})
        path = self._partial / EPISODES / "chunk-000" / "file-000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)

    def _write_info(self, rows: Sequence[Mapping[str, Any]]) -> None:
        videos = self._written[0]["videos"]
        features = {
            name: arrow.to_json(feature) | ({"info": videos[name]} if name in videos else {})
            for name, feature in {**self.features, **BOOKKEEPING}.items()
        }
        whole = self.fps == int(self.fps)
        info = {
            "codebase_version": VERSION,
            "robot_type": self.robot_type or None,
            "total_episodes": len(rows),
            "total_frames": sum(row["place"]["length"] for row in rows),
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(self.fps) if whole else self.fps,
            "splits": {"train": f"0:{len(rows)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if videos else None,
            "features": features,
        }
        write_json(self._partial / INFO, info)


class _OpenFile:
    """A data file, and the videos of the same episodes, while they are written."""

    def __init__(self, writer: LeRobotWriter, number: int, episode: int, tasks: list[str]) -> None:
        self.writer, self.number, self.first = writer, number, episode
        self.known, self.tasks, self.frames = {t: n for n, t in enumerate(tasks)}, [], 0
        self.before = sum(
            row["place"]["length"] for file in writer._written for row in file["episodes"]
        )
        self.episodes: list[dict[str, Any]] = []
        self.videos: dict[str, VideoFile] = {}
        self._schema = arrow.schema(writer.features)
        self._stack = ExitStack()
        self._data = self._stack.enter_context(
            pq.ParquetWriter(writer.path("data", number), self._schema)
        )

    def add(
        self, columns: Mapping[str, Any], tasks: Sequence[str], values: Mapping[str, Any]
    ) -> None:
        steps, number = len(tasks), self.first + len(self.episodes)
        if not steps:
            raise ValueError(f"episode {number}: expected steps, got none")
        for task in dict.fromkeys(tasks):
            if task not in self.known:
                self.known[task] = len(self.known)
                self.tasks.append(task)
        rows: dict[str, Any] = {}
        stats: dict[str, Any] = {}
        for name, feature in self.writer.features.items():
            if len(columns[name]) != steps:
                raise ValueError(
                    f"episode {number}: expected {steps} values of {name}, got {len(columns[name])}"
                )
            if feature.picture:
                rows[name] = self._pictures(feature, columns[name], stats)
            else:
                rows[name] = columns[name]
        rows = {name: value for name, value in rows.items() if value is not None}
        start = self.before + self.frames
        rows["timestamp"] = np.arange(steps, dtype=np.float64) / self.writer.fps
        rows["frame_index"] = np.arange(steps)
        rows["episode_index"] = np.full(steps, number)
        rows["index"] = np.arange(start, start + steps)
        rows["task_index"] = np.array([self.known[task] for task in tasks])
        self._write(rows, steps, stats)
        self.episodes.append(
            {
                "place": self._place(number, steps, start, list(dict.fromkeys(tasks))),
                "values": dict(values),
                "stats": arrow.finite(arrow.plain(stats)),
            }
        )
        self.frames += steps

    def _write(self, rows: Mapping[str, Any], steps: int, stats: dict[str, Any]) -> None:
        arrays = []
        for field in self._schema:
            feature = {**self.writer.features, **BOOKKEEPING}[field.name]
            values = rows[field.name]
            if feature.dtype not in ("string", "image"):
                values = np.asarray(values).astype(feature.dtype).reshape(steps, -1)
                shaped = values.reshape(steps, *(feature.shape or (1,)))
                stats[field.name] = statistics.of_numbers(shaped)
            arrays.append(arrow.array(values, feature, field.type))
        self._data.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def _pictures(self, feature: Feature, pictures: Sequence[Any], stats: dict[str, Any]) -> Any:
        found = statistics.PictureStatistics(len(pictures))
        rgb = len(feature.shape) == 3 and 3 in (feature.shape[0], feature.shape[-1])
        video = None
        if feature.dtype == "video":
            video = self.videos.get(feature.name)
            if video is None:
                path = self.writer.path("video", self.number, feature.name)
                video = VideoFile(path, feature, self.writer.fps, self.writer.codec)
                self.videos[feature.name] = video
                self._stack.callback(video.close)
        for step, picture in enumerate(pictures):
            if video is not None or (rgb and found.wants(step)):
                image = decode_image(picture) if isinstance(picture, bytes) else picture
                if rgb and found.wants(step):
                    found.add(image)
                if video is not None:
                    video.add(image)
        if rgb:
            stats[feature.name] = found.result()
        return None if video is not None else pictures

    def _place(self, number: int, steps: int, start: int, tasks: list[str]) -> dict[str, Any]:
        chunk, file = divmod(self.number, CHUNK_FILES)
        place: dict[str, Any] = {
            "episode_index": number,
            "tasks": tasks,
            "length": steps,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": start,
            "dataset_to_index": start + steps,
        }
        for name in self.videos:
            place |= {
                f"videos/{name}/chunk_index": chunk,
                f"videos/{name}/file_index": file,
                f"videos/{name}/from_timestamp": self.frames / self.writer.fps,
                f"videos/{name}/to_timestamp": (self.frames + steps) / self.writer.fps,
            }
        return place

    def close(self) -> dict[str, Any]:
        """Complete the files; what they hold, as JSON values."""
        self._stack.close()
        videos = {name: video.description() for name, video in self.videos.items()}
        return {"episodes": self.episodes, "tasks": self.tasks, "videos": videos}

    def abort(self) -> None:
        """Close the files; they are written again."""
        self._stack.close()


def _check_features(features: Mapping[str, Feature], codec: str) -> None:
    if codec not in CODECS:
        raise ValueError(f"codec: expected one of {', '.join(CODECS)}, got {codec!r}")
    for name, feature in features.items():
        if "/" in name or name in BOOKKEEPING:
            raise ValueError(f"features: expected a name without / and not LeRobot's, got {name!r}")
        if feature.dtype == "video" and any(n % 2 for n in feature.size):
            raise ValueError(
                f"features.{name}: expected an even height and width of a video, got "
                f"{feature.size}; keep it as images"
            )
