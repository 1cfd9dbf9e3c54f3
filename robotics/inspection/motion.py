"""Does the measured motion follow the commands, and under which reading of them?

For every action part that commands a measured one: delta or absolute, in the base's or the tool's
frame, in which form of rotation, with which factor and how many steps apart. Poses are compared as
group elements, joints value by value. Which of several readings are true shows only where they
differ: what the data do not decide is said to be undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial.transform import Rotation

from robotics.embodiment.robot import UNITS, Part, Robot
from robotics.embodiment.rotation import as_quaternion
from robotics.inspection.fits import (
    EVIDENCE_STEPS,
    EXPLAINS,
    FEW,
    LAGS,
    Fit,
    Reading,
    Rows,
    fitted,
    paired,
    sane,
)
from robotics.inspection.scan import Track

ORDERS = ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx")
"""Orders of rotations about fixed axes; "zyx" is also roll-pitch-yaw about the turned axes."""
EULER = tuple(f"euler_{order}" for order in ORDERS)
COMPONENTS = "component by component"
"""A reading of three angles as separate values, as joints are or as angles are subtracted."""
SMALL = 0.02
"""rad: forms that differ by less over the whole recording make no difference."""


@dataclass(frozen=True)
class Motion:
    """Evidence about one action part."""

    part: str
    kind: str
    """Out of `robotics.embodiment.robot.KINDS`."""
    fits: list[Fit]
    """Best first; the stated one is among them."""
    stated: Fit
    prescale: float = 1.0
    """Factor on the commands under which the fits were made; 1: the table's own."""
    axis_gain: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(width,) gain of each value by itself, which may be negative, under `axis_mode`."""
    axis_explained: np.ndarray = field(default_factory=lambda: np.zeros(0))
    axis_mode: str = "delta"
    matrix: np.ndarray | None = None
    """(3, 3) of translations, least squares: measured = matrix @ commanded."""
    matrix_explains: float = 0.0
    """By it, over the axes that move at all."""
    gain_explains: float = 0.0
    """By one gain for these axes."""
    spread: float = 0.0
    """rad: how far apart the readings of the commanded rotation are, 99th percentile."""
    state_spread: float = 0.0
    """rad: the same of the measured rotation's steps."""
    largest: float = 0.0
    """Size of the largest command, as recorded."""
    levels: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(width,) of absolute commands: slope of the measured value over the commanded one."""

    @property
    def best(self) -> Fit:
        """The reading that explains most."""
        return self.fits[0]

    @property
    def decided(self) -> bool:
        """Whether any reading explains enough for the data to say something."""
        return self.best.explained >= EXPLAINS

    @property
    def by_axis(self) -> bool:
        """Whether each value by itself, with a factor and a sign of its own, is explained, though
        no reading with one gain explains them all."""
        moving = self.axis_explained[self.axis_explained > 0]
        return not self.decided and len(moving) > 0 and float(np.median(moving)) > 0.6


def factor(part: Part) -> np.ndarray:
    """What a recorded 1 is in m or rad, one number or one a value."""
    return np.asarray(part.scale) * UNITS[part.unit or "none"]


def shifted(rows: np.ndarray, lag: int) -> np.ndarray:
    """rows[t + lag] at t, NaN outside."""
    found = np.full(rows.shape, np.nan)
    count = len(rows)
    first, last = max(0, -lag), min(count, count - lag)
    if last > first:
        found[first:last] = rows[first + lag : last + lag]
    return found


def paired_rows(tracks: Sequence[Track], parts: Sequence[Part]) -> list[list[np.ndarray]]:
    """Recorded values of these parts, (T, width) an episode each, of the first episodes that have
    all of them, finite, up to `EVIDENCE_STEPS`; empty lists below `FEW` steps."""
    found: list[list[np.ndarray]] = [[] for _ in parts]
    steps = 0
    for track in tracks:
        rows = [track.values(part.path) for part in parts]
        good = all(
            row is not None and row.shape[1] == part.width and np.isfinite(row).all()
            for row, part in zip(rows, parts, strict=True)
        )
        if not good or steps >= EVIDENCE_STEPS:
            continue
        steps += track.steps
        for place, row in zip(found, rows, strict=True):
            place.append(row)  # pyright: ignore
    return found if steps >= FEW else [[] for _ in parts]


def motions(tracks: Sequence[Track], robot: Robot) -> list[Motion]:
    """Evidence about every action part that moves and whose state is measured."""
    found = []
    for part in robot.action:
        state = robot.commanded(part)
        if state is None or part.kind == "gripper":
            continue
        if part.kind == "position":
            motion = translation(tracks, part, state, turn_of(robot, state))
        elif part.kind == "rotation":
            motion = rotation(tracks, part, state)
        else:
            motion = components(tracks, part, state)
        if motion is not None:
            rows = [row for track in tracks if (row := track.values(part.path)) is not None]
            largest = max(float(np.nanmax(np.abs(row), initial=0)) for row in rows)
            found.append(replace(motion, largest=largest))
    return found


def turn_of(robot: Robot, position: Part) -> Part | None:
    """The measured rotation of the same tool: the next one in the table."""
    after = robot.state[robot.state.index(position) + 1 :]
    for part in (*after, *robot.state):
        if part.kind == "rotation":
            return part
        if part.kind == "position" and part in after:
            break
    return None


# ---------------------------------------------------------------- values one by one


def components(tracks: Sequence[Track], part: Part, state: Part) -> Motion | None:
    """Joints, bases and other values, each by itself."""
    commands, values = paired_rows(tracks, (part, state))
    if not values or part.width != state.width:
        return None
    commands = [rows * factor(part) for rows in commands]
    values = [rows * factor(state) for rows in values]
    moved = [np.diff(rows, axis=0) for rows in values]
    spread = np.concatenate(moved).std(0)
    size = np.where(spread > 1e-9, spread, np.inf)  # a dead value says nothing
    limited = sane([rows / size for rows in commands]) if part.mode != "absolute" else commands
    keep = [np.isfinite(rows).all(1, keepdims=True) for rows in limited]

    def predict(mode: str, number: int, lag: int) -> np.ndarray:
        rows = np.where(keep[number], commands[number], np.nan)
        if mode == "absolute":
            rows = rows - shifted(values[number], lag)
        return rows / size

    scaled = [rows / size for rows in moved]
    fits = []
    for mode in ("delta", "absolute"):
        fit = fitted(Reading(mode, ""), lambda n, k, m=mode: predict(m, n, k), scaled)
        if fit is not None:
            fits.append(fit)
    stated = _stated(fits, Reading("absolute" if part.mode == "absolute" else "delta", ""))
    if stated is None:
        return None
    fits.sort(key=lambda fit: -fit.explained)
    best = fits[0].reading.mode if fits[0].explained >= EXPLAINS else stated.reading.mode
    gain, explained = axes(*paired(lambda n, k: predict(best, n, k), scaled, fits[0].lag))
    return Motion(
        part.name, part.kind, fits, stated, axis_gain=gain, axis_explained=explained,
        axis_mode=best,
        levels=slopes(commands, values, fits[0].lag) if best == "absolute" else np.zeros(0),
    )  # fmt: skip


def axes(p: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain (width,) of each value and the share of its motion that it explains."""
    square = (p**2).sum(0)
    gain = np.divide((p * m).sum(0), square, out=np.zeros(p.shape[1]), where=square > 1e-18)
    whole = np.maximum((m**2).sum(0), 1e-18)
    return gain, 1 - ((m - gain * p) ** 2).sum(0) / whole


