"""Pictures of a data set as PNGs in base64, for a page that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from robotics.data.images import strip
from robotics.embodiment.parts import Part
from robotics.inspection.contents import instruction_counts
from robotics.inspection.evidence import Motion
from robotics.inspection.examination import Examination
from robotics.inspection.scan import Scan
from selfflow_wm.panels import panel_grid, to_png

BLUE, GREY, RED = "#3f6fb5", "#667080", "#b3382c"
BINS = 60
BARS = 6
"""Conventions shown per kind of motion."""


def encode(image: np.ndarray) -> str:
    """uint8 (H, W, 3) -> base64 of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def strips(result: Scan) -> list[tuple[str, str]]:
    """Label and picture of each episode that is shown, a row a camera."""
    found = []
    for label, rows in result.strips:
        widest = max(frame.shape[1] for frames in rows.values() for frame in frames)
        padded = [
            [np.pad(frame, ((0, 0), (0, widest - frame.shape[1]), (0, 0)), constant_values=255)
             for frame in frames] for frames in rows.values()
        ]  # fmt: skip
        found.append((label, encode(strip(padded))))
    return found


def _saved(figure: Any, axes: Sequence[Any]) -> str:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return base64.b64encode(to_png(figure, axes)).decode()


def _parts(examined: Examination) -> list[tuple[str, Part, list[np.ndarray]]]:
    """Place, part and recorded values of each episode, of every part."""
    found = []
    for group in ("state", "action"):
        for part in getattr(examined.robot, group):
            rows = [track.values(part.path) for track in examined.result.tracks]
            rows = [row for row in rows if row is not None and np.isfinite(row).all()]
            if rows:
                found.append((f"{group}.{part.name}", part, rows))
    return found


def histograms(examined: Examination) -> str:
    """Every value of the action and of the state, as stored; red: q01 and q99."""
    panels = []
    for place, _, rows in _parts(examined):
        everything = np.concatenate(rows)
        panels += [(f"{place}[{i}]", column) for i, column in enumerate(everything.T)]
    if not panels:
        return ""
    figure, axes = panel_grid(len(panels))
    for axis, (name, values) in zip(axes, panels, strict=True):
        axis.hist(values, bins=BINS, color=BLUE)
        for value in np.quantile(values, [0.01, 0.99]):
            axis.axvline(value, color=RED, linewidth=1)
        axis.set_title(name, fontsize=9, loc="left")
        axis.set_yscale("symlog", linthresh=10)
    return _saved(figure, axes)


def lengths(examined: Examination) -> str:
    """Steps of the episodes, and how often each instruction occurs."""
    result = examined.result
    if not result.lengths:
        return ""
    figure, axes = panel_grid(2)
    left, right = axes
    left.hist(result.lengths, bins=min(BINS, 1 + max(result.lengths)), color=BLUE)
    left.set_title("steps of the episodes", fontsize=9, loc="left")
    rows = instruction_counts(result, examined.robot).most_common(10)[::-1]
    names = [(text if len(text) < 40 else text[:38] + "…") or "(empty)" for text, _ in rows]
    right.barh(range(len(rows)), [count for _, count in rows], color=BLUE)
    right.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name in names])
    right.set_title("episodes by instruction", fontsize=9, loc="left")
    return _saved(figure, axes)


def explained(motions: Sequence[Motion]) -> str:
    """How much of the measured motion each convention explains; grey: not the stated one."""
    if not motions:
        return ""
    figure, axes = panel_grid(len(motions))
    for axis, motion in zip(axes, motions, strict=True):
        chosen = motion.fits[:BARS]
        if motion.stated not in chosen:
            chosen = [*chosen[:-1], motion.stated]
        chosen = chosen[::-1]
        colours = [BLUE if fit is motion.stated else GREY for fit in chosen]
        axis.barh(range(len(chosen)), [max(fit.explained, 0) for fit in chosen], color=colours)
        labels = [
            f"{way}\n(measured {way.measured})" if way.measured else str(way)
            for way in (fit.reading for fit in chosen)
        ]
        axis.set_yticks(range(len(chosen)), labels)
        axis.set_xlim(0, 1)
        title = f"{motion.part}: share explained"
        axis.set_title(title, fontsize=9, loc="right")
        axis.tick_params(axis="y", labelsize=7)
    return _saved(figure, axes)


def scatter(examined: Examination, motion: Motion | None) -> str:
    """Commanded against measured translation, axis by axis; line: what the gain predicts."""
    if motion is None:
        return ""
    part = next(row for row in examined.robot.action if row.name == motion.part)
    state = examined.robot.commanded(part)
    if state is None:
        return ""
    figure, axes = panel_grid(part.width)
    lag = motion.stated.lag
    commanded, measured = [], []
    for track in examined.result.tracks:
        command, x = track.values(part.path), track.values(state.path)
        if command is None or x is None:
            continue
        command, x = command * part.factor, x * state.factor
        count = max(len(x) - 1 - max(lag, 0), 0)
        first = max(-lag, 0)
        commanded.append((command - x if part.mode == "absolute" else command)[first:count])
        measured.append(np.diff(x, axis=0)[first + lag : count + lag])
    p, m = np.concatenate(commanded)[:5000], np.concatenate(measured)[:5000]
    for i, axis in enumerate(axes):
        axis.plot(p[:, i], m[:, i], ".", markersize=2, color=BLUE, alpha=0.5)
        ends = np.array([p[:, i].min(), p[:, i].max()])
        axis.plot(ends, motion.stated.gain * ends, color=RED, linewidth=1)
        axis.set_title(f"{'xyz'[i]}: measured over commanded, m", fontsize=9, loc="left")
    return _saved(figure, axes)


def gripper_timeline(examined: Examination) -> str:
    """The stored gripper command and measurement of the first episodes, step by step."""
    part = next((row for row in examined.robot.action if row.kind == "gripper"), None)
    state = None if part is None else examined.robot.commanded(part)
    if part is None or state is None or not examined.grips:
        return ""
    tracks = examined.result.tracks[:3]
    figure, axes = panel_grid(len(tracks))
    for axis, track in zip(axes, tracks, strict=True):
        for row, label, colour in ((part, "action", RED), (state, "state", BLUE)):
            values = track.values(row.path)
            if values is not None:
                axis.step(range(track.steps), values[:, 0], where="mid", color=colour,
                          label=f"{label}, as stored")  # fmt: skip
        axis.set_title(track.name.rsplit("-train.")[-1], fontsize=8, loc="left")
    return _saved(figure, axes)
