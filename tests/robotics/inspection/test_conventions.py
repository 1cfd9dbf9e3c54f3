"""What each value is, found without a table: right, or asked; never wrong."""

import numpy as np
import pytest
from recorded_worlds import continuous, deltas, made, pose, targets
from scipy.spatial.transform import Rotation

from robotics.inspection.doctor import examine

UP = Rotation.identity()


def euler(r):
    return r.as_euler("xyz")


def vector(r):
    return r.as_rotvec()


def xyzw(r):
    return continuous(r.as_quat())


def wxyz(r):
    return np.roll(continuous(r.as_quat()), 1, axis=-1)


def positive(r):
    """Quaternions as many recorders write them: w first, kept positive."""
    values = r.as_quat()
    return np.roll(values * np.where(values[:, 3:] < 0, -1, 1), 1, axis=-1)


def columns6(r):
    return r.as_matrix()[:, :, :2].transpose(0, 2, 1).reshape(-1, 6)


def matrix(a, transposed=False):
    found = np.zeros((a.steps, 4, 4))
    found[:, :3, :3], found[:, :3, 3], found[:, 3, 3] = a.r[:-1].as_matrix(), a.x[:-1], 1
    return (found.transpose(0, 2, 1) if transposed else found).reshape(-1, 16)


def state(a, form=euler):
    return np.column_stack([pose(a, form), a.closed[:-1]])


def in_tool_frame(a):
    r = a.r[:-1]
    turned = (r.inv() * a.turn * r).as_rotvec()
    return np.column_stack([r.inv().apply(a.move), turned, 2 * a.close - 1])


def parts(examined):
    return {
        f"{group}.{part.name}": part
        for group in ("state", "action")
        for part in getattr(examined.robot, group)
    }


def open_codes(examined):
    return [question.code for question in examined.questions]