def slopes(commands: Rows, values: Rows, lag: int) -> np.ndarray:
    """(width,) slope of the value reached over the one commanded; 1 where the units are equal."""
    a, x = [], []
    for command, value in zip(commands, values, strict=True):
        reached = shifted(value, lag + 1)
        good = np.isfinite(reached).all(1)
        a.append(command[good])
        x.append(reached[good])
    a, x = np.concatenate(a), np.concatenate(x)
    a, x = a - a.mean(0), x - x.mean(0)
    square = (a**2).sum(0)
    return np.divide((a * x).sum(0), square, out=np.ones(a.shape[1]), where=square > 1e-12)


def _stated(fits: Sequence[Fit], reading: Reading) -> Fit | None:
    return next((fit for fit in fits if fit.reading == reading), None)


# ---------------------------------------------------------------- positions


def translation(
    tracks: Sequence[Track], part: Part, state: Part, turn: Part | None
) -> Motion | None:
    """Compare the readings of a commanded position; None without measured ones."""
    parts = (part, state) if turn is None else (part, state, turn)
    commands, values, *turns = paired_rows(tracks, parts)
    if not values:
        return None
    commands = [rows * factor(part) for rows in commands]
    values = [rows * factor(state) for rows in values]
    moved = {"base": [np.diff(rows, axis=0) for rows in values]}
    if turns and usable(turns[0], turn.form or "") and part.width == 3:  # pyright: ignore
        poses = [rotations(rows, turn) for rows in turns[0]]  # pyright: ignore
        moved["tool"] = [r[:-1].inv().apply(m) for r, m in zip(poses, moved["base"], strict=True)]
    limited = sane(commands) if part.mode != "absolute" else commands

    def predict(mode: str, number: int, lag: int) -> np.ndarray:
        if mode == "absolute":
            return commands[number] - shifted(values[number], lag)
        return limited[number]

    fits = []
    for mode, frame in (("delta", "base"), ("delta", "tool"), ("absolute", "base")):
        if frame in moved:
            fit = fitted(Reading(mode, frame), lambda n, k, m=mode: predict(m, n, k), moved[frame])
            fits += [fit] if fit is not None else []
    absolute = part.mode == "absolute"
    wanted = Reading("absolute", "base") if absolute else Reading("delta", part.frame)
    stated = _stated(fits, wanted)
    if stated is None:
        return None
    fits.sort(key=lambda fit: -fit.explained)
    best = fits[0]
    read = best if best.explained >= EXPLAINS else stated
    p, m = paired(
        lambda n, k: predict(read.reading.mode, n, k), moved[read.reading.frame], read.lag
    )
    gain, explained = axes(p, m)
    matrix = np.linalg.lstsq(p, m, rcond=None)[0].T
    moving = m.std(0) > 1e-9  # a dead axis is another finding
    shares = [
        1 - float((left[:, moving] ** 2).sum()) / max(float((m[:, moving] ** 2).sum()), 1e-18)
        for left in (m - p @ matrix.T, m - p * gain)
    ]
    absolute = read.reading.mode == "absolute"
    levels = slopes(commands, values, read.lag) if absolute else np.zeros(0)
    return Motion(
        part.name, part.kind, fits, stated, 1.0, gain, explained, read.reading.mode, matrix,
        shares[0], shares[1], levels=levels,
    )  # fmt: skip


