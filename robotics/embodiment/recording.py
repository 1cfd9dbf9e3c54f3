"""How a robot's episodes are recorded: cameras, instructions, which episodes and steps count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robotics.embodiment.entries import check_path, one_of

VIEWS = ("third_person", "wrist")


@dataclass(frozen=True)
class Camera:
    """One camera."""

    name: str
    path: str
    """Of the encoded image (RLDS) or of the video (LeRobot)."""
    view: str = "third_person"
    """Out of `VIEWS`."""
    size: tuple[int, int] | None = None
    """Height and width as recorded; None: whatever the data have."""
    rotate: int = 0
    """Degrees by which a recorded picture is turned before anything else, a multiple of 90."""
    present: str | None = None
    """Path of an episode's flag; where it is false the camera's pictures are masked."""
    use: bool = True
    """False: known, and not used unless `dataset.cameras` names it."""
    instead_of: str | None = None
    """A camera whose place its pictures may take: of that one and all that stand in for it, one is
    drawn for every sample. None, or named by `dataset.cameras`: a camera of its own."""

    def __post_init__(self) -> None:
        check_path("path", self.path)
        one_of("view", self.view, VIEWS)
        if self.rotate not in (0, 90, 180, 270):
            raise ValueError(f"rotate: expected 0, 90, 180 or 270 degrees, got {self.rotate!r}.")
        if self.present is not None:
            check_path("present", self.present, 1)
        if self.size is not None:
            size = tuple(self.size) if isinstance(self.size, Sequence) else ()
            if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
                raise ValueError(f"size: expected [height, width], got {self.size!r}.")
            object.__setattr__(self, "size", size)


@dataclass(frozen=True)
class Filter:
    """Which episodes to read, by one value; exactly one of keep, drop and contains."""

    path: str
    keep: tuple[Any, ...] | None = None
    drop: tuple[Any, ...] | None = None
    contains: str | None = None
    """A text that the value must contain."""

    def __post_init__(self) -> None:
        check_path("path", self.path, 1)
        if sum(value is not None for value in (self.keep, self.drop, self.contains)) != 1:
            raise ValueError(
                f"path {self.path}: expected one of keep and drop, lists of values, and contains."
            )
        for name in ("keep", "drop"):
            value = getattr(self, name)
            if isinstance(value, (str, bytes)) or not isinstance(value, (list, tuple, type(None))):
                raise ValueError(f"{name}: expected a list of values, got {value!r}.")
            object.__setattr__(self, name, None if value is None else tuple(value))

    def passes(self, value: Any) -> bool:
        """Whether an episode with this value is read."""
        if self.contains is not None:
            return self.contains in str(value)
        return value in self.keep if self.keep is not None else value not in (self.drop or ())


@dataclass(frozen=True)
class Instruction:
    """Where the instruction is; without paths there is none."""

    paths: tuple[str, ...] = ()
    """Of a step, or of the episode with a leading "/". Of several, one that is not empty is drawn
    for every sample."""
    encoding: str = "utf-8"
    """utf-8, or characters: a vector of code points ended by 0 (language_table)."""

    def __post_init__(self) -> None:
        for path in self.paths:
            check_path("paths", path, None if self.encoding == "characters" else 1)
        one_of("encoding", self.encoding, ("utf-8", "characters"))


@dataclass(frozen=True)
class Steps:
    """Which steps of an episode count, and which action belongs to which of them."""

    drop_first: int = 0
    drop_last: int = 0
    lag: int = 0
    """Steps by which actions are recorded late: step t's action stands at step t + lag."""
    relabel: bool = False
    """Replace delta and absolute actions of position, rotation and joints by what was reached: the
    next step's state. The last step is dropped."""

    def __post_init__(self) -> None:
        for name in ("drop_first", "drop_last"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}: expected a number of steps, got {value!r}.")
        if isinstance(self.lag, bool) or not isinstance(self.lag, int):
            raise ValueError(f"lag: expected a number of steps, got {self.lag!r}.")


@dataclass(frozen=True)
class Window:
    """What a sample holds by default; `dataset.horizon` and the like of a run override it."""

    horizon: int = 6
    """Actions of a chunk."""
    video_offsets: tuple[int, ...] = (3, 6)
    """Future frames, in control steps after the current one."""

    def __post_init__(self) -> None:
        for name, value in (("horizon", [self.horizon]), ("video_offsets", self.video_offsets)):
            if not isinstance(value, Sequence) or not all(type(n) is int for n in value):
                got = getattr(self, name)
                raise ValueError(f"{name}: expected whole numbers of steps, got {got!r}.")
        object.__setattr__(self, "video_offsets", tuple(self.video_offsets))
        if self.horizon < 1 or any(offset < 1 for offset in self.video_offsets):
            raise ValueError(
                f"horizon: expected horizon >= 1 and video_offsets >= 1, got {self.horizon} and "
                f"{list(self.video_offsets)}."
            )
