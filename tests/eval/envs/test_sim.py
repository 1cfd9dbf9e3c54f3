"""The embedded simulator: contract, physics, protocol, and the expert that proves it solvable."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.spatial.transform import Rotation

from eval.envs.mujoco import Mujoco
from eval.envs.mujoco.scenes import ENV_IDS
from eval.envs.tasks import TASKS
from eval.policies.scripted import attach
from eval.rollout.demonstrations import Perturbation, PerturbedExpert
from eval.rollout.episode import EpisodeResult, run_episode

NAMES = tuple(TASKS)


def make(task: str, obs_mode: str = "state"):
    return gymnasium.make(ENV_IDS[task], obs_mode=obs_mode)


def run_expert(env, task: str, seed: int, noise: float = 0.0) -> EpisodeResult:
    """The expert's episode, every step perturbed by `noise` m and 5 * `noise` rad."""
    policy = PerturbedExpert(Perturbation(noise, 5 * noise, 1.0, terminate_delay=0.0))
    attach(policy, env, TASKS[task], Mujoco())
    return run_episode(env, policy, TASKS[task], seed)


@pytest.mark.parametrize("task", NAMES)
def test_gymnasium_contract(task):
    env = make(task, "rgb")
    check_env(env.unwrapped, skip_render_check=False)
    observation, info = env.reset(seed=1)
    assert observation["image"].std() > 10, "the camera sees nothing"
    assert set(info["stages"]) == set(TASKS[task].stages)
    assert env.unwrapped.horizon == TASKS[task].horizon


@pytest.mark.parametrize("task", NAMES)
def test_seed_fixes_everything_and_differs(task):
    env = make(task, "rgb")
    action = np.array([0.03, 0.01, -0.02, 0, 0.1, 0, 1], np.float32)

    def rollout(seed):
        env.reset(seed=seed)
        return [env.step(action)[0] for _ in range(3)]

    first, again, other = rollout(3), rollout(3), rollout(4)
    for a, b in zip(first, again, strict=True):
        assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not np.array_equal(first[-1]["image"], other[-1]["image"])


def test_action_moves_the_tool_as_stated():
    """Δxyz in the base frame (m) and axis-angle (rad), relative to the sensed pose."""
    env = make("open_drawer")
    before, _ = env.reset(seed=0)
    env.step(np.array([0, 0, 0, 0, 0, 0, 0], np.float32))
    before = env.unwrapped._observe()["tool_pose"]
    turn = np.array([0.0, 0.2, 0.0])
    after = env.step(np.array([-0.02, 0.03, 0.04, *turn, 0], np.float32))[0]["tool_pose"]
    np.testing.assert_allclose(after[:3] - before[:3], [-0.02, 0.03, 0.04], atol=0.006)
    turned = Rotation.from_quat(after[3:]) * Rotation.from_quat(before[3:]).inv()
    np.testing.assert_allclose(turned.as_rotvec(), turn, atol=0.03)


def test_gripper_sense_and_deadband():
    env = make("open_drawer")
    env.reset(seed=0)

    def closed(command):
        return env.step(np.array([0] * 6 + [command], np.float32))[0]["gripper_closed"][0]

    assert closed(1.0) > 0.8
    assert closed(5e-4) > 0.8, "below the deadband the target is kept"
    assert closed(-1.0) < 0.2


def test_drawer_needs_a_hand():
    """A hand waved in free air moves no drawer, and a drawer stays where it was left."""
    env = make("close_drawer")
    env.reset(seed=2)
    start = env.unwrapped.travel
    for _ in range(10):
        _, _, _, _, info = env.step(np.array([0, 0, 0.02, 0, 0, 0, 1], np.float32))
    assert abs(env.unwrapped.travel - start) < 2e-3
    assert not info["success"] and not info["stages"]["handle_touched"]


def test_forced_switch_at_step_100_and_truncation():
    env = make("open_drawer_place")
    _, info = env.reset(seed=0)
    assert info["instruction"] == "open top drawer"
    idle = np.zeros(7, np.float32)
    for step in range(1, 201):
        _, _, terminated, truncated, info = env.step(idle)
        assert not terminated
        assert truncated == (step == 200)
        assert (info["subtask"] == 1) == (step > 100)
    assert info["instruction"] == "place apple into top drawer"


@pytest.mark.parametrize("bad", [np.full(7, np.nan), np.zeros(6), np.array([np.inf] + [0] * 6)])
def test_bad_action_is_refused(bad):
    env = make("pick_coke_can").unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected a finite action"):
        env.step(bad)


@pytest.mark.parametrize("task", NAMES)
def test_expert_solves_test_seeds_under_perturbation(task):
    env = make(task)
    results = [run_expert(env, task, 1_000_000 + i, noise=0.008) for i in range(5)]
    assert sum(result.success for result in results) >= 4, results


@pytest.mark.slow
@pytest.mark.parametrize("task", NAMES)
def test_expert_solves_95_of_100_test_seeds(task):
    env = make(task)
    assert sum(run_expert(env, task, 1_000_000 + i).success for i in range(100)) >= 95


@pytest.mark.parametrize("task", NAMES)
def test_doing_nothing_never_succeeds(task):
    env = make(task)
    for seed in range(3):
        env.reset(seed=seed)
        for _ in range(20):
            info = env.step(np.zeros(7, np.float32))[4]
        assert not info["success"]
