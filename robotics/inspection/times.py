"""Time within each episode: dropped frames, time stamps, flags, idle stretches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from robotics.data.parts import Recording, idle, speeds
from robotics.embodiment.robot import Robot
from robotics.inspection.findings import Finding, listed
from robotics.inspection.groups import Origin, Place, common
from robotics.inspection.readings import LAGS, REACH, STATED, Pair, ways_of
from robotics.inspection.robust import mode, runs

SHOWN = 6
JUMPING = 8.0
"""Times the usual distance of measured from commanded motion that a jump must be."""
STUCK = 6
"""Steps in which a measurement must stay exactly while it is commanded to move."""
IDLE_SECONDS = 3.0
IDLE_SHARE = 0.2


@dataclass(frozen=True)
class Times:
    """One episode in time."""

    steps: int
    jumps: list[int]
    """Steps after which the robot is further than one command takes it."""
    stuck: list[tuple[int, int]]
    """Stretches in which the measured pose stays exactly the same while commanded to move."""
    idle: int
    """Idle steps."""
    longest_idle: tuple[int, int]
    idle_ends: tuple[int, int]
    """Idle steps at the beginning and at the end."""
    interval: Mapping[str, float]
    """Time stamp -> median interval, as stored."""
    gaps: Mapping[str, list[int]]
    """Time stamp -> steps after which more than 1.8 intervals pass, or the time goes back."""
    backwards: bool
    wrong_flags: bool
    """is_first or is_last is not at the first or last step alone."""
    never_ends: bool
    empty: bool
    """No instruction says anything."""
    damaged: Mapping[str, int] = field(default_factory=dict)


def fit(recording: Recording, robot: Robot, pairs: Sequence[Pair]) -> Times:
    """Look at one episode."""
    still = idle(recording.parts, robot)
    stretches = runs(still)
    ends = (
        stretches[0][1] if stretches and stretches[0][0] == 0 else 0,
        stretches[-1][1] - stretches[-1][0] if stretches and still[-1] else 0,
    )
    jumps, stuck = _jumps(recording, robot, pairs)
    gaps, intervals, backwards = {}, {}, False
    for key, stamps in recording.stamps.items():
        passed = np.diff(stamps)
        usual = float(np.median(passed)) if len(passed) else 0.0
        if usual > 0:
            intervals[key] = usual
            odd = np.flatnonzero((passed > 1.8 * usual) | (passed <= 0))
            gaps[key] = odd.tolist()
            backwards |= bool((passed < 0).any())
    flags = recording.flags
    last = recording.steps - 1
    wrong = any(
        key in flags and not np.array_equal(np.flatnonzero(flags[key]), [at])
        for key, at in (("is_first", 0), ("is_last", last))
    )
    never = "terminate" in flags and not flags["terminate"].any()
    return Times(
        recording.steps, jumps, stuck, int(still.sum()),
        max(stretches, key=lambda row: row[1] - row[0], default=(0, 0)), ends, intervals, gaps,
        backwards, wrong, never, bool(recording.texts) and not any(recording.texts),
        dict(recording.damaged),
    )  # fmt: skip


def _jumps(
    recording: Recording, robot: Robot, pairs: Sequence[Pair]
) -> tuple[list[int], list[tuple[int, int]]]:
    jumps: set[int] = set()
    stuck: list[tuple[int, int]] = []
    compared: set[str] = set()
    for pair in pairs:
        way = ways_of(recording, pair, stated_only=True)
        if way is None:
            continue
        moved, commanded = way[STATED]
        axes = np.ptp(moved, axis=0) > 1e-9  # the others are dead, which is another finding
        axes &= np.ptp(commanded(0), axis=0) > 1e-9
        if not axes.any():
            continue
        moved, asked, share = _expected(moved[:, axes], commanded, axes)
        if share < 0.5:
            continue
        compared.add(pair.state.name)
        left = np.linalg.norm(moved - asked, axis=1)
        sizes, wanted = np.linalg.norm(moved, axis=1), np.linalg.norm(asked, axis=1)
        moving = wanted > 0.05 * np.quantile(wanted, 0.9)
        step = float(np.median(wanted[moving])) if moving.any() else np.inf
        usual = max(float(np.median(left[moving])) if moving.any() else 0.0, 1e-3 * step)
        far = (left > JUMPING * usual) & (left > 0.4 * step) & (sizes > 1.6 * wanted)
        jumps |= set((np.flatnonzero(far) + REACH).tolist())
        for first, last in runs(sizes < 1e-9):
            if last - first >= STUCK and wanted[first:last].sum() > 4 * step:
                stuck.append((first + REACH, last + REACH))
    for name, sizes in speeds(recording.parts, robot).items():
        if name not in compared and len(sizes) > 12:
            # Without commands to compare with, a jump is far larger than all steps around it.
            padded = np.pad(sizes, 4, mode="edge")
            around = np.stack([np.roll(padded, k)[4:-4] for k in (-4, -3, -2, 2, 3, 4)]).max(0)
            limit = np.maximum(8 * around, 4 * np.quantile(sizes, 0.9))
            jumps |= set(np.flatnonzero(sizes > np.maximum(limit, 1e-6)).tolist())
    return sorted(jumps), stuck


def _expected(
    moved: np.ndarray, commanded: Callable[[int], np.ndarray], axes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """`moved`; the motion that the commands around each step and the motion before it let expect;
    and how much of the usual motion that explains.

    Jumps must not spoil the fit, and a robot that is slow to react does not jump.
    """
    sizes = np.linalg.norm(moved, axis=1)
    usual = sizes <= 3 * np.quantile(sizes, 0.75)
    before = np.concatenate([moved[:1], moved[:-1]])
    inputs = np.stack([*(commanded(lag)[:, axes] for lag in LAGS), before], axis=2)
    flat = inputs[usual].reshape(-1, inputs.shape[2])
    # A little ridge: neighbouring commands are nearly alike.
    ridge = 1e-4 * np.trace(flat.T @ flat) / flat.shape[1] * np.eye(flat.shape[1])
    weights = np.linalg.solve(flat.T @ flat + ridge + 1e-18 * np.eye(len(ridge)),
                              flat.T @ moved[usual].ravel())  # fmt: skip
    expected = inputs @ weights
    left = float(((moved - expected)[usual] ** 2).sum())
    return moved, expected, 1 - left / max(float((moved[usual] ** 2).sum()), 1e-18)


# ---------------------------------------------------------------- findings


def findings(
    times: Mapping[int, Times],
    rate: float,
    total: int,
    origins: Sequence[Origin],
    where: Place,
) -> list[Finding]:
    """Episodes whose time is not in order."""
    found = [
        _damaged(times, total, origins, where),
        _dropped(times, total, origins, where),
        _stuck(times, total, origins, where),
        *_stamps(times, total, origins, where),
        _flags(times, total, origins, where),
        _empty(times, total, origins, where),
        _idle(times, rate, total, origins, where),
    ]
    return [row for row in found if row is not None]


def _finding(
    severity: str,
    code: str,
    title: str,
    text: str,
    why: str,
    chosen: Sequence[int],
    total: int,
    origins: Sequence[Origin],
    line: str,
    remedy: str = "Leave these episodes out.",
    weight: float = 0.0,
) -> Finding:
    if group := common(chosen, origins):
        text += f"; {group}"
    return Finding(
        severity, code.partition(".")[0], f"{text}.", remedy, code=code,
        title=f"{title} in {len(chosen)} of {total} episodes", why=why, line=line,
        episodes=tuple(chosen), weight=len(chosen) / max(total, 1) + weight,
    )  # fmt: skip


def _damaged(
    times: Mapping[int, Times], total: int, origins: Sequence[Origin], where: Place
) -> Finding | None:
    chosen = [number for number, row in times.items() if row.damaged]
    if not chosen:
        return None
    places = [
        f"episode {number}, step {step}: {key}"
        for number in chosen[:SHOWN]
        for key, step in list(times[number].damaged.items())[:2]
    ]
    text = f"NaN or infinity: {'; '.join(places)}"
    why = "One such value in a batch ends a training, or leaves the episode out."
    return _finding("error", "records.nan", "Values that are no numbers", text, why, chosen, total,
                    origins, where.delete(chosen), weight=8)  # fmt: skip


def _dropped(
    times: Mapping[int, Times], total: int, origins: Sequence[Origin], where: Place
) -> Finding | None:
    chosen = [number for number, row in times.items() if row.jumps]
    chosen.sort(key=lambda number: -len(times[number].jumps))
    if not chosen:
        return None
    places = [
        f"episode {number} after step {', '.join(map(str, times[number].jumps[:3]))}"
        for number in chosen[:SHOWN]
    ]
    more = f" and {len(chosen) - SHOWN} more episodes" if len(chosen) > SHOWN else ""
    text = f"the robot is further than one command takes it: {'; '.join(places)}{more}"
    usual = len(chosen) > 0.5 * len(times)
    return _finding(
        "info" if usual else "warning", "episodes.dropped", "Dropped frames or jumps", text,
        "The action of such a step does not lead to the next picture.", chosen, total, origins,
        where.delete(chosen),
    )  # fmt: skip


def _stuck(
    times: Mapping[int, Times], total: int, origins: Sequence[Origin], where: Place
) -> Finding | None:
    chosen = [number for number, row in times.items() if row.stuck]
    if not chosen or len(chosen) > 0.5 * len(times):
        return None
    places = [
        f"episode {number}, steps {first} to {last}"
        for number in chosen[:SHOWN]
        for first, last in times[number].stuck[:1]
    ]
    text = f"the measurement repeats while motion is commanded: {'; '.join(places)}"
    why = "The state is stale: a policy learns to move from a place where the robot no longer is."
    return _finding("warning", "episodes.stuck", "Frozen measurement", text, why, chosen, total,
                    origins, where.delete(chosen))  # fmt: skip


def _stamps(
    times: Mapping[int, Times], total: int, origins: Sequence[Origin], where: Place
) -> list[Finding]:
    found = []
    back = [number for number, row in times.items() if row.backwards]
    if back:
        found.append(_finding(
            "error", "episodes.order", "Time goes back",
            f"time stamps decrease within episodes {listed(back)}: steps are out of order",
            "Steps out of order teach motions that never happened.", back, total, origins,
            where.delete(back), weight=1,
        ))  # fmt: skip
    keys = {key for row in times.values() for key in row.interval}
    gaps = [number for number, row in times.items() if any(row.gaps.values()) and not row.backwards]
    if gaps and len(gaps) <= 0.5 * len(times):
        places = [f"{number} after step {next(filter(None, times[number].gaps.values()))[0]}"
                  for number in gaps[:SHOWN]]  # fmt: skip
        found.append(_finding(
            "warning", "episodes.gaps", "Gaps of time",
            f"more than 1.8 intervals pass between two steps: episodes {'; '.join(places)}",
            "The action of such a step does not lead to the next picture.", gaps, total, origins,
            where.delete(gaps),
        ))  # fmt: skip
    for key in sorted(keys):
        numbers = [number for number, row in times.items() if key in row.interval]
        values = np.log([times[number].interval[key] for number in numbers])
        centre, sigma = mode(values)
        odd = np.abs(values - centre) > max(0.15, 6 * sigma)
        chosen = [number for number, flag in zip(numbers, odd, strict=True) if flag]
        if chosen:
            ratio = float(np.exp(np.median(values[odd]) - centre))
            found.append(_finding(
                "error", "episodes.rate", "Another rate",
                f"{key}: a step takes {ratio:.2g} times as long in episodes {listed(chosen)}",
                "The same action is faster or slower there.", chosen, total, origins,
                where.delete(chosen), weight=1,
            ))  # fmt: skip
            break
    return found


def _flags(
    times: Mapping[int, Times], total: int, origins: Sequence[Origin], where: Place
) -> Finding | None:
    chosen = [number for number, row in times.items() if row.wrong_flags]
    never = [number for number, row in times.items() if row.never_ends]
    if len(never) <= 0.5 * len(times):
        chosen = sorted({*chosen, *never})
    if not chosen or len(chosen) > 0.5 * len(times):
        return None
    text = f"is_first, is_last or the end of the task mark other steps in {listed(chosen)}"
    return _finding(
        "warning", "ends.flags", "Cut off, joined or reordered steps", text,
        "A policy does not learn to finish from episodes that stop halfway.", chosen, total,
        origins, where.delete(chosen),
    )  # fmt: skip


def _empty(
    times: Mapping[int, Times], total: int, origins: Sequence[Origin], where: Place
) -> Finding | None:
    chosen = [number for number, row in times.items() if row.empty]
    if not chosen or len(chosen) == len(times):
        return None
    text = f"nothing is said in episodes {listed(chosen)}"
    return _finding(
        "warning", "instructions.empty", "Empty instructions", text,
        "The policy cannot know which task it sees.", chosen, total, origins,
        where.edit(f'--relabel {where.named(chosen)} "WHAT IS DONE"', reads=True),
        "Write what is done, or leave them out.",
    )  # fmt: skip


def _idle(
    times: Mapping[int, Times], rate: float, total: int, origins: Sequence[Origin], where: Place
) -> Finding | None:
    lengths = {number: int(np.ptp(row.longest_idle)) for number, row in times.items()}
    usual = float(np.median(list(lengths.values())))
    chosen = [
        number
        for number, length in lengths.items()
        if length > max(IDLE_SECONDS * rate, IDLE_SHARE * times[number].steps)
        and (length > 3 * usual or usual > IDLE_SECONDS * rate)
    ]
    if not chosen:
        return None
    chosen.sort(key=lambda number: -lengths[number])
    places = [f"{number}, steps {times[number].longest_idle[0]} to {times[number].longest_idle[1]}"
              for number in chosen[:SHOWN]]  # fmt: skip
    text = f"nothing moves and nothing is commanded: episode {'; '.join(places)}"
    if len(chosen) > SHOWN:
        text += f" and {len(chosen) - SHOWN} more"
    at_ends = sum(sum(times[number].idle_ends) for number in chosen)
    inside = sum(times[number].idle for number in chosen) - at_ends
    trim = where.edit(f"--trim-idle {where.named(chosen)}", reads=True)
    return _finding(
        "warning", "episodes.idle", "Idle stretches", text,
        "A policy that imitates them stops and waits.", chosen, total, origins,
        trim if at_ends >= inside else where.delete(chosen),
        "Trim the ends." if at_ends >= inside else "Leave them out, or cut them by hand.",
    )  # fmt: skip
