"""A robot's table drafted from what a LeRobot data set's own description says.

Names say much (shoulder_pan.pos is a joint), and not all: whether x is a target or a change, or
whether joints are in degrees, is for `robotics.inspect` to find out of the values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robotics.data.lerobot.info import BOOKKEEPING, Feature, LeRobotInfo
from robotics.embodiment.columns import column

STATE, ACTION = "observation.state", "action"
_FORMS = {
    ("roll", "pitch", "yaw"): "euler_xyz",
    ("rx", "ry", "rz"): "axis_angle",
    ("qx", "qy", "qz", "qw"): "quaternion_xyzw",
    ("qw", "qx", "qy", "qz"): "quaternion_wxyz",
}
_SIDES = re.compile(r"^(left|right)(?:_arm)?[_.]|[_.](left|right)$")
_GRIPPER = re.compile(r"gripper|finger|jaw")
_BASE = re.compile(r"base|wheel|\.vel$|theta")
_WRIST = re.compile(r"wrist|hand|gripper|ego")


def draft(info: LeRobotInfo) -> dict[str, Any]:
    """The content of a table, for `robotics.embodiment.tables.load_robot`.

    Cameras, fps, tasks and every dimension's name are the data set's; kinds, units and modes are
    read out of names and of meta/stats.json where those tell, and are guesses elsewhere.
    """
    statistics = _statistics(info)
    robot = info.robot_type or info.directory.resolve().name
    found: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_]+", "_", robot).strip("_") or "robot",
        "rate": info.fps,
        "cameras": _cameras(info),
    }
    if any(task.strip() for task in info.tasks):
        found["instruction"] = "task"
    state, action = (info.features.get(name) for name in (STATE, ACTION))
    if state is not None:
        found["state"] = _parts(state, statistics)
    if action is not None:
        parts = _modes(_parts(action, statistics), statistics)
        found["action"] = _apart(parts, found.get("state", {}))
    names = set(info.features) - set(BOOKKEEPING)
    if "next.reward" in names:
        found["reward"] = "next.reward"
    if "next.success" in names:
        found["success"] = "/next.success"
    return found


def _statistics(info: LeRobotInfo) -> Mapping[str, Any]:
    try:
        return json.loads((info.directory / "meta" / "stats.json").read_text())
    except (OSError, ValueError):  # a draft does without
        return {}


def _modes(parts: dict[str, Any], statistics: Mapping[str, Any]) -> dict[str, Any]:
    """How each part of the action commands.

    Joints and grippers are targets, bases have velocities. Poses have one name as targets and as
    changes: targets are spread about as far, and about the same place, as the state.
    """
    for part in parts.values():
        kind = part["kind"]
        part["mode"] = "velocity" if kind == "base" else "absolute"
        if kind in ("position", "rotation"):
            target = kind == "position" and _alike(part["path"], statistics)
            part["mode"] = "absolute" if target else "delta"
        if kind == "gripper" and part["open"] == 100:
            part["continuous"] = True
    targets = {part["mode"] for part in parts.values() if part["kind"] == "position"}
    for part in parts.values():
        if part["kind"] == "rotation" and targets == {"absolute"}:
            part["mode"] = "absolute"
    return parts


def _apart(action: dict[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of one name are of each other: others of another width or kind are called otherwise."""

    def shape(part: Mapping[str, Any]) -> tuple[Any, ...]:
        return part["kind"], column(part["path"]).width

    alike = {name for name, part in action.items() if shape(state.get(name, part)) == shape(part)}
    return {name if name in alike else f"{name}_command": part for name, part in action.items()}


def _alike(path: str, statistics: Mapping[str, Any]) -> bool:
    rows = statistics.get(ACTION), statistics.get(STATE)
    values = column(path).values
    try:
        (mean, spread), (state_mean, state_spread) = (
            (np.asarray(row["mean"])[values], np.asarray(row["std"])[values])  # pyright: ignore
            for row in rows
        )
        near = np.abs(mean - state_mean) < state_spread + spread
        return bool((near & (spread > state_spread / 3)).all())
    except (TypeError, KeyError, ValueError, IndexError):
        return False


