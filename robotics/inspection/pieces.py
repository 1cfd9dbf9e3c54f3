"""Which values of a column belong together, from names, shapes and the values themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robotics.inspection import naming
from robotics.inspection.scan import Track

CERTAIN, LIKELY, OPEN = "certain", "likely", "undetermined"
BY_NAME = ("by its name", "its values are called")
"""How reasons begin that are no more than names."""
ENDS = 0.1
"""Share of its range at either end in which a gripper spends most of its time."""
UNIT = 2e-3
"""By which a quaternion's length may differ from 1."""


@dataclass(frozen=True)
class Piece:
    """Neighbouring values of one column that belong together."""

    key: str
    """Flattened."""
    first: int
    last: int
    """One past the last value."""
    width: int
    """Of the whole column."""
    kind: str
    """position, rotation, joints, gripper, base, other; "arm": joints or a pose, not yet known;
    "terminate", "dead", "unused"."""
    form: str = ""
    arm: str = ""
    """Which arm, where the names say so."""
    sure: str = CERTAIN
    why: str = ""
    names: tuple[str, ...] = ()
    stride: int = 1
    """Every how many-th value."""

    @property
    def size(self) -> int:
        """Number of values."""
        return len(range(self.first, self.last, self.stride))

    @property
    def path(self) -> str:
        """As a table writes it."""
        if self.stride > 1:
            return f"{path(self.key, 0, 1, 1)}[{self.first}:{self.last}:{self.stride}]"
        return path(self.key, self.first, self.last, self.width)


def path(key: str, first: int, last: int, width: int) -> str:
    """Values of a column as a table writes them."""
    text = key.removeprefix("steps/") if key.startswith("steps/") else "/" + key
    if (first, last) == (0, width):
        return text
    return f"{text}[{first}]" if last == first + 1 else f"{text}[{first}:{last}]"


def rows_of(tracks: Sequence[Track], key: str) -> np.ndarray:
    """Every finite row (n, width) of a column of steps."""
    rows = [track.numbers[key] for track in tracks if key in track.numbers]
    if not rows or len({row.shape[1] for row in rows}) > 1:
        return np.zeros((0, 0))
    values = np.concatenate(rows)
    return values[np.isfinite(values).all(1)]


def pieces(
    tracks: Sequence[Track], key: str, names: Sequence[str] = (), siblings: Sequence[str] = ()
) -> list[Piece]:
    """How a column of steps divides.

    Args:
        tracks: some episodes.
        key: flattened.
        names: of its values, where the format has them.
        siblings: keys of columns of the same width beside it.
    """
    values = rows_of(tracks, key)
    width = values.shape[1]
    if not len(values) or not width:
        return []
    if len(names) == width and any(naming.value(name).kind for name in names):
        found = _by_names(key, names, values)
    else:
        found = _by_values(tracks, key, values, siblings)
    return [_dead(piece, values) for piece in found]


def _dead(piece: Piece, values: np.ndarray) -> Piece:
    part = values[:, piece.first : piece.last]
    still = bool((np.ptp(part, axis=0) <= 1e-9).all())
    if still and piece.kind in ("joints", "arm", "base", "other", "position"):
        return replace(piece, kind="dead", why=f"constant {part[0].tolist()}")
    return piece


# ---------------------------------------------------------------- names of the values


def _by_names(key: str, names: Sequence[str], values: np.ndarray) -> list[Piece]:
    kinds = {"x": "position", "rotation": "rotation", "quaternion": "rotation", "joint": "joints",
             "gripper": "gripper", "base": "base", "terminate": "terminate"}  # fmt: skip
    found: list[Piece] = []
    start = 0
    said = [naming.value(name) for name in names]
    for end in range(1, len(names) + 1):
        if end < len(names) and said[end] == said[start]:
            continue
        kind = kinds.get(said[start].kind, "other")
        inner = tuple(names[start:end])
        form = ""
        if kind == "rotation":
            form = naming.quaternion_form(inner) if end - start == 4 else ""
            form = form or {3: "euler_xyz", 4: "quaternion_xyzw", 6: "rot6d"}.get(end - start, "")
            vector = all(
                re.search(r"(^|[_.])[rw][xyz]$|rotvec|axis_angle", n.lower()) for n in inner
            )
            form = "axis_angle" if vector and end - start == 3 else form
            kind = kind if form else "other"
        why = "its values are called " + ", ".join(inner)
        found.append(
            Piece(key, start, end, len(names), kind, form, said[start].arm, CERTAIN, why, inner)
        )
        start = end
    return found


