"""Whether recorded or measured values can be those of a part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from robotics.embodiment.parts import Part

RANGE_SLACK = 0.5
"""How far values may lie outside their stated range, in widths of it. Real grippers overrun it a
little; more means that the range is wrong."""

LENGTH_SLACK = 0.2
"""How far the length of a quaternion or of a matrix's row may be from 1."""


class Limits(NamedTuple):
    """Smallest and largest value (n,) of a part as recorded."""

    low: np.ndarray
    high: np.ndarray
    entry: str
    """What in the table says so."""

    def far_outside(self, values: np.ndarray) -> np.ndarray:
        """(..., n) bool; never where a value is not finite."""
        slack = RANGE_SLACK * (self.high - self.low)
        outside = (values < self.low - slack) | (values > self.high + slack)
        return outside & np.isfinite(values)


def limits(part: Part) -> Limits | None:
    """The range of a part, or a gripper's open and closed; None where the table states neither."""
    if part.range is not None:
        ends, entry = np.array(part.range), "range"
    elif part.kind == "gripper":
        ends, entry = np.array([part.open, part.closed], np.float64), "open and closed"
    else:
        return None
    low, high = (np.broadcast_to(end, part.width) for end in (ends.min(axis=0), ends.max(axis=0)))
    return Limits(low, high, entry)


def no_rotation(part: Part, values: np.ndarray) -> np.ndarray:
    """(...,) bool of values (..., n) as recorded: which cannot be a rotation of the part's form;
    False for other parts, angles, zeros (nothing was measured) and what is not finite.

    Not how exact they are: a unit quaternion of small integers passes, millimetres do not.
    """
    form = str(part.form)
    found = np.zeros(values.shape[:-1], bool)
    if part.kind != "rotation" or part.width <= 3:
        return found
    if form.startswith("homogeneous"):
        square = values.reshape(*values.shape[:-1], 4, 4)
        last = square[..., :, 3] if form == "homogeneous_columns" else square[..., 3, :]
        found = np.abs(last - [0.0, 0.0, 0.0, 1.0]).max(axis=-1) > 1e-3
    else:
        vectors = {"rot6d": 3, "matrix": 3}.get(form, 4)
        rows = values.reshape(*values.shape[:-1], -1, vectors)
        found = (np.abs(np.linalg.norm(rows, axis=-1) - 1.0) > LENGTH_SLACK).any(axis=-1)
    present = (np.abs(values) > 0).any(axis=-1) & np.isfinite(values).all(axis=-1)
    return found & present


def check_values(part: Part, name: str, values: np.ndarray, where: str) -> None:
    """ValueError where a value lies far outside its range, or a gripper's between open and closed,
    or values are no rotation of their form.
    NaN and infinity are the episode's to find."""
    if (wrong := no_rotation(part, values)).any():
        step = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{where}: expected {name} {part.path!r} as {part.form}, got "
            f"{np.round(values[step], 3).tolist()} at step {step}, which is no rotation of that "
            f"form; correct path and form of {name}."
        )
    bounds = limits(part)
    if bounds is None or not (outside := bounds.far_outside(values)).any():
        return
    step, place = np.argwhere(outside)[0].tolist()
    raise ValueError(
        f"{where}: expected {name} {part.path!r} in [{bounds.low[place]:g}, "
        f"{bounds.high[place]:g}], got {values[step, place]:g} at step {step}; state "
        f"{bounds.entry} of {name} as they are."
    )
