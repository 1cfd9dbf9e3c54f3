"""Does a closing command close the measured gripper, when, and what do the values mean?

The command and the measurement are compared as closedness under the table's ends, at every lag from
a measurement that is `-min(LAGS)` steps ahead to one that is `max(LAGS)` behind: the sign at the
lag where they are most alike tells the senses apart, the lag whether the command leads. If both
senses were inverted they would still agree; that shows only in weaker evidence: episodes usually
begin with an open gripper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.inspection.fits import AGREES, CONTRADICTS, UNCLEAR, Verdict, correlation
from robotics.inspection.scan import Track

LAGS = (-3, -2, -1, 0, 1, 2, 3, 4, 6, 8)
CLEAR = 0.3
"""Correlation below which it decides nothing."""
BETTER = 0.02
"""By which a lag further from 0 must be more alike."""
SLACK = 0.1
"""How far, in widths of the range, values may lie outside it."""
BEGINS = 0.8
"""Share of the episodes that begin closed above which the senses are doubted."""


@dataclass(frozen=True)
class Grip:
    """Evidence about one gripper, under the table's ends."""

    part: str
    mode: str
    """As the table says, "pulse" or another."""
    steps: int
    levels: tuple[float, ...]
    """Values of the command, where they are few; else empty."""
    inside: float
    """Share of commands between the ends."""
    range: tuple[float, float]
    """Smallest and largest command (of its first value)."""
    state_range: tuple[float, float] | None
    outside: float
    """Widths of the stated range by which commands go beyond it."""
    state_outside: float
    alike: dict[int, float]
    """Lag in steps -> correlation of the command with the closedness that many steps later."""
    as_absolute: float
    """Largest correlation in size when commands are taken as positions."""
    as_pulse: float
    """The same when 0 keeps the command before."""
    equal: float
    """Share of steps at which command and measurement differ by less than 2% of the range."""
    begin_closed: float | None
    """Share of episodes that begin in the closed half of the measured range."""
    command_closed: float
    """Share of episodes whose first command closes."""
    switches: int

    @property
    def best(self) -> tuple[int, float]:
        """The lag at which they are most alike, in size, and the correlation there."""
        found = (0, self.alike.get(0, 0.0))
        for lag in sorted(self.alike, key=abs):
            if abs(self.alike[lag]) > abs(found[1]) + BETTER:
                found = lag, self.alike[lag]
        return found


def evidence(tracks: Sequence[Track], robot: Robot) -> list[Grip]:
    """Of every gripper that is commanded."""
    parts = [part for part in robot.action if part.kind == "gripper"]
    rows = [_evidence(tracks, part, robot.commanded(part)) for part in parts]
    return [row for row in rows if row is not None]


def closedness(values: np.ndarray, part: Part) -> np.ndarray:
    """(T, width) as stored -> (T,), 0 open and 1 closed where the table's ends hold."""
    opened, closed = (np.broadcast_to(end, values.shape[1:]) for end in (part.open, part.closed))
    return ((values - opened) / (closed - opened)).mean(1)


def carried(command: np.ndarray) -> np.ndarray:
    """(T,) in [-1, 1]: the last command that was not 0; before the first one its opposite."""
    moves = np.abs(command) > 0.3
    if not moves.any():
        return np.full(len(command), -1.0)
    last = np.maximum.accumulate(np.where(moves, np.arange(len(command)), -1))
    before = -np.sign(command[np.argmax(moves)])
    return np.where(last >= 0, np.sign(command[np.maximum(last, 0)]), before)


