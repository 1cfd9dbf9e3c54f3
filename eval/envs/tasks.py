"""The tasks, their horizons and the seeds that training and evaluation may use.

Horizons, success conditions and the order of instructions follow SIMPLER's Google-robot tasks
(`simpler-env/SimplerEnv`); `env_id` names the scene of the embedded MuJoCo simulator.

Training and test seeds never meet: demonstrations come from `TRAIN_SEEDS`, evaluation from
`TEST_SEEDS`, and both `test_seed` and `train_seed` refuse to leave their range.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    env_id: str
    """gymnasium id of the embedded simulator's scene."""
    horizon: int
    """Control steps (3 Hz) after which the episode is truncated."""
    subtasks: tuple[str, ...]
    """Instructions in order; `{part}` and `{object}` are filled in per seed by the scene."""
    stages: tuple[str, ...]
    """Keys of `info["stages"]` that apply, in the order a successful episode passes them."""
    success: str
    """The success condition, in words."""


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="open_drawer",
            env_id="selfflow_wm/OpenDrawer-v0",
            horizon=113,
            subtasks=("open {top|middle|bottom} drawer",),
            stages=("handle_touched", "drawer_opened"),
            success="the named drawer is open by at least 0.15 m",
        ),
        Task(
            name="close_drawer",
            env_id="selfflow_wm/CloseDrawer-v0",
            horizon=113,
            subtasks=("close {top|middle|bottom} drawer",),
            stages=("handle_touched", "drawer_closed"),
            success="the named drawer is open by at most 0.05 m",
        ),
        Task(
            name="open_drawer_place",
            env_id="selfflow_wm/OpenDrawerPlace-v0",
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
            env_id="selfflow_wm/PickCokeCan-v0",
            horizon=80,
            subtasks=("pick coke can",),
            stages=("object_grasped", "object_lifted"),
            success="the can is held and lifted",
        ),
        Task(
            name="move_near",
            env_id="selfflow_wm/MoveNear-v0",
            horizon=80,
            subtasks=("move {object} near {object}",),
            stages=("object_grasped", "object_moved"),
            success="the first object stands near the second",
        ),
    )
}

ALL: tuple[str, ...] = tuple(TASKS)
"""Every task of the Google robot, in the order tables show them."""

_BRIDGE_STAGES = ("object_grasped", "object_moved", "object_on_target")
WIDOWX: dict[str, Task] = {
    name: Task(
        name=name,
        env_id="",
        horizon=horizon,
        subtasks=(instruction,),
        stages=_BRIDGE_STAGES,
        success="the object rests on its target",
    )
    for name, horizon, instruction in (
        ("widowx_spoon_on_towel", 60, "put the spoon on the towel"),
        ("widowx_carrot_on_plate", 60, "put carrot on plate"),
        ("widowx_stack_cube", 60, "stack the green block on the yellow block"),
        ("widowx_put_eggplant_in_basket", 120, "put eggplant into yellow basket"),
    )
}
"""SIMPLER's four Bridge tasks; the embedded simulator has no scene for them."""

GROUPS: dict[str, tuple[str, ...]] = {"all": ALL, "widowx": tuple(WIDOWX)}
"""Words for all tasks of a robot. They stand alone: no number is of both robots."""


def get_task(name: str) -> Task:
    """The task called `name`; `ValueError` lists the known ones."""
    try:
        return TASKS[name] if name in TASKS else WIDOWX[name]
    except KeyError:
        raise ValueError(
            f"task: expected one of {', '.join((*ALL, *WIDOWX))}; got {name!r}; "
            "remedy: correct the spelling, or give 'all' or 'widowx' alone"
        ) from None


def parse_tasks(words: str) -> tuple[str, ...]:
    """Task names from one name, a comma list, `all` (the Google robot's) or `widowx` (the other
    robot's), without repeats, in the order given."""
    if words.strip() in GROUPS:
        return GROUPS[words.strip()]
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise ValueError(
            f"task: expected a name, a comma list or 'all'; got {words!r}; "
            f"remedy: choose from {', '.join(ALL)}"
        )
    return tuple(get_task(name).name for name in dict.fromkeys(names))


def one_robot(tasks: Sequence[str]) -> None:
    """`ValueError` where tasks are of two robots: a policy acts on one, and no mean is of both."""
    bridge = [task for task in tasks if task in WIDOWX]
    if bridge and len(bridge) < len(tasks):
        others = [task for task in tasks if task not in WIDOWX]
        raise ValueError(
            f"task: expected tasks of one robot; got {', '.join(others)} of the Google robot and "
            f"{', '.join(bridge)} of the WidowX; remedy: make a run of each"
        )


def test_seed(seed: int, i: int) -> int:
    """Environment seed of episode `i` under `--seed seed`: 1_000_000 + seed*10_000 + i."""
    return _seed(TEST_SEEDS, seed, i)


def train_seed(seed: int, i: int) -> int:
    """Environment seed of the `i`-th collection attempt under `--seed seed`: seed*10_000 + i."""
    return _seed(TRAIN_SEEDS, seed, i)


def _seed(seeds: range, seed: int, i: int) -> int:
    blocks = len(seeds) // SEED_STRIDE
    if not 0 <= seed < blocks:
        raise ValueError(
            f"seed: expected 0 <= seed < {blocks}; got {seed}; remedy: choose a smaller seed"
        )
    if not 0 <= i < SEED_STRIDE:
        raise ValueError(
            f"episodes: expected fewer than {SEED_STRIDE} per task and seed; got episode {i}; "
            "remedy: spread the episodes over several --seed values"
        )
    return seeds[seed * SEED_STRIDE + i]


# pytest would collect the public function as a test wherever it is imported.
test_seed.__test__ = False
