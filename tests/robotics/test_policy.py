"""A checkpoint in environments and on robots: chunks, seeds, conventions, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from fake_world import episode, look, robot
from scipy.spatial.transform import Rotation
from tiny_world import SIZE, tiny_world

from robotics.data.images import resize_image
from robotics.embodiment.normalize import Normalizer
from robotics.model.policy import CheckpointPolicy, Policy
from robotics.model.world_model import WorldModel


def observation(seed=0, **changes):
    generator = np.random.default_rng(seed)
    values = {
        "image": generator.integers(0, 255, (256, 320, 3), np.uint8),
        "tool_pose": np.array([0.5, 0, 0.2, 0, 1, 0, 0], np.float32),
        "gripper_closed": np.zeros(1, np.float32),
    }
    return values | changes


@pytest.fixture
def world():
    return tiny_world(robot("embedded"), modes=("policy", "joint", "forward"))


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
    np.testing.assert_array_equal(seen["image/head"][0], resize_image(frame["image"], SIZE))
    assert seen["instruction"] == ["open top drawer"] and seen["state"].shape == (1, 8)


def canonical(quaternion):
    """Of q and -q the one that the first models were trained with: x + y >= 0."""
    return -quaternion if quaternion[0] + quaternion[1] < 0 else quaternion


@pytest.mark.parametrize("clip", [False, True])
def test_a_drawer_opener_of_ten_steps_is_what_it_always_was(world, clip):
    """The first policies' arithmetic, written out: what they are shown and what they command."""
    policy = CheckpointPolicy(world, steps=2, clip=clip)
    policy.reset("open top drawer", seed=3)
    generator = torch.Generator().manual_seed(3)
    model = world.robot()
    plan = []
    for step in range(10):
        turn = Rotation.random(random_state=step).as_quat().astype(np.float32)
        pose = np.concatenate([[0.5, step / 10, 0.2], turn]).astype(np.float32)
        frame = observation(step, tool_pose=pose)
        if not plan:
            state = np.concatenate([pose[:3], canonical(turn), frame["gripper_closed"]])
            chunk = world.generate(
                {
                    "image/head": resize_image(frame["image"], SIZE)[None],
                    "state": state[None].astype(np.float32),
                    "instruction": ["open top drawer"],
                },
                "policy", steps=2, shift=1.0, generator=[generator],
            )["action"][0]  # fmt: skip
            plan = list((model.normalizers["action"].clip(chunk) if clip else chunk)[:3])
        row = plan.pop(0)
        action = policy.act(frame if policy.needs_observation else None)
        turned = Rotation.from_euler("xyz", row[3:6].astype(np.float64)).as_rotvec()
        grip = np.sign(row[6]) if abs(row[6]) > 0.3 else 0.0
        expected = np.concatenate([row[:3], turned, [grip]]).astype(np.float32)
        assert action.control.tobytes() == expected.tobytes()
        assert action.terminate == (row[7] > 0)


def answering(world, row, monkeypatch):
    """The world, whose every action is this row of model values."""
    rows = np.tile(np.asarray(row, np.float32), (1, world.robot().horizon, 1))
    monkeypatch.setattr(world, "generate", lambda *given, **more: {"action": rows})
    return world


