"""Does a closing command close the measured gripper?

Both senses come from the specification, so command and measurement are compared: what follows each
switch of the command, and the correlation of the command with the change of the measured closedness
over the next steps. If both were inverted they would still agree; whether both are right shows only
in weaker evidence: episodes usually begin with an open gripper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robotics.data.rlds.spec import DatasetSpec, Pose
from robotics.inspection.motion import AGREES, CONTRADICTS, UNCLEAR, Verdict
from robotics.inspection.scan import Track

LAGS = (1, 2, 3)
"""Short ones: over longer times a grasp and its release fall together."""
AHEAD = 15
"""Steps after a switch within which the gripper must follow."""
CLEAR = 0.2
"""Correlation below which it decides nothing."""
SWITCHES, UNITED = 10, 0.8
"""Switches that were answered, and the share of one direction, that decide by themselves."""
FEW = 20


@dataclass(frozen=True)
class Grip:
    """Evidence about the gripper, under the specification's senses."""

    pairs: int
    """Steps compared."""
    correlations: dict[int, float]
    """Lag in steps -> correlation of the command with the change of closedness over them."""
    switches: int
    """Times the command moved to the other half of its range."""
    followed: int
    """Of them, those the measurement followed within `AHEAD` steps."""
    opposed: int
    """Those it went against."""
    begin_closed: float | None
    """Share of episodes that begin in the closed half of the measured range."""
    command_closed: float
    """Share of episodes whose first command closes."""
    values: np.ndarray
    """Measured closedness, for the histogram."""

    @property
    def best(self) -> tuple[int, float]:
        """The lag whose correlation is largest in size, and that."""
        lag = max(self.correlations, key=lambda lag: abs(self.correlations[lag]), default=1)
        return lag, self.correlations.get(lag, 0.0)


def evidence(tracks: Sequence[Track], spec: DatasetSpec) -> Grip | None:
    """None without gripper commands."""
    rows = [track.parts for track in tracks if "action.gripper" in track.parts]
    if not rows:
        return None
    commands = [_unit(part["action.gripper"], spec.action) * 2 - 1 for part in rows]
    measured = [
        _unit(part["proprio.gripper"], spec.proprio) if "proprio.gripper" in part else None
        for part in rows
    ]
    together = [(u, g) for u, g in zip(commands, measured, strict=True) if g is not None]
    correlations = {}
    for lag in LAGS:
        pairs = [(u[: len(u) - lag], g[lag:] - g[:-lag]) for u, g in together if len(u) > lag]
        if pairs:
            u, change = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
            if len(u) >= FEW and u.std() > 1e-6 and change.std() > 1e-6:
                correlations[lag] = float(np.corrcoef(u, change)[0, 1])
    moves = [_switches(u, g) for u, g in together]
    begin = [float(g[0] > 0.5) for _, g in together]
    return Grip(
        pairs=sum(len(u) for u, _ in together),
        correlations=correlations,
        switches=sum(len(row) for row in moves),
        followed=sum(int((row > 0).sum()) for row in moves),
        opposed=sum(int((row < 0).sum()) for row in moves),
        begin_closed=float(np.mean(begin)) if begin else None,
        command_closed=float(np.mean([u[0] > 0 for u in commands])),
        values=np.concatenate([g for _, g in together]) if together else np.zeros(0),
    )


def _unit(values: np.ndarray, pose: Pose) -> np.ndarray:
    """(T, 1) as stored -> (T,) closedness, 0 open and 1 closed where the range holds."""
    low, high = pose.gripper_range
    share = (values[:, 0] - low) / (high - low)
    return share if pose.gripper_closes == "positive" else 1 - share


def _switches(u: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Signs (n,): +1 where the measurement moved as a switch of the command asked, -1 against it,
    0 where it stayed."""
    side = np.sign(np.where(np.abs(u) < 0.2, 0, u))
    signs = []
    last = side[0]
    for t in range(1, len(u)):
        if side[t] in (0, last):
            continue
        last = side[t]
        ahead = min(t + AHEAD, len(g) - 1)
        same = np.flatnonzero(side[t : ahead + 1] == -side[t])  # until it switches back
        ahead = min(ahead, t + int(same[0])) if len(same) else ahead
        move = g[ahead] - g[t]
        signs.append(0.0 if abs(move) < 0.02 else np.sign(move) * side[t])
    return np.array(signs)


def verdict(grip: Grip) -> Verdict:
    """Whether the senses of command and measurement fit each other."""
    lag, correlation = grip.best
    moved = grip.followed + grip.opposed
    if moved >= SWITCHES:
        agrees, contradicts = (n >= UNITED * moved for n in (grip.followed, grip.opposed))
    else:
        agrees = correlation > CLEAR and grip.followed >= grip.opposed
        contradicts = correlation < -CLEAR and grip.opposed >= grip.followed
    answer = AGREES if agrees else CONTRADICTS if contradicts else UNCLEAR
    begins = "" if grip.begin_closed is None else f", {grip.begin_closed:.0%} begin closed"
    numbers = (
        f"correlation of the closing command with the change of closedness {correlation:+.2f} over "
        f"{lag} step{'s' * (lag > 1)}, {grip.pairs} steps; of {grip.switches} switches of the "
        f"command the gripper followed {grip.followed}, went against {grip.opposed}, "
        f"stayed at {grip.switches - moved}{begins}"
    )
    if not grip.correlations:
        numbers = (
            "no measured gripper, or one that never moves; the first command closes in "
            f"{grip.command_closed:.0%} of the episodes"
        )
    return Verdict(
        "gripper",
        "sense of the gripper",
        answer,
        "as specified",
        "the other way round" if answer == CONTRADICTS else "as specified",
        numbers,
    )


def inverted_part(grip: Grip) -> str:
    """Which of "action" and "proprio" to invert when they contradict: grippers begin open."""
    return "proprio" if (grip.begin_closed or 0.0) > 0.5 else "action"
