"""What is known of how the commands of one action part move what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from robotics.embodiment.parts import Part
from robotics.inspection.fits import EVIDENCE_STEPS, EXPLAINS, FEW, Fit, Reading, Rows
from robotics.inspection.scan import Track


@dataclass(frozen=True)
class Motion:
    """Evidence about one action part."""

    part: str
    kind: str
    """Out of `robotics.embodiment.parts.KINDS`."""
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


def stated_fit(fits: Sequence[Fit], reading: Reading) -> Fit | None:
    return next((fit for fit in fits if fit.reading == reading), None)


def late(motion: Motion, lag: int) -> bool:
    """Whether another lag than `lag` clearly explains more."""
    best = motion.best
    if best.lag == lag or not motion.decided or lag not in best.lags:
        return False
    return (1 - best.explained) < 0.6 * (1 - best.lags[lag])
