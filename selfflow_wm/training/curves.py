"""Learning curves from what runs logged (metrics.jsonl)."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

Curve = dict[int, float]
"""Step -> value."""

COLUMNS = 4
"""Panels beside each other."""


def read_curves(run: Path) -> dict[str, Curve]:
    """Name -> curve of everything in RUN/metrics.jsonl; values that were not finite are left out.

    ValueError where there is no such file. A last line that is still being written is passed over.
    """
    file = run / "metrics.jsonl"
    if not file.is_file():
        raise ValueError(
            f"{run}: expected the directory of a training run, got none with metrics.jsonl; check "
            "the path (out= of the training)"
        )
    curves: dict[str, Curve] = {}
    for line in file.read_text().splitlines():
        try:
            row = json.loads(line)
            step = int(row.pop("step"))
        except (ValueError, KeyError, AttributeError):
            continue
        row.pop("time", None)
        for name, value in row.items():
            if isinstance(value, int | float):
                curves.setdefault(name, {})[step] = float(value)
    return curves


def choose(names: Sequence[str], patterns: Sequence[str] = ()) -> list[str]:
    """The metrics that patterns mean, in their order (`*` stands for anything).

    Without patterns: the held-out loss of each mode, and where a mode generates several modalities
    of each of them; without a validation the training loss. ValueError for a pattern that nothing
    fits.
    """
    if patterns:
        chosen = []
        for pattern in patterns:
            fitting = [name for name in names if fnmatchcase(name, pattern)]
            if not fitting:
                logged = sorted({name for name in names if "/bin/" not in name})
                raise ValueError(
                    f"metrics: expected some of {', '.join(logged) or 'none'}, got {pattern!r}; "
                    "write one of these, or a pattern as 'validation/*/loss'"
                )
            chosen += [name for name in fitting if name not in chosen]
        return chosen
    chosen = []
    for loss in [name for name in names if fnmatchcase(name, "validation/*/loss")]:
        parts = [n for n in names if n.startswith(loss.removesuffix("loss") + "gen/")]
        chosen += [loss, *(parts if len(parts) > 1 else [])]
    return chosen or [name for name in names if name == "train/loss"]


def common_steps(curves: Sequence[Curve]) -> list[int]:
    """The steps that all of them have, in order."""
    return sorted(set.intersection(*(set(curve) for curve in curves)))


def plot_mean(
    panel: Any, curves: Sequence[Curve], label: str, color: str, scale: float = 1
) -> None:
    """A line through the means of curves (of seeds) where all have a value, and a band from the
    lowest to the highest. scale: of the steps."""
    steps = common_steps(curves)
    values = np.array([[curve[step] for step in steps] for curve in curves])
    at = scale * np.array(steps)
    panel.plot(at, values.mean(0), "o-", color=color, markersize=3, label=label)
    panel.fill_between(at, values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0)


def dress(panel: Any, log: bool) -> None:
    """Grid and readable ticks of a panel of losses. log: logarithmic, for values above 0."""
    if log:
        from matplotlib.ticker import LogLocator

        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:.2g}")
        low, high = panel.get_ylim()
        if high < 5 * low:
            panel.yaxis.set_minor_formatter("{x:.2g}")
        else:  # the names of all ticks would run into each other
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_minor_formatter("")
    panel.grid(alpha=0.25, which="both")


def draw(arms: Mapping[str, Sequence[Mapping[str, Curve]]], metrics: Sequence[str]) -> bytes:
    """A PNG: a panel per metric against steps, a line per arm.

    arms: name -> what `read_curves` gave for each of its runs.
    """
    from matplotlib.figure import Figure

    across = min(COLUMNS, len(metrics))
    down = -(-len(metrics) // across)
    figure = Figure(figsize=(0.6 + 3.6 * across, 0.8 + 2.8 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for panel, metric in zip(panels, metrics, strict=False):
        lowest = []
        for number, (name, runs) in enumerate(arms.items()):
            curves = [run[metric] for run in runs if metric in run]
            if curves:
                plot_mean(panel, curves, name, f"C{number}")
                lowest += [min(curve.values()) for curve in curves]
        dress(panel, log=min(lowest) > 0)
        panel.set_title(metric, fontsize=10)
        panel.set_xlabel("steps")
    for panel in panels[len(metrics) :]:
        panel.remove()
    lines = {
        label: handle
        for panel in panels[: len(metrics)]
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=min(4, len(lines))
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
