"""Learning curves of the runs of benchmarks.claims: held-out loss against steps and compute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selfflow_wm.files import write_file
from selfflow_wm.training.curves import Curve, draw, read_curves


def read_losses(run: Path) -> dict[str, Curve]:
    """Mode -> its curve: the flow-matching loss of the EMA on held-out samples, with the same
    noise at every step and in every arm (metrics.jsonl)."""
    curves = read_curves(run)
    wanted = [name for name in curves if name.startswith("validation/") and name.endswith("/loss")]
    return {name.split("/")[1]: curves[name] for name in wanted}


def write_curves(file: Path, runs: Mapping[tuple[str, int], Path], cost: float) -> bool:
    """A PNG: the loss of each mode against steps, then against compute in steps of flow_matching;
    lines are means over seeds, bands go from the lowest seed to the highest.

    runs: (objective, seed) -> run. cost: FLOPs of a step of self_flow over one of flow_matching.
    False, and no file, when a run was too short for a validation.
    """
    arms: dict[str, list[dict[str, Curve]]] = {}
    panels: dict[str, None] = {}
    for (objective, _), run in runs.items():
        losses = read_losses(run)
        if not losses:
            return False
        scale = cost if objective == "self_flow" else 1.0
        compute = {
            f"{mode}, compute in steps of flow_matching": {
                round(scale * s): v for s, v in curve.items()
            }
            for mode, curve in losses.items()
        }
        arms.setdefault(objective, []).append(losses | compute)
        panels = dict.fromkeys([*losses, *compute])
    write_file(file, draw(arms, list(panels)))
    return True
