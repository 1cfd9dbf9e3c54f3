"""What a recorded data set gives, whatever it is stored in: episodes, and steps with their frames.

RLDS (`robotics.data.cache.shards`) and LeRobot data sets are read through these types alone;
`robotics.data.windows` cuts windows out of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from robotics.data.episodes import Episode
from robotics.data.rlds.faults import Faults
from robotics.embodiment.robot import Robot


class Frames(Protocol):
    """Frames uint8 (H, W, 3) of one camera by number, turned and resized, read when asked for."""

    image_size: tuple[int, int]
    """H, W."""

    def __len__(self) -> int: ...

    def __getitem__(self, steps: slice) -> Frames:
        """A run of them."""
        ...

    def decode(self, step: int) -> np.ndarray:
        """One frame; ValueError, with its file and place, where it is damaged or gone."""
        ...

    def read_into(self, step: int, out: np.ndarray) -> None:
        """Fill `out`, a contiguous uint8 (H, W, 3); ValueError as for `decode`."""
        ...


class Source(NamedTuple):
    """A run of a data set's steps in the part of it that is cached as one, such as a shard."""

    name: str
    """Identifies the part's contents, and how frames are made of it."""
    first: int
    """Step of the part that the run begins with."""
    steps: int


@dataclass(frozen=True)
class RecordedSteps:
    """All n steps of E episodes, one after the other, as recorded."""

    frames: Mapping[str, Frames]
    """Camera -> n frames; those of an episode in which the camera is absent are black."""
    state: np.ndarray
    """float32 (n, S)."""
    action: np.ndarray
    """float32 (n, A)."""
    terminate: np.ndarray
    """bool (n,)."""
    instruction_id: np.ndarray
    """int32 (n, K) into `instructions`, for K paths of instructions."""
    instructions: np.ndarray
    """Distinct instructions, unicode."""
    lengths: np.ndarray
    """int64 (E,) steps of the episodes; 0 for those that were left out."""
    present: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Camera with a `present` flag -> bool (E,)."""

    def __len__(self) -> int:
        return len(self.state)

    def episodes(self, first: int, count: int) -> RecordedSteps:
        """Episodes first ... first + count."""
        ends = np.concatenate([[0], np.cumsum(self.lengths)])
        steps = slice(int(ends[first]), int(ends[first + count]))
        arrays = ("state", "action", "terminate", "instruction_id")
        return replace(
            self,
            frames={name: frames[steps] for name, frames in self.frames.items()},
            **{name: getattr(self, name)[steps] for name in arrays},
            lengths=self.lengths[first : first + count],
            present={name: rows[first : first + count] for name, rows in self.present.items()},
        )


@dataclass(frozen=True)
class Reading:
    """How steps and frames are wanted."""

    image_sizes: Mapping[str, tuple[int, int]]
    """Camera -> height and width of its frames; these cameras are read."""
    cache_dir: Path
    """Where an index, or decoded frames, are kept."""
    faults: Faults
    """What to do about damage, and where it is counted."""
    decoded: bool = True
    """Keep decoded frames (H * W * 3 bytes a step), or decode when a frame is asked for."""
    draft: bool = False
    """Where frames are decoded when asked for: no larger than their size needs."""
    threads: int = 2
    progress: bool = True
    """Show a bar while something is built, and say what was left out."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that are read, in the table's order."""
        return tuple(self.image_sizes)


class Recording(Protocol):
    """A data set, opened with a robot's table that was checked against what it holds."""

    robot: Robot
    directory: str

    def steps(self, split: str, reading: Reading) -> tuple[list[RecordedSteps], list[Source]]:
        """The steps of a split or of a slice of it such as "train[:90%]", and where they are from.

        Raises:
            ValueError: no such split, nothing in it, or damage that `reading.faults` does not skip.
        """
        ...

    def episodes(
        self, split: str, cameras: Sequence[str] | None = None, faults: Faults | None = None
    ) -> Iterator[Episode]:
        """The episodes of a split, each with its encoded pictures, read one at a time."""
        ...
