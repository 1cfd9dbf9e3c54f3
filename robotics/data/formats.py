"""Opening a recorded data set, whatever it is stored in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robotics.data.cache.shards import ShardCache, open_split
from robotics.data.episodes import Episode
from robotics.data.recordings import Reading, RecordedSteps, Recording, Source
from robotics.data.rlds import storage
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.reader import EpisodeReader, record_format
from robotics.embodiment.robot import Robot

Spec = str | Path | Mapping[str, Any] | Robot | None


def is_lerobot(directory: str | os.PathLike[str]) -> bool:
    """Whether this is the directory of a LeRobot data set."""
    return not storage.is_url(directory) and (Path(directory) / "meta" / "info.json").is_file()


def open_recording(
    directory: str | os.PathLike[str], spec: Spec = None, cameras: Sequence[str] | None = None
) -> Recording:
    """A data set, its robot's table checked against what it holds.

    Args:
        directory: of a TFDS data set, or the URL of one, or of a LeRobot data set (format v3).
        spec: the robot's table, see `robotics.embodiment.tables.load_robot`; RT-1's by default.
        cameras: names of those to read; default: those the table uses.

    Raises:
        ValueError: the data set or the table is wrong, or one does not fit the other.
    """
    if is_lerobot(directory):
        from robotics.data.lerobot.recording import LeRobotRecording  # pyarrow and PyAV

        return LeRobotRecording(Path(directory), spec, cameras)
    return RldsRecording(directory, spec, cameras)


class RldsRecording:
    """A TFDS data set in TFRecord or ArrayRecord files, see `robotics.data.recordings.Recording`.

    Args:
        directory: TFDS data set directory, or the URL of one.
        spec: the robot's table, see `robotics.embodiment.tables.load_robot`.
        cameras: names of those to read; default: those the table uses.

    Raises:
        ValueError: the data set or the table is wrong, or one does not fit the other.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        spec: Spec = None,
        cameras: Sequence[str] | None = None,
    ) -> None:
        self.format = record_format(directory, spec, cameras)
        self.robot, self.directory = self.format.robot, str(directory)

    def steps(self, split: str, reading: Reading) -> tuple[list[RecordedSteps], list[Source]]:
        """The steps of the split's shards, cut to its episodes."""
        return open_split(self.directory, split, ShardCache(self.format, reading))

    def episodes(
        self, split: str, cameras: Sequence[str] | None = None, faults: Faults | None = None
    ) -> Iterator[Episode]:
        """The episodes of a split, read one at a time."""
        return iter(
            EpisodeReader(self.directory, split, spec=self.robot, cameras=cameras, faults=faults)
        )
