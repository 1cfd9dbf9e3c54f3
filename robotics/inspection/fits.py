"""How well one reading of the commands explains the measured motion.

A reading predicts the motion p of each step; measured is m[t] = x[t+1+lag] - x[t+lag] (of rotations
the turn as a rotation vector). A gain g >= 0 is fitted, m = g p, by least squares, and a reading is
as good as the share of the measured motion it explains, 1 - |m - g p|^2 / |m|^2. Two readings are
compared by their squared residuals in blocks of `BLOCK` steps, so that noise within an episode does
not pass for evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LAGS = (-2, -1, 0, 1, 2, 3)
"""Negative: the motion is over before its command stands in the recording."""
OUTLYING = 20.0
"""Commands longer than this many medians are left out of the evidence."""
BLOCK = 10
EVIDENCE_STEPS = 8_000
"""Steps that are evaluated; more would change no verdict."""
FEW = 30
"""Steps below which the data do not decide."""
SURE, LIKELY = 4.0, 3.0
"""Standard errors by which another reading, and the stated one, must win."""
MARGIN = 0.1
"""Share of the residual that one of two readings must remove to be the better one: less may be the
way in which a reading measures its own noise."""
PLAIN = 5.0
"""Factor between the residuals of two readings above which half of these errors will do."""
EXPLAINS = 0.4
"""Share of the motion that must be explained before the data decide."""
AGREES, CONTRADICTS, UNCLEAR = "agrees", "contradicts", "cannot tell"

Rows = Sequence[np.ndarray]
"""One array (T, width) an episode."""


@dataclass(frozen=True)
class Reading:
    """One way to read a command (and the measured value)."""

    mode: str
    """"delta" (velocities alike, up to the gain) or "absolute"."""
    frame: str = "base"
    form: str = ""
    """Of the commanded rotation."""
    measured: str = ""
    """Of the measured rotation."""

    def __str__(self) -> str:
        words = [self.mode, f"{self.frame} frame" if self.mode == "delta" else "", self.form]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class Fit:
    """How well one reading explains what was measured."""

    reading: Reading
    explained: float
    """Share of the squared motion, at most 1."""
    gain: float
    lag: int
    """Steps between a command and the motion."""
    residual: float
    """Root mean square of what is left."""
    blocks: np.ndarray
    """Residuals squared, summed over blocks of steps, in shares of the whole motion."""
    lags: dict[int, float]
    """Share explained by every lag."""
    steps: int
    moved: float
    """Root mean square of the measured motion of a step."""


@dataclass(frozen=True)
class Verdict:
    """One question to the data and its answer."""

    topic: str
    question: str
    answer: str
    """`AGREES`, `CONTRADICTS` or `UNCLEAR`."""
    stated: str
    """By the table."""
    found: str
    """By the data; equal to `stated` unless they contradict."""
    numbers: str
    code: str = ""
    """Such as "frame"; `checks` explains each."""
    entries: tuple[tuple[str, object], ...] = ()
    """Entries of the table that a contradiction asks for: ("action.position.scale", 0.001)."""
    matters: bool = True
    """Whether an answer would change what a policy learns."""


Predict = Callable[[int, int], np.ndarray]
"""(episode, lag) -> (T, width) predicted motion of each step's command, NaN where there is none."""


def window(steps: int) -> slice:
    """Commands of an episode that are compared: the same ones for every lag."""
    return slice(-min(LAGS), max(steps - 1 - max(LAGS), -min(LAGS)))


def paired(predict: Predict, moved: Rows, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Predicted (n, width) and measured (n, width) motion of all episodes `lag` steps later, where
    both are known."""
    p, m = _every(predict, moved, lag)
    finite = np.isfinite(p).all(1) & np.isfinite(m).all(1)
    return p[finite], m[finite]


def _every(predict: Predict, moved: Rows, lag: int) -> tuple[np.ndarray, np.ndarray]:
    commands, motions = [], []
    for number, m in enumerate(moved):
        span = window(len(m) + 1)
        p = predict(number, lag)[span]
        commands.append(p)
        motions.append(m[span.start + lag : span.start + lag + len(p)])
    return np.concatenate(commands), np.concatenate(motions)


def fitted(
    reading: Reading, predict: Predict, moved: Rows, lags: Sequence[int] = LAGS
) -> Fit | None:
    """The best lag of a reading; None where there is too little motion to tell."""
    best, shares = None, {}
    for lag in sorted(lags, key=abs):
        p, m = _every(predict, moved, lag)
        finite = np.isfinite(np.concatenate([p, m], axis=1)).all(axis=1, keepdims=True)
        count = int(finite.sum())
        p, m = np.where(finite, p, 0.0), np.where(finite, m, 0.0)
        whole = float((m**2).sum())
        if count < FEW or whole < 1e-12 * count:
            return None
        square = float((p**2).sum())
        gain = max(float((p * m).sum()) / square, 0.0) if square > 1e-18 else 0.0
        left = ((m - gain * p) ** 2).sum(1)
        shares[lag] = explained = 1 - float(left.sum()) / whole
        if best is None or explained > best.explained + 1e-6:
            ends = np.arange(0, len(left), BLOCK)
            blocks = np.add.reduceat(left, ends) / whole
            residual, size = float(np.sqrt(left.sum() / count)), float(np.sqrt(whole / count))
            best = Fit(
                reading, explained, gain, lag, residual, blocks, shares, count, size
            )  # fmt: skip
    return best


def advantage(rival: Fit, fit: Fit) -> float:
    """Standard errors by which `rival` leaves less than `fit`; negative when it leaves more."""
    gained = fit.blocks - rival.blocks
    spread = float(np.sqrt((gained**2).sum()))
    return float(gained.sum()) / spread if spread > 1e-12 else 0.0


def answer(stated: Fit, rival: Fit) -> str:
    """Whether the data prefer the stated reading, the rival, or neither."""
    if max(stated.explained, rival.explained) < EXPLAINS:
        return UNCLEAR
    sure = advantage(rival, stated)
    left, other = 1 - stated.explained, 1 - rival.explained
    # A few large motions may decide, but not by chance, where one leaves several times as much.
    needed = SURE if other * PLAIN > left else SURE / 2
    if sure > needed and other < (1 - MARGIN) * left and rival.gain > 0:
        return CONTRADICTS
    needed = LIKELY if left * PLAIN > other else LIKELY / 2
    return AGREES if sure < -needed and left < (1 - MARGIN) * other else UNCLEAR


def sane(commands: Rows) -> list[np.ndarray]:
    """NaN in the place of commands that are outliers: one of 5 m would decide every fit."""
    sizes = [np.linalg.norm(values, axis=1) for values in commands]
    sizes_all = np.concatenate(sizes) if sizes else np.zeros(0)
    moving = sizes_all[sizes_all > 0]
    limit = OUTLYING * np.median(moving) if len(moving) else np.inf
    return [
        np.where((size > limit)[:, None], np.nan, values)
        for values, size in zip(commands, sizes, strict=True)
    ]


def correlation(p: np.ndarray, m: np.ndarray) -> float:
    """Of two vectors; 0 where one is constant."""
    if len(p) < FEW or p.std() < 1e-9 or m.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(p, m)[0, 1])