# ---------------------------------------------------------------- rotations


def forms(width: int, few: bool = False) -> list[str]:
    """Forms of rotations of this many values; few: without the unusual orders."""
    if width == 3:
        return [*(("euler_xyz", "euler_zyx") if few else EULER), "axis_angle"]
    known = {
        1: ["euler_z"], 4: ["quaternion_xyzw", "quaternion_wxyz"], 6: ["rot6d"], 9: ["matrix"],
        16: ["homogeneous", "homogeneous_columns"],
    }  # fmt: skip
    return known.get(width, [])


def usable(rows: Rows, form: str) -> bool:
    """Whether all of these values can be rotations of this form."""
    if form.startswith("quaternion"):
        return all(bool((np.abs(values).max(1) > 1e-6).all()) for values in rows)
    return bool(form)


def rotations(values: np.ndarray, part: Part, form: str | None = None) -> Rotation:
    """Recorded values as rotations, read as the part's form or another."""
    form = form or part.form or ""
    if form.startswith("euler") or form == "axis_angle":
        values = values * factor(part)
    return Rotation.from_quat(as_quaternion(values, form))


def same_form(form: str) -> str:
    """Rotations about turned axes as the same ones about fixed axes."""
    order = form.removeprefix("euler_")
    return f"euler_{order[::-1].lower()}" if form.startswith("euler_") and order.isupper() else form


