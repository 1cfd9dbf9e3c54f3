"""Learning curves from what runs logged (metrics.jsonl)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_wm.panels import panel_grid, to_png

Curve = dict[int, float]
"""Step -> value."""


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


def plot_mean(panel: Any, curves: Sequence[Curve], label: str, color: str) -> None:
    """A line through the means of curves (of seeds) where all have a value, and a band from the
    lowest to the highest."""
    steps = common_steps(curves)
    values = np.array([[curve[step] for step in steps] for curve in curves])
    panel.plot(steps, values.mean(0), "o-", color=color, markersize=3, label=label)
    panel.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0)


def dress(panel: Any, log: bool) -> None:
    """Grid and readable ticks of a panel of losses. log: logarithmic, for values above 0."""
    if log:
        from matplotlib.ticker import LogLocator

        panel.set_yscale("log")
        low, high = panel.get_ylim()
        digits = 3 + max(0, math.floor(-math.log10(high / low - 1)))  # that ticks differ
        panel.yaxis.set_major_formatter(f"{{x:.{digits}g}}")
        if high < 5 * low:
            panel.yaxis.set_minor_formatter(f"{{x:.{digits}g}}")
        else:  # the names of all ticks would run into each other
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_minor_formatter("")
    panel.grid(alpha=0.25, which="both")


def draw(arms: Mapping[str, Sequence[Mapping[str, Curve]]], metrics: Sequence[str]) -> bytes:
    """A PNG: a panel per metric against steps, a line per arm.

    arms: name -> what `read_curves` gave for each of its runs.
    """
    figure, panels = panel_grid(len(metrics))
    for panel, metric in zip(panels, metrics, strict=True):
        lowest = []
        for number, (name, runs) in enumerate(arms.items()):
            curves = [run[metric] for run in runs if metric in run]
            if curves:
                plot_mean(panel, curves, name, f"C{number}")
                lowest += [min(curve.values()) for curve in curves]
        dress(panel, log=min(lowest) > 0)
        panel.set_title(metric, fontsize=10)
        panel.set_xlabel("steps")
    return to_png(figure, panels)
