"""The gripper of each episode by itself: sense, range, and whether it moves before it is told to.

Levels are compared, not changes: a command that holds while the fingers are where it wants them
correlates whatever the delay, so an action that stands a step late is not an inverted gripper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robotics.data.parts import Recording
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.inspection.findings import Finding
from robotics.inspection.groups import Origin, Place, common
from robotics.inspection.robust import mode

CLEAR = 0.5
"""Correlation of levels that decides an episode."""
SHORT = 0.75
"""Share of the episodes that must agree before the others are called different."""
BEFORE, AFTER = 4, 12
"""Steps around a switch of the command in which the fingers' first motion is looked for."""


@dataclass(frozen=True)
class Grip:
    """One gripper in one episode; 0 open, 1 closed by the table."""

    low: float
    high: float
    """Least and largest command, as stored."""
    measured_low: float
    measured_high: float
    correlation: float
    """Of the levels of command and measurement, at the best delay; NaN where one never changes."""
    first_command: float
    first_measured: float
    last_command: float
    onset: float
    """Median steps from a switch of the command to the first motion of the fingers; NaN without."""
    stuck: bool
    """The command switches and the measurement never moves."""


def pairs(robot: Robot) -> list[tuple[Part, Part | None]]:
    """The gripper commands of a table and what measures each."""
    return [(part, robot.commanded(part)) for part in robot.action if part.kind == "gripper"]


