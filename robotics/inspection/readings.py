"""Ways to read the commands of one episode, and how well each explains the motion that follows.

A reading gives the motion p[t] that was commanded with step t; measured is m[t] = x[t+1] - x[t] (of
rotations the turn). With one gain g, fitted by least squares, a reading explains the share
1 - |m - g p|^2 / |m|^2 of the motion. `lag` is that of the table: step t's action is at t + lag.
Sums alone are kept, a few hundred numbers an episode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from robotics.data.parts import Recording
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.embodiment.rotation import as_quaternion

LAGS = (-2, -1, 0, 1, 2)
REACH = max(LAGS)
STATED = "as stated"
REVERSED = "its steps in reverse order"
OUTLYING = 3.0
"""Motions and commands longer than this many times the episode's long ones (the 90% quantile) are
left out: one jump would decide the fit."""
FEW = 8
"""Steps below which an episode decides nothing."""
KINDS = ("position", "rotation", "joints", "base")


@dataclass(frozen=True)
class Motion:
    """How the commands of one part explain its motion in one episode."""

    steps: int
    """Steps compared."""
    moved: float
    """Root mean square of the motion of a step, m or rad."""
    readings: tuple[str, ...]
    """Readings, the stated one first."""
    explained: np.ndarray
    """float32 (readings, lags), at most 1."""
    gain: np.ndarray
    """float32 (readings, lags)."""
    axis_gain: np.ndarray
    """float32 (lags, width): of each value by itself, under the stated reading."""
    axis_correlation: np.ndarray
    """float32 (lags, width)."""
    axis_share: np.ndarray
    """float32 (width,): of the squared motion."""


@dataclass(frozen=True)
class Pair:
    """An action part and the state part that it commands."""

    action: Part
    state: Part
    turn: Part | None
    """The tool's measured rotation, which relates the tool's frame to the base's."""
    rate: float

    @property
    def places(self) -> tuple[str, str]:
        """Where both are in a recording."""
        return f"state.{self.state.name}", f"action.{self.action.name}"


def pairs(robot: Robot) -> list[Pair]:
    """The parts of a table whose commands can be compared with a motion."""
    found = []
    for part in robot.action:
        state = robot.commanded(part)
        if state is not None and part.kind in KINDS:
            alike = (row for row in robot.state if row.kind == "rotation")
            found.append(Pair(part, state, next(alike, None), robot.rate))
    return found


def fit(recording: Recording, pair: Pair) -> Motion | None:
    """None where the episode lacks a part, is too short or does not move."""
    found = ways_of(recording, pair)
    return None if found is None else _fitted(found)


Way = tuple[np.ndarray, Callable[[int], np.ndarray]]
"""Motion (n, width) of the steps REACH ... T-2-REACH, and what was commanded for them by lag."""


def ways_of(recording: Recording, pair: Pair, stated_only: bool = False) -> dict[str, Way] | None:
    """The readings of a part's commands, the stated one first; None where the episode lacks a part
    or is too short."""
    place, command = pair.places
    if place not in recording.parts or command not in recording.parts:
        return None
    x, a = recording.parts[place], recording.parts[command]
    if len(x) - 2 * REACH - 1 < FEW or (pair.action.kind != "rotation" and x.shape != a.shape):
        return None
    if pair.action.kind == "rotation":
        return _turns(x, a, pair, stated_only)
    turn = None
    if pair.turn is not None:
        values = recording.parts.get(f"state.{pair.turn.name}")
        turn = None if values is None else rotations(values, str(pair.turn.form))
    return _moves(x, a, pair, turn, stated_only)


def _window(count: int) -> np.ndarray:
    return np.arange(REACH, count - 1 - REACH)


def _moves(
    x: np.ndarray, a: np.ndarray, pair: Pair, turn: Any, stated_only: bool
) -> dict[str, Way]:
    """Readings of positions, joints and bases."""
    t = _window(len(x))
    moved = (x[1:] - x[:-1])[t]
    mode = str(pair.action.mode)
    rate = pair.rate if mode == "velocity" else 1.0

    def absolute(lag: int) -> np.ndarray:
        return a[t + lag] - x[t]

    def delta(lag: int) -> np.ndarray:
        return a[t + lag] / rate

    frame = turn if pair.action.frame == "tool" and mode != "absolute" else None

    def stated(lag: int) -> np.ndarray:
        found = absolute(lag) if mode == "absolute" else delta(lag)
        return found if frame is None else frame[t].apply(found)

    ways: dict[str, Way] = {STATED: (moved, stated)}
    if stated_only:
        return ways
    other = "delta" if mode == "absolute" else "absolute"
    ways[f"{other} values"] = (moved, delta if mode == "absolute" else absolute)
    if pair.action.kind == "position" and turn is not None and mode != "absolute":
        if frame is None:
            ways["deltas in the tool's frame"] = (moved, lambda lag: turn[t].apply(delta(lag)))
        else:
            ways["deltas in the base's frame"] = (moved, delta)
    for words, order in _orders(pair.action.kind, x.shape[1]):
        ways[words] = (moved, lambda lag, order=order: _ordered(a, x, t, lag, order, mode, rate))
    back, forth = x[::-1], a[::-1]
    ways[REVERSED] = (
        (back[1:] - back[:-1])[t],
        lambda lag: forth[t + lag] - (back[t] if mode == "absolute" else 0),
    )
    return ways


def _orders(kind: str, width: int) -> list[tuple[str, list[int]]]:
    if kind == "position" and width == 3:
        swaps = (("x and y", [1, 0, 2]), ("x and z", [2, 1, 0]), ("y and z", [0, 2, 1]))
        return [(f"{words} swapped", order) for words, order in swaps]
    if kind == "joints" and width >= 8 and width % 2 == 0:
        half = width // 2
        return [("its two halves swapped", [*range(half, width), *range(half)])]
    return []