@dataclass(frozen=True)
class _Turns:
    """Measured rotations under one form."""

    poses: list[Rotation]
    base: list[np.ndarray]
    """(T - 1, 3) turns as rotation vectors in the base frame."""
    tool: list[np.ndarray]

    @classmethod
    def of(cls, rows: Rows, part: Part, form: str) -> _Turns:
        poses = [rotations(values, part, form) for values in rows]
        base = [(r[1:] * r[:-1].inv()).as_rotvec() for r in poses]
        tool = [r[:-1].inv().apply(turn) for r, turn in zip(poses, base, strict=True)]
        return cls(poses, base, tool)


def rotation(tracks: Sequence[Track], part: Part, state: Part) -> Motion | None:
    """Compare the readings of a commanded rotation; None without measured ones."""
    commands, values = paired_rows(tracks, (part, state))
    if not values or min(map(len, values)) < 2:
        return None
    measures = [form for form in forms(state.width, few=True) if usable(values, form)]
    written = same_form(state.form or "")
    measures += [written] if written not in measures and usable(values, written) else []
    measured = {form: _Turns.of(values, state, form) for form in measures}
    ways = [form for form in forms(part.width) if usable(commands, form)]
    if not measured or not ways:
        return None
    scale = _linear_scale(part, commands, measured.get(written) or measured[measures[0]])
    fits = []
    for form in ways:
        read = (
            replace(part, scale=tuple(np.broadcast_to(scale * np.asarray(part.scale), 3)))
            if part.width == 3
            else part
        )
        turned = [rotations(rows, read, form) for rows in commands]
        for name, turns in measured.items():
            fits += _rotation_fits(form, name, turned, turns, commands)
    if part.width == 3 and state.width == 3:
        fits += _component_fits(part, state, commands, values, scale)
    absolute = part.mode == "absolute"
    wanted = Reading(
        "absolute" if absolute else "delta", "base" if absolute else part.frame,
        same_form(part.form or ""), written,
    )  # fmt: skip
    stated = _stated(fits, wanted)
    if stated is None:
        return None
    fits.sort(key=lambda fit: -fit.explained)
    read = fits[0] if fits[0].explained >= EXPLAINS else stated
    gain, explained = _rotation_axes(part, commands, scale, measured, read)
    return Motion(
        part.name, part.kind, fits, stated, scale, gain, explained, read.reading.mode,
        spread=_spread(part, commands, scale), state_spread=_step_spread(measured),
        levels=np.zeros(0),
    )  # fmt: skip


def _linear_scale(part: Part, commands: Rows, turns: _Turns) -> float:
    """Factor on commands of three values under which they are about as large as the turns; 1 where
    they already are, or are no changes."""
    if part.width != 3:
        return 1.0
    limited = sane([rows * factor(part) for rows in commands])
    rows = [
        fitted(Reading("delta", frame), lambda n, k: limited[n], getattr(turns, frame))
        for frame in ("base", "tool")
    ]
    best = max((fit for fit in rows if fit), key=lambda fit: fit.explained, default=None)
    if best is None or best.explained < EXPLAINS or not best.gain:
        return 1.0
    size = abs(best.gain)
    return 1.0 if 0.6 < size < 1.6 else float(size)


