"""Recorded vectors to the model's and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robotics.embodiment.coding import Coder
from robotics.embodiment.columns import column
from robotics.embodiment.parts import UNITS
from robotics.embodiment.rotation import as_quaternion, from_quaternion
from robotics.embodiment.tables import TABLES, load_robot


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


# A velocity has three values.
RECORDED = [
    (recorded, form)
    for recorded in ("absolute", "delta", "velocity")
    for form in FORMS[: 3 if recorded == "velocity" else None]
]


@pytest.mark.parametrize("frame", ["base", "tool"])
@pytest.mark.parametrize("against", ["measured", "commanded"])
@pytest.mark.parametrize("mode", [None, "absolute", "delta", "velocity"])
@pytest.mark.parametrize(("recorded", "form"), RECORDED)
def test_a_pose_in_every_mode_frame_and_form_comes_back(frame, against, mode, recorded, form):
    row = {"mode": recorded, "frame": frame, "against": against, "model": {"mode": mode}}
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


@pytest.mark.parametrize("name", sorted(path.stem for path in TABLES.glob("*.yaml")))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), horizon=st.integers(1, 6))
def test_every_shipped_robot_gets_back_what_was_recorded(name, seed, horizon):
    robot = load_robot(name)
    coder = Coder(robot)
    rng = np.random.default_rng(seed)
    state, actions = drawn(robot, "state", rng, (4,)), drawn(robot, "action", rng, (4, horizon))
    ends = rng.random((4, horizon)) > 0.5
    coded = coder.state(state)
    assert coded.shape == (4, coder.state_width) == (4, len(coder.state_names))
    assert_same(robot, "state", coder.recorded_state(coded), state)
    np.testing.assert_allclose(coder.state(coder.recorded_state(coded)), coded, atol=2e-5)
    chunk = coder.chunk(actions, state, ends)
    assert chunk.shape == (4, horizon, coder.action_width)
    back, told = coder.recorded(chunk, state)
    assert_same(robot, "action", back, actions)
    np.testing.assert_array_equal(told, ends & coder.terminate)
    # And the other way round.
    np.testing.assert_allclose(coder.chunk(back, state, told), chunk, atol=5e-5)
    # A chunk alone is the same as in a batch.
    np.testing.assert_allclose(coder.chunk(actions[1], state[1], ends[1]), chunk[1], atol=1e-6)
    for group, width in (("state", coder.state_width), ("action", coder.action_width)):
        fields = coder.fields(group)
        names = coder.state_names if group == "state" else coder.action_names
        assert tuple(field.name for field in fields) == names and len(set(names)) == width


JOINTS = {"arm": {"path": "s[0:3]", "kind": "joints", "unit": "deg"}}


@pytest.mark.parametrize("recorded", ["absolute", "delta", "velocity"])
@pytest.mark.parametrize("mode", ["absolute", "delta", "velocity"])
def test_what_joints_become_in_every_mode(recorded, mode):
    arm = {"path": "a[0:3]", "kind": "joints", "unit": "deg", "mode": recorded}
    coder = Coder(table(JOINTS, {"arm": arm | {"model": {"mode": mode}}}))
    rng = np.random.default_rng(0)
    start, targets = rng.uniform(-90, 90, 3), rng.uniform(-90, 90, (5, 3))
    changes = np.diff(np.concatenate([start[None], targets]), axis=0)
    values = {"absolute": targets, "delta": changes, "velocity": changes * 10}
    wanted = dict(values)
    if recorded == "absolute":  # from the measured state at the chunk's start, not step by step
        wanted["delta"] = targets - start
    chunk = coder.chunk(values[recorded], start)
    np.testing.assert_allclose(chunk, np.radians(wanted[mode]), atol=1e-5)
    assert coder.mode("arm") == mode
    back, _ = coder.recorded(chunk, start)
    np.testing.assert_allclose(back, values[recorded], atol=1e-3)
    assert coder.relative is ({recorded, mode} & {"absolute"} != set() and recorded != mode)


@pytest.mark.parametrize("frame", ["base", "tool"])
def test_deltas_of_a_pose_add_up_to_the_pose_that_a_simulator_would_reach(frame):
    row = {"mode": "delta", "frame": frame, "model": {"mode": "absolute"}}
    action = {
        "position": {"path": "a[0:3]", "kind": "position", **row},
        "rotation": {"path": "a[3:6]", "kind": "rotation", "form": "axis_angle", **row},
    }
    coder = Coder(table(POSE, action))
    rng = np.random.default_rng(1)
    place, turn = rng.normal(0, 1, 3), Rotation.random(rng=rng)
    quaternion = np.roll(turn.as_quat(), 1)
    state = np.concatenate([place * 1000, quaternion, [0.04, -0.04]])
    moves, turns = rng.normal(0, 0.3, (6, 3)), rng.normal(0, 0.3, (6, 3))
    chunk = coder.chunk(np.concatenate([moves, turns], axis=1), state)
    for step in range(6):
        change = Rotation.from_rotvec(turns[step])
        if frame == "tool":
            place, turn = place + turn.apply(moves[step]), turn * change
        else:
            place, turn = place + moves[step], change * turn
        np.testing.assert_allclose(chunk[step, :3], place, atol=1e-5)
        columns = turn.as_matrix()[:, :2].T.ravel()  # rot6d: the first two columns
        np.testing.assert_allclose(chunk[step, 3:], columns, atol=1e-5)
    assert coder.action_names[3:] == tuple(f"rotation.r6d_{n}" for n in range(6))


@pytest.mark.parametrize("frame", ["base", "tool"])
def test_absolute_targets_become_the_change_that_leads_to_them(frame):
    row = {"mode": "absolute", "frame": frame}
    action = {
        "position": {"path": "a[0:3]", "kind": "position", **row},
        "rotation": {"path": "a[3:7]", "kind": "rotation", "form": "quaternion_xyzw", **row},
    }
    coder = Coder(table(POSE, action))
    rng = np.random.default_rng(1)
    turn, goals = Rotation.random(rng=rng), Rotation.random(4, rng=rng)
    place, targets = rng.normal(0, 1, 3), rng.normal(0, 1, (4, 3))
    state = np.concatenate([place * 1000, np.roll(turn.as_quat(), 1), [0.0, 0.0]])
    chunk = coder.chunk(np.concatenate([targets, goals.as_quat()], axis=1), state)
    change = Rotation.from_rotvec(chunk[:, 3:])
    if frame == "tool":
        reached, where = turn * change, place + turn.apply(chunk[:, :3])
    else:
        reached, where = change * turn, place + chunk[:, :3]
    np.testing.assert_allclose(where, targets, atol=1e-5)
    assert (reached * goals.inv()).magnitude().max() < 1e-5


def test_quaternions_come_back_on_the_side_of_the_measured_one():
    row = {"kind": "rotation", "form": "quaternion_xyzw"}
    coder = Coder(
        table(
            {"rotation": {"path": "q", **row}},
            {"rotation": {"path": "a", **row} | {"mode": "absolute"}},
        )
    )
    path = Rotation.from_rotvec(np.linspace(0, 3, 9)[:, None] * [0.6, 0.8, 0]).as_quat()
    for sign in (1, -1):
        back, _ = coder.recorded(coder.chunk(-path, sign * path[0]), sign * path[0])
        np.testing.assert_allclose(back, sign * path, atol=1e-6)


@pytest.mark.parametrize("columns", [False, True])
def test_a_pose_recorded_as_one_matrix(columns):
    place = "[12:15]" if columns else "[3:12:4]"
    form = "homogeneous_columns" if columns else "homogeneous"
    state = {
        "position": {"path": f"pose{place}", "kind": "position"},
        "rotation": {"path": "pose[0:16]", "kind": "rotation", "form": form},
    }
    row = {"path": "a[0:3]", "kind": "rotation", "form": "axis_angle", "mode": "delta"}
    action = {"rotation": row | {"model": {"mode": "absolute"}}}
    robot = table(state, action)
    turn, matrix = Rotation.from_euler("xyz", [0.3, -0.2, 0.9]), np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn.as_matrix(), [1, 2, 3]
    pose = (matrix.T if columns else matrix).ravel()
    recorded = np.concatenate([pose[column(f"pose{place}").values], pose])
    coder = Coder(robot)
    expected = np.concatenate([[1, 2, 3], turn.as_matrix()[:, :2].T.ravel()])
    np.testing.assert_allclose(coder.state(recorded), expected, atol=1e-6)
    chunk = coder.chunk(np.zeros((1, 3)), recorded)
    np.testing.assert_allclose(chunk[0], expected[3:], atol=1e-6)


@pytest.mark.parametrize("mode", ["absolute", "delta", "velocity"])
def test_a_tool_that_turns_about_one_axis(mode):
    yaw = {"path": "y", "kind": "rotation", "form": "euler_z", "unit": "deg", "range": [-180, 180]}
    robot = table({"yaw": yaw}, {"yaw": yaw | {"mode": mode, "model": {"mode": "delta"}}})
    coder = Coder(robot)
    assert coder.action_names == ("yaw.z",) and coder.state_width == 6
    recorded = {"absolute": [-175.0, 170.0], "delta": [10.0, -5.0], "velocity": [100.0, -50.0]}
    actions, state = np.array(recorded[mode])[:, None], np.array([175.0])
    chunk = coder.chunk(actions, state)
    np.testing.assert_allclose(chunk[:, 0], np.radians([10, -5]), atol=1e-6)  # the short way
    np.testing.assert_allclose(coder.recorded(chunk, state)[0], actions, atol=1e-4)


@pytest.mark.parametrize(
    ("stated", "measured", "expected"),
    [
        (None, [175.0], [[190.0], [171.0], [-170.0 + 360]]),  # a joint has to turn the way there
        ([-180, 180], [175.0], [[-170.0], [171.0], [-170.0]]),
        ([0, 360], [355.0], [[10.0], [351.0], [10.0]]),
        ([-200, 200], [195.0], [[-150.0], [-169.0], [-150.0]]),
    ],
)
def test_a_target_about_one_axis_is_the_angle_near_the_measured_one(stated, measured, expected):
    yaw = {"path": "y", "kind": "rotation", "form": "euler_z", "unit": "deg", "range": stated}
    for model in ({}, {"mode": "absolute"}):
        action = yaw | {"mode": "absolute", "model": model}
        coder = Coder(table({"yaw": yaw}, {"yaw": action}))
        chunk = coder.chunk(np.array(expected), np.array(measured))
        back = coder.recorded(chunk, np.array(measured))[0]
        np.testing.assert_allclose(back, expected, atol=1e-4)


def test_angles_about_three_axes_stay_within_half_a_turn_unless_the_measured_do_not():
    row = {"path": "r", "kind": "rotation", "form": "euler_xyz"}
    coder = Coder(table({"tool": row}, {"tool": row | {"mode": "absolute"}}))
    targets = np.array([[-3.1, 0.1, 0.3], [3.1, 0.1, 0.4]])
    for start, expected in (
        ([3.1, 0.1, 0.2], targets),
        ([3.2, 0.1, 0.2], [[2 * np.pi - 3.1, 0.1, 0.3], [3.1, 0.1, 0.4]]),
    ):
        chunk = coder.chunk(targets, np.array(start))
        np.testing.assert_allclose(coder.recorded(chunk, np.array(start))[0], expected, atol=1e-5)


def test_a_yaw_is_no_change_of_a_whole_rotation():
    """Of a tool that points down, an angle about z would be a change that a tilt of a degree turns
    into another."""
    state = {"tool": {"path": "q", "kind": "rotation", "form": "quaternion_xyzw"}}
    yaw = {"path": "y", "kind": "rotation", "form": "euler_z", "mode": "absolute"}
    coder = Coder(table(state, {"tool": yaw}))
    down = Rotation.from_euler("xyz", [np.pi - 0.02, 0.01, 0.3]).as_quat()
    chunk = coder.chunk(np.array([[0.35], [1.0]]), down)
    expected = Rotation.from_euler("z", [[0.35], [1.0]]).as_matrix()[:, :, :2]
    np.testing.assert_allclose(chunk, expected.transpose(0, 2, 1).reshape(2, 6), atol=1e-6)
    np.testing.assert_allclose(coder.recorded(chunk, down)[0], [[0.35], [1.0]], atol=1e-6)


@pytest.mark.parametrize("mode", ["delta", "velocity"])
def test_changes_of_a_gripper_are_normalised(mode):
    grip = {"path": "g", "kind": "gripper", "open": 0, "closed": 100, "mode": mode}
    (row,) = Coder(table({}, {"gripper": grip})).fields("action")
    assert row.normalise == "default"


def test_each_of_two_arms_has_its_own_tool():
    row = {"mode": "delta", "frame": "tool", "model": {"mode": "absolute"}}
    state, action = {}, {}
    for side in ("left", "right"):
        turn = {"path": "q", "kind": "rotation", "form": "quaternion_xyzw"}
        state |= {f"{side}_position": {"path": "p", "kind": "position"}, f"{side}_rotation": turn}
        move = {"path": "m", "kind": "position", **row}
        turn = {"path": "r", "kind": "rotation", "form": "axis_angle", **row}
        action |= {f"{side}_position": move, f"{side}_rotation": turn}
    robot = table(state, action)
    coder, rng = Coder(robot), np.random.default_rng(0)
    state, actions = drawn(robot, "state", rng, (3,)), drawn(robot, "action", rng, (3, 4))
    chunk = coder.chunk(actions, state)
    for side, place in (("left", 0), ("right", 1)):
        pose = state[0, 7 * place : 7 * place + 7]
        move = Rotation.from_quat(pose[3:]).apply(actions[0, 0, 6 * place : 6 * place + 3])
        reached = chunk[0, 0, coder.slices("action")[f"{side}_position"]]
        np.testing.assert_allclose(reached, pose[:3] + move, atol=1e-5)
    assert_same(robot, "action", coder.recorded(chunk, state)[0], actions)


def test_scales_may_differ_by_value():
    arm = {"path": "a[0:3]", "kind": "joints", "mode": "delta", "unit": "deg", "scale": [1, 10, 90]}
    coder = Coder(table({}, {"arm": arm}))
    chunk = coder.chunk(np.ones((1, 3)), np.zeros(0))
    np.testing.assert_allclose(chunk[0], np.radians([1, 10, 90]), rtol=1e-6)
    np.testing.assert_allclose(coder.recorded(chunk, np.zeros(0))[0], 1, rtol=1e-6)


# ---------------------------------------------------------------- grippers


@pytest.mark.parametrize(
    ("opened", "closed"),
    [(0, 1), (1, 0), (-1, 1), (1, -1), (0.085, 0), (100, 0), ([0.04, -0.04], [0, 0]), (0, 255)],
)
def test_grippers_of_every_sense_and_range(opened, closed):
    width = np.size(opened)
    row = {"kind": "gripper", "width": width, "open": opened, "closed": closed}
    robot = table(
        {"hand": {"path": "s", **row}}, {"hand": {"path": "a", **row, "mode": "absolute"}}
    )
    coder = Coder(robot)
    ends = np.array([np.ravel(opened), np.ravel(closed), (np.ravel(opened) + np.ravel(closed)) / 2])
    np.testing.assert_allclose(coder.state(ends), [[0] * width, [1] * width, [0.5] * width])
    chunk = coder.chunk(ends, ends[0])
    np.testing.assert_allclose(chunk, [[-1] * width, [1] * width, [0] * width], atol=1e-6)
    np.testing.assert_allclose(coder.recorded(chunk, ends[0])[0], ends, atol=1e-6)
    assert coder.action_names == (("hand",) if width == 1 else ("hand.0", "hand.1"))
    assert {field.normalise for field in coder.fields("action")} == {"none"}


def test_predicted_grippers_go_to_the_nearest_command_unless_they_are_continuous():
    hand = {"path": "a", "kind": "gripper", "open": -1, "closed": 1}
    predicted = np.array([[0.9], [0.31], [0.29], [0.1], [-0.2], [-0.5]])
    for row, expected in (
        ({"mode": "pulse"}, [1, 1, 0, 0, 0, -1]),
        ({"mode": "absolute"}, [1, 1, 1, 1, -1, -1]),
        ({"mode": "absolute", "continuous": True}, predicted[:, 0]),
        ({"mode": "pulse", "model": {"mode": "absolute"}}, [1, 1, 1, 1, -1, -1]),
        ({"mode": "absolute", "model": {"mode": "pulse"}}, [1, 1, 0, 0, 0, -1]),
        ({"mode": "velocity"}, predicted[:, 0]),
    ):
        snapped = Coder(table({}, {"hand": hand | row})).snapped(predicted)
        np.testing.assert_array_equal(snapped[:, 0], np.array(expected, np.float32))


@pytest.mark.parametrize("known", ["previous", "state"])
@pytest.mark.parametrize("sign", [1, -1])
def test_pulses_and_commands_that_hold_come_back(known, sign):
    hand = {"path": "a", "kind": "gripper", "open": -sign, "closed": sign}
    state = {"hand": {"path": "s", "kind": "gripper"}} if known == "state" else {}
    held = np.array([-1, -1, 1, 1, -1, 1])
    for before in (1, -1):
        path = np.array([before, *held])
        pulses = np.where(path[1:] != path[:-1], held, 0)
        measured = np.array([before > 0] * len(state), float)
        for mode, other, values, wanted in (
            ("pulse", "absolute", pulses, held),
            ("absolute", "pulse", held, pulses),
        ):
            coder = Coder(table(state, {"hand": hand | {"mode": mode, "model": {"mode": other}}}))
            previous = sign * np.array([before]) if known == "previous" else None
            if known == "state":
                coded = coder.chunk(sign * values[:, None], measured)
                np.testing.assert_array_equal(coded[:, 0], wanted)
            back, _ = coder.recorded(wanted[:, None], measured, previous)
            np.testing.assert_array_equal(back[:, 0], sign * values)


# ---------------------------------------------------------------- what is refused


def test_one_command_of_a_hand_whose_two_fingers_are_measured():
    hand = {"path": "a", "kind": "gripper", "mode": "pulse", "open": -1, "closed": 1}
    coder = Coder(table(POSE, {"hand": hand | {"model": {"mode": "absolute"}}}))
    turn = [1.0, 0, 0, 0]
    for fingers, before in (([0.04, -0.04], -1), ([0.0, 0.0], 1)):
        state = np.array([0.0, 0, 0, *turn, *fingers])
        chunk = coder.chunk(np.zeros((3, 1)), state)
        np.testing.assert_array_equal(chunk[:, 0], before)
        back, _ = coder.recorded(-chunk, state)
        np.testing.assert_array_equal(back[:, 0], [-before, 0, 0])


def test_malformed_vectors_are_refused():
    coder = Coder(load_robot("rt1"))
    good, actions = np.ones((2, 8)), np.ones((2, 3, 7))
    for bad in (np.ones((2, 7)), np.full((2, 8), np.nan)):
        with pytest.raises(ValueError, match=r"finite state of shape \(\.\.\., 8\)"):
            coder.state(bad)
    with pytest.raises(ValueError, match=r"finite action of shape \(\.\.\., H, 7\)"):
        coder.chunk(np.ones(7), good[0], [True])
    with pytest.raises(ValueError, match="ends the task, got none"):
        coder.chunk(actions, good)
    with pytest.raises(ValueError, match=r"action of the model of shape \(\.\.\., H, 8\)"):
        coder.recorded(np.ones((2, 3, 7)), good)
    turn = {"path": "q", "kind": "rotation", "form": "quaternion_xyzw"}
    with pytest.raises(ValueError, match=r"state\.turn: .*length 0"):
        Coder(table({"turn": turn}, {})).state(np.zeros(4))


def test_a_robot_without_state_or_action():
    bare = Coder(table({}, {}, terminate="done"))
    assert (bare.state_width, bare.action_width, bare.terminate) == (0, 0, False)
    assert bare.state(np.zeros((5, 0))).shape == (5, 0)
    assert bare.chunk(np.zeros((5, 3, 0)), np.zeros((5, 0))).shape == (5, 3, 0)
    assert bare.recorded(np.zeros((5, 3, 0)), np.zeros((5, 0)))[0].shape == (5, 3, 0)
