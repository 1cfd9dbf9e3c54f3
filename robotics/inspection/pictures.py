"""The pictures of each episode: frozen, black or single-coloured ones, by camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robotics.embodiment.robot import Robot
from robotics.inspection.findings import Finding, listed
from robotics.inspection.groups import Origin, Place, common
from robotics.inspection.robust import runs
from robotics.inspection.scan import Pictures

FROZEN = 5
"""Frames without a change, in a row, while the robot moves."""
LONGER = 3
"""Times the usual longest stretch without a change that a frozen one must last."""


@dataclass(frozen=True)
class Look:
    """One camera in one episode."""

    frames: int
    flat: float
    """Share of single-coloured frames."""
    brightness: float
    still: list[tuple[int, int]]
    """Stretches of equal frames (first, one past the last) in which the robot moves."""
    longest: int
    """Steps of the longest stretch of equal frames, whatever the robot does."""
    thumbs: np.ndarray
    """uint8 (3, H, W): grey first, middle and last frame, small."""
    hashes: np.ndarray
    """uint64 of the frames that show something, without repetitions."""


def look(seen: Pictures, moved: np.ndarray | None) -> Look:
    """What the pictures of one camera show.

    Args:
        seen: of every step.
        moved: (T - 1,) motion of each step in usual steps of the episode; None: nothing measured.
    """
    count = len(seen.digests)
    still, longest = [], 0
    for first, last in runs(seen.copies[1:]):
        longest = max(longest, last - first + 1)
        if last - first + 1 < FROZEN or (seen.flat[first] and seen.flat[last]):
            continue  # a camera that shows nothing is another finding
        if moved is None or moved[first:last].sum() > 0.5 * (last - first):
            still.append((first, last + 1))
    hashes = np.unique(seen.digests[~seen.flat])
    return Look(
        count, float(seen.flat.mean()), float(seen.thumbs.mean()), still, longest,
        seen.thumbs[[0, count // 2, count - 1]], hashes,
    )  # fmt: skip


def findings(
    looks: Mapping[int, Mapping[str, Look]],
    robot: Robot,
    total: int,
    origins: Sequence[Origin],
    where: Place,
) -> list[Finding]:
    """Frozen and black cameras, with their episodes."""
    found: list[Finding] = []
    used = set(robot.recorded_cameras())
    for camera in robot.cameras:
        rows = {number: row[camera.name] for number, row in looks.items() if camera.name in row}
        if rows:
            found += _frozen(camera.name, rows, total, origins, where)
            found += _flat(camera.name, rows, total, origins, where, camera.name in used)
    return found


def _frozen(
    name: str, rows: Mapping[int, Look], total: int, origins: Sequence[Origin], where: Place
) -> list[Finding]:
    usual = float(np.median([row.longest for row in rows.values()]))
    steps = {}
    for number, row in rows.items():
        longest = [(a, b) for a, b in row.still if b - a >= max(FROZEN, LONGER * usual)]
        if longest:
            steps[number] = longest
    if not steps:
        return []
    chosen = sorted(steps, key=lambda number: -sum(b - a for a, b in steps[number]))
    places = [f"{n} at steps {a} to {b - 1}" for n in chosen[:6] for a, b in steps[n][:2]]
    text = f"camera {name} shows one picture while the robot moves: episode {'; '.join(places)}"
    if len(chosen) > 6:
        text += f" and {len(chosen) - 6} more episodes"
    if group := common(chosen, origins):
        text += f"; {group}"
    return [Finding(
        "warning", "frames", f"{text}.", "Leave these episodes out.", code="cameras.frozen",
        title=f"Frozen pictures of {name} in {len(chosen)} of {total} episodes",
        why="The policy is shown a picture that has nothing to do with what it does.",
        line=where.delete(chosen), episodes=tuple(chosen), weight=len(chosen) / max(total, 1) + 0.5,
        details={"camera": name, "steps": {str(n): steps[n] for n in chosen[:50]}},
    )]  # fmt: skip


def _flat(
    name: str,
    rows: Mapping[int, Look],
    total: int,
    origins: Sequence[Origin],
    where: Place,
    used: bool,
) -> list[Finding]:
    chosen = [number for number, row in rows.items() if row.flat > 0.9]
    partly = [number for number, row in rows.items() if 0.04 < row.flat <= 0.9]
    found = []
    if chosen:
        all_of_them = len(chosen) == len(rows)
        dark = float(np.mean([rows[number].brightness for number in chosen])) < 16
        what = "black" if dark else "a single colour"
        text = f"camera {name} is {what} in {'every episode' if all_of_them else listed(chosen)}"
        if not all_of_them and (group := common(chosen, origins)):
            text += f"; {group}"
        remedy = "Take the camera out of the table."
        if not all_of_them:
            remedy = f"Leave these episodes out, or state cameras.{name}.present if a flag says so."
        line = f"cameras: {{{name}: {{use: false}}}}" if all_of_them else where.delete(chosen)
        found.append(Finding(
            "warning" if used else "info", "frames", f"{text}.", remedy, code="cameras.black",
            title=f"Camera {name} is {what} in {len(chosen)} of {len(rows)} episodes",
            why="A model learns to look where there is nothing to see.",
            line=line if used else "", episodes=() if all_of_them else tuple(chosen),
            weight=len(chosen) / max(total, 1) + 0.5, details={"camera": name},
        ))  # fmt: skip
    if partly and len(partly) <= 0.5 * len(rows):
        text = f"camera {name} shows a single colour for a part of episodes {listed(partly)}."
        found.append(Finding(
            "warning" if used else "info", "frames", text, "Leave these episodes out.",
            code="cameras.blackout",
            title=f"Camera {name} goes out in {len(partly)} of {len(rows)} episodes",
            why="The policy acts without seeing.", line=where.delete(partly),
            episodes=tuple(partly), weight=len(partly) / max(total, 1), details={"camera": name},
        ))  # fmt: skip
    return found
