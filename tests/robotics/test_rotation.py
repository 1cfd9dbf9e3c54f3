"""Rotation conventions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robotics.embodiment.rotation import axis_angle_to_rpy, canonical_quaternion, rpy_to_axis_angle

small = arrays(np.float64, (5, 3), elements=st.floats(-1.2, 1.2))
quaternions = arrays(np.float64, (5, 4), elements=st.floats(-1, 1))


@settings(max_examples=50, deadline=None)
@given(small)
def test_rpy_and_axis_angle_are_inverse(rpy):
    np.testing.assert_allclose(axis_angle_to_rpy(rpy_to_axis_angle(rpy)), rpy, atol=2e-6)


def test_rpy_turns_about_fixed_axes_roll_first():
    roll, pitch, yaw = 0.3, -0.5, 0.9

    def turn(axis, angle):
        return np.roll(
            [
                [1, 0, 0],
                [0, np.cos(angle), -np.sin(angle)],
                [0, np.sin(angle), np.cos(angle)],
            ],
            (axis, axis),
            (0, 1),
        )

    expected = turn(2, yaw) @ turn(1, pitch) @ turn(0, roll)
    x, y, z = axis = rpy_to_axis_angle([roll, pitch, yaw]).astype(np.float64)
    angle = np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) / angle
    rodrigues = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    np.testing.assert_allclose(rodrigues, expected, atol=1e-6)


def test_one_axis_is_the_same_in_both_conventions():
    np.testing.assert_allclose(
        rpy_to_axis_angle(np.diag([0.4, -0.2, 3.0])), np.diag([0.4, -0.2, 3])
    )


@settings(max_examples=50, deadline=None)
@given(quaternions)
def test_both_signs_of_a_quaternion_become_one(quaternion):
    positive, negative = canonical_quaternion(quaternion), canonical_quaternion(-quaternion)
    np.testing.assert_array_equal(positive, negative)
    assert (positive[:, 0] + positive[:, 1] >= 0).all()
    np.testing.assert_array_equal(np.abs(positive), np.abs(quaternion).astype(np.float32))


def test_canonical_quaternion_keeps_zeros_and_decides_half_turns():
    np.testing.assert_array_equal(canonical_quaternion(np.zeros(4)), np.zeros(4))
    np.testing.assert_array_equal(canonical_quaternion([-1, 0, 0, 0]), [1, 0, 0, 0])


def test_small_tilts_of_a_downward_tool_do_not_flip_the_sign():
    down = np.array([0.7, 0.7, 0.0, 0.0])
    tilts = down + np.random.default_rng(0).normal(0, 0.2, (200, 4))
    canonical = canonical_quaternion(np.sign(tilts[:, 3:]) * tilts)
    np.testing.assert_allclose(canonical, tilts, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.zeros(4), [np.nan, 0, 0], 1.0])
def test_malformed_rotations_are_refused(bad):
    with pytest.raises(ValueError, match="expected finite"):
        rpy_to_axis_angle(bad)
