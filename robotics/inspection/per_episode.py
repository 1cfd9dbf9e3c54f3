"""Every convention of the motion, fitted in each episode by itself and compared with the others'.

A pooled fit hides a fault in half of the episodes and is spoilt by one; here each episode votes for
the reading of `robotics.inspection.readings` that explains its own motion, and those that
vote clearly against the majority are named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robotics.inspection.findings import Finding, listed
from robotics.inspection.groups import Origin, Place, common, drift
from robotics.inspection.readings import LAGS, REVERSED, STATED, Motion
from robotics.inspection.robust import far, mode

CLEAR = 6.0
"""Nats of log-likelihood by which a reading must win within an episode (Gaussian residuals)."""
MARGIN = 0.15
"""Nats a step, in addition: the rest must shrink by a quarter."""
EXPLAINS = 0.4
"""Share of the motion that must be explained before an episode votes."""
LEAST = 1e-3
"""Unexplained shares below this count as this."""
MATTERS, LAG_MATTERS = 0.05, 0.02
"""Share of the motion that another reading, or another lag, must explain in addition: smooth
motions are nearly explained by much that is wrong."""
BAD = 0.6
"""Share of the motion below which most episodes may be of another reading than the stated one."""
UNDECIDED = 0.4
"""Share of the episodes that may be unable to tell two readings apart."""
GAIN, AXIS_GAIN = np.log(1.4), np.log(1.6)
AXES = "single values differ"
ALIKE = 0.9
"""Read rightly, an episode's motion is explained as well as the others': at least this share."""
MOVING = 0.15
"""Episodes that move less than this share of the usual do not vote."""
FACTORS = {2.0: "doubled", 0.5: "halved", 1000.0: "in mm instead of m", 0.001: "in m instead of mm",
           57.3: "in degrees instead of rad", 1 / 57.3: "in rad instead of degrees",
           100.0: "in cm instead of m", 10.0: "ten times too large"}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What one part's commands are in most episodes, and which differ."""

    place: str
    base: tuple[int, int] | None
    """Reading and lag (indices) of the majority; None where the motion decides nothing."""
    numbers: np.ndarray
    explained: np.ndarray
    """(n,) by the majority's reading."""
    gain: np.ndarray
    """(n,) by it; NaN where it explains too little."""
    others: Mapping[str, list[int]]
    """What else -> episodes."""


def judge(place: str, motions: Mapping[int, Motion]) -> Verdict:
    """The majority's reading of a part and the episodes that differ."""
    numbers = np.array(sorted(motions), int)
    rows = [motions[number] for number in numbers]
    if rows:
        usual = max({row.readings for row in rows}, key=[row.readings for row in rows].count)
        kept = [row.readings == usual for row in rows]
        numbers, rows = numbers[kept], [row for row, keep in zip(rows, kept, strict=True) if keep]
    if len(rows) < 2:
        return Verdict(place, None, numbers, np.zeros(0), np.zeros(0), {})
    explained = np.stack([row.explained for row in rows]).astype(float)
    gain = np.stack([row.gain for row in rows]).astype(float)
    steps = np.array([row.steps for row in rows], float)
    moved = np.array([row.moved for row in rows])
    voting = moved > MOVING * np.median(moved)
    base, sign = _majority(explained, gain, steps, voting, rows[0].readings)
    gain = gain * sign
    e0 = np.where(gain[:, *base] > 0, explained[:, *base], 0.0)
    if np.quantile(e0[voting], 0.6) < EXPLAINS:
        return Verdict(place, None, numbers, e0, np.full(len(rows), np.nan), {})
    others: dict[str, list[int]] = defaultdict(list)
    plain = np.ones(len(rows), bool)
    usual_share = float(np.quantile(e0[voting], 0.6))
    for index in np.flatnonzero(voting).tolist():
        words = _vote(explained, gain, steps, voting, index, base, rows[0].readings,
                      _by_axes(rows[index], base, sign), ALIKE * usual_share)  # fmt: skip
        if words == AXES:
            continue
        if words is None and usual_share > 0.7 and steps[index] >= 12:
            best = np.where(gain[index] > 0, explained[index], 0).max()
            words = "unexplained" if max(best, explained[index][base]) < 0.35 else None
        if words is not None:
            others[words].append(int(numbers[index]))
            plain[index] = False
    plain &= voting
    known = plain & (e0 > EXPLAINS)
    values = np.where(known, gain[:, *base], np.nan)
    _gains(values, e0, steps, numbers, others)
    _axes(rows, base, sign, plain, known, numbers, others)
    return Verdict(place, base, numbers, e0, values, dict(others))