# ---------------------------------------------------------------- values


def _by_values(
    tracks: Sequence[Track], key: str, values: np.ndarray, siblings: Sequence[str]
) -> list[Piece]:
    width, said = values.shape[1], naming.kind(key)
    command = naming.is_command(key)

    def piece(kind: str, first: int = 0, last: int = width, **entries: object) -> Piece:
        return Piece(key, first, last, width, kind, **entries)  # pyright: ignore

    by_name: dict[str, Any] = {"why": f"by its name, {key.rsplit('/', 1)[-1]}"}
    if said in ("flag", "time", "derived", "force") or (said == "velocity" and not command):
        return [piece("terminate" if command and said == "flag" else "unused", **by_name)]
    if naming.is_velocity(key) and "gripper" in key.lower():
        return [piece("unused", why="rate of a gripper")]
    if said == "gripper":
        return [piece("gripper" if width <= 2 else "other", **by_name)]
    if said == "base":
        return [piece("base", **by_name)]
    if said == "rotation" and width > 4 and not rotation_form(values, 0, width):
        said = "pose"
    if said == "rotation":
        form = rotation_form(values, 0, width)
        return [piece("rotation", form=form, **by_name) if form else piece("other", **by_name)]
    velocity = naming.is_velocity(key)
    words = key.lower()
    if "joint" in words or "qpos" in words or "qvel" in words:
        said = "joints"
    elif velocity and re.search(r"(^|[/._])base", words):
        return [piece("base", **by_name)]
    elif velocity:
        said = "pose" if "cartesian" in words or "ee" in words.rsplit("/", 1)[-1] else ""
    if said == "position":
        # "joint_position" was taken above; six values of a position are a pose.
        said = "pose" if width > 3 else said
        if width <= 3:
            return [piece("position" if width > 1 else "other", **by_name)]
    if width == 1:
        grip = grips(tracks, key, 0, command)
        return [piece("gripper", sure=LIKELY, why="values as of a gripper") if grip
                else piece("other", sure=OPEN, why="one value")]  # fmt: skip
    if said == "joints" or (not said and (near := _moving(siblings))):
        why = by_name["why"] if said else f"beside {near}, of as many values"
        return _joints(tracks, key, width, command, why)
    return _free(tracks, key, values, said, command)


def _moving(siblings: Sequence[str]) -> str:
    names = [key.rsplit("/", 1)[-1] for key in siblings]
    return next((name for name in names if naming.kind(name) in ("velocity", "force")), "")


def _joints(tracks: Sequence[Track], key: str, width: int, command: bool, why: str) -> list[Piece]:
    """Joints with the grippers among them."""
    # Seven values under a name of joints are seven joints, and one arm rarely has fewer than five.
    at = [i for i in range(width) if width > 7 and grips(tracks, key, i, command)]
    at += [] if width != 7 or not grips(tracks, key, 6, command) else [6]
    found = []
    for first, last in _runs(width, at):
        kind = "gripper" if first in at else "joints"
        note = "keeps to two ends, among joints" if kind == "gripper" else why
        found.append(Piece(key, first, last, width, kind, why=note))
    return found


