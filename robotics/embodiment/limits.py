"""Whether recorded or measured values can be those of a part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from robotics.embodiment.parts import Part

RANGE_SLACK = 0.5
"""How far values may lie outside their stated range, in widths of it. Real grippers overrun it a
little; more means that the range is wrong."""


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