def _majority(
    explained: np.ndarray,
    gain: np.ndarray,
    steps: np.ndarray,
    voting: np.ndarray,
    readings: Sequence[str],
) -> tuple[tuple[int, int], float]:
    """Reading and lag that most episodes cannot do better than, and the sign of most gains."""
    best = explained[voting][:, 0].argmax(1)
    signs = gain[voting][:, 0][np.arange(len(best)), best]
    sure = explained[voting][:, 0].max(1) > BAD
    sign = -1.0 if sure.any() and (signs[sure] < 0).mean() > 0.8 else 1.0
    score = np.where(gain[voting] * sign > 0, explained[voting], 0.0)
    if np.quantile(score[:, 0].max(1), 0.6) >= BAD:
        score[:, 1:] = 0.0
    score[:, readings.index(REVERSED)] = 0.0
    left = np.maximum(1 - score, LEAST)
    behind = 0.5 * np.log(left / left.min((1, 2), keepdims=True)) * steps[voting][:, None, None]
    votes = (behind < 3.0).sum(0).astype(float)
    # Ties go to what the specification says, then to the smaller lag.
    votes[0] += 0.5
    votes -= 0.1 * np.abs(np.array(LAGS))[None, :]
    reading, lag = np.unravel_index(int(votes.argmax()), votes.shape)
    return (int(reading), int(lag)), sign


def _vote(
    explained: np.ndarray,
    gain: np.ndarray,
    steps: np.ndarray,
    voting: np.ndarray,
    index: int,
    base: tuple[int, int],
    readings: Sequence[str],
    by_axes: float,
    enough: float,
) -> str | None:
    """What an episode's commands are instead; None: as the majority's, or nobody knows."""
    h, lag = base
    score = np.where(gain > 0, explained, 0.0)
    left = np.maximum(1 - score, LEAST)
    rivals: dict[str, tuple[float, np.ndarray | None]] = {}
    for other in range(len(LAGS)):
        if other != lag:
            late = LAGS[other] - LAGS[lag]
            many = f"{abs(late)} step{'s' * (abs(late) > 1)}"
            rivals[f"{many} {'late' if late > 0 else 'early'}"] = (
                score[index, h, other], left[:, h, other])  # fmt: skip
    for other, words in enumerate(readings):
        if other != h:
            words = "as the table states" if words == STATED else words
            # Small angles in degrees look like rad with a gain: only large ones tell.
            shares = left[:, other, lag]
            rivals[words] = (
                score[index, other, lag],
                None if words in (REVERSED, "degrees") else shares,
            )
    if gain[index, h, lag] < 0:
        rivals["sign inverted"] = (explained[index, h, lag], None)
    if by_axes > 0 and h == 0:
        rivals[AXES] = (by_axes - 0.02, None)
    name = max(rivals, key=lambda key: rivals[key][0])
    share, shares = rivals[name]
    won = 0.5 * np.log(left[index, h, lag] / max(1 - share, LEAST))
    matters = LAG_MATTERS if name.endswith((" late", " early")) else MATTERS
    if share < max(EXPLAINS, enough, score[index, h, lag] + matters):
        return None
    if won < MARGIN or won * steps[index] < CLEAR:
        return None
    if shares is not None:  # would the others know the difference?
        apart = 0.5 * np.abs(np.log(shares / left[:, h, lag])) * steps
        if (apart[voting] < 3.0).mean() > UNDECIDED:
            return None
    return name


def _by_axes(row: Motion, base: tuple[int, int], sign: float) -> float:
    """Share of an episode's motion that a gain for each value explains where one has the other
    sign and others do not; else 0."""
    correlation = sign * row.axis_correlation[base[1]]
    if not ((correlation < -0.5).any() and (correlation > 0.5).any()):
        return 0.0
    return float((row.axis_share * correlation**2).sum())


def _gains(values, explained, steps, numbers, others) -> None:
    logs = np.log(np.where(values > 0, values, np.nan))
    centre, _ = mode(logs, near=0.0)
    error = np.sqrt((1 - explained) / np.maximum(explained, 1e-3) / steps)
    odd = far(logs, GAIN, near=0.0) & (np.abs(logs - centre) > 5 * error)
    for index in np.flatnonzero(odd):
        others[_factor(float(np.exp(centre - logs[index])))].append(int(numbers[index]))


def _factor(factor: float) -> str:
    for value, words in FACTORS.items():
        if abs(np.log(factor / value)) < 0.15:
            return words
    return f"scaled by about {factor:.1g}"