def _evidence(tracks: Sequence[Track], part: Part, state: Part | None) -> Grip | None:
    commands, measured, raw, raw_state = [], [], [], []
    for track in tracks:
        values = track.values(part.path)
        shown = None if state is None else track.values(state.path)
        if values is None or values.shape[1] != part.width or not np.isfinite(values).all():
            continue
        good = shown is not None and state is not None and shown.shape[1] == state.width
        shown = shown if good and shown is not None and np.isfinite(shown).all() else None
        commands.append(closedness(values, part) * 2 - 1)
        measured.append(closedness(shown, state) if shown is not None and state else None)
        raw.append(values)
        raw_state += [shown] if shown is not None else []
    if not commands:
        return None
    pairs = [(u, g) for u, g in zip(commands, measured, strict=True) if g is not None]
    pulses = [(carried(u), g) for u, g in pairs]
    absolute, pulse = _alike(pairs), _alike(pulses)
    values = np.concatenate(raw)[:, 0]
    u, every = np.concatenate(commands), np.concatenate(raw)
    distinct = np.unique(values)
    shown = np.concatenate(raw_state) if raw_state else None
    begin = [float(g[0] > 0.5) for _, g in pairs]
    alike = pulse if part.mode == "pulse" else absolute
    same = [np.abs((u + 1) / 2 - g) < 0.02 for u, g in pairs]
    return Grip(
        part.name, part.mode or "", len(u),
        tuple(distinct.tolist()) if len(distinct) <= 4 else (),
        float((np.abs(u) < 0.9).mean()),
        (float(values.min()), float(values.max())),
        None if shown is None else (float(shown[:, 0].min()), float(shown[:, 0].max())),
        _beyond(every, part),
        0.0 if shown is None or state is None else _beyond(shown, state),
        alike, _largest(absolute), _largest(pulse),
        float(np.concatenate(same).mean()) if same else 0.0,
        float(np.mean(begin)) if begin else None,
        float(np.mean([row[0] > 0 for row in commands])),
        int(sum((np.diff(np.sign(carried(row))) != 0).sum() for row in commands)),
    )  # fmt: skip


