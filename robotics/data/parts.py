"""One episode as it was recorded, by the parts and cameras of a robot's table; where it idles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robotics.data.rlds.raw import RawEpisode
from robotics.embodiment.columns import column
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot

SLOW = 0.05
"""Steps slower than this share of an episode's fast ones (its 90% quantile) are still."""
LEAST = {"position": 3e-4, "rotation": 1e-3, "joints": 1e-3, "base": 1e-3}
"""m and rad a step that are always still."""
STAMP = re.compile(r"time_?stamp|(^|/)time$|_ns$")


@dataclass(frozen=True)
class Recording:
    """What the tests of single episodes look at."""

    name: str
    """Such as "train:17": split and number of the episode in it, in the order of the files."""
    shard: str
    steps: int
    parts: Mapping[str, np.ndarray]
    """"state.position", "action.gripper", ... -> (T, width) finite values, in m and rad where the
    table states unit and scale; grippers as stored."""
    cameras: tuple[str, ...]
    """Cameras that the episode has: all but those whose `present` flag is false."""
    texts: tuple[str, ...]
    """Instructions at the first step, of every path; "" where one is empty or not text."""
    facts: Mapping[str, str | float] = field(default_factory=dict)
    """Values of the episode itself, such as who recorded it, by key."""
    stamps: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Time stamps (T,) by key, as stored."""
    flags: Mapping[str, np.ndarray] = field(default_factory=dict)
    """is_first, is_last, is_terminal and the table's terminate: (T,) bool."""
    damaged: Mapping[str, int] = field(default_factory=dict)
    """Key of what the table names -> first step with NaN or infinity."""


def recording(raw: RawEpisode, robot: Robot, name: str, shard: str = "") -> Recording:
    """The episode by the table's parts; what is missing or not of its length is left out."""
    parts, damaged = {}, {}
    used = {place.key for _, place in robot.columns()}
    for key, rows in raw.numbers.items():
        if key in used and len(rows) and not np.isfinite(rows).all():
            damaged[key] = int(np.argmin(np.isfinite(rows).all(1)))
    for group in ("state", "action"):
        for part in getattr(robot, group):
            values = _values(raw, part)
            if values is not None and np.isfinite(values).all():
                parts[f"{group}.{part.name}"] = values
    cameras = [row.name for row in robot.cameras if row.present is None or _flag(raw, row.present)]
    flags = {key: rows[:, 0] > 0.5 for key in ("is_first", "is_last", "is_terminal")
             if (rows := raw.numbers.get(f"steps/{key}")) is not None}  # fmt: skip
    if robot.terminate is not None:
        place = column(robot.terminate)
        rows = raw.numbers.get(place.key)
        if rows is not None:
            flags["terminate"] = rows[:, place.values or slice(0, 1)][:, 0] > 0.5
    stamps = {
        key: rows[:, 0]
        for key, rows in raw.numbers.items()
        if key.startswith("steps/") and rows.shape[1] == 1 and STAMP.search(key.lower())
    }
    return Recording(
        name, shard, raw.steps, parts, tuple(cameras), _texts(raw, robot), _facts(raw), stamps,
        flags, damaged,
    )  # fmt: skip


def _values(raw: RawEpisode, part: Part) -> np.ndarray | None:
    place = column(part.path)
    values = raw.numbers.get(place.key)
    if values is None or not place.of_step or not len(values):
        return None
    values = values if place.values is None else values[:, place.values]
    if values.shape[1] != part.width:
        return None
    if part.kind == "gripper" or (part.form or "").startswith(("quaternion", "rot6d", "matrix")):
        return values
    return values * part.factor


def _flag(raw: RawEpisode, path: str) -> bool:
    rows = raw.numbers.get(column(path).key)
    return rows is None or not rows.size or bool(rows.flat[0] > 0.5)


def _texts(raw: RawEpisode, robot: Robot) -> tuple[str, ...]:
    found = []
    for path in robot.instruction.paths:
        key = column(path).key
        if key in raw.texts:
            value = (raw.texts[key] or [b""])[0]
            found.append(value.decode("utf-8", "replace").strip())
        elif robot.instruction.encoding == "characters" and key in raw.numbers:
            codes = raw.numbers[key][0].astype(int)
            found.append("".join(chr(code) for code in codes if 0 < code < 0x110000).strip())
    return tuple(found)


def _facts(raw: RawEpisode) -> dict[str, str | float]:
    facts: dict[str, str | float] = {}
    for key, rows in raw.numbers.items():
        if not key.startswith("steps/") and rows.shape == (1, 1):
            facts[key] = float(rows[0, 0])
    for key, values in raw.texts.items():
        if not key.startswith("steps/") and len(values) == 1 and len(values[0]) < 400:
            facts[key] = values[0].decode("utf-8", "replace")
    return facts


def speeds(parts: Mapping[str, np.ndarray], robot: Robot) -> dict[str, np.ndarray]:
    """(T - 1,) size of every step of each measured part that can move, m or rad (quaternions and
    matrices: change of their values)."""
    found = {}
    for part in robot.state:
        values = parts.get(f"state.{part.name}")
        if part.kind not in LEAST or values is None or len(values) < 2:
            continue
        change = np.diff(values, axis=0)
        if part.kind == "rotation" and str(part.form).startswith("quaternion"):
            # q and -q are the same rotation.
            other = values[1:] + values[:-1]
            closer = np.linalg.norm(other, axis=1) < np.linalg.norm(change, axis=1)
            change = np.where(closer[:, None], other, change)
        elif part.kind in ("rotation", "joints"):
            change = (change + np.pi) % (2 * np.pi) - np.pi  # angles that wrap have not moved
        found[part.name] = np.linalg.norm(change, axis=1)
    return found


def idle(parts: Mapping[str, np.ndarray], robot: Robot) -> np.ndarray:
    """(T,) bool: steps in which nothing moves and nothing is commanded, grippers included.

    Args:
        parts: as of a `Recording`.
        robot: its table.

    Returns:
        All False where nothing is measured.
    """
    steps = max((len(values) for values in parts.values()), default=0)
    measured = speeds(parts, robot)
    kinds = {part.name: part.kind for part in robot.state}
    if not measured:
        return np.zeros(steps, bool)
    still = np.ones(steps, bool)
    for name, sizes in measured.items():
        limit = max(SLOW * float(np.quantile(sizes, 0.9)), LEAST[kinds[name]])
        still &= np.append(sizes, sizes[-1:]) <= limit
    for part in robot.action:
        values = parts.get(f"action.{part.name}")
        if values is None:
            continue
        held = part.mode == "absolute" or part.kind not in LEAST
        if part.mode == "pulse" or (held and part.kind == "gripper"):
            changes = np.abs(values if part.mode == "pulse" else _changes(values)).max(1) > 0.05
            still &= ~changes
        elif part.kind in LEAST:
            sizes = np.linalg.norm(_changes(values) if held else values, axis=1)
            limit = max(SLOW * float(np.quantile(sizes, 0.9)), LEAST[part.kind])
            still &= sizes <= limit
    for part in robot.state:
        values = parts.get(f"state.{part.name}")
        if part.kind == "gripper" and values is not None:
            ends = np.asarray(part.closed, float) - np.asarray(part.open, float)
            still &= np.abs(_changes(values) / ends).max(1) <= 0.02
    return still


def _changes(values: np.ndarray) -> np.ndarray:
    """(T, width) change from the step before; 0 at the first."""
    return np.diff(values, axis=0, prepend=values[:1])
