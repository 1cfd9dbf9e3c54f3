"""Start states of demonstrations on SIMPLER: near the tested cells, never on one.

A seed draws a cell of `vm` (so URDF colour, photo and drawer are among the tests') and moves what
is continuous in it. The robot stands 5 to 15 mm and up to 0.015 rad from where the photo was taken,
near enough that the photo still fits, and never where a test has it. The apple or the can stands
anywhere in the tests' area, at least 5 mm from each of their places. In `move_near` the objects
stand where upstream's 60 episodes have them; only the robot's place differs there.
"""

from __future__ import annotations

from math import asin
from typing import Any

import numpy as np

from eval.envs.simpler.cells import Cell, cells, stand, xy
from eval.envs.tasks import ALL

STARTS = (
    "training starts: the robot 5 to 15 mm from the tests' places, apple and can at least 5 mm "
    "from theirs; drawers, colours, photos and move_near's objects are the tests'"
)
"""The overlap of a collection with the tests, as recorded."""
ROBOT_MOVED = (0.005, 0.015)
"""m; distance of the robot from its place in the tests."""
ROBOT_TURNED = 0.015
"""rad; largest rotation of the robot."""
APART = 0.005
"""m; least distance of an apple or a can from each tested place."""
_MARGIN = 0.01


def training(task: str, seed: int) -> Cell:
    """The start that `seed` draws; `ValueError` for a task without training starts."""
    if task not in ALL:
        raise ValueError(
            f"protocol: expected a task of the Google robot for train, got {task}; "
            "use --protocol vm"
        )
    rng = np.random.default_rng([0x51A7, seed])
    grid = cells(task, "vm")
    cell = grid[int(rng.integers(len(grid)))]
    robot = cell.reset["robot_init_options"]
    yaw = -2.0 * asin(robot["init_rot_quat"][0]) + rng.uniform(-ROBOT_TURNED, ROBOT_TURNED)
    far, way = rng.uniform(*ROBOT_MOVED), rng.uniform(-np.pi, np.pi)
    x, y = np.array(robot["init_xy"]) + far * np.array([np.cos(way), np.sin(way)])
    options: dict[str, Any] = {**cell.reset, "robot_init_options": stand(float(x), float(y), yaw)}
    name = cell.name
    if drawn := cell.reset.get("obj_init_options", {}).get("init_xy"):
        tested = np.array([other.reset["obj_init_options"]["init_xy"] for other in grid])
        place = _between(rng, np.unique(tested, axis=0))
        options["obj_init_options"] = {"init_xy": place}
        name = name.replace(xy(drawn), xy(place))
    return Cell(task, f"seed {seed}: beside {name}", cell.env_id, cell.build, options, cell.seed)


def _between(rng: np.random.Generator, tested: np.ndarray) -> list[float]:
    """A place in the area of `tested` (N, 2), at least `APART` from each of them."""
    while True:
        place = rng.uniform(tested.min(0) - _MARGIN, tested.max(0) + _MARGIN)
        if np.linalg.norm(tested - place, axis=1).min() >= APART:
            return [round(float(value), 6) for value in place]