def _runs(width: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges between single values `cuts`, and these."""
    found, start = [], 0
    for at in sorted(cuts):
        found += [(start, at)] if at > start else []
        found.append((at, at + 1))
        start = at + 1
    return [*found, (start, width)] if start < width else found


def _free(
    tracks: Sequence[Track], key: str, values: np.ndarray, said: str, command: bool
) -> list[Piece]:
    """A column whose name says no more than "pose", or nothing."""
    width = values.shape[1]
    found: list[Piece] = []
    if (form := homogeneous(values)) and not command:
        why = "a pose as a 4 x 4 matrix, in every step"
        place: dict[str, Any] = {"first": 3, "last": 12, "stride": 4} if form == "homogeneous" \
            else {"first": 12, "last": 15}  # fmt: skip
        return [
            Piece(key, width=16, kind="position", why=why, **place),
            Piece(key, 0, 16, 16, "rotation", form, why=why),
        ]
    turn = next(
        ((at, size) for size in (4, 6, 9) for at in range(width - size + 1)
         if rotation_form(values, at, at + size)), None,
    )  # fmt: skip
    if turn is not None and turn[0] >= 3 and (turn[1] == 4 or said == "pose" or turn[0] == 3):
        at, size = turn
        form = rotation_form(values, at, at + size)
        length = "length 1 in every step" if size == 4 else "orthonormal in every step"
        first = at - 3
        found += _free(tracks, key, values[:, :first], "", command) if first else []
        found += [
            Piece(key, first, at, width, "position", why=f"three values before a {form}"),
            Piece(key, at, at + size, width, "rotation", form, why=length),
        ]
        return found + _rest(tracks, key, at + size, width, command)
    at = width - 2
    if command and width > 1 and ends(tracks, key, width - 1):
        shorter = _free(tracks, key, values[:, :-1], said, command)
        flag = Piece(key, width - 1, width, width, "terminate", why="1 at the last step alone")
        return [*(replace(piece, width=width) for piece in shorter), flag]
    fingers = [at] if not command and at > 0 and _mirrored(values[:, at], values[:, at + 1]) else []
    at = [i for i in range(width) if grips(tracks, key, i, command)]
    at = [i for i in at if i not in fingers and i - 1 not in fingers]
    if not at and not fingers and width in (7, 8) and said == "pose":
        at = [width - 1]
    if not at and not fingers and width in (7, 14) and _bounded(values[:, -1]):
        at = [6] if width == 7 else [6, 13]
    for first, last in _runs(width, [*at, *fingers, *[i + 1 for i in fingers]]):
        if first in fingers:
            why = "two fingers that mirror each other"
            found.append(Piece(key, first, first + 2, width, "gripper", why=why))
        elif first - 1 in fingers:
            continue
        elif first in at:
            found.append(Piece(key, first, last, width, "gripper", sure=LIKELY,
                               why="keeps to two ends"))  # fmt: skip
        else:
            found += _run(key, first, last, width, said)
    return found


def _run(key: str, first: int, last: int, width: int, said: str) -> list[Piece]:
    size = last - first
    why = "by its name" if said == "pose" else f"{size} values"
    if said == "pose" and size in (6, 7):
        turn = "rotation" if size == 6 else "gripper"
        found = [Piece(key, first, first + 3, width, "position", why=why),
                 Piece(key, first + 3, first + 6, width, "rotation", "euler_xyz",
                       why=why)]  # fmt: skip
        return found + ([Piece(key, last - 1, last, width, turn, why=why)] if size == 7 else [])
    if size == 6:
        return [Piece(key, first, last, width, "arm", sure=OPEN, why=why)]
    if size in (2, 3):
        sure = CERTAIN if said == "pose" else OPEN
        return [Piece(key, first, last, width, "position", sure=sure, why=why)]
    if size == 1:
        return [Piece(key, first, last, width, "other", sure=OPEN, why=why)]
    return [Piece(key, first, last, width, "joints", sure=OPEN,
                  why=f"{size} values are no pose")]  # fmt: skip


def _rest(tracks: Sequence[Track], key: str, first: int, width: int, command: bool) -> list[Piece]:
    """What follows a pose: a gripper and other values, or those and the next arm's."""
    found: list[Piece] = []
    values = rows_of(tracks, key)
    for at in range(first + 3, width - 3):
        size = next(
            (n for n in (4, 6, 9) if at + n <= width and rotation_form(values, at, at + n)), 0
        )
        if size:
            form, end = rotation_form(values, at, at + size), at + size
            between = _rest(tracks, key, first, at - 3, command) if at - 3 > first else []
            return [
                *(replace(piece, width=width) for piece in between),
                Piece(key, at - 3, at, width, "position", why=f"three values before a {form}"),
                Piece(key, at, end, width, "rotation", form, why="a rotation in every step"),
                *_rest(tracks, key, end, width, command),
            ]  # fmt: skip
    if width - first == 2 and _mirrored(values[:, first], values[:, first + 1]):
        return [
            Piece(key, first, width, width, "gripper", why="two fingers that mirror each other")
        ]
    for at in range(first, width):
        flag = at == width - 1 and at > first and set(np.unique(values[:, at])) <= {0.0, 1.0}
        kind = "terminate" if flag and command else "gripper" if at == first else "other"
        found.append(Piece(key, at, at + 1, width, kind, sure=LIKELY, why="follows a pose"))
    return found


def _mirrored(one: np.ndarray, other: np.ndarray) -> bool:
    spread = float(np.ptp(one))
    return spread > 1e-4 and float(np.abs(one + other).max()) < 0.15 * spread


def _bounded(values: np.ndarray) -> bool:
    low, high = float(values.min()), float(values.max())
    return any(
        abs(low - a) < 0.05 * (b - a) and abs(high - b) < 0.05 * (b - a)
        for a, b in ((0, 1), (-1, 1), (0, 100))
    )


def rotation_form(values: np.ndarray, first: int, last: int) -> str:
    """The form of rotation that these values can have by their number and lengths; "" for none.

    Three values may be any of several; four are a quaternion only where every one has length 1,
    which small angles beside a command of 1 or -1 have nearly, too.
    """
    part, size = values[:, first:last], last - first
    if size == 3:
        return "euler_xyz"
    if size == 4:
        off = np.abs(np.linalg.norm(part, axis=1) - 1)
        moving = np.ptp(part, axis=0) > 1e-6
        few = any(len(np.unique(part[:200, i])) <= 4 for i in range(4) if moving[i])
        return "quaternion_xyzw" if off.max() < UNIT and moving.any() and not few else ""
    if size == 6:
        a, b = part[:, :3], part[:, 3:]
        off = max(
            np.abs(np.linalg.norm(a, axis=1) - 1).max(),
            np.abs(np.linalg.norm(b, axis=1) - 1).max(),
            np.abs((a * b).sum(1)).max(),
        )  # fmt: skip
        return "rot6d" if off < 1e-2 else ""
    if size == 9:
        matrix = part.reshape(-1, 3, 3)
        off = np.abs(matrix @ matrix.transpose(0, 2, 1) - np.eye(3)).max()
        return "matrix" if off < 1e-2 else ""
    return ""


def ends(tracks: Sequence[Track], key: str, at: int) -> bool:
    """Whether a value is 0 until the last step of an episode, and 1 there: the end of the task."""
    rows = [track.numbers[key][:, at] for track in tracks if key in track.numbers]
    rows = [row for row in rows if len(row) > 2]
    return bool(rows) and all((row[:-1] <= 0).all() and row[-1] == 1 for row in rows)


def homogeneous(values: np.ndarray) -> str:
    """The form of a pose as one 4 x 4 matrix; "" for none."""
    if values.shape[1] != 16:
        return ""
    square = values.reshape(-1, 4, 4)
    turns = rotation_form(square[:, :3, :3].reshape(-1, 9), 0, 9)
    last = np.array([0.0, 0.0, 0.0, 1.0])
    if turns and np.abs(square[:, 3] - last).max() < 1e-4:
        return "homogeneous"
    return "homogeneous_columns" if turns and np.abs(square[:, :, 3] - last).max() < 1e-4 else ""


def grips(tracks: Sequence[Track], key: str, at: int, command: bool) -> bool:
    """Whether a value behaves as a gripper's: two ends, few switches between them."""
    rows = [track.numbers[key][:, at] for track in tracks if key in track.numbers]
    values = np.concatenate(rows)
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    around = any(abs(high + low) < 0.06 * turn and 0.93 * turn < high < 1.05 * turn
                 for turn in (np.pi, 180.0))  # fmt: skip
    if high - low < 1e-6 or around:
        return False  # still, or an angle that goes around the circle
    distinct = np.unique(values)
    if len(distinct) <= 3:
        return bool(command or set(distinct.tolist()) <= {-1.0, 0.0, 1.0} or len(distinct) == 2)
    share = (values - low) / (high - low)
    bottom, top = float((share < ENDS).mean()), float((share > 1 - ENDS).mean())
    moves = np.concatenate([np.diff(row) for row in rows])
    still = float((np.abs(moves) < 0.02 * (high - low)).mean())
    return bool(bottom > 0.05 and top > 0.05 and bottom + top > 0.6 and still > 0.6)


def by_key(
    tracks: Sequence[Track], widths: Mapping[str, int], names: Mapping[str, Sequence[str]]
) -> dict[str, list[Piece]]:
    """`pieces` of every column of steps."""
    found = {}
    for key, width in sorted(widths.items()):
        folder = key.rpartition("/")[0]
        near = [
            other
            for other, size in widths.items()
            if size == width and other != key and other.rpartition("/")[0] == folder
        ]
        if rows := pieces(tracks, key, names.get(key, ()), near):
            found[key] = rows
    return found
