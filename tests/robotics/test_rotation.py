"""Rotation conventions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from robotics.embodiment.parts import rotation_width
from robotics.embodiment.rotation import (
    as_quaternion,
    axis_angle_to_rpy,
    canonical_quaternion,
    compose,
    continuous_signs,
    from_quaternion,
    inverse,
    rpy_to_axis_angle,
    turned,
)

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


FORMS = [
    "axis_angle", "quaternion_xyzw", "quaternion_wxyz", "rot6d", "matrix",
    "homogeneous", "homogeneous_columns",
    *(f"euler_{order}" for order in ("xyz", "zyx", "XYZ", "ZYX", "yxz", "ZXY")),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_rotation_and_comes_back(form):
    truth = Rotation.random(50, np.random.default_rng(0))
    values = from_quaternion(truth.as_quat().reshape(5, 10, 4), form)
    assert values.shape == (5, 10, rotation_width(form))
    again = Rotation.from_quat(as_quaternion(values, form).reshape(-1, 4))
    assert (again * truth.inv()).magnitude().max() < 1e-7
    if form.startswith("euler"):
        expected = truth.as_euler(form[6:])
        np.testing.assert_allclose(values.reshape(-1, 3), expected, atol=1e-9)
    if form == "matrix":
        np.testing.assert_allclose(values[0, 0].reshape(3, 3), truth[0].as_matrix(), atol=1e-9)
    if form.startswith("homogeneous"):
        square = values[0, 0].reshape(4, 4)
        square = square.T if form == "homogeneous_columns" else square
        np.testing.assert_allclose(square[:3, :3], truth[0].as_matrix(), atol=1e-9)
        np.testing.assert_array_equal(square[3], [0, 0, 0, 1])
    if form == "quaternion_wxyz":
        np.testing.assert_allclose(values[0, 0], np.roll(truth[0].as_quat(), 1), atol=1e-9)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_turn_about_one_axis(axis):
    angles = np.linspace(-3.1, 3.1, 15)[:, None]
    quaternions = as_quaternion(angles, f"euler_{axis}")
    expected = Rotation.from_euler(axis, angles)
    assert (Rotation.from_quat(quaternions) * expected.inv()).magnitude().max() < 1e-9
    for signed in (quaternions, -quaternions):
        np.testing.assert_allclose(from_quaternion(signed, f"euler_{axis}"), angles, atol=1e-9)


def test_six_numbers_that_are_no_rotation_yet_become_the_nearest_by_gram_schmidt():
    truth = Rotation.from_euler("xyz", [0.3, -0.2, 0.9])
    first, second = truth.as_matrix().T[:2]
    loose = np.concatenate([2.5 * first, second + 0.7 * first])
    np.testing.assert_allclose(
        Rotation.from_quat(as_quaternion(loose, "rot6d")).as_matrix(), truth.as_matrix(), atol=1e-9
    )
    for bad in (np.zeros(6), np.concatenate([first, first])):
        with pytest.raises(ValueError, match="length 0"):
            as_quaternion(bad, "rot6d")


def test_products_and_turns_are_those_of_matrices():
    a, b = (Rotation.random(20, np.random.default_rng(seed)) for seed in (0, 1))
    product = Rotation.from_quat(compose(a.as_quat(), b.as_quat()))
    np.testing.assert_allclose(product.as_matrix(), b.as_matrix() @ a.as_matrix(), atol=1e-9)
    vectors = np.random.default_rng(2).normal(size=(20, 3))
    np.testing.assert_allclose(turned(vectors, a.as_quat()), a.apply(vectors), atol=1e-9)
    back = turned(turned(vectors, a.as_quat()), inverse(a.as_quat()))
    np.testing.assert_allclose(back, vectors, atol=1e-9)


def test_signs_are_those_of_the_step_before_wherever_the_path_goes():
    turns = Rotation.from_rotvec(np.linspace(0, 15, 200)[:, None] * [0.0, 0.6, 0.8]).as_quat()
    flips = np.where(np.random.default_rng(0).random((3, 200, 1)) > 0.5, 1, -1)
    flips[:, 0] = 1
    path = np.broadcast_to(turns, (3, 200, 4))
    steady = continuous_signs(path)
    np.testing.assert_allclose(continuous_signs(steady * flips), steady, atol=1e-9)
    assert (steady[:, 1:] * steady[:, :-1]).sum(-1).min() > 0.99
    np.testing.assert_allclose(continuous_signs(steady, -steady[:, 0]), -steady, atol=1e-9)
    gap = steady[0].copy()
    gap[50:60] = 0  # not measured
    np.testing.assert_allclose(continuous_signs(gap * flips[0]), gap, atol=1e-9)
    assert continuous_signs(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("form", ["euler_xyy", "euler_xyZ", "rpy", "quaternion", ""])
def test_forms_that_do_not_exist_are_refused(form):
    for call in (as_quaternion, from_quaternion):
        with pytest.raises(ValueError, match="form: expected axis_angle"):
            call(np.ones(4), form)