# record, what must be found (entry -> value), options of the world
DETERMINED = {
    "changes, angles": (
        lambda a: {"state": state(a), "action": deltas(a)},
        {"state.rotation.form": "euler_xyz", "action.rotation.form": "euler_xyz",
         "action.position.mode": "delta", "action.position.frame": "base",
         "action.gripper.mode": "absolute", "action.gripper.open": -1, "state.gripper.open": 0},
        {"rest": UP},
    ),
    "rotation vectors of large turns, quaternions w first": (
        lambda a: {"state": state(a, wxyz), "action": deltas(a, vector)},
        {"state.rotation.form": "quaternion_wxyz", "action.rotation.form": "axis_angle"},
        {"angle": 0.8, "dwell": 4},
    ),
    "the tool's frame": (
        lambda a: {"state": state(a, xyzw), "action": in_tool_frame(a)},
        {"action.position.frame": "tool", "action.rotation.frame": "tool",
         "state.rotation.form": "quaternion_xyzw"},
        {},
    ),
    "targets, quaternions whose w is kept positive": (
        lambda a: {"state": state(a, positive),
                   "action": np.column_stack([targets(a, positive), a.close])},
        {"state.rotation.form": "quaternion_wxyz", "action.rotation.form": "quaternion_wxyz",
         "action.position.mode": "absolute", "action.rotation.mode": "absolute"},
        {},
    ),
    "targets, two columns of the matrix": (
        lambda a: {"state": state(a, columns6),
                   "action": np.column_stack([targets(a, columns6), a.close])},
        {"state.rotation.form": "rot6d", "action.rotation.mode": "absolute"},
        {},
    ),
    "a pose as one matrix, column by column": (
        lambda a: {"state": matrix(a, transposed=True), "action": deltas(a)},
        {"state.rotation.form": "homogeneous_columns", "state.position.path": "state[12:15]"},
        {},
    ),
    "a pose as one matrix, row by row": (
        lambda a: {"state": matrix(a), "action": deltas(a)},
        {"state.rotation.form": "homogeneous", "state.position.path": "state[3:12:4]"},
        {},
    ),
    "normalised commands": (
        lambda a: {"state": state(a, xyzw),
                   "action": deltas(a) / [*3 * [0.08], *3 * [0.2], 1]},
        {"action.position.scale": 0.08, "action.rotation.scale": 0.2},
        {},
    ),
    "degrees in state and action": (
        lambda a: {"state": np.column_stack([a.x[:-1], np.degrees(euler(a.r[:-1])), a.closed[:-1]]),
                   "action": deltas(a) * [1, 1, 1, *3 * [180 / np.pi], 1]},
        {"state.rotation.unit": "deg", "action.rotation.unit": "deg"},
        {"rest": UP},
    ),
    "seven joints by their name": (
        lambda a: {"observation/joint_position": a.q[:-1], "observation/gripper": a.closed[:-1],
                   "action": np.column_stack([np.diff(a.q, axis=0), a.close])},
        {"action.joints.kind": "joints", "action.joints.mode": "delta", "action.joints.width": 7},
        {},
    ),
    "joints in degrees, a hand from 0 to 100": (
        lambda a: {"observation.state": np.column_stack(
                       [np.degrees(a.q[:-1, :5]), 100 * (1 - a.closed[:-1])]),
                   "action": np.column_stack([np.degrees(a.q[1:, :5]), 100 * (1 - a.close)])},
        {"action.joints.unit": "deg", "action.joints.mode": "absolute",
         "action.gripper.open": 100, "action.gripper.closed": 0},
        {},
    ),
    "two arms of six joints, beside their speeds": (
        lambda a: {"observation/state": np.column_stack(
                       [a.q[:-1, :6], a.closed[:-1], a.q[:-1, 1:], a.closed[:-1]]),
                   "observation/qvel": np.tile(np.diff(a.q, axis=0), 2),
                   "action": np.column_stack([a.q[1:, :6], a.close, a.q[1:, 1:], a.close])},
        {"state.arm1_joints.kind": "joints", "action.arm2_joints.path": "action[7:13]",
         "action.arm2_gripper.path": "action[13]"},
        {},
    ),
    "a mobile base": (
        lambda a: {"observation/ee_pose": pose(a, xyzw), "observation/base_pose": 2 * a.q[:-1, :3],
                   "action/arm": deltas(a), "action/base_delta": 2 * np.diff(a.q[:, :3], axis=0)},
        {"action.base.kind": "base", "action.base.mode": "delta", "state.base.width": 3},
        {},
    ),
    "millimetres and degrees that go around the circle": (
        lambda a: {"observation/ee_pose": pose(a) * [*3 * [1000], *3 * [180 / np.pi]],
                   "action/ee_delta": deltas(a)[:, :6] * [*3 * [1000], *3 * [180 / np.pi]]},
        {"state.position.unit": "mm", "state.rotation.unit": "deg", "action.position.unit": "mm",
         "action.rotation.unit": "deg"},
        {},
    ),
    "the end of the task": (
        lambda a: {"state": state(a, xyzw),
                   "action": np.column_stack([deltas(a), np.arange(a.steps) == a.steps - 1])},
        {"action.gripper.path": "action[6]"},
        {},
    ),
    "two values": (
        lambda a: {"effector_translation": a.x[:-1, :2], "action": a.move[:, :2]},
        {"action.position.width": 2, "action.position.mode": "delta"},
        {},
    ),
    "switches of the gripper": (
        lambda a: {"state": state(a, xyzw),
                   "action": np.column_stack([deltas(a)[:, :6], np.diff(a.close, prepend=0)])},
        {"action.gripper.mode": "pulse", "action.gripper.open": -1, "action.gripper.closed": 1},
        {},
    ),
    "two fingers, m": (
        lambda a: {"state": np.column_stack([pose(a, xyzw), 0.04 * (1 - a.closed[:-1]),
                                             -0.04 * (1 - a.closed[:-1])]),
                   "action": deltas(a)},
        {"state.gripper.open": (0.04, -0.04), "state.gripper.closed": (0, 0),
         "action.gripper.open": -1},
        {},
    ),
    "a pose whose values are named": (
        lambda a: {"observation.state": state(a), "action": deltas(a)},
        {"state.rotation.form": "euler_xyz", "action.rotation.form": "euler_xyz",
         "action.position.kind": "position"},
        {"rest": UP, "angle": 0.05, "names": {
            key: [*"xyz", "roll", "pitch", "yaw", "gripper"]
            for key in ("observation.state", "action")
        }},
    ),
    "two arms whose values are named": (
        lambda a: {"observation.state": np.column_stack([a.q[:-1, :6], a.closed[:-1]] * 2),
                   "action": np.column_stack([a.q[1:, :6], a.close] * 2)},
        {"action.left_joints.kind": "joints", "action.right_joints.path": "action[7:13]",
         "state.right_gripper.path": "observation.state[13]"},
        {"names": {key: [f"{arm}_{joint}" for arm in ("left", "right") for joint in (
            "waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper",
        )] for key in ("observation.state", "action")}},
    ),
    "a hand that is open at 1, by its name": (
        lambda a: {"tcp_position": a.x[:-1], "tcp_orientation": xyzw(a.r[:-1]),
                   "gripper_open": 1 - a.closed[:-1], "action/translation": a.move,
                   "action/rotation": vector(a.turn), "action/gripper": a.close},
        {"state.gripper.open": 1, "action.gripper.open": 0, "action.rotation.of": None},
        {"angle": 0.6},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DETERMINED)
def test_what_the_data_determine_is_found(name):
    record, expected, options = DETERMINED[name]
    examined = examine(made(record, **options))
    found = parts(examined)
    for entry, value in expected.items():
        group, part, key = entry.split(".")
        got = getattr(found[f"{group}.{part}"], key)
        number = isinstance(value, int | float)
        assert got == (pytest.approx(value, rel=0.03) if number else value), entry
    assert examined.exit_code == 0 and not examined.questions
    ends = "action[7]" if name == "the end of the task" else None
    assert examined.robot.terminate == ends


SIX = np.array([0, 1, 2, 3, 4, 5])
OPEN = {
    "six joints that nothing names, targets": (
        lambda a: {"state": np.column_stack([a.q[:-1, SIX], a.closed[:-1]]),
                   "action": np.column_stack([a.q[1:, SIX], a.close])},
        ["arm"],
    ),
    "six joints that nothing names, changes": (
        lambda a: {"state": np.column_stack([a.q[:-1, SIX], a.closed[:-1]]),
                   "action": np.column_stack([np.diff(a.q[:, SIX], axis=0), a.close])},
        ["arm"],
    ),
    "a pose that nothing names, targets": (
        lambda a: {"state": state(a), "action": np.column_stack([targets(a), a.close])},
        ["arm"],
    ),
    "fourteen values that nothing names": (
        lambda a: {"state": np.column_stack([a.q[:-1, SIX], a.closed[:-1]] * 2),
                   "action": np.column_stack([a.q[1:, SIX], a.close] * 2)},
        ["arm", "arm"],
    ),
    "targets as quaternions of either order": (
        lambda a: {"state": state(a, xyzw), "action": np.column_stack([targets(a, xyzw), a.close])},
        ["form"],
    ),
    "several columns that may be the action": (
        lambda a: {"observation/joint_position": a.q[:-1],
                   "observation/cartesian_position": pose(a),
                   "action_dict/joint_position": a.q[1:],
                   "action_dict/joint_velocity": np.diff(a.q, axis=0) * 10,
                   "action_dict/gripper_position": a.close},
        ["action"],
    ),
    "changes without anything measured": (lambda a: {"action": deltas(a)}, ["arm", "mode"]),
}  # fmt: skip


@pytest.mark.parametrize("name", OPEN)
def test_what_the_data_do_not_determine_is_asked(name):
    record, codes = OPEN[name]
    examined = examine(made(record))
    assert open_codes(examined) == codes
    assert examined.exit_code == 2
    assert all(question.lines for question in examined.questions)


@pytest.mark.parametrize("name", ["six joints that nothing names, targets",
                                  "six joints that nothing names, changes",
                                  "fourteen values that nothing names"])  # fmt: skip
def test_joints_are_never_read_as_a_pose(name):
    examined = examine(made(OPEN[name][0]))
    kinds = {part.kind for part in parts(examined).values()}
    assert not kinds & {"position", "rotation"}


def test_small_angles_beside_a_command_of_one_are_no_quaternion():
    """(roll, pitch, yaw, 1) has nearly length 1."""
    examined = examine(made(lambda a: {"state": state(a), "action": deltas(a)}, angle=0.02))
    part = parts(examined).get("action.rotation")
    assert part is None or part.form == "euler_xyz"
    assert parts(examined)["action.gripper"].path == "action[6]"


def test_a_choice_between_columns_names_each_and_what_it_is():
    (question,) = examine(made(OPEN["several columns that may be the action"][0])).questions
    assert any("absolute joints" in line for line in question.lines)
    assert any("velocity joints" in line for line in question.lines)


TURNED_AXES = """
name: arm
rate: 10
cameras: {front: observation/image}
state:
  position: {path: "state[0:3]", kind: position}
  rotation: {path: "state[3:6]", kind: rotation, form: FORM}
  gripper: {path: "state[6]", kind: gripper}
action:
  position: {path: "action[0:3]", kind: position, mode: delta}
  rotation: {path: "action[3:6]", kind: rotation, form: FORM, mode: delta}
  gripper: {path: "action[6]", kind: gripper, mode: absolute, open: -1}
"""


@pytest.mark.parametrize("order", ["ZYX", "XYZ", "YXZ"])
def test_a_table_of_angles_about_turned_axes_is_right_where_the_data_are_so(order, tmp_path):
    def turned(r):
        return r.as_euler(order)

    table = tmp_path / "arm.yaml"
    table.write_text(TURNED_AXES.replace("FORM", f"euler_{order}"))
    source = made(lambda a: {"state": state(a, turned), "action": deltas(a, turned)}, angle=0.5)
    examined = examine(source, spec=str(table))
    assert examined.exit_code == 0, [row.title for row in examined.findings]
