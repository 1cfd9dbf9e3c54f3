"""One episode as it was recorded, by the parts and cameras of a robot's table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robotics.data.rlds.raw import RawEpisode
from robotics.embodiment.columns import column
from robotics.embodiment.robot import UNITS, Part, Robot

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
    frames: Mapping[str, list[bytes]]
    """Camera -> encoded picture of every step; cameras that the episode does not have are missing."""
    texts: tuple[str, ...]
    """Instructions at the first step, of every path; "" where one is empty or not text."""
    facts: Mapping[str, str | float] = field(default_factory=dict)
    """Values of the episode itself, such as who recorded it, by key."""
    stamps: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Time stamps (T,) by key, as stored."""
    flags: Mapping[str, np.ndarray] = field(default_factory=dict)
    """is_first, is_last, is_terminal and the table's terminate: (T,) bool."""
    damaged: Mapping[str, int] = field(default_factory=dict)
    """Key -> first step with NaN or infinity."""


def recording(raw: RawEpisode, robot: Robot, name: str, shard: str = "") -> Recording:
    """The episode by the table's parts; what is missing or not as long as the others is left out."""
    parts, damaged = {}, {}
    for key, rows in raw.numbers.items():
        if len(rows) and not np.isfinite(rows).all():
            damaged[key] = int(np.argmin(np.isfinite(rows).all(1)))
    for group in ("state", "action"):
        for part in getattr(robot, group):
            values = _values(raw, part)
            if values is not None and np.isfinite(values).all():
                parts[f"{group}.{part.name}"] = values
    frames = {}
    for camera in robot.cameras:
        rows = raw.texts.get(column(camera.path).key)
        shown = True if camera.present is None else _flag(raw, camera.present)
        if rows and shown:
            frames[camera.name] = rows
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
        name, shard, raw.steps, parts, frames, _texts(raw, robot), _facts(raw), stamps, flags,
        damaged,
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
    return values * (np.asarray(part.scale) * UNITS[part.unit or "none"])


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
