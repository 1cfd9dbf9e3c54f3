"""Findings about the values themselves: dead, sparse and far ones, saturated ones, jumps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from robotics.embodiment.columns import column
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.inspection.findings import Finding
from robotics.inspection.scan import Scan, Track, taken

FAR = 5.0
"""Outliers lie further than this many widths of [q01, q99] outside of it."""
JUMP = 0.3
"""m: a measured position further than this from the previous one is no motion."""
SPARSE = 0.02
"""A value that differs from its usual one in a smaller share of the steps is sparse."""

Findings = Iterator[Finding]
_warning, _info = (partial(Finding, severity) for severity in ("warning", "info"))


def findings(result: Scan, robot: Robot) -> Findings:
    """Of every part of the table, and of values beside them that move and are not read."""
    for group in ("state", "action"):
        for part in getattr(robot, group):
            rows, numbers = _rows(result.tracks, part)
            if rows:
                yield from _part(f"{group}.{part.name}", part, rows, numbers)
    yield from _motionless(result, robot)
    yield from _unread(result, robot)


def _motionless(result: Scan, robot: Robot) -> Findings:
    """Commands of the arms that are the same at every step of every episode."""
    parts = [part for part in robot.action if part.kind != "gripper"]
    found = [_rows(result.tracks, part)[0] for part in parts]
    if not any(found) or any(np.ptp(np.concatenate(rows), axis=0).any() for rows in found if rows):
        return
    paths = ", ".join(part.path for part in parts)
    yield Finding(
        "error", "action", f"{paths} holds the same values at every step of every episode.",
        "Name the column that your robot executes, or action: null for videos alone.",
        "action.still", "the commands never change", "A policy would never move.", weight=9.0,
    )  # fmt: skip


def _rows(tracks: Sequence[Track], part: Part) -> tuple[list[np.ndarray], list[int]]:
    rows, numbers = [], []
    for track in tracks:
        values = track.values(part.path)
        if values is not None and values.shape[1] == part.width and np.isfinite(values).all():
            rows.append(values)
            numbers.append(track.number)
    return rows, numbers


def _part(place: str, part: Part, rows: list[np.ndarray], numbers: list[int]) -> Findings:
    values = np.concatenate(rows)
    low, high = values.min(0), values.max(0)
    dead = np.flatnonzero(high - low <= 1e-9)
    if len(dead) and part.width < 16:
        names = ", ".join(f"[{i}] = {low[i]:g}" for i in dead)
        text = f"{place}: constant {names}"
        yield _warning("values", text, "Dead sensor or unused axis: nothing can be learned of it; "
                       "check the path.", "values.dead", f"{place} has dead values")  # fmt: skip
    if part.kind == "gripper" or part.width in (4, 6, 9, 16) and part.kind == "rotation":
        return
    yield from _sparse(place, part, values, dead)
    if place.startswith("state") and part.kind == "position":
        yield from _jumps(place, part, rows, numbers)
    yield from _far(place, rows, values, numbers)
    if place.startswith("action") and part.mode != "absolute":
        yield from _saturated(place, part, values)


def _sparse(place: str, part: Part, values: np.ndarray, dead: np.ndarray) -> Findings:
    found = []
    for i in range(values.shape[1]):
        usual, times = np.unique(values[:, i], return_counts=True)
        share = 1 - times.max() / len(values)
        if i not in dead and share < SPARSE:
            found.append(f"[{i}] {share:.1%} other than {usual[times.argmax()]:g}")
    if found:
        text = f"{place}: values that hardly ever change: {', '.join(found)}"
        group, _, name = place.partition(".")
        yield _warning("values", text, "Their quantiles are equal: normalised by those they would "
                       "be hundreds. The range is used instead.", "values.sparse",
                       f"{place} has sparse values", "A rare value would decide the loss.",
                       f"{group}: {{{name}: {{model: {{normalise: minmax}}}}}}")  # fmt: skip


def _far(place: str, rows: list[np.ndarray], values: np.ndarray, numbers: list[int]) -> Findings:
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    width = np.maximum(high - low, 1e-6)
    outside = (values < low - FAR * width) | (values > high + FAR * width)
    ends = np.cumsum([len(row) for row in rows])
    for index in np.flatnonzero(outside.any(0)):
        column_values = values[:, index]
        if outside[:, index].mean() > 0.005:
            continue  # a heavy tail, not a fault
        worst = int(np.argmax(np.abs(column_values - np.median(column_values))))
        which = sorted({int(np.searchsorted(ends, at, side="right"))
                        for at in np.flatnonzero(outside[:, index])})  # fmt: skip
        first = numbers[int(np.searchsorted(ends, worst, side="right"))]
        episodes = tuple(dict.fromkeys([first, *(numbers[i] for i in which)]))
        text = (
            f"{place}[{index}]: {int(outside[:, index].sum())} values further than {FAR:g} widths "
            f"of [q01, q99] outside of it, worst {column_values[worst]:.3g} in episode {first}"
        )
        yield _warning("values", text, "Look at these episodes.", "values.far",
                       f"{place} has outliers", "They decide normalizer.kind=minmax.",
                       episodes=episodes)  # fmt: skip


def _jumps(place: str, part: Part, rows: list[np.ndarray], numbers: list[int]) -> Findings:
    jumps = []
    for number, values in zip(numbers, rows, strict=True):
        steps = np.linalg.norm(np.diff(values * part.factor, axis=0), axis=1)
        if steps.max(initial=0) > JUMP:
            jumps.append((float(steps.max()), number, int(np.argmax(steps))))
    if jumps and len(jumps) < 0.5 * len(rows):
        jumps.sort(reverse=True)
        size, number, step = jumps[0]
        text = (
            f"{place} jumps in {len(jumps)} episodes, up to {size:.2f} m (episode {number}, step "
            f"{step})"
        )
        yield _warning("values", text, "Lost tracking: look at the frames.", "values.jump",
                       f"{place} jumps", episodes=tuple(row[1] for row in jumps))  # fmt: skip


def _saturated(place: str, part: Part, values: np.ndarray) -> Findings:
    low, high = values.min(0), values.max(0)
    moving = high - low > 1e-9
    share = ((values == low) | (values == high)).mean(0)
    distinct = [len(np.unique(column)) for column in values.T]
    cut = [i for i in np.flatnonzero(moving & (share > 0.05)) if distinct[i] > 10]
    if not cut:
        return
    names = ", ".join(f"[{i}] {share[i]:.0%} at {low[i]:.3g} or {high[i]:.3g}" for i in cut)
    text = f"{place}: many values exactly at the ends of their range: {names}"
    unit = all(abs(low[i]) == abs(high[i]) == 1.0 for i in cut)
    if unit and np.all(np.asarray(part.scale) == 1):
        yield _warning("values", text, "State the factor as scale:.", "values.normalised",
                       f"{place} looks normalised to [-1, 1], not {part.unit}")  # fmt: skip
    else:
        yield _info("values", text, "Commands limited by the controller.", "values.limited")


def _unread(result: Scan, robot: Robot) -> Findings:
    """Values of columns that the table reads in part: a second arm that vanishes."""
    read: dict[str, set[int]] = {}
    for group in ("state", "action"):
        for part in getattr(robot, group):
            place = column(part.path)
            span = taken(place, part.width)
            read.setdefault(place.key, set()).update(span)
    if robot.terminate is not None:
        place = column(robot.terminate)
        read.setdefault(place.key, set()).update(range(64))
    for key, indices in read.items():
        known = result.ranges.get(key)
        if known is None:
            continue
        left = [i for i in range(known.shape[1]) if i not in indices]
        left = [i for i in left if known[1, i] - known[0, i] > 1e-6]
        if left:
            name = key.removeprefix("steps/")
            text = f"{name}: values {left} move and are not read"
            yield _warning("values", text, "Name them as parts, or leave them out knowingly.",
                           "values.unread", f"{len(left)} values of {name} are not read",
                           "A second arm or a base would stand still.")  # fmt: skip
