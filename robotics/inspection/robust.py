"""What most episodes have, and how far the others are from it: statistics that half of the values
cannot spoil."""

from __future__ import annotations

import numpy as np

MAJORITY = 0.4
"""Share of the values in the shortest interval: with two habits of equal size it lies in one."""
_TO_SIGMA = 0.35
"""Half the width of the shortest interval that holds `MAJORITY` of a few dozen normal values, in
standard deviations; at 12 values and above it is no smaller than about this."""


def mode(values: np.ndarray, near: float | None = None) -> tuple[float, float]:
    """Centre and standard deviation of what most values have.

    The shortest interval with a share of `MAJORITY` (the shorth). Unlike a median it lies within
    one of two groups of equal size.

    Args:
        values: (n,), NaN are left out.
        near: of intervals that are about as short, the one nearest to this value.

    Returns:
        NaN for both without values.
    """
    rows = np.sort(values[np.isfinite(values)])
    if not len(rows):
        return float("nan"), float("nan")
    count = min(max(int(np.ceil(MAJORITY * len(rows))), 2), len(rows))
    widths = rows[count - 1 :] - rows[: len(rows) - count + 1]
    middles = (rows[count - 1 :] + rows[: len(rows) - count + 1]) / 2
    best = int(np.argmin(widths))
    if near is not None:
        # A tie is decided by what the specification says, not by chance.
        alike = np.flatnonzero(widths <= 3 * widths[best] + 0.02)
        best = int(alike[np.argmin(np.abs(middles[alike] - near))])
    inside = rows[best : best + count]
    return float(np.median(inside)), float(widths[best] / 2 / _TO_SIGMA)


def far(
    values: np.ndarray, least: float, sigmas: float = 6.0, near: float | None = None
) -> np.ndarray:
    """(n,) bool: further from most others than `least` and than `sigmas` standard deviations."""
    centre, sigma = mode(values, near)
    with np.errstate(invalid="ignore"):
        return np.abs(values - centre) > max(least, sigmas * sigma)


def deviations(values: np.ndarray, floor: float) -> np.ndarray:
    """(n,) distances from the median in robust standard deviations, at least `floor` each; 0 for
    NaN."""
    known = values[np.isfinite(values)]
    if len(known) < 5:
        return np.zeros(len(values))
    centre = np.median(known)
    sigma = max(1.4826 * float(np.median(np.abs(known - centre))), floor)
    return np.nan_to_num((values - centre) / sigma)


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Stretches of True: (first, one past the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