def _rotation_fits(
    form: str, measured: str, turned: list[Rotation], turns: _Turns, commands: Rows
) -> list[Fit]:
    vectors = [rows.as_rotvec() for rows in turned]
    found = []
    for frame in ("base", "tool"):
        reading = Reading("delta", frame, form, measured)
        found.append(fitted(reading, lambda n, k: vectors[n], getattr(turns, frame)))

    quaternions = [pose.as_quat() for pose in turns.poses]

    def target(number: int, lag: int) -> np.ndarray:
        count = len(commands[number])
        index = np.arange(count) + lag
        inside = (index >= 0) & (index < count)
        at = np.clip(index, 0, count - 1)
        rows = (turned[number] * Rotation.from_quat(quaternions[number][at]).inv()).as_rotvec()
        return np.where(inside[:, None], rows, np.nan)

    found.append(fitted(Reading("absolute", "base", form, measured), target, turns.base))
    return [fit for fit in found if fit is not None]


def _component_fits(
    part: Part, state: Part, commands: Rows, values: Rows, scale: float
) -> list[Fit]:
    """Three angles as separate values, differences taken around the circle."""
    measured = [rows * factor(state) for rows in values]
    moved = [wrapped(np.diff(rows, axis=0)) for rows in measured]
    limited = sane([rows * factor(part) * scale for rows in commands])
    targets = [rows * factor(part) for rows in commands]
    pairs = {
        "delta": lambda n, k: limited[n],
        "absolute": lambda n, k: wrapped(targets[n] - shifted(measured[n], k)),
    }
    fits = [
        fitted(Reading(mode, "", COMPONENTS, COMPONENTS), predict, moved)
        for mode, predict in pairs.items()
    ]
    return [fit for fit in fits if fit is not None]


def wrapped(angles: np.ndarray) -> np.ndarray:
    """Angles in rad into [-pi, pi)."""
    return (angles + np.pi) % (2 * np.pi) - np.pi


def _rotation_axes(
    part: Part, commands: Rows, scale: float, measured: dict[str, _Turns], best: Fit
) -> tuple[np.ndarray, np.ndarray]:
    """Gain of each axis under the best reading of changes; empty for targets."""
    reading = best.reading
    if reading.mode == "absolute" or reading.measured not in measured or part.width != 3:
        return np.zeros(0), np.zeros(0)
    limited = sane([rows * factor(part) * scale for rows in commands])
    return axes(*paired(lambda n, k: limited[n], getattr(measured[reading.measured], reading.frame), best.lag))  # fmt: skip  # noqa: E501


def _spread(part: Part, commands: Rows, scale: float) -> float:
    if part.width != 3:
        return 0.0
    values = np.concatenate(commands) * factor(part) * scale
    read = {form: Rotation.from_quat(as_quaternion(values, form)) for form in forms(3, few=True)}
    one = read["euler_xyz"].inv()
    return max(
        float(np.quantile((one * other).magnitude(), 0.99))
        for form, other in read.items()
        if form != "euler_xyz"
    )


def _step_spread(measured: dict[str, _Turns]) -> float:
    """How far apart the forms put the turn of a step, 99th percentile."""
    if len(measured) < 2:
        return 0.0
    rows = [np.concatenate(turns.base) for turns in measured.values()]
    return max(float(np.quantile(np.linalg.norm(rows[0] - other, axis=1), 0.99)) for other in rows[1:])  # fmt: skip  # noqa: E501


def late(motion: Motion, lag: int) -> bool:
    """Whether another lag than `lag` clearly explains more."""
    best = motion.best
    if best.lag == lag or not motion.decided or lag not in best.lags:
        return False
    return (1 - best.explained) < 0.6 * (1 - best.lags[lag])


__all__ = ["LAGS", "Motion", "components", "motions", "rotation", "translation"]
