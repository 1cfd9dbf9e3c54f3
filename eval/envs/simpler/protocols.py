"""A protocol's cell by its number: out of a grid, or drawn from a seed."""

from __future__ import annotations

from typing import Any

from eval.envs.simpler.cells import SCENES, Cell, cells
from eval.envs.simpler.training import training


def prepackaged(task: str, seed: int) -> Cell:
    """The start that `simpler_env.make` draws from `seed`, without arguments of earlier calls."""
    build: dict[str, Any] = {"prepackaged_config": True}
    if task == "open_drawer_place":
        build["model_ids"] = "baked_apple_v2"
    build["shader"] = "rt" if "drawer" in task else "ibl"
    return Cell(task, f"seed {seed}", SCENES[task], build, {}, seed)


def cell_at(task: str, protocol: str, index: int) -> Cell:
    """Cell `index` of a protocol; for those of `SEEDED`, seed `index`."""
    if protocol == "prepackaged":
        return prepackaged(task, index)
    if protocol == "train":
        return training(task, index)
    grid = cells(task, protocol)
    if not 0 <= index < len(grid):
        raise ValueError(
            f"cell: expected 0 <= cell < {len(grid)} of {task} under {protocol}, got {index}; "
            "list them with --list-cells"
        )
    return grid[index]
