"""A ranked list of the episodes that a person should watch, each with the reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robotics.data.parts import Recording, speeds
from robotics.embodiment.robot import Robot
from robotics.inspection.findings import Finding
from robotics.inspection.pictures import Look
from robotics.inspection.robust import deviations
from robotics.inspection.times import Times

FAR = 5.0
"""Robust standard deviations from the usual at which an episode is worth a look."""
MOST = 20


@dataclass(frozen=True)
class Feature:
    """A number that episodes are compared by."""

    above: str
    below: str
    floor: float
    """Standard deviations below this do not count: differences that nobody would see."""


FEATURES = {
    "duration": Feature("much longer than the others", "much shorter than the others", 0.12),
    "path": Feature("moves much more than the others", "moves much less than the others", 0.2),
    "jerk": Feature("jerkier than the others", "smoother than the others", 0.15),
    "residual": Feature("follows its commands less than the others", "", 0.4),
    "idle": Feature("idles more than the others", "", 0.04),
    "switches": Feature("opens and closes the gripper more often", "", 1.0),
    "end speed": Feature("ends while it moves", "", 0.3),
}
"""Logarithms of duration (steps), path (mean step), jerk (third differences over steps), residual
(share of the motion that commands leave unexplained) and speed at the end over the usual one."""


def fit(
    recording: Recording, robot: Robot, times: Times, looks: Mapping[str, Look]
) -> dict[str, float]:
    """The numbers of one episode; where it begins and ends by the name of each value."""
    found: dict[str, float] = {"duration": float(np.log(max(recording.steps, 1)))}
    found["idle"] = times.idle / max(times.steps, 1)
    moving = speeds(recording.parts, robot)
    for name, sizes in moving.items():
        if len(sizes) < 8 or sizes.mean() < 1e-7:
            continue
        found.setdefault("path", float(np.log(sizes.mean())))
        last = float(np.log((sizes[-2:].mean() + 1e-9) / (np.median(sizes) + 1e-9)))
        found["end speed"] = max(last, found.get("end speed", -np.inf))
        values = recording.parts[f"state.{name}"]
        if robot_part(robot, name) != "rotation":
            third = np.linalg.norm(np.diff(values, 3, axis=0), axis=1)
            ratio = np.sqrt((third**2).mean() / (sizes**2).mean())
            found.setdefault("jerk", float(np.log(ratio + 1e-9)))
    for part in robot.action:
        values = recording.parts.get(f"action.{part.name}")
        if part.kind == "gripper" and values is not None:
            side = values[:, 0] > (values[:, 0].min() + values[:, 0].max()) / 2
            found["switches"] = float(np.abs(np.diff(side.astype(int))).sum())
            break
    for part in robot.state:
        values = recording.parts.get(f"state.{part.name}")
        if values is not None and len(values) and part.kind in ("position", "joints"):
            for axis in range(part.width):
                found[f"start of {part.name}[{axis}]"] = float(values[0, axis])
                found[f"end of {part.name}[{axis}]"] = float(values[-1, axis])
    for name, look in looks.items():
        found[f"brightness of {name}"] = look.brightness
    return found


def robot_part(robot: Robot, name: str) -> str:
    """Kind of a state part."""
    return next(part.kind for part in robot.state if part.name == name)


@dataclass(frozen=True)
class Watched:
    """An episode to watch."""

    number: int
    score: float
    reasons: tuple[str, ...]
    """The weightiest first."""


def ranked(
    features: Mapping[int, Mapping[str, float]],
    residuals: Mapping[int, float],
    findings: Sequence[Finding],
) -> list[Watched]:
    """Episodes of findings and those far from the others, worst first; at most `MOST`."""
    scores: dict[int, float] = defaultdict(float)
    reasons: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for finding in findings:
        weight = {"error": 30.0, "question": 15.0, "warning": 12.0}.get(finding.severity, 0.0)
        # A fault of half of the set needs one look, a fault of one episode too.
        for rank, number in enumerate(finding.episodes if weight else ()):
            worth = weight / (1 + 0.2 * rank)
            scores[number] += worth
            reasons[number].append((worth, finding.headline))
    numbers = sorted(features)
    names = dict.fromkeys(name for row in features.values() for name in row)
    table = {name: np.array([features[n].get(name, np.nan) for n in numbers]) for name in names}
    if residuals:
        table["residual"] = np.array([residuals.get(n, np.nan) for n in numbers])
    for name, values in table.items():
        feature = FEATURES.get(name) or _place(name, values)
        apart = deviations(values, feature.floor)
        for index in np.flatnonzero(np.abs(apart) > FAR):
            words = feature.above if apart[index] > 0 else feature.below
            if words:
                size = float(min(abs(apart[index]), 25.0))
                reasons[numbers[index]].append((size, words))
    for number, rows in reasons.items():
        scores[number] += max((size for size, _ in rows), default=0.0)
    order = sorted(scores, key=lambda number: (-scores[number], number))[:MOST]
    return [
        Watched(n, scores[n], tuple(dict.fromkeys(words for _, words in sorted(reasons[n])[::-1])))
        for n in order
    ]


def _place(name: str, values: np.ndarray) -> Feature:
    known = values[np.isfinite(values)]
    if name.startswith("brightness"):
        camera = name.removeprefix("brightness of ")
        return Feature(f"{camera} brighter than usual", f"{camera} darker than usual", 6.0)
    floor = 0.1 * float(np.ptp(known)) if len(known) else 0.0
    side = "begins" if name.startswith("start") else "ends"
    words = f"{side} far from where the others do ({name.partition(' of ')[2]})"
    return Feature(words, words, max(floor, 0.02))


def typical(features: Mapping[int, Mapping[str, float]], without: Sequence[int]) -> list[int]:
    """Episodes in the order of how usual they are, without those given."""
    numbers = sorted(features)
    names = [name for name in FEATURES if any(name in row for row in features.values())]
    total = np.zeros(len(numbers))
    for name in names:
        values = np.array([features[n].get(name, np.nan) for n in numbers])
        total += np.abs(deviations(values, FEATURES[name].floor))
    order = np.argsort(total, kind="stable")
    return [numbers[index] for index in order if numbers[index] not in set(without)]