def _cameras(info: LeRobotInfo) -> dict[str, Any]:
    found = {}
    for feature in info.features.values():
        if feature.picture and len(feature.shape) == 3 and 3 in feature.shape:
            name = re.sub(r"[^A-Za-z0-9_]+", "_", feature.name.rpartition(".")[2])
            row: dict[str, Any] = {"path": feature.name, "size": list(feature.size)}
            if _WRIST.search(feature.name.rpartition(".")[2].lower()):
                row["view"] = "wrist"
            found[name if name not in found else feature.name.replace(".", "_")] = row
    return found


def _parts(feature: Feature, statistics: Mapping[str, Any]) -> dict[str, Any]:
    names = feature.names if len(feature.names) == feature.width else ()
    found: dict[str, Any] = {}
    for start, stop, name, row in _runs(names, feature.width):
        part = {"path": f"{feature.name}[{start}:{stop}]", **row}
        if names and row["kind"] not in ("position", "rotation"):
            part["names"] = list(names[start:stop])
        if row["kind"] == "gripper":
            part |= _ends(feature.name, slice(start, stop), statistics, row)
        if name in found:
            name = f"{name}_{sum(key.rpartition('_')[0] == name for key in found) + 2}"
        found[name] = part
    return found


def _ends(
    feature: str, values: slice, statistics: Mapping[str, Any], row: Mapping[str, Any]
) -> dict[str, Any]:
    """A gripper's values when open and when closed, of those that occur."""
    try:
        low, high = (np.asarray(statistics[feature][end])[values] for end in ("min", "max"))
        if row["open"] != 100 and high.max() > 2:
            return {"open": [float(n) for n in high], "closed": [float(n) for n in low]}
        return {"open": -1, "closed": 1} if low.min() < -0.5 else {}
    except (TypeError, KeyError, ValueError, IndexError):
        return {}


def _runs(names: Sequence[str], width: int) -> list[tuple[int, int, str, dict[str, Any]]]:
    """Values that belong together: first, one after the last, name of the part, its entries."""
    if not names:
        return [(0, width, "values", {"kind": "other"})]
    found: list[tuple[int, int, str, dict[str, Any]]] = []
    start = 0
    while start < width:
        side, bare = _side(names[start])
        prefix = f"{side}_" if side else ""
        stop, row = _pose(names, start)
        if row is None:
            row = _single(bare)
            stop = start + 1
            while (
                stop < width
                and row["kind"] != "gripper"
                and _side(names[stop])[0] == side
                and _pose(names, stop)[1] is None
                and _single(_side(names[stop])[1]) == row
            ):
                stop += 1
        found.append((start, stop, prefix + row["kind"], row))
        start = stop
    return found


def _side(name: str) -> tuple[str, str]:
    """The arm that a name is of, and the name without it."""
    lower = name.lower()
    match = _SIDES.search(lower)
    if match is None:
        return "", lower
    return match[1] or match[2], lower[: match.start()] + lower[match.end() :]


def _pose(names: Sequence[str], start: int) -> tuple[int, dict[str, Any] | None]:
    """Whether a position or a rotation begins here, and where it ends."""
    for axes in (("x", "y", "z"), *_FORMS):
        group = [_side(name)[1] for name in names[start : start + len(axes)]]
        last = tuple(re.split(r"[._]", name.removesuffix(".pos"))[-1] for name in group)
        if last == axes:
            if axes == ("x", "y", "z"):
                return start + 3, {"kind": "position"}
            return start + len(axes), {"kind": "rotation", "form": _FORMS[axes]}
    return start, None


def _single(name: str) -> dict[str, Any]:
    """What a value that is neither of a position nor of a rotation is by its name."""
    if _GRIPPER.search(name):
        if name.endswith(".pos"):  # LeRobot's own arms: 0 closed, 100 open
            return {"kind": "gripper", "open": 100, "closed": 0}
        return {"kind": "gripper", "open": 0, "closed": 1}
    if name.endswith(".pos"):
        return {"kind": "joints", "unit": "deg"}
    if name.endswith(".vel") or _BASE.search(name):
        return {"kind": "base"}
    if re.search(r"joint|waist|shoulder|elbow|wrist|forearm|motor|qpos|_rotate|^j?\d+$", name):
        return {"kind": "joints"}
    return {"kind": "other"}
