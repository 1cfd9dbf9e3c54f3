"""The policy protocol: chunks, seeds, conversions, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from robotics.data.images import resize_image
from robotics.embodiment.normalize import Normalizer
from robotics.model.policy import CheckpointPolicy, to_action


def observation(seed=0, **changes):
    generator = np.random.default_rng(seed)
    values = {
        "image": generator.integers(0, 255, (256, 320, 3), np.uint8),
        "tool_pose": np.array([0.5, 0, 0.2, 0, 1, 0, 0], np.float32),
        "gripper_closed": np.zeros(1, np.float32),
    }
    return values | changes


@pytest.fixture
def policy(world):
    policy = CheckpointPolicy(world, steps=2)
    policy.reset("open top drawer", seed=1)
    return policy


def controls(policy, seed, count=7):
    policy.reset("open top drawer", seed=seed)
    return [policy.act(observation(i) if policy.needs_observation else None) for i in range(count)]


def test_it_looks_every_third_step_and_times_every_look(policy):
    looks = []
    for i in range(7):
        looks.append(policy.needs_observation)
        action = policy.act(observation(i) if looks[-1] else None)
        assert action.control.shape == (7,) and action.control.dtype == np.float32
    assert looks == [True, False, False, True, False, False, True]
    assert len(policy.latencies) == 3 and min(policy.latencies) > 0


def test_an_episode_follows_from_its_seed(policy):
    first = controls(policy, seed=5)
    controls(policy, seed=6, count=4)  # an episode in between, left in the middle of a chunk
    torch.randn(3)
    again = controls(policy, seed=5)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.control, b.control)
    other = controls(policy, seed=6)
    assert not np.array_equal(first[0].control, other[0].control)
    assert not np.array_equal(first[0].control, first[3].control)


def test_a_new_instruction_drops_the_plan(policy):
    policy.act(observation())
    assert not policy.needs_observation
    policy.instruct("place apple into top drawer")
    assert policy.needs_observation


def test_it_sees_the_frames_the_data_has(policy, monkeypatch):
    seen = {}
    generate = policy.world.generate

    def spy(samples, mode, **rest):
        seen.update(samples)
        return generate(samples, mode, **rest)

    monkeypatch.setattr(policy.world, "generate", spy)
    frame = observation()
    policy.act(frame)
    np.testing.assert_array_equal(seen["image"][0], resize_image(frame["image"], (32, 48)))
    assert seen["instruction"] == ["open top drawer"] and seen["proprio"].shape == (1, 8)


def test_actions_become_controls():
    rpy = [0.3, -0.2, 0.5]
    row = np.array([0.01, 0.02, 0.03, *rpy, 0.4, 0.1])
    action = to_action(row)
    np.testing.assert_allclose(action.control[:3], row[:3], rtol=1e-6)
    expected = Rotation.from_euler("xyz", rpy).as_rotvec()
    np.testing.assert_allclose(action.control[3:6], expected, rtol=1e-5)
    assert action.control[6] == 1.0 and action.terminate is True
    for predicted, gripper in ((-0.4, -1.0), (0.2, 0.0), (-0.2, 0.0), (1.7, 1.0)):
        assert to_action(np.array([0.0] * 6 + [predicted, -0.1])).control[6] == gripper
    assert to_action(np.array([0.0] * 7 + [-0.1])).terminate is False


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_model_is_an_error(value):
    with pytest.raises(ValueError, match="finite action"):
        to_action(np.array([0.0] * 5 + [value, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((128, 160, 3), np.uint8)}, r"\(256, 320, 3\), got \(128, 160, 3\)"),
        ({"image": np.zeros((256, 320, 3), np.float32)}, "expected uint8"),
        ({"tool_pose": np.full(7, np.nan, np.float32)}, "expected finite"),
        ({"gripper_closed": np.full(1, np.inf, np.float32)}, "expected finite"),
        ({"tool_pose": np.zeros(6, np.float32)}, r"expected shape \(7,\)"),
    ],
)
def test_malformed_observations_are_refused(policy, changes, message):
    with pytest.raises(ValueError, match=message):
        policy.act(observation(**changes))


def test_misuse_is_refused(world, policy, tmp_path):
    with pytest.raises(ValueError, match="expected observation keys"):
        policy.act({"image": observation()["image"]})
    with pytest.raises(ValueError, match="ask needs_observation"):
        policy.act(None)
    with pytest.raises(ValueError, match="reset"):
        CheckpointPolicy(world).act(observation())
    with pytest.raises(ValueError, match="expected steps >= 1"):
        CheckpointPolicy(world, steps=0)
    with pytest.raises(ValueError, match="1..6"):
        CheckpointPolicy(world, execute=7)
    with pytest.raises(ValueError, match="'policy' or 'joint'"):
        CheckpointPolicy(world, mode_name="forward")
    with pytest.raises(ValueError, match="google_robot"):
        CheckpointPolicy(world, embodiment="google_robot")
    with pytest.raises(ValueError, match="expected an instruction"):
        policy.reset(" ")
    world.save(tmp_path / "saved")
    assert CheckpointPolicy(tmp_path / "saved", embodiment="embedded").world.horizon == 6


def test_clipping_keeps_motions_in_the_range_of_the_data(world):
    statistics = world.action.statistics
    centre = (np.array(statistics.min) + np.array(statistics.max)) / 2
    tight = dataclasses.replace(statistics, min=tuple(centre), max=tuple(centre))
    world.action = Normalizer(tight, world.action.scaled, world.action.floor)
    free, clipped = (CheckpointPolicy(world, steps=2, clip=clip) for clip in (False, True))
    assert np.ptp([row.control[:3] for row in controls(free, 1)], axis=0).max() > 0
    for row in controls(clipped, 1):
        np.testing.assert_allclose(row.control[:3], centre[:3], atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "trained", "found"),
    [
        ("auto", ("joint",), "joint"),
        ("auto", ("joint", "forward", "policy"), "policy"),
        ("joint", ("policy", "joint"), "joint"),
        ("policy", ("joint",), "for 'policy', got one trained in joint; choose joint"),
        ("joint", ("policy",), "for 'joint', got one trained in policy; choose policy"),
        ("auto", ("video",), "for 'auto', got one trained in video; train"),
        ("inverse", ("inverse",), "expected mode 'policy' or 'joint'"),
    ],
)
def test_it_acts_in_a_mode_it_was_trained_in(world, asked, trained, found):
    world.modes = trained
    if " " in found:
        with pytest.raises(ValueError, match=found):
            CheckpointPolicy(world, mode_name=asked)
        return
    policy = CheckpointPolicy(world, mode_name=asked, steps=1)
    policy.reset("open top drawer", seed=1)
    policy.act(observation())
    assert policy.mode == found