def _axes(rows, base, sign, plain, known, numbers, others) -> None:
    lag = base[1]
    if base[0] != 0 or known.sum() < 3:
        return
    correlation = sign * np.stack([row.axis_correlation[lag] for row in rows]).astype(float)
    gain = sign * np.stack([row.axis_gain[lag] for row in rows]).astype(float)
    steps = np.array([row.steps for row in rows], float)
    scaled = {number for words, some in others.items() if words in FACTORS.values()
              or words.startswith("scaled") for number in some}  # fmt: skip
    for axis in range(correlation.shape[1]):
        c = correlation[:, axis]
        if known.sum() < 3 or not mode(c[known], near=1.0)[0] > 0.5:
            continue
        for index in np.flatnonzero(plain & (c < -0.5) & (steps >= 12)):
            others[f"value {axis} inverted"].append(int(numbers[index]))
        sure = known & (c > 0.95)  # a slow robot's gains vary from axis to axis
        logs = np.log(np.where(sure & (gain[:, axis] > 0), gain[:, axis], np.nan))
        centre, _ = mode(logs, near=0.0)
        error = np.sqrt((1 - c**2) / np.maximum(c**2, 1e-3) / steps)
        odd = far(logs, AXIS_GAIN, near=0.0) & (np.abs(logs - centre) > 5 * error)
        for index in np.flatnonzero(odd):
            if int(numbers[index]) not in scaled:
                factor = float(np.exp(centre - logs[index]))
                others[f"value {axis} {_factor(factor)}"].append(int(numbers[index]))


WHY = {
    "late": "A policy learns to act on what it saw a step ago.",
    "early": "A policy learns to act before it has seen why.",
    "unexplained": "Nothing in the pictures can predict such actions; they are noise to a policy.",
    REVERSED: "A policy learns to undo the task.",
}


def findings(
    verdicts: Sequence[Verdict], total: int, origins: Sequence[Origin], place: Place
) -> list[Finding]:
    """One finding for each way in which some episodes differ, the parts of one taken together."""
    together: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for verdict in verdicts:
        for words, numbers in verdict.others.items():
            key = f"{verdict.place}: {words}" if words.startswith("value ") else words
            together[key, tuple(sorted(numbers))].append(verdict.place)
    merged = _merged(together)
    found = [_difference(*row, total, origins, place) for row in merged]
    for verdict in verdicts:
        change = drift(verdict.numbers.tolist(), np.log(np.maximum(verdict.gain, 1e-9)), 0.2)
        if change is not None:
            text = (
                f"the motion that a command of {verdict.place} causes changes by "
                f"{np.expm1(change):+.0%} from the first to the last episode"
            )
            found.append(Finding(
                "warning", "episodes", text, "Recalibrate, or scale the actions by episode.",
                code="episodes.drift", title=f"{verdict.place} drifts over the recording",
                why="The same action means less at one end of the recording than at the other.",
                details={"change": change},
            ))  # fmt: skip
    return found


def _merged(
    together: Mapping[tuple[str, tuple[int, ...]], list[str]],
) -> list[tuple[str, list[int], list[str]]]:
    """The same words of several parts whose episodes mostly agree become one row."""
    rows: list[tuple[str, set[int], list[str]]] = []
    for (words, numbers), places in together.items():
        for row in rows:
            shared = len(row[1] & set(numbers))
            if row[0] == words and shared >= 0.5 * min(len(row[1]), len(numbers)):
                row[1].update(numbers)
                row[2].extend(name for name in places if name not in row[2])
                break
        else:
            rows.append((words, set(numbers), list(places)))
    return [(words, sorted(numbers), places) for words, numbers, places in rows]


def _difference(
    words: str,
    numbers: list[int],
    places: list[str],
    total: int,
    origins: Sequence[Origin],
    place: Place,
) -> Finding:
    many = f"{len(numbers)} of {total} episodes"
    parts = " and ".join(places)
    if words == "unexplained":
        title = f"The commands do not explain the motion in {many}"
        text = f"{parts}: in most episodes they do; in {listed(numbers)} under no reading"
    elif words == REVERSED:
        title = f"Steps in reverse order in {many}"
        text = f"{parts}: the motion follows the commands only when read backwards"
    elif words.endswith(("late", "early")):
        title = f"Actions recorded {words} in {many}"
        text = f"{parts}: against the other episodes, the commands stand {words}"
    else:
        title = f"Another convention in {many}: {words.partition(': ')[2] or words}"
        text = f"{parts}: in these episodes the commands are {words.partition(': ')[2] or words}"
    if group := common(numbers, origins):
        text += f"; {group}"
    severe = len(numbers) > 0.02 * total
    kind = words.rpartition(" ")[2] if words.endswith(("late", "early")) else words
    why = WHY.get(kind, "Two conventions under one name: the policy learns their average.")
    remedy = "Convert these episodes as the others are, or leave them out."
    return Finding(
        "error" if severe else "warning", "episodes", f"{text}.",
        remedy, code=_code(words), title=title, why=why, line=place.delete(numbers),
        episodes=tuple(numbers), weight=len(numbers) / max(total, 1) + 1,
        details={"parts": places, "difference": words},
    )  # fmt: skip


def _code(words: str) -> str:
    for ending, code in (("late", "late"), ("early", "early"), ("unexplained", "unexplained"),
                         (REVERSED, "reversed"), ("inverted", "sign")):  # fmt: skip
        if words.endswith(ending):
            return f"episodes.{code}"
    if words in ("absolute values", "delta values"):
        return "episodes.mode"
    scaled = any(words.endswith(name) for name in FACTORS.values()) or "scaled by" in words
    return "episodes.scale" if scaled else "episodes.convention"
