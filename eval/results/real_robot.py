"""Does a simulator rank policies as the real robot does? MMRV and Pearson r to published runs.

`REAL` and `PUBLISHED` are success rates of the SIMPLER paper (Li et al., "Evaluating Real-World
Robot Manipulation Policies in Simulation", arXiv 2405.05941), as printed in
`simpler_env/utils/metrics.py` of simpler-env/SimplerEnv at 4ab7178: on the real robots, and in
SIMPLER's visual matching.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.results.results import DRAWERS

_GOOGLE = ("rt-2-x", "rt-1-converged", "rt-1-15pct", "rt-1-x", "rt-1-begin", "octo-base")
_BRIDGE = ("rt-1-x", "octo-base", "octo-small")


def _row(policies: Sequence[str], *rates: float) -> dict[str, float]:
    return dict(zip(policies, rates, strict=True))


REAL: dict[str, dict[str, float]] = {
    "pick_coke_can": _row(_GOOGLE, 0.907, 0.853, 0.920, 0.760, 0.133, 0.293),
    "move_near": _row(_GOOGLE, 0.733, 0.633, 0.583, 0.450, 0.017, 0.350),
    "open_drawer": _row(_GOOGLE, 0.333, 0.815, 0.704, 0.519, 0.000, 0.148),
    "close_drawer": _row(_GOOGLE, 0.630, 0.926, 0.889, 0.741, 0.000, 0.519),
    "open_drawer_place": _row(_GOOGLE, 0.074, 0.185, 0.185, 0.407, 0.000, 0.000),
    "widowx_spoon_on_towel": _row(_BRIDGE, 0.000, 0.333, 0.417),
    "widowx_carrot_on_plate": _row(_BRIDGE, 0.000, 0.250, 0.083),
    "widowx_stack_cube": _row(_BRIDGE, 0.000, 0.000, 0.125),
    "widowx_put_eggplant_in_basket": _row(_BRIDGE, 0.000, 0.250, 0.400),
}
"""Task -> policy -> success on the real robot."""

PUBLISHED: dict[str, dict[str, float]] = {
    "pick_coke_can": _row(_GOOGLE, 0.787, 0.857, 0.710, 0.567, 0.027, 0.170),
    "move_near": _row(_GOOGLE, 0.779, 0.442, 0.354, 0.317, 0.050, 0.042),
    "open_drawer": _row(_GOOGLE, 0.157, 0.601, 0.463, 0.296, 0.000, 0.009),
    "close_drawer": _row(_GOOGLE, 0.343, 0.861, 0.667, 0.891, 0.278, 0.444),
    "open_drawer_place": _row(_GOOGLE, 0.037, 0.065, 0.130, 0.213, 0.000, 0.000),
    "widowx_spoon_on_towel": _row(_BRIDGE, 0.000, 0.125, 0.472),
    "widowx_carrot_on_plate": _row(_BRIDGE, 0.042, 0.083, 0.097),
    "widowx_stack_cube": _row(_BRIDGE, 0.000, 0.000, 0.042),
    "widowx_put_eggplant_in_basket": _row(_BRIDGE, 0.000, 0.431, 0.569),
}
"""Task -> policy -> success in SIMPLER (visual matching, last step) as published."""

SCENES = "simpler"
"""The simulator that `PUBLISHED` was measured in; its scenes are modelled on those of `REAL`."""
POLICIES = tuple(dict.fromkeys(name for row in REAL.values() for name in row))
"""Every policy with real-robot results."""


def mean_maximum_rank_violation(simulated: Sequence[float], real: Sequence[float]) -> float:
    """MMRV of the SIMPLER paper: 0 where the simulator ranks as reality does, at most 1.

    For each policy, the largest real difference to another policy that the simulator reverses (or
    turns into or out of a tie); the mean of these over policies. Not symmetric: the size of a
    violation is measured on the real robot.
    """
    sim, truth = _two_rows(simulated, real)
    violated = (sim[:, None] > sim) != (truth[:, None] > truth)
    return float(np.max(np.abs(truth[:, None] - truth) * violated, axis=1).mean())


def pearson(simulated: Sequence[float], real: Sequence[float]) -> float | None:
    """Pearson's correlation; None if one of the rows is constant."""
    sim, truth = _two_rows(simulated, real)
    if np.ptp(sim) == 0 or np.ptp(truth) == 0:
        return None
    return float(np.corrcoef(sim, truth)[0, 1])


def _two_rows(simulated: Sequence[float], real: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    sim, truth = np.asarray(simulated, float), np.asarray(real, float)
    if sim.shape != truth.shape or sim.ndim != 1 or len(sim) < 2:
        raise ValueError(
            "rank: expected two rows of equally many rates, at least two, got shapes "
            f"{sim.shape} and {truth.shape}; give one rate per policy in each"
        )
    return sim, truth


def parse_policies(words: str, runs: int) -> list[str]:
    """Names of `POLICIES`, one for each of `runs` runs, from a comma-separated list."""
    names = [word.strip() for word in words.split(",") if word.strip()]
    unknown = [name for name in names if name not in POLICIES]
    if unknown or len(names) != runs or len(set(names)) != len(names):
        raise ValueError(
            f"against-real: expected {runs} different policies, one for each run in order, out of "
            f"{', '.join(POLICIES)}, got {words!r}; name the policy that each run evaluates"
        )
    return names


def against_real(rates: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """How well simulated rates agree with the real robot, task by task.

    Args:
        rates: task -> policy (of `POLICIES`) -> simulated success in [0, 1].

    Returns:
        One row per task with at least two policies that have a real number: {"task", "policies",
        "simulated", "real", "published", "mmrv", "pearson"}. If both drawer tasks are there, a row
        `drawer` holds their means, as in SIMPLER's tables.
    """
    tables = {task: dict(row) for task, row in rates.items()}
    real, published = dict(REAL), dict(PUBLISHED)
    if set(DRAWERS) <= set(tables):
        for table in (tables, real, published):
            opening, closing = (table[task] for task in DRAWERS)
            table["drawer"] = {
                name: (opening[name] + closing[name]) / 2 for name in opening if name in closing
            }
    rows = []
    for task, row in tables.items():
        names = [name for name in row if name in real.get(task, {})]
        if len(names) < 2:
            continue
        simulated, truth = [row[n] for n in names], [real[task][n] for n in names]
        rows.append({
            "task": task, "policies": names, "simulated": simulated, "real": truth,
            "published": [published[task][name] for name in names],
            "mmrv": mean_maximum_rank_violation(simulated, truth),
            "pearson": pearson(simulated, truth),
        })  # fmt: skip
    return rows