@pytest.mark.parametrize(
    ("predicted", "gripper"), [(0.4, 1), (-0.4, -1), (0.2, 0), (-0.2, 0), (1.7, 1)]
)
def test_actions_become_controls(world, predicted, gripper, monkeypatch):
    rpy = [0.3, -0.2, 0.5]
    row = [0.01, 0.02, 0.03, *rpy, predicted, -predicted]
    policy = CheckpointPolicy(answering(world, row, monkeypatch))
    action = controls(policy, 0, 1)[0]
    np.testing.assert_allclose(action.control[:3], row[:3], rtol=1e-6)
    expected = Rotation.from_euler("xyz", rpy).as_rotvec()
    np.testing.assert_allclose(action.control[3:6], expected, rtol=1e-5)
    assert action.control[6] == gripper and action.terminate is (predicted < 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_model_is_an_error(world, value, monkeypatch):
    policy = CheckpointPolicy(answering(world, [0.0] * 5 + [value, 0.0, 0.0], monkeypatch))
    with pytest.raises(ValueError, match="finite action"):
        controls(policy, 0, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((256, 320, 3), np.float32)}, "expected uint8"),
        ({"image": np.zeros((256, 320), np.uint8)}, "expected uint8"),
        ({"tool_pose": np.full(7, np.nan, np.float32)}, "expected finite"),
        ({"gripper_closed": np.full(1, np.inf, np.float32)}, "expected finite"),
        ({"tool_pose": np.zeros(6, np.float32)}, "expected 4 values at tool_pose"),
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
    with pytest.raises(ValueError, match="1..4"):
        CheckpointPolicy(world, execute=7)
    with pytest.raises(ValueError, match="'policy' or 'joint'"):
        CheckpointPolicy(world, mode_name="forward")
    with pytest.raises(ValueError, match="google_robot"):
        CheckpointPolicy(world, embodiment="google_robot")
    with pytest.raises(ValueError, match="expected an instruction"):
        policy.reset(" ")
    world.save(tmp_path / "saved")
    assert CheckpointPolicy(tmp_path / "saved", embodiment="embedded").policy.horizon == 4
    with pytest.raises(ValueError, match="google_robot"):
        CheckpointPolicy(tmp_path / "saved", embodiment="google_robot")


def test_clipping_keeps_motions_in_the_range_of_the_data(world):
    normalizers = world.robot().normalizers
    before = normalizers["action"]
    statistics = before.statistics
    centre = (np.array(statistics.min) + np.array(statistics.max)) / 2
    tight = dataclasses.replace(statistics, min=tuple(centre), max=tuple(centre))
    normalizers["action"] = Normalizer(tight, before.scaled, before.floor)
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
def test_it_acts_in_a_mode_it_was_trained_in(asked, trained, found):
    world = tiny_world(robot("embedded"), modes=trained)
    if " " in found:
        with pytest.raises(ValueError, match=found):
            CheckpointPolicy(world, mode_name=asked)
        return
    policy = CheckpointPolicy(world, mode_name=asked, steps=1)
    policy.reset("open top drawer", seed=1)
    policy.act(observation())
    assert policy.mode == found


ROBOTS = ("two_arms", "velocities", "pose_wxyz", "blind_cart", "rt1")


def acted(path_or_world, name, count=5):
    """Actions of one of `ROBOTS` on one episode."""
    table = robot(name)
    states, _ = episode(table)
    if isinstance(path_or_world, WorldModel):
        policy = Policy(path_or_world, name, steps=1)
    else:
        policy = Policy.load(path_or_world, name, steps=1)
    assert policy.robot == table and policy.horizon == 4 and policy.execute == 2
    policy.reset("put it down", seed=2)
    rows = [
        policy.act(look(table, states[i], i) if policy.needs_observation else None)
        for i in range(count)
    ]
    found = np.stack(rows)
    assert found.shape == (count, table.action_width) and np.isfinite(found).all()
    return found


@pytest.mark.parametrize("history", [(), (2, 1)])
def test_a_model_of_several_robots_acts_for_each_by_name(tmp_path, history):
    world = tiny_world(*map(robot, ROBOTS), history=history)
    before = {name: acted(world, name) for name in ROBOTS}
    world.save(tmp_path / "saved")
    for name in ROBOTS:
        np.testing.assert_array_equal(acted(tmp_path / "saved", name), before[name])
    with pytest.raises(ValueError, match="two_arms, velocities"):
        Policy.load(tmp_path / "saved")


@pytest.mark.parametrize("name", ROBOTS)
def test_what_is_shown_matters(name):
    table = robot(name)
    world = tiny_world(table)
    states, _ = episode(table)
    policy = Policy(world, steps=1)

    def act(seen, instruction="go", seed=0):
        policy.reset(instruction, seed=seed)
        return policy.act(seen)

    seen = look(table, states[0])
    first = act(seen)
    np.testing.assert_array_equal(act(seen), first)
    assert not np.array_equal(act(seen, seed=1), first)
    for camera in policy.cameras:
        changed = seen | {camera: 255 - seen[camera]}
        assert not np.array_equal(act(changed), first), camera
    if table.state:
        assert not np.array_equal(act(seen | {"state": states[10]}), first)
    assert not np.array_equal(act(seen, "stop"), first)
