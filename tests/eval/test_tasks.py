import pytest

from eval.envs.tasks import (
    ALL,
    SEED_STRIDE,
    TASKS,
    TEST_SEEDS,
    TRAIN_SEEDS,
    parse_tasks,
    test_seed,
    train_seed,
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
    with pytest.raises(ValueError, match="expected .* got .* remedy"):
        test_seed(seed, i)


def test_task_words():
    assert parse_tasks("all") == ALL == tuple(TASKS)
    assert parse_tasks(" move_near,open_drawer, move_near") == ("move_near", "open_drawer")
    for words in ("", ",", "open_drawr", "all,open_drawer"):
        with pytest.raises(ValueError, match="remedy"):
            parse_tasks(words)


def test_the_table_agrees_with_the_embedded_simulator():
    import gymnasium

    import eval.envs.mujoco  # noqa: F401

    for task in TASKS.values():
        spec = gymnasium.spec(task.env_id)
        module, _, name = str(spec.entry_point).partition(":")
        scene = getattr(__import__(module, fromlist=[name]), name)
        assert scene.stages == task.stages
        assert spec.kwargs["horizon"] == task.horizon
