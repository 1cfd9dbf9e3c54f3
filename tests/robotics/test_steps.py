"""Which steps of an episode count, and which action belongs to which of them."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robotics.embodiment.coding import Coder
from robotics.embodiment.steps import binarized, prepared
from robotics.embodiment.tables import load_robot

CAMERA = {"rate": 10, "cameras": {"front": "observation/image"}}
JOINTS = {"arm": {"path": "s[0:2]", "kind": "joints"}}


def robot(steps=None, action=None, state=None, **entries):
    action = action or {"arm": {"path": "a[0:2]", "kind": "joints", "mode": "absolute"}}
    state = JOINTS if state is None else state
    return load_robot({**CAMERA, "state": state, "action": action, "steps": steps, **entries})


def episode(steps=6, width=2):
    """States 0, 1, 2 ... and actions 100, 101, 102 ..., ending at the last step."""
    number = np.arange(steps, dtype=np.float32)[:, None]
    return np.tile(number, width), np.tile(number + 100, width), np.arange(steps) == steps - 1


@pytest.mark.parametrize(
    ("steps", "kept", "actions"),
    [
        ({}, [0, 1, 2, 3, 4, 5], [100, 101, 102, 103, 104, 105]),
        ({"drop_first": 1}, [1, 2, 3, 4, 5], [101, 102, 103, 104, 105]),
        ({"drop_last": 2}, [0, 1, 2, 3], [100, 101, 102, 103]),
        ({"lag": 1}, [0, 1, 2, 3, 4], [101, 102, 103, 104, 105]),
        ({"lag": -2}, [2, 3, 4, 5], [100, 101, 102, 103]),
        ({"drop_first": 1, "drop_last": 1, "lag": 1}, [1, 2, 3], [102, 103, 104]),
        ({"drop_first": 1, "drop_last": 1, "lag": -1}, [2, 3, 4], [101, 102, 103]),
        ({"drop_first": 9}, [], []),
        ({"lag": 6}, [], []),
        ({"relabel": True}, [0, 1, 2, 3, 4], [1, 2, 3, 4, 5]),
        ({"relabel": True, "drop_first": 2}, [2, 3, 4], [3, 4, 5]),
    ],
)
def test_steps_that_are_kept_and_their_actions(steps, kept, actions):
    keep, state, action, ends = prepared(robot(steps), *episode())
    assert keep.dtype == np.int64 and state.dtype == action.dtype == np.float32
    assert keep.tolist() == kept
    np.testing.assert_array_equal(state[:, 0], kept)
    np.testing.assert_array_equal(action[:, 1], actions)
    assert state.shape == action.shape == (len(kept), 2)
    # Whatever was cut off: the last step that is left ends the task.
    assert ends.tolist() == [False] * (len(kept) - 1) + [True] * bool(kept)


@pytest.mark.parametrize("frame", ["base", "tool"])
@pytest.mark.parametrize("mode", ["delta", "absolute"])
@pytest.mark.parametrize("form", ["euler_xyz", "quaternion_wxyz"])
def test_relabelled_actions_lead_from_each_state_to_the_next(frame, mode, form):
    rng = np.random.default_rng(0)
    width = 3 if form == "euler_xyz" else 4
    state = {
        "position": {"path": "p", "kind": "position", "unit": "mm"},
        "rotation": {"path": f"r[0:{width}]", "kind": "rotation", "form": form},
    }
    action = {
        "position": {"path": "b", "kind": "position", "mode": mode, "scale": 0.5, "frame": frame},
        "rotation": {"path": "c", "kind": "rotation", "form": "axis_angle", "mode": mode}
        | {"frame": frame, "unit": "deg"},
        "gripper": {"path": "d", "kind": "gripper", "mode": "absolute"},
    }
    table = robot({"relabel": True}, action, state)
    turns = Rotation.random(5, rng)
    recorded = turns.as_euler("xyz") if width == 3 else np.roll(turns.as_quat(), 1, axis=1)
    position = rng.normal(0, 1, (5, 3))
    measured = np.concatenate([position * 1000, recorded], axis=1)
    commands = rng.random((5, 7)).astype(np.float32)
    _, _, action, _ = prepared(table, measured, commands, np.zeros(5, bool))
    moved, turned = action[:, :3] * 0.5, Rotation.from_rotvec(np.radians(action[:, 3:6]))
    before = turns[:-1]
    if mode == "absolute":
        reached, where = turned, moved
    elif frame == "tool":
        reached, where = before * turned, position[:-1] + before.apply(moved)
    else:
        reached, where = turned * before, position[:-1] + moved
    np.testing.assert_allclose(where, position[1:], atol=1e-4)
    assert (reached * turns[1:].inv()).magnitude().max() < 1e-5
    np.testing.assert_array_equal(action[:, 6], commands[:-1, 6])


def test_nothing_to_relabel_is_said():
    action = {"arm": {"path": "a[0:2]", "kind": "joints", "mode": "velocity"}}
    with pytest.raises(ValueError, match="relabel"):
        prepared(robot({"relabel": True}, action), *episode())


@pytest.mark.parametrize(
    ("openness", "expected"),
    [
        ([1.0, 0.96, 0.5, 0.3, 0.0, 0.02], [1, 1, 0, 0, 0, 0]),
        ([0.0, 0.5, 0.9, 1.0], [0, 1, 1, 1]),
        ([1.0, 0.8, 0.0], [1, 0, 0]),
        ([0.0, 0.2, 1.0], [0, 1, 1]),
        ([1.0, 0.8], [1, 1]),  # never becomes either: what it is nearer to
        ([1.0, 0.2, 0.1], [1, 0, 0]),
        ([0.94, 0.06, 1.0], [1, 1, 1]),
        ([], []),
    ],
)
def test_bridges_rule_of_a_gripper_between_open_and_closed(openness, expected):
    values = np.array(openness, float).reshape(-1, 1)
    np.testing.assert_array_equal(binarized(values)[:, 0], expected)
    hand = {"path": "a", "kind": "gripper", "mode": "absolute", "open": 100, "closed": 0}
    table = robot(action={"hand": hand | {"model": {"binarize": True}}}, state={})
    steps = len(expected)
    got = prepared(table, np.zeros((steps, 0)), values * 100, np.zeros(steps, bool))[2]
    np.testing.assert_array_equal(got[:, 0], np.array(expected) * 100)


@pytest.mark.parametrize(
    ("pulses", "held"),
    [
        ([0, 0, 1, 0, -1, 0], [-1, -1, 1, 1, -1, -1]),
        ([0, -1, 0, 1], [1, -1, -1, 1]),  # it opens first, so it was closed before
        ([0, 0, 0], [-1, -1, -1]),  # nothing told: open
        ([1, 0], [1, 1]),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_pulses_become_the_command_that_holds(pulses, held, sign):
    hand = {"path": "a", "kind": "gripper", "mode": "pulse", "open": -sign, "closed": sign}
    table = robot(action={"hand": hand | {"model": {"mode": "absolute"}}}, state={})
    steps = len(held)
    values = sign * np.array(pulses, float).reshape(-1, 1)
    got = prepared(table, np.zeros((steps, 0)), values, np.zeros(steps, bool))[2]
    np.testing.assert_array_equal(got[:, 0], sign * np.array(held))
    coder = Coder(table)
    empty = np.zeros(0)
    np.testing.assert_array_equal(coder.chunk(got, empty)[:, 0], held)
    # Back come pulses, given what was commanded before.
    first = np.array([-held[0] if pulses[0] else held[0]]) * sign
    back, _ = coder.recorded(coder.chunk(values, empty), empty, previous=first)
    np.testing.assert_array_equal(back, values)


def test_rt1_s_steps_stay_as_they_are():
    rng = np.random.default_rng(0)
    state, action = (rng.normal(0, 1, (9, n)).astype(np.float32) for n in (8, 7))
    flags = rng.random(9) > 0.5
    keep, *same = prepared(load_robot("rt1"), state, action, flags)
    assert keep.tolist() == list(range(9))
    for got, expected in zip(same, (state, action, flags), strict=True):
        assert got.tobytes() == expected.tobytes()


def test_signs_of_quaternions_go_on_from_step_to_step():
    turn = {"path": "q", "kind": "rotation", "form": "quaternion_wxyz"}
    table = robot(state={"rotation": turn | {"model": {"form": "quaternion_xyzw"}}})
    angles = np.linspace(0, 4 * np.pi, 60)
    path = Rotation.from_rotvec(angles[:, None] * np.array([0.6, 0.0, 0.8])).as_quat()
    flips = np.where(np.random.default_rng(0).random(60) > 0.5, 1, -1)[:, None]
    recorded = np.roll(path, 1, axis=1) * flips
    ends = np.zeros(60, bool)
    signed = prepared(table, recorded, np.zeros((60, 2)), ends)[1]
    assert signed[0, 0] > 0 and (signed[1:] * signed[:-1]).sum(1).min() > 0.9
    np.testing.assert_allclose(np.abs(signed), np.abs(recorded), atol=1e-6)
    # And so while acting, one step after the other.
    coder, before = Coder(table), None
    for step in range(60):
        before = coder.continuous(recorded[step], before)
        np.testing.assert_allclose(before, signed[step], atol=1e-6)
    xyzw = coder.state(signed)
    np.testing.assert_allclose(xyzw, np.roll(signed, -1, axis=1), atol=1e-6)
