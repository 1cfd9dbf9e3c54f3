"""Under which reading do commanded rotations turn the measured ones? As group elements, or value by
value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from robotics.embodiment.parts import Part
from robotics.embodiment.rotation import as_quaternion
from robotics.inspection.evidence import (
    Motion,
    axes,
    paired_rows,
    shifted,
    stated_fit,
)
from robotics.inspection.fits import EXPLAINS, Fit, Reading, Rows, fitted, paired, sane
from robotics.inspection.scan import Track

ORDERS = ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx")
"""Orders of rotations about fixed axes; about turned axes only a table says them."""
EULER = tuple(f"euler_{order}" for order in ORDERS)
COMPONENTS = "component by component"
"""A reading of three angles as separate values, as joints are or as angles are subtracted."""
SMALL = 0.02
"""rad: forms that differ by less over the whole recording make no difference."""


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
        values = values * part.factor
    return Rotation.from_quat(as_quaternion(values, form))


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
    written = state.form or ""
    measures += [written] if written not in measures and usable(values, written) else []
    measured = {form: _Turns.of(values, state, form) for form in measures}
    names = dict.fromkeys([*forms(part.width), part.form or ""])
    ways = [form for form in names if usable(commands, form)]
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
        part.form or "", written,
    )  # fmt: skip
    stated = stated_fit(fits, wanted)
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
    limited = sane([rows * part.factor for rows in commands])
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
    measured = [rows * state.factor for rows in values]
    moved = [wrapped(np.diff(rows, axis=0)) for rows in measured]
    limited = sane([rows * part.factor * scale for rows in commands])
    targets = [rows * part.factor for rows in commands]
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
    limited = sane([rows * part.factor * scale for rows in commands])
    return axes(*paired(lambda n, k: limited[n], getattr(measured[reading.measured], reading.frame), best.lag))  # fmt: skip  # noqa: E501


def _spread(part: Part, commands: Rows, scale: float) -> float:
    if part.width != 3:
        return 0.0
    values = np.concatenate(commands) * part.factor * scale
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
