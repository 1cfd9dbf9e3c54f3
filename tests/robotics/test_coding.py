"""Recorded vectors to the model's and back."""

import numpy as np
import pytest

from robotics.embodiment.coding import Coder
from robotics.embodiment.robot import UNITS
from robotics.embodiment.rotation import as_quaternion, from_quaternion
from robotics.embodiment.tables import load_robot


def canonical(quaternion):
    """The rule that RT-1's models were trained with: x + y >= 0, then the last non-zero value."""
    values = np.asarray(quaternion, np.float64)
    sign = np.sign(values[..., 0] + values[..., 1])
    for component in (3, 2, 1, 0):
        sign = np.where(sign == 0, np.sign(values[..., component]), sign)
    return (values * np.where(sign < 0, -1.0, 1.0)[..., None] + 0.0).astype(np.float32)


@pytest.mark.parametrize("name", ["rt1", "embedded", "google_robot", "widowx"])
def test_rt1_rows_pass_bit_for_bit(name):
    rng = np.random.default_rng(0)
    coder = Coder(load_robot(name))
    assert (coder.state_width, coder.action_width, coder.relative) == (8, 8, False)
    state = rng.normal(0, 1, (500, 8)).astype(np.float32)
    state[:5, 3:7] = [[0, 0, 0, 0], [-1, 0, 0, 0], [1, -1, 0, -1], [-1, 1, 0, 0], [0, 0, -1, 0]]
    expected = np.concatenate([state[:, :3], canonical(state[:, 3:7]), state[:, 7:]], axis=1)
    assert coder.state(state).tobytes() == expected.tobytes()
    actions = rng.normal(0, 0.1, (20, 6, 7)).astype(np.float32)
    actions[0, 0] = [-0.0, 0.0, 1e-30, 7.0, -9.0, 0.0, -0.0]
    ends = rng.random((20, 6)) > 0.5
    expected = np.concatenate([actions, np.where(ends, 1, -1)[..., None]], -1).astype(np.float32)
    chunk = coder.chunk(actions, state[:20], ends)
    assert chunk.tobytes() == expected.tobytes()
    back, told = coder.recorded(chunk, state[:20])
    assert back.tobytes() == actions.tobytes()
    np.testing.assert_array_equal(told, ends)
    assert [field.normalise for field in coder.fields("action")] == ["default"] * 6 + ["none"] * 2
    assert {field.floor for field in coder.fields("action")} == {1e-3}
    assert {(field.floor, field.normalise) for field in coder.fields("state")} == {
        (1e-2, "default")
    }
    assert Coder(load_robot(name), terminate=False).action_width == 7


def random_rotation(rng, form, shape, small=False):
    axis = rng.normal(0, 0.2 if small else 1.0, (*shape, 3))
    quaternion = as_quaternion(axis, "axis_angle")
    return from_quaternion(quaternion, form)


def drawn(robot, group, rng, shape):
    """Vectors as a robot of this table records them, float32."""
    values = []
    for part in getattr(robot, group):
        if part.kind == "rotation":
            small = part.mode in ("delta", "velocity")
            one = random_rotation(rng, part.form, shape, small)
            factor = np.asarray(part.scale) * UNITS[part.unit]
        elif part.kind == "gripper":
            command = rng.random((*shape, part.width))
            if part.mode == "pulse":
                command = rng.integers(0, 3, command.shape) / 2
            factor = 1 / (np.asarray(part.closed) - np.asarray(part.open))
            one = command + np.asarray(part.open) * factor
            if part.mode in ("delta", "velocity"):
                one = command - 0.5
        else:
            one = rng.normal(0, 1, (*shape, part.width))
            factor = np.asarray(part.scale) * UNITS[part.unit]
        values.append(one / factor)
    if not values:
        return np.zeros((*shape, 0), np.float32)
    return np.concatenate(values, axis=-1).astype(np.float32)


def assert_same(robot, group, got, expected):
    """Equal to 1e-5, of rotations as rotations, in rad or in the recording's values."""
    assert got.dtype == np.float32 and got.shape == expected.shape
    for name, place in robot.slices(group).items():
        part = next(row for row in getattr(robot, group) if row.name == name)
        one, other = got[..., place].astype(np.float64), expected[..., place].astype(np.float64)
        if part.kind == "rotation":
            factor = np.asarray(part.scale) * UNITS[part.unit]
            a, b = (as_quaternion(x * factor, part.form) for x in (one, other))
            a = np.where((a * b).sum(-1, keepdims=True) < 0, -a, a)
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)
        else:
            scale = max(1.0, float(np.abs(other).max(initial=0)))
            np.testing.assert_allclose(one / scale, other / scale, atol=1e-5, err_msg=name)


def table(state=None, action=None, **entries):
    camera = {"cameras": {"front": "observation/image"}}
    return load_robot({"rate": 10, **camera, "state": state, "action": action, **entries})


POSE = {
    "position": {"path": "s[0:3]", "kind": "position", "unit": "mm"},
    "rotation": {"path": "q[0:4]", "kind": "rotation", "form": "quaternion_wxyz"},
    "hand": {"path": "g", "kind": "gripper", "width": 2, "open": [0.04, -0.04], "closed": [0, 0]},
}
FORMS = ("euler_xyz", "euler_ZYX", "axis_angle", "quaternion_wxyz", "rot6d", "matrix")


@pytest.mark.parametrize("frame", ["base", "tool"])
@pytest.mark.parametrize("recorded", ["absolute", "delta", "velocity"])
@pytest.mark.parametrize("mode", [None, "absolute", "delta", "velocity"])
@pytest.mark.parametrize("form", FORMS)
def test_a_pose_in_every_mode_frame_and_form_comes_back(frame, recorded, mode, form):
    if recorded == "velocity" and form not in FORMS[:3]:
        pytest.skip("a velocity has three values")
    row = {"mode": recorded, "frame": frame, "model": {"mode": mode}}
    action = {
        "rotation": {"path": "r", "kind": "rotation", "form": form, **row},
        "position": {"path": "a[0:3]", "kind": "position", "scale": 0.05, **row},
    }
    robot = table(POSE, action)
    rng = np.random.default_rng(0)
    coder = Coder(robot)
    state, actions = drawn(robot, "state", rng, (40,)), drawn(robot, "action", rng, (40, 5))
    assert_same(robot, "state", coder.recorded_state(coder.state(state)), state)
    chunk = coder.chunk(actions, state)
    assert chunk.shape == (40, 5, coder.action_width) == (40, 5, len(coder.action_names))
    back, ends = coder.recorded(chunk, state)
    assert_same(robot, "action", back, actions)
    assert not ends.any()
