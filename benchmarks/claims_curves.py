"""Learning curves of the runs of benchmarks.claims: held-out loss against steps and compute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selfflow_wm.files import atomic_file
from selfflow_wm.panels import panel_grid, to_png
from selfflow_wm.training.curves import Curve, dress, plot_mean, read_curves


def read_losses(run: Path) -> dict[str, Curve]:
    """Mode -> its curve: the flow-matching loss of the EMA on held-out samples, with the same
    noise at every step and in every arm (metrics.jsonl)."""
    curves = read_curves(run)
    wanted = [name for name in curves if name.startswith("validation/") and name.endswith("/loss")]
    return {name.split("/")[1]: curves[name] for name in wanted}


def write_curves(file: Path, runs: Mapping[tuple[str, int], Path], cost: float) -> bool:
    """A PNG: above against steps, below against compute in steps of flow_matching; lines are means
    over seeds, bands go from the lowest seed to the highest.

    runs: (objective, seed) -> run. cost: FLOPs of a step of self_flow over one of flow_matching.
    False, and no file, when a run was too short for a validation.
    """
    curves = {key: read_losses(run) for key, run in runs.items()}
    if not all(curves.values()):
        return False
    modes = list(next(iter(curves.values())))
    figure, panels = panel_grid(2 * len(modes), across=len(modes))
    above, below = panels[: len(modes)], panels[len(modes) :]
    objectives = list(dict.fromkeys(objective for objective, _ in runs))
    for column, mode in enumerate(modes):
        for number, objective in enumerate(objectives):
            own = [curves[key][mode] for key in runs if key[0] == objective]
            scale = cost if objective == "self_flow" else 1.0
            plot_mean(above[column], own, objective, f"C{number}")
            plot_mean(below[column], own, objective, f"C{number}", scale)
        above[column].set_title(mode.replace("_", " "), fontsize=10)
        above[column].set_xlabel("steps")
        below[column].set_xlabel("compute, steps of flow_matching")
    for panel in panels:
        dress(panel, log=True)
    above[0].set_ylabel("held-out loss")
    below[0].set_ylabel("held-out loss")
    with atomic_file(file) as temporary:
        temporary.write_bytes(to_png(figure, panels))
    return True
