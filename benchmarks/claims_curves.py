"""Learning curves of the runs of benchmarks.claims: held-out loss against steps and compute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from selfflow_wm.files import atomic_file

Curve = dict[int, float]
"""Step -> loss."""


def read_losses(run: Path) -> dict[str, Curve]:
    """Mode -> its curve: the flow-matching loss of the EMA on held-out samples, with the same
    noise at every step and in every arm (metrics.jsonl)."""
    curves: dict[str, Curve] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            group, _, rest = name.removeprefix("validation/").partition("/")
            if name.startswith("validation/") and rest == "loss":
                curves.setdefault(group, {})[int(row["step"])] = float(value)
    return curves


def write_curves(file: Path, runs: Mapping[tuple[str, int], Path], cost: float) -> bool:
    """A PNG: above against steps, below against compute in steps of flow_matching; lines are means
    over seeds, bands go from the lowest seed to the highest.

    runs: (objective, seed) -> run. cost: FLOPs of a step of self_flow over one of flow_matching.
    False, and no file, when a run was too short for a validation.
    """
    from matplotlib.figure import Figure

    curves = {key: read_losses(run) for key, run in runs.items()}
    if not all(curves.values()):
        return False
    modes = list(next(iter(curves.values())))
    figure = Figure(figsize=(3.4 * len(modes), 5.6), layout="constrained")
    panels = figure.subplots(2, len(modes), squeeze=False)
    objectives = list(dict.fromkeys(objective for objective, _ in runs))
    for column, mode in enumerate(modes):
        for number, objective in enumerate(objectives):
            own = [curves[key][mode] for key in runs if key[0] == objective]
            steps = sorted(set.intersection(*(set(curve) for curve in own)))
            values = np.array([[curve[step] for step in steps] for curve in own])
            for row, scale in enumerate((1.0, cost if objective == "self_flow" else 1.0)):
                at = scale * np.array(steps)
                panel, color = panels[row, column], f"C{number}"
                panel.plot(at, values.mean(0), "o-", color=color, markersize=3, label=objective)
                panel.fill_between(
                    at, values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0
                )
        panels[0, column].set_title(mode.replace("_", " "), fontsize=10)
        panels[0, column].set_xlabel("steps")
        panels[1, column].set_xlabel("compute, steps of flow_matching")
    for panel in panels.flat:
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:.2g}")
        panel.yaxis.set_minor_formatter("{x:.2g}")
        panel.grid(alpha=0.25, which="both")
    panels[0, 0].set_ylabel("held-out loss")
    panels[1, 0].set_ylabel("held-out loss")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    with atomic_file(file) as temporary, temporary.open("wb") as out:
        figure.savefig(out, format="png", dpi=110)
    return True
