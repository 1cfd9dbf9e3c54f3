"""Does the measured motion follow the commands, and under which reading of them?

For every action part that commands a measured one: delta or absolute, in the base's or the tool's
frame, in which form of rotation, with which factor and how many steps apart. Poses are compared as
group elements, joints value by value. Which of several readings are true shows only where they
differ: what the data do not decide is said to be undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.inspection.evidence import (
    Motion,
    axes,
    paired_rows,
    shifted,
    slopes,
    stated_fit,
)
from robotics.inspection.fits import EXPLAINS, Reading, fitted, paired, sane
from robotics.inspection.scan import Track
from robotics.inspection.turns import rotation, rotations, usable


def motions(tracks: Sequence[Track], robot: Robot) -> list[Motion]:
    """Evidence about every action part that moves and whose state is measured."""
    found = []
    for part in robot.action:
        state = robot.commanded(part)
        if state is None or part.kind == "gripper":
            continue
        if part.kind == "position":
            motion = translation(tracks, part, state, turn_of(robot, state))
        elif part.kind == "rotation":
            motion = rotation(tracks, part, state)
        else:
            motion = components(tracks, part, state)
        if motion is not None:
            rows = [row for track in tracks if (row := track.values(part.path)) is not None]
            largest = max(float(np.nanmax(np.abs(row), initial=0)) for row in rows)
            found.append(replace(motion, largest=largest))
    return found


def turn_of(robot: Robot, position: Part) -> Part | None:
    """The measured rotation of the same tool: the next one in the table."""
    after = robot.state[robot.state.index(position) + 1 :]
    for part in (*after, *robot.state):
        if part.kind == "rotation":
            return part
        if part.kind == "position" and part in after:
            break
    return None


# ---------------------------------------------------------------- values one by one


def components(tracks: Sequence[Track], part: Part, state: Part) -> Motion | None:
    """Joints, bases and other values, each by itself."""
    commands, values = paired_rows(tracks, (part, state))
    if not values or part.width != state.width:
        return None
    commands = [rows * part.factor for rows in commands]
    values = [rows * state.factor for rows in values]
    moved = [np.diff(rows, axis=0) for rows in values]
    spread = np.concatenate(moved).std(0)
    size = np.where(spread > 1e-9, spread, np.inf)  # a dead value says nothing
    limited = sane([rows / size for rows in commands]) if part.mode != "absolute" else commands
    keep = [np.isfinite(rows).all(1, keepdims=True) for rows in limited]

    def predict(mode: str, number: int, lag: int) -> np.ndarray:
        rows = np.where(keep[number], commands[number], np.nan)
        if mode == "absolute":
            rows = rows - shifted(values[number], lag)
        return rows / size

    scaled = [rows / size for rows in moved]
    fits = []
    for mode in ("delta", "absolute"):
        fit = fitted(Reading(mode, ""), lambda n, k, m=mode: predict(m, n, k), scaled)
        if fit is not None:
            fits.append(fit)
    stated = stated_fit(fits, Reading("absolute" if part.mode == "absolute" else "delta", ""))
    if stated is None:
        return None
    fits.sort(key=lambda fit: -fit.explained)
    best = fits[0].reading.mode if fits[0].explained >= EXPLAINS else stated.reading.mode
    gain, explained = axes(*paired(lambda n, k: predict(best, n, k), scaled, fits[0].lag))
    return Motion(
        part.name, part.kind, fits, stated, axis_gain=gain, axis_explained=explained,
        axis_mode=best,
        levels=slopes(commands, values, fits[0].lag) if best == "absolute" else np.zeros(0),
    )  # fmt: skip


# ---------------------------------------------------------------- positions


def translation(
    tracks: Sequence[Track], part: Part, state: Part, turn: Part | None
) -> Motion | None:
    """Compare the readings of a commanded position; None without measured ones."""
    parts = (part, state) if turn is None else (part, state, turn)
    commands, values, *turns = paired_rows(tracks, parts)
    if not values:
        return None
    commands = [rows * part.factor for rows in commands]
    values = [rows * state.factor for rows in values]
    moved = {"base": [np.diff(rows, axis=0) for rows in values]}
    if turns and usable(turns[0], turn.form or "") and part.width == 3:  # pyright: ignore
        poses = [rotations(rows, turn) for rows in turns[0]]  # pyright: ignore
        moved["tool"] = [r[:-1].inv().apply(m) for r, m in zip(poses, moved["base"], strict=True)]
    limited = sane(commands) if part.mode != "absolute" else commands

    def predict(mode: str, number: int, lag: int) -> np.ndarray:
        if mode == "absolute":
            return commands[number] - shifted(values[number], lag)
        return limited[number]

    fits = []
    for mode, frame in (("delta", "base"), ("delta", "tool"), ("absolute", "base")):
        if frame in moved:
            fit = fitted(Reading(mode, frame), lambda n, k, m=mode: predict(m, n, k), moved[frame])
            fits += [fit] if fit is not None else []
    absolute = part.mode == "absolute"
    wanted = Reading("absolute", "base") if absolute else Reading("delta", part.frame)
    stated = stated_fit(fits, wanted)
    if stated is None:
        return None
    fits.sort(key=lambda fit: -fit.explained)
    best = fits[0]
    read = best if best.explained >= EXPLAINS else stated
    p, m = paired(
        lambda n, k: predict(read.reading.mode, n, k), moved[read.reading.frame], read.lag
    )
    gain, explained = axes(p, m)
    matrix = np.linalg.lstsq(p, m, rcond=None)[0].T
    moving = m.std(0) > 1e-9  # a dead axis is another finding
    shares = [
        1 - float((left[:, moving] ** 2).sum()) / max(float((m[:, moving] ** 2).sum()), 1e-18)
        for left in (m - p @ matrix.T, m - p * gain)
    ]
    absolute = read.reading.mode == "absolute"
    levels = slopes(commands, values, read.lag) if absolute else np.zeros(0)
    return Motion(
        part.name, part.kind, fits, stated, 1.0, gain, explained, read.reading.mode, matrix,
        shares[0], shares[1], levels=levels,
    )  # fmt: skip
