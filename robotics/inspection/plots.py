"""Pictures of a data set as PNGs in base64, for a page that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from robotics.data.images import strip
from robotics.inspection.gripper import Grip
from robotics.inspection.motion import Motion
from robotics.inspection.scan import PLACES, Scan
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
    """Label and picture of each episode that is shown."""
    return [(label, encode(strip([frames]))) for label, frames in result.strips]


def _saved(figure: Any, axes: Sequence[Any]) -> str:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return base64.b64encode(to_png(figure, axes)).decode()


def histograms(result: Scan) -> str:
    """Every value of the action and of proprioception, as stored; red: q01 and q99."""
    panels = []
    for place in PLACES:
        values = [track.parts[place] for track in result.tracks if place in track.parts]
        if values:
            everything = np.concatenate(values)
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


def lengths(result: Scan) -> str:
    """Steps of the episodes, and how often each instruction occurs."""
    if not result.lengths:
        return ""
    figure, axes = panel_grid(2)
    left, right = axes
    left.hist(result.lengths, bins=min(BINS, 1 + max(result.lengths)), color=BLUE)
    left.set_title("steps of the episodes", fontsize=9, loc="left")
    rows = result.texts.episodes.most_common(10)[::-1]
    names = [(text if len(text) < 40 else text[:38] + "…") or "(empty)" for text, _ in rows]
    right.barh(range(len(rows)), [count for _, count in rows], color=BLUE)
    right.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name in names])
    right.set_title("episodes of the commonest instructions", fontsize=9, loc="left")
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
            for way in (fit.convention for fit in chosen)
        ]
        axis.set_yticks(range(len(chosen)), labels)
        axis.set_xlim(0, 1)
        title = f"{motion.name}: share of the measured motion explained"
        axis.set_title(title, fontsize=9, loc="right")
        axis.tick_params(axis="y", labelsize=7)
    return _saved(figure, axes)


def scatter(result: Scan, motion: Motion | None) -> str:
    """Commanded against measured translation, axis by axis; line: what the gain predicts."""
    if motion is None:
        return ""
    figure, axes = panel_grid(3)
    absolute = motion.stated.convention.kind == "absolute"
    lag = motion.stated.lag
    commanded, measured = [], []
    for track in result.tracks:
        if "action.position" in track.parts and "proprio.position" in track.parts:
            x, command = track.parts["proprio.position"], track.parts["action.position"]
            count = max(len(x) - 1 - lag, 0)
            commanded.append((command - x if absolute else command)[:count])
            measured.append(np.diff(x, axis=0)[lag : lag + count])
    p, m = np.concatenate(commanded)[:5000], np.concatenate(measured)[:5000]
    for i, axis in enumerate(axes):
        axis.plot(p[:, i], m[:, i], ".", markersize=2, color=BLUE, alpha=0.5)
        ends = np.array([p[:, i].min(), p[:, i].max()])
        axis.plot(ends, motion.stated.gain * ends, color=RED, linewidth=1)
        axis.set_title(f"{'xyz'[i]}: measured over commanded, m", fontsize=9, loc="left")
    return _saved(figure, axes)


def gripper_timeline(result: Scan, grip: Grip | None) -> str:
    """The stored gripper command and measurement of the first episodes, step by step."""
    names = ("action.gripper", "proprio.gripper")
    tracks = [t for t in result.tracks if all(name in t.parts for name in names)][:3]
    if grip is None or not tracks:
        return ""
    figure, axes = panel_grid(len(tracks))
    for axis, track in zip(axes, tracks, strict=True):
        for name, colour in zip(names, (RED, BLUE), strict=True):
            axis.step(range(track.steps), track.parts[name][:, 0], where="mid", color=colour,
                      label=f"{name}, as stored")  # fmt: skip
        axis.set_title(track.name.rsplit("-train.")[-1], fontsize=8, loc="left")
    return _saved(figure, axes)