def _alike(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[int, float]:
    found = {}
    for lag in LAGS:
        u, g = [], []
        for command, shown in pairs:
            first, last = max(0, -lag), min(len(command), len(command) - lag)
            if last > first:
                u.append(command[first:last])
                g.append(shown[first + lag : last + lag])
        if u and (value := correlation(np.concatenate(u), np.concatenate(g))):
            found[lag] = value
    return found


def _largest(alike: dict[int, float]) -> float:
    return max(map(abs, alike.values()), default=0.0)


def _beyond(values: np.ndarray, part: Part) -> float:
    ends = np.stack([np.broadcast_to(end, part.width) for end in (part.open, part.closed)])
    low, high = ends.min(0), ends.max(0)
    over = np.maximum(low - values.min(0), values.max(0) - high) / (high - low)
    return float(max(over.max(), 0.0))


# ---------------------------------------------------------------- verdicts


def verdicts(grip: Grip, robot: Robot) -> list[Verdict]:
    """What the data say of the gripper's sense, kind of command and range."""
    part = next(row for row in robot.action if row.name == grip.part)
    state = robot.commanded(part)
    found = [_sense(grip, part, state)]
    if grip.levels and len(grip.levels) > 1:
        found.append(_kind(grip, part))
    for group, row, outside, seen in (
        ("action", part, grip.outside, grip.range),
        ("state", state, grip.state_outside, grip.state_range),
    ):
        if row is not None and seen is not None:
            found.append(_range(group, row, outside, seen))
    return found


def _sense(grip: Grip, part: Part, state: Part | None) -> Verdict:
    lag, value = grip.best
    place = f"action.{grip.part}"
    if not grip.alike or state is None:
        text = (
            "no measured gripper, or one that never moves; the first command closes in "
            f"{grip.command_closed:.0%} of the episodes"
        )
        return Verdict(place, "sense of the gripper", UNCLEAR, "as in the table", "as in the table",
                       text, "gripper.sense", matters=False)  # fmt: skip
    answer = UNCLEAR if abs(value) < CLEAR else AGREES if value > 0 else CONTRADICTS
    when = (
        "at the same step" if lag == 0 else f"{abs(lag)} steps {'later' if lag > 0 else 'before'}"
    )
    numbers = (
        f"the closing command and the measured closedness {when} correlate {value:+.2f} over "
        f"{grip.steps} steps with {grip.switches} switches; {grip.begin_closed:.0%} of the "
        "episodes begin closed"
    )
    entries: tuple[tuple[str, object], ...] = ()
    if answer == CONTRADICTS:
        group, row = ("action", part)
        if (grip.begin_closed or 0.0) > 0.5:  # grippers begin open
            group, row = "state", state
        entries = (
            (f"{group}.{row.name}.open", _plain(row.closed)),
            (f"{group}.{row.name}.closed", _plain(row.open)),
        )
    return Verdict(
        place, "sense of the gripper", answer, "as in the table",
        "the other way round" if answer == CONTRADICTS else "as in the table",
        numbers, "gripper.sense", entries,
    )  # fmt: skip


def _plain(value: float | tuple[float, ...]) -> object:
    return list(value) if isinstance(value, tuple) else value


def _kind(grip: Grip, part: Part) -> Verdict:
    stated = "pulse" if part.mode == "pulse" else "absolute"
    found, answer = stated, UNCLEAR
    if max(grip.as_absolute, grip.as_pulse) >= CLEAR:
        better = grip.as_pulse - grip.as_absolute
        if abs(better) > 0.1:
            found = "pulse" if better > 0 else "absolute"
            answer = AGREES if found == stated else CONTRADICTS
        else:  # +1 while closing and -1 while opening is both
            answer = AGREES
    numbers = (
        f"values {', '.join(f'{value:g}' for value in grip.levels)}; alike to "
        f"{grip.as_absolute:.2f} taken as positions, {grip.as_pulse:.2f} taken as switches"
    )
    entries = ((f"action.{part.name}.mode", found),) if answer == CONTRADICTS else ()
    return Verdict(
        f"action.{part.name}", "position or switch", answer, stated, found, numbers,
        "gripper.mode", entries,
    )  # fmt: skip


def _range(group: str, part: Part, outside: float, seen: tuple[float, float]) -> Verdict:
    ends = [float(np.ravel(end)[0]) for end in (part.open, part.closed)]
    stated = f"{min(ends):g} to {max(ends):g}"
    width = max(ends) - min(ends)
    numbers = f"values from {seen[0]:.4g} to {seen[1]:.4g}"
    answer, entries, found = AGREES, (), stated
    covers = (min(seen[1], max(ends)) - max(seen[0], min(ends))) / width
    if outside > SLACK or covers < 0.6:
        low, high = rounded_range(*seen)
        if outside > SLACK and part.width == 1:
            answer, found = CONTRADICTS, f"{low:g} to {high:g}"
            turned = part.open > part.closed  # pyright: ignore
            entries = (
                (f"{group}.{part.name}.open", high if turned else low),
                (f"{group}.{part.name}.closed", low if turned else high),
            )
        else:
            answer = CONTRADICTS if outside > SLACK else UNCLEAR
    return Verdict(
        f"{group}.{part.name}", "ends of the gripper", answer, stated, found, numbers,
        "gripper.range", entries, matters=answer == CONTRADICTS,
    )  # fmt: skip


def rounded_range(low: float, high: float) -> tuple[float, float]:
    """Ends that a gripper's values suggest."""
    for bounds in ((0.0, 1.0), (-1.0, 1.0), (0.0, 100.0)):
        slack = 0.12 * (bounds[1] - bounds[0])
        if bounds[0] - slack <= low <= bounds[0] + 2 * slack \
                and bounds[1] - 3 * slack <= high <= bounds[1] + slack:  # fmt: skip
            return bounds
    if high - low < 1e-9:
        return low, low + 1.0
    digits = max(0, 2 - int(np.floor(np.log10(high - low))))
    return round(low, digits), round(high, digits)