def _ordered(a, x, t, lag, order, mode, rate) -> np.ndarray:
    values = a[:, order][t + lag]
    return values - x[t] if mode == "absolute" else values / rate


def _turns(x: np.ndarray, a: np.ndarray, pair: Pair, stated_only: bool) -> dict[str, Way]:
    """Readings of rotations: one thing differs from the table in each."""
    form, measured = str(pair.action.form), str(pair.state.form)
    mode, frame = str(pair.action.mode), pair.action.frame
    rate = pair.rate if mode == "velocity" else 1.0
    base = {"form": form, "measured": measured, "mode": mode, "frame": frame}
    changes: dict[str, dict[str, str]] = {STATED: {}}
    other = "delta" if mode == "absolute" else "absolute"
    changes[f"{other} values"] = {"mode": other}
    if mode != "absolute":
        there = "tool" if frame == "base" else "base"
        changes[f"deltas in the {there}'s frame"] = {"frame": there}
    for name in _forms(form):
        changes[f"{name} commands"] = {"form": name}
    for name in _forms(measured):
        changes[f"{name} measurements"] = {"measured": name}
        if form == measured:
            changes[f"{name} commands and measurements"] = {"measured": name, "form": name}
    if not form.startswith(("quaternion", "rot6d", "matrix")):
        changes["degrees"] = {"unit": "deg"}
    if stated_only:
        pose, target = rotations(x, measured), rotations(a / rate, form)
        return {STATED: _turning(pose, target, mode, frame)}
    ways = {}
    poses = {name: rotations(x, name) for name in {measured, *_forms(measured)}}
    for words, change in changes.items():
        way = base | change
        values = np.radians(a) if "unit" in change else a
        targets = rotations(values / rate, way["form"])
        ways[words] = _turning(poses[way["measured"]], targets, way["mode"], way["frame"])
    back = poses[measured][::-1]
    ways[REVERSED] = _turning(back, rotations(a[::-1] / rate, form), mode, frame)
    return ways


def _turning(pose: Any, target: Any, mode: str, frame: str) -> Way:
    t = _window(len(pose))
    inverse = pose[t].inv()

    def commanded(lag: int) -> np.ndarray:
        asked = target[t + lag]
        if mode == "absolute":
            return (asked * inverse).as_rotvec()
        turn = asked.as_rotvec()
        return pose[t].apply(turn) if frame == "tool" else turn

    return (pose[t + 1] * inverse).as_rotvec(), commanded


def _forms(form: str) -> list[str]:
    if form.startswith("quaternion"):
        return ["quaternion_wxyz" if form == "quaternion_xyzw" else "quaternion_xyzw"]
    if form.startswith("euler") or form == "axis_angle":
        near = ("euler_xyz", "euler_zyx", "euler_XYZ", "axis_angle")
        return [name for name in near if name != form and name.lower() != form]
    return []


def rotations(values: np.ndarray, form: str) -> Any:
    """The `Rotation` of values (T, width) of any form; a quaternion of length 0 is no rotation.

    Typed loosely: scipy's own types do not know that a Rotation takes arrays of indices.
    """
    if form.startswith("quaternion"):
        empty = np.linalg.norm(values, axis=1, keepdims=True) < 1e-6
        none = [1.0, 0.0, 0.0, 0.0] if form.endswith("wxyz") else [0.0, 0.0, 0.0, 1.0]
        values = np.where(empty, none, values)
    return Rotation.from_quat(as_quaternion(values, form))


def _fitted(ways: dict[str, Way]) -> Motion | None:
    explained = np.zeros((len(ways), len(LAGS)), np.float32)
    gains = np.zeros_like(explained)
    moved, command = ways[STATED]
    keep = _usual(moved)
    keep &= np.all([_usual(command(lag)) for lag in LAGS], axis=0)
    m = moved[keep]
    if len(m) < FEW or float((m**2).mean()) < 1e-12:
        return None
    axes = np.zeros((2, len(LAGS), m.shape[1]), np.float32)
    for row, (words, (target, commanded)) in enumerate(ways.items()):
        chosen = _usual(target) if words == REVERSED else keep
        # A dead measurement tells nothing of any reading.
        alive = np.abs(target).max(0) > 1e-12
        goal = np.where(alive, target[chosen], 0.0)
        whole = float((goal**2).sum())
        for column, lag in enumerate(LAGS):
            p = np.where(alive, commanded(lag)[chosen], 0.0)
            square = float((p**2).sum())
            gain = float((p * goal).sum()) / square if square > 1e-18 else 0.0
            gains[row, column] = gain
            left = float(((goal - gain * p) ** 2).sum())
            explained[row, column] = 1 - left / whole if whole > 1e-18 else 0.0
            if words == STATED:
                cross, own = (p * goal).sum(0), np.maximum((p**2).sum(0), 1e-18)
                axes[0, column] = cross / own
                axes[1, column] = cross / np.sqrt(own * np.maximum((goal**2).sum(0), 1e-18))
    size = float(np.sqrt((m**2).sum(1).mean()))
    share = ((m**2).sum(0) / (m**2).sum()).astype(np.float32)
    return Motion(len(m), size, tuple(ways), explained, gains, axes[0], axes[1], share)


def _usual(values: np.ndarray) -> np.ndarray:
    sizes = np.linalg.norm(values, axis=1)
    some = sizes[sizes > 0]
    return sizes <= (OUTLYING * np.quantile(some, 0.9) if len(some) else np.inf)
