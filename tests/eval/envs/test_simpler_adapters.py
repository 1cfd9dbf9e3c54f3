"""Conversions between the environment contract and SIMPLER's robots."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from eval.envs.simpler.adapters import Adapter, relative_pose

STICKY = 15


def commands(adapter: Adapter, values: list[float]) -> list[float]:
    return [float(adapter.to_simulator([0, 0, 0, 0, 0, 0, value])[6]) for value in values]


@pytest.mark.parametrize("robot", ["google_robot_static", "widowx", "widowx_sink_camera_setup"])
def test_only_the_widowx_gripper_changes_its_sign(robot):
    rng = np.random.default_rng(0)
    for grip in (1.0, -1.0):
        adapter = Adapter(robot)
        control = np.append(rng.uniform(-0.3, 0.3, 6), grip).astype(np.float32)
        action = adapter.to_simulator(control)
        assert action.dtype == np.float32
        sign = -1 if robot.startswith("widowx") else 1
        np.testing.assert_array_equal(action, [*control[:6], sign * grip])


def test_the_senses_of_the_grippers_differ():
    assert commands(Adapter("google_robot_static"), [1.0, -1.0]) == [1.0, -1.0]
    assert commands(Adapter("widowx"), [1.0, -1.0]) == [-1.0, 1.0]


def test_a_google_command_sticks_for_15_steps():
    adapter = Adapter("google_robot_static")
    assert commands(adapter, [0.0, 1.0] + [0.0] * 16) == [0.0] + [1.0] * STICKY + [0.0, 0.0]
    # the opposite command replaces the repetition, and a new episode forgets it
    assert commands(adapter, [1.0, 0.0, -1.0, 0.0]) == [1.0, 1.0, -1.0, -1.0]
    adapter.reset()
    assert commands(adapter, [0.0]) == [0.0]


def test_a_policy_that_repeats_itself_is_left_alone():
    stream = [1.0] * 20 + [-1.0] * 20
    assert commands(Adapter("google_robot_static"), stream) == stream
    # a hesitant command is passed on and starts nothing
    assert commands(Adapter("google_robot_static"), [0.25, 0.0, 0.0005]) == [0.25, 0.0, 0.0]


def test_a_widowx_command_holds_until_the_next():
    stream = [0.0, 0.3, 0.0, -0.1, 0.0]
    assert commands(Adapter("widowx"), stream) == [1.0, -1.0, -1.0, 1.0, 1.0]


def test_tool_poses_are_relative_to_the_base():
    rng = np.random.default_rng(1)
    for _ in range(20):
        base, tool = (Rotation.random(random_state=rng) for _ in range(2))
        base_p, tool_p = rng.normal(size=(2, 3))
        wxyz = [np.roll(rotation.as_quat(), 1) for rotation in (base, tool)]
        pose = relative_pose(np.append(base_p, wxyz[0]), np.append(tool_p, wxyz[1]))
        np.testing.assert_allclose(pose[:3], base.inv().apply(tool_p - base_p), atol=1e-6)
        assert (Rotation.from_quat(pose[3:]) * (base.inv() * tool).inv()).magnitude() < 1e-5
        assert pose[6] >= 0


def test_pictures_are_halved_by_averaging():
    colour = np.zeros((512, 640, 4), np.float32)
    colour[::2, ::2, 0] = 1.0
    colour[..., 1] = 2.0
    picture = Adapter("google_robot_static").image(colour)
    assert picture.shape == (256, 320, 3) and picture.dtype == np.uint8
    assert (picture == [64, 255, 0]).all()
    colour = np.random.default_rng(0).uniform(0, 1, (512, 640, 3)).astype(np.float32)
    means = colour.reshape(256, 2, 320, 2, 3).mean(axis=(1, 3))
    picture = Adapter("google_robot_static").image(colour)
    np.testing.assert_array_equal(picture, np.rint(255.0 * means))
    with pytest.raises(ValueError, match="expected a picture of 480 x 640"):
        Adapter("widowx").image(colour)


@pytest.mark.parametrize("bad", [[0.0] * 6, [[0.0] * 7], [np.nan] * 7])
def test_malformed_controls_are_refused(bad):
    with pytest.raises(ValueError, match="finite action"):
        Adapter("google_robot_static").to_simulator(bad)
    with pytest.raises(ValueError, match="families"):
        Adapter("panda")
