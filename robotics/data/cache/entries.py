"""The files of a cache entry: a shard's steps as recorded, and frames or where they are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from robotics.data.episodes import Episode
from robotics.data.images import decode_image, looks_whole
from robotics.data.recordings import Reading
from robotics.data.rlds.frames import PLACE
from robotics.data.rlds.reader import RecordFormat

PRESENT = "present-"
"""Before a camera's name: the array of the episodes that have it."""


def places_file(entry: Path, camera: str) -> Path:
    """Where a camera's encoded images lie in the shard."""
    return entry / f"places-{quote(camera, safe='')}.npy"


def pixels_file(entry: Path, camera: str) -> Path:
    """A camera's decoded frames."""
    return entry / f"frames-{quote(camera, safe='')}.u8"


def longer(values: np.ndarray, count: int) -> np.ndarray:
    """`values` with zeros behind them, `count` in all."""
    return np.concatenate([values, np.zeros(count - len(values), values.dtype)])


def look_at(images: Sequence[bytes]) -> None:
    """ValueError where an image is no JPEG or PNG, or cut off. The first one is decoded, the others
    only if their ends are unusual: decoding all of a large data set takes hours."""
    decode_image(images[0])
    for step, image in enumerate(images):
        if not looks_whole(image):
            try:
                decode_image(image)
            except ValueError as error:
                raise ValueError(f"step {step}: {error}") from error


class EntryWriter:
    """Writes the files of a cache entry, episode by episode."""

    def __init__(
        self,
        format: RecordFormat,
        reading: Reading,
        episodes: int,
        directory: Path,
        files: ExitStack,
    ) -> None:
        self.format, self.reading, self.directory = format, reading, directory
        robot = format.robot
        self.columns: dict[str, list[np.ndarray]] = {
            "state": [np.zeros((0, robot.state_width), np.float32)],
            "action": [np.zeros((0, robot.action_width), np.float32)],
            "terminate": [np.zeros(0, bool)],
        }
        self.places = {name: [np.zeros(0, PLACE)] for name in format.cameras}
        self.files: dict[str, Any] = {}
        if reading.decoded:
            for name in format.cameras:
                path = pixels_file(directory, name)
                self.files[name] = files.enter_context(path.open("wb"))
        self.instructions: list[tuple[str, ...]] = []
        self.lengths = np.zeros(episodes, np.int64)
        flagged = [name for name in format.cameras if robot.camera(name).present is not None]
        self.present = {name: np.zeros(episodes, bool) for name in flagged}

    def add(self, number: int, episode: Episode, frames: Mapping[str, Sequence[Any]]) -> None:
        """One episode; frames: camera -> pixels of every step, or its places."""
        for name, column in self.columns.items():
            column.append(getattr(episode, name))
        self.instructions += episode.instructions
        self.lengths[number] = steps = len(episode)
        for name in self.format.cameras:
            there = name in frames
            if name in self.present:
                self.present[name][number] = there
            if not self.reading.decoded:
                self.places[name] += frames[name] if there else [np.zeros(steps, PLACE)]
            elif there:
                self.files[name].write(b"".join(frames[name]))
            else:  # black, and no blocks on most file systems
                size = int(np.prod(self.reading.image_sizes[name])) * 3
                self.files[name].truncate(self.files[name].tell() + steps * size)
                self.files[name].seek(0, os.SEEK_END)

    def close(self) -> None:
        """Write what was collected; the frames are on the disk."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        if not self.reading.decoded:
            for name, places in self.places.items():
                np.save(places_file(self.directory, name), np.concatenate(places))
        texts = len(self.format.robot.instruction.paths)
        flat = np.array([text for row in self.instructions for text in row], dtype=np.str_)
        names, ids = np.unique(flat, return_inverse=True)
        rows: Any = {name: np.concatenate(parts) for name, parts in self.columns.items()}
        rows |= {f"{PRESENT}{name}": flags for name, flags in self.present.items()}
        np.savez(
            self.directory / "steps.npz",
            **rows,
            instruction_id=ids.reshape(len(self.instructions), texts).astype(np.int32),
            instructions=names,
            lengths=self.lengths,
        )
