"""What a task is, the tasks that several simulators share, and the seeds of training and tests.

Horizons, success conditions and the order of instructions follow SIMPLER's Google-robot tasks
(`simpler-env/SimplerEnv`). Tasks of one simulator alone stand in its folder.

Training and test seeds never meet: demonstrations come from `TRAIN_SEEDS`, evaluation from
`TEST_SEEDS`, and both `test_seed` and `train_seed` refuse to leave their range.
"""

from __future__ import annotations

from dataclasses import dataclass

TRAIN_SEEDS = range(0, 1_000_000)
"""Seeds demonstrations are collected from."""
TEST_SEEDS = range(1_000_000, 2_000_000)
"""Seeds evaluation is run on; never seen in training."""
SEED_STRIDE = 10_000
"""Episodes per `--seed`: seed s owns the test seeds [1_000_000 + s*10_000, +10_000)."""


@dataclass(frozen=True)
class Task:
    """One task as the user names it, independent of the simulator that shows it."""

    name: str
    """What the command line calls it."""
    horizon: int
    """Control steps (3 Hz) after which the episode is truncated."""
    subtasks: tuple[str, ...]
    """Instructions in order; `{part}` and `{object}` are filled in per seed by the scene."""
    stages: tuple[str, ...]
    """Keys of `info["stages"]` that apply, in the order a successful episode passes them."""
    success: str
    """The success condition, in words."""
    robot: str = "google_robot"
    """Whose task it is: a policy acts on one robot, and no mean is of two."""


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="open_drawer",
            horizon=113,
            subtasks=("open {top|middle|bottom} drawer",),
            stages=("handle_touched", "drawer_opened"),
            success="the named drawer is open by at least 0.15 m",
        ),
        Task(
            name="close_drawer",
            horizon=113,
            subtasks=("close {top|middle|bottom} drawer",),
            stages=("handle_touched", "drawer_closed"),
            success="the named drawer is open by at most 0.05 m",
        ),
        Task(
            name="open_drawer_place",
            horizon=200,
            subtasks=("open top drawer", "place apple into top drawer"),
            stages=("handle_touched", "drawer_opened", "object_grasped", "object_in_drawer"),
            success=(
                "second sub-task reached, the drawer open by at least 0.05 m and "
                "the apple has touched the inside of the drawer"
            ),
        ),
        Task(
            name="pick_coke_can",
            horizon=80,
            subtasks=("pick coke can",),
            stages=("object_grasped", "object_lifted"),
            success="the can is held and lifted",
        ),
        Task(
            name="move_near",
            horizon=80,
            subtasks=("move {object} near {object}",),
            stages=("object_grasped", "object_moved"),
            success="the first object stands near the second",
        ),
    )
}

ALL: tuple[str, ...] = tuple(TASKS)
"""Every task of the Google robot, in the order tables show them."""


def test_seed(seed: int, i: int) -> int:
    """Environment seed of episode `i` under `--seed seed`: 1_000_000 + seed*10_000 + i."""
    return _seed(TEST_SEEDS, seed, i)


def train_seed(seed: int, i: int) -> int:
    """Environment seed of the `i`-th collection attempt under `--seed seed`: seed*10_000 + i."""
    return _seed(TRAIN_SEEDS, seed, i)


def _seed(seeds: range, seed: int, i: int) -> int:
    blocks = len(seeds) // SEED_STRIDE
    if not 0 <= seed < blocks:
        raise ValueError(f"seed: expected 0 <= seed < {blocks}, got {seed}; choose a smaller seed")
    if not 0 <= i < SEED_STRIDE:
        raise ValueError(
            f"episodes: expected fewer than {SEED_STRIDE} per task and seed, got episode {i}; "
            "spread the episodes over several --seed values"
        )
    return seeds[seed * SEED_STRIDE + i]


# pytest would collect the public function as a test wherever it is imported.
test_seed.__test__ = False
