import importlib

import pytest

from eval.envs.contract import SEED_STRIDE, TEST_SEEDS, TRAIN_SEEDS, test_seed, train_seed
from eval.envs.simpler import Simpler
from eval.envs.simpler.tasks import WIDOWX
from eval.envs.tasks import (
    ALL,
    TASKS,
)


def test_training_and_test_seeds_never_meet():
    assert set(TRAIN_SEEDS).isdisjoint(TEST_SEEDS)
    last = SEED_STRIDE - 1
    for seed in (0, 1, 99):
        for i in (0, last):
            assert test_seed(seed, i) in TEST_SEEDS
            assert train_seed(seed, i) in TRAIN_SEEDS
    assert test_seed(0, last) + 1 == test_seed(1, 0)


def test_seed_is_the_documented_formula():
    assert test_seed(3, 7) == 1_000_000 + 3 * 10_000 + 7


@pytest.mark.parametrize(("seed", "i"), [(-1, 0), (100, 0), (0, -1), (0, SEED_STRIDE)])
def test_seeds_outside_their_block_are_refused(seed, i):
    with pytest.raises(ValueError, match="expected .*, got .*; "):
        test_seed(seed, i)


def test_task_words():
    simulator = Simpler()
    assert simulator.parse_tasks("all") == ALL == tuple(TASKS)
    assert simulator.parse_tasks("widowx") == tuple(WIDOWX)
    assert simulator.parse_tasks(" move_near,open_drawer, move_near") == (
        "move_near",
        "open_drawer",
    )
    for words in ("", ",", "open_drawr", "all,open_drawer", "move_near,widowx_stack_cube"):
        with pytest.raises(ValueError, match="expected .*, got "):
            simulator.parse_tasks(words)


def test_the_scenes_are_those_of_the_tasks():
    import gymnasium

    from eval.envs.mujoco.scenes import ENV_IDS

    assert set(ENV_IDS) == set(TASKS)
    for name, task in TASKS.items():
        spec = gymnasium.spec(ENV_IDS[name])
        module, _, scene = str(spec.entry_point).partition(":")
        assert getattr(importlib.import_module(module), scene).stages == task.stages
        assert spec.kwargs["horizon"] == task.horizon