def fit(recording: Recording, action: Part, state: Part | None) -> Grip | None:
    """None where the episode has no such command."""
    stored = recording.parts.get(f"action.{action.name}")
    if stored is None or len(stored) < 4:
        return None
    command = closedness(stored, action)
    if action.mode == "pulse":
        command = carried(command * 2 - 1)
    measured = None if state is None else recording.parts.get(f"state.{state.name}")
    if measured is None or state is None:
        nan = float("nan")
        return Grip(float(stored.min()), float(stored.max()), nan, nan, nan, float(command[0]), nan,
                    float(command[-1]), nan, False)  # fmt: skip
    fingers = closedness(measured, state)
    best = 0.0
    for delay in range(0, min(AFTER, len(command) // 3) + 1):
        u, c = command[: len(command) - delay], fingers[delay:]
        if u.std() > 1e-6 and c.std() > 1e-6:
            found = float(np.corrcoef(u, c)[0, 1])
            best = found if abs(found) > abs(best) else best
    switches = np.flatnonzero(np.abs(np.diff(command)) > 0.5) + 1
    return Grip(
        float(stored.min()), float(stored.max()), float(measured.min()), float(measured.max()),
        best if best else float("nan"), float(command[0]), float(fingers[0]),
        float(command[-1]), _onset(switches, command, fingers),
        bool(len(switches) and np.ptp(fingers) < 1e-6),
    )  # fmt: skip


def closedness(values: np.ndarray, part: Part) -> np.ndarray:
    """(T, width) as stored -> (T,), 0 open and 1 closed; the mean of several fingers."""
    low, high = np.asarray(part.open, float), np.asarray(part.closed, float)
    return ((values - low) / (high - low)).mean(1)


def carried(pulses: np.ndarray) -> np.ndarray:
    """Pulses (T,), +1 close, -1 open, 0 keep -> the closedness (T,) they ask for."""
    moves = np.flatnonzero(np.abs(pulses) > 0.3)
    if not len(moves):
        return np.zeros(len(pulses))
    state = np.full(len(pulses), float(pulses[moves[0]] < 0))
    for at in moves:
        state[at:] = float(pulses[at] > 0)
    return state


def _onset(switches: np.ndarray, command: np.ndarray, fingers: np.ndarray) -> float:
    """Negative where the fingers move first; NaN without a switch that stands alone."""
    found = []
    for number, at in enumerate(switches):
        first = max(at - BEFORE, 0 if number == 0 else switches[number - 1] + BEFORE)
        last = min(at + AFTER, len(fingers) - 1)
        if first > at or (number + 1 < len(switches) and switches[number + 1] <= last):
            continue
        way = np.sign(command[at] - command[at - 1])
        moving = np.flatnonzero(np.diff(fingers[first : last + 1]) * way > 0.05)
        if len(moving):
            found.append(first + int(moving[0]) - int(at))
    return float(np.median(found)) if found else float("nan")


def findings(
    action: Part,
    state: Part | None,
    grips: Mapping[int, Grip],
    total: int,
    origins: Sequence[Origin],
    where: Place,
) -> list[Finding]:
    """Episodes whose gripper differs from the others'."""
    place = f"action.{action.name}"
    numbers = np.array(sorted(grips), int)
    if len(numbers) < 3:
        return []
    rows = [grips[number] for number in numbers]
    column = {name: np.array([getattr(row, name) for row in rows], float) for name in
              ("low", "high", "measured_low", "measured_high", "correlation", "onset",
               "first_command", "first_measured", "last_command")}  # fmt: skip
    found: list[tuple[str, str, str, np.ndarray]] = []
    found += _senses(column)
    found += _ranges(column, "low", "high", "commands", action)
    if state is not None:
        found += _ranges(column, "measured_low", "measured_high", "measurements", state)
    stuck = np.array([row.stuck for row in rows])
    if 0 < stuck.sum() < SHORT * len(rows):
        text = "the command opens or closes and the measured gripper never moves"
        found.append(("gripper.stuck", "Gripper measurement stuck", text, stuck))
    found += _leading(column)
    made = []
    for code, title, text, odd in found:
        chosen = numbers[odd].tolist()
        text = f"{place}: {text}"
        if group := common(chosen, origins):
            text += f"; {group}"
        made.append(Finding(
            "error" if len(chosen) > 0.02 * total and code != "gripper.both" else "warning",
            "gripper", f"{text}.",
            "Convert these episodes as the others are, or leave them out.", code=code,
            title=f"{title} in {len(chosen)} of {total} episodes",
            why="Grasping is where most failures come from: the policy closes when it should open.",
            line=where.delete(chosen), episodes=tuple(chosen),
            weight=len(chosen) / max(total, 1) + 1,
        ))  # fmt: skip
    return made


def _senses(column: Mapping[str, np.ndarray]) -> list[tuple[str, str, str, np.ndarray]]:
    """Command against measurement, and both against the episodes' usual beginning."""
    r = column["correlation"]
    agree, oppose = r > CLEAR, r < -CLEAR
    begin = {name: column[f"first_{name}"] > 0.5 for name in ("command", "measured")}
    found = []
    if agree.any() and oppose.any():
        # Of two habits the one whose command asks for what is measured is right.
        usual = begin["measured"][agree].mean() > 0.5
        measured = begin["measured"][oppose].mean() > 0.5
        part = "measurements" if measured != usual else "commands"
        text = (
            f"the {part} have the opposite sense: command and measurement agree in "
            f"{int(agree.sum())} episodes and oppose each other in {int(oppose.sum())}"
        )
        found.append(("gripper.inverted", "Gripper inverted", text, oppose))
    same = begin["command"] == begin["measured"]
    known = agree & same & np.isfinite(column["first_measured"])
    ends = column["last_command"] > 0.5
    # Who begins and ends closed, and opens between, while the others begin and end open: a task
    # that starts with something in the hand ends without it.
    back = known & (begin["measured"] == ends)
    if back.sum() >= 6:
        share = float(begin["measured"][back].mean())
        odd = back & (begin["measured"] == (share <= 0.5))
        rest = begin["measured"][known & ~back]
        alike = not len(rest) or (rest == (share > 0.5)).mean() > 0.9
        if odd.sum() > 0 and alike:
            text = (
                f"command and measurement begin and end {'closed' if share <= 0.5 else 'open'}, "
                f"those of {int((back & ~odd).sum())} others do not: both inverted?"
            )
            found.append(("gripper.both", "Gripper the other way round", text, odd))
    return found


def _ranges(
    column: Mapping[str, np.ndarray], low: str, high: str, what: str, part: Part
) -> list[tuple[str, str, str, np.ndarray]]:
    lows, highs = column[low], column[high]
    width = highs - lows
    usual, _ = mode(np.where(width > 1e-9, width, np.nan))
    if not usual > 0:
        return []
    bottom, _ = mode(lows)
    top, _ = mode(highs)
    # What the table allows is no other range: some episodes open and others only close.
    ends = np.concatenate([np.ravel(part.open), np.ravel(part.closed)])
    slack = 0.3 * max(usual, 1e-9)
    beyond = highs > max(top, ends.max()) + slack
    beyond |= lows < min(bottom, ends.min()) - slack
    narrow = (width > 1e-9) & (width < 0.2 * usual) & (part.mode != "pulse")
    found = []
    if 0 < beyond.sum() <= len(lows) / 2:
        text = f"the {what} reach beyond the usual {bottom:.3g} ... {top:.3g}"
        found.append(("gripper.range", f"Another range of gripper {what}", text, beyond))
    if 0 < narrow.sum() <= len(lows) / 2 and _tight(width[~narrow & (width > 1e-9)]):
        text = f"the {what} cover far less than the usual {bottom:.3g} ... {top:.3g}"
        found.append(("gripper.range", f"Another range of gripper {what}", text, narrow))
    return found


def _tight(widths: np.ndarray) -> bool:
    """Whether the episodes have one width, so that another one means something."""
    return bool(len(widths) >= 3 and np.ptp(widths) < 0.3 * np.median(widths))


def _leading(column: Mapping[str, np.ndarray]) -> list[tuple[str, str, str, np.ndarray]]:
    onset = column["onset"]
    known = np.isfinite(onset)
    if known.sum() < 3:
        return []
    usual, sigma = mode(onset)
    early = known & (onset < 0) & (onset < usual - max(1.0, 4 * sigma) + 1e-9)
    if usual < 0 or not 0 < early.sum() <= known.sum() / 2:
        return []
    text = f"the fingers move before they are told to; usually {usual:g} steps after"
    return [("gripper.late", "Gripper commands late", text, early)]
