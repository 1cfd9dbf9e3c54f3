"""What a draft says of sets that are not neat: right, or asked; never certified nonsense."""

import io
import shlex

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from recorded_worlds import Memory, arm, continuous, deltas, made, pose, targets
from scipy.spatial.transform import Rotation

from benchmarks.robots import faults as battery
from benchmarks.robots.sets import robots
from benchmarks.robots.synthetic import write
from robotics.convert import main as convert_main
from robotics.data.__main__ import main as data_main
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from robotics.inspection.doctor import examine
from robotics.inspection.groups import Place
from robotics.inspection.roles import describe

UP = Rotation.identity()


def measured(a):
    return np.column_stack([pose(a), a.closed[:-1]])


def read(robot: Robot) -> dict[str, str]:
    rows = (*robot.state, *robot.action)
    return {f"{part.path}{' ' + part.mode if part.mode else ''}": describe(part) for part in rows}


def alarms(examined):
    return [row for row in examined.findings if row.severity in ("error", "question")]


def table(directory, content):
    path = directory / "table.yaml"
    OmegaConf.save(OmegaConf.create(content), path)
    return str(path)


def test_episodes_are_compared_under_the_corrected_unit(tmp_path):
    def record(a):
        action = deltas(a)
        action[:, :6] = np.clip(action[:, :6] / [*3 * [0.03], *3 * [0.1]], -1, 1)
        return {"state": measured(a), "action": action}

    right = examine(made(lambda a: {"state": measured(a), "action": deltas(a)}, rest=UP))
    spec = tmp_path / "right.yaml"
    spec.write_text(right.proposed)
    found = examine(made(record, rest=UP), spec=str(spec))
    assert {row.code for row in found.findings if row.severity == "error"} == {"scale"}


@pytest.mark.parametrize("columns", [6, 7])
def test_commands_that_never_change_are_asked(columns):
    def record(a):
        action = np.column_stack([np.zeros((a.steps, 6)), a.close])[:, :columns]
        return {"state": measured(a), "action": action}

    found = examine(made(record))
    assert found.exit_code == 2
    assert [row.place for row in found.questions] == ["action"]


def test_commands_that_never_change_are_an_error_of_a_table(tmp_path):
    record = lambda a, size=1.0: {"state": measured(a), "action": size * deltas(a)}  # noqa: E731
    spec = tmp_path / "draft.yaml"
    spec.write_text(examine(made(record, rest=UP)).proposed)
    still = examine(made(lambda a: record(a, 0.0), rest=UP), spec=str(spec))
    assert still.exit_code == 1
    assert "action.still" in {row.code for row in still.findings}


def test_nan_in_a_column_that_is_not_read_is_no_error():
    found = examine(made(
        lambda a: {"state": measured(a), "action": deltas(a),
                   "observation/touch": np.full((a.steps, 4), np.nan)}, rest=UP,
    ))  # fmt: skip
    assert found.exit_code == 0


@pytest.mark.parametrize("rate", [None, 20.0])
def test_velocities_need_a_rate(rate):
    def record(a):
        return {
            "observation/joint_pos": a.q[:-1],
            "action/joint_velocity": np.diff(a.q, axis=0) * 20,
        }

    found = examine(made(record, rate=rate))
    assert [row.code for row in alarms(found)] == ([] if rate else ["question.rate"])


def test_velocities_without_a_name_are_told_by_the_rate():
    record = lambda a: {"observation/joint_pos": a.q[:-1],  # noqa: E731
                        "action": np.diff(a.q, axis=0) * 20}  # fmt: skip
    found = examine(made(record, rate=20.0))
    (part,) = found.robot.action
    assert (part.mode, part.scale, found.exit_code) == ("velocity", 1.0, 0)


def test_a_copy_of_one_part_does_not_shift_the_others():
    names = [*(f"joint_{n}.pos" for n in range(5)), "x.vel", "y.vel", "theta.vel"]

    def record(a):
        speed = np.column_stack([a.move[:, :2], a.turn.as_euler("xyz")[:, 2]])
        return {"observation/state": np.column_stack([a.q[:-1, :5], speed]),
                "action": np.column_stack([a.q[1:, :5], speed])}  # fmt: skip

    found = examine(made(record, rate=30.0, names={"observation/state": names, "action": names}))
    assert found.robot.steps.lag == 0
    assert "steps.lags" in {row.code for row in found.findings}


def test_an_action_that_copies_the_state_is_asked_about():
    """The next state as the action is one; that of the same step commands nothing."""
    first = lambda a: {"observation/joint_pos": a.q[:-1], "action": a.q[:-1]}  # noqa: E731
    found = examine(made(first))
    assert [row.code for row in alarms(found)] == ["question.copy"]
    assert found.exit_code == 2
    assert "steps.lag" not in {row.code for row in found.findings}
    after = examine(made(lambda a: {"observation/joint_pos": a.q[:-1], "action": a.q[1:]}))
    assert after.exit_code == 0


SIX = [f"motor_{n}" for n in range(6)]
POSES = {
    "changes": (lambda a: {"observation/joint_positions": pose(a), "action": deltas(a)[:, :6]},
                {}),
    "names of motors": (lambda a: {"state": pose(a), "action": deltas(a)[:, :6]},
                        {"state": SIX, "action": SIX}),
    "quaternions": (
        lambda a: {"observation/joint_positions": pose(a, lambda r: continuous(r.as_quat())),
                   "action/joint_positions": targets(a, lambda r: continuous(r.as_quat()))},
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POSES)
def test_poses_under_names_of_joints_are_asked_about(name):
    record, names = POSES[name]
    found = examine(made(record, names=names, rest=UP))
    assert found.exit_code == 2
    assert "question.arm" in {row.code for row in alarms(found)}, alarms(found)


@pytest.mark.parametrize("mode", ["changes", "targets"])
def test_joints_under_names_of_joints_are_joints(mode):
    def record(a):
        q = a.q[:, :6]
        action = np.diff(q, axis=0) if mode == "changes" else q[1:]
        return {"observation/joint_positions": q[:-1], "action": action}

    found = examine(made(record))
    assert found.exit_code == 0
    assert {part.kind for part in (*found.robot.state, *found.robot.action)} == {"joints"}


def test_a_name_does_not_contradict_a_table_that_the_motion_agrees_with(tmp_path):
    def record(a, size=1.0):
        yaw = np.cumsum(a.turn.as_euler("xyz")[:, 2])
        rows = np.column_stack([a.x[:-1], yaw])
        return {"q": rows, "action": size * np.diff(rows, axis=0, append=rows[-1:])}

    parts = {
        group: {
            "position": {"path": f"{key}[0:3]", "kind": "position"} | mode,
            "rotation": {"path": f"{key}[3]", "kind": "rotation", "form": "euler_z"} | mode,
        }
        for group, key, mode in (("state", "q", {}), ("action", "action", {"mode": "delta"}))
    }
    camera, text = {"image": "observation/image"}, "language_instruction"
    content = {"rate": 5, "cameras": camera, "instruction": text, **parts}
    spec = table(tmp_path, content)
    found = examine(made(record, rest=UP), spec=spec)
    assert alarms(found) == []
    assert "kind.name" in {row.code for row in found.findings if row.severity == "warning"}
    wrong = examine(made(lambda a: record(a, -1.0), rest=UP), spec=spec)
    assert "kind" in {row.code for row in wrong.findings if row.severity == "error"}


def test_every_arm_of_one_vector_has_its_own_state():
    def record(a):
        b = arm(int(1e6 * abs(a.x[0, 0])), a.steps)
        form = lambda r: continuous(r.as_quat())  # noqa: E731
        state = [np.column_stack([pose(one, form), one.closed[:-1]]) for one in (a, b)]
        action = [np.column_stack([targets(one, form), one.close]) for one in (a, b)]
        return {"state": np.hstack(state), "action": np.hstack(action)}

    robot = examine(made(record)).robot
    pairs = {part.path: getattr(robot.commanded(part), "path", None) for part in robot.action}
    assert pairs == {path: path.replace("action", "state") for path in (
        "action[0:3]", "action[3:7]", "action[7]", "action[8:11]", "action[11:15]", "action[15]"
    )}  # fmt: skip


def test_a_command_and_joints_of_another_width_are_asked():
    found = examine(made(lambda a: {"observation/q": a.q[:-1], "action": deltas(a)}, rest=UP))
    assert found.exit_code == 2


def test_a_position_and_its_yaw_can_be_answered(tmp_path):
    def record(a):
        yaw = np.concatenate([[0], np.cumsum(a.turn.as_euler("xyz")[:, 2])])
        state = [a.x[:-1], (yaw[:-1] + np.pi) % (2 * np.pi) - np.pi, a.closed[:-1]]
        action = [a.move, np.diff(yaw), 2 * a.close - 1]
        return {"state": np.column_stack(state), "action": np.column_stack(action)}

    source = made(record, rest=UP)
    found = examine(source)
    assert found.exit_code == 2
    (line,) = [row for row in found.questions[0].lines if "euler_z" in row]
    (tmp_path / "draft.yaml").write_text(found.proposed)
    answer = OmegaConf.create(line.partition(", and state")[0])
    parts = OmegaConf.to_container(answer)["action"]
    state = {
        name: row and {k: v for k, v in row.items() if k != "mode"}
        | {"path": row["path"].replace("action", "state")} for name, row in parts.items()
    }  # fmt: skip
    spec = table(
        tmp_path, {"extends": str(tmp_path / "draft.yaml"), "action": parts, "state": state}
    )
    again = examine(source, spec=spec)
    assert again.exit_code == 0
    assert {part.form for part in again.robot.action} == {None, "euler_z"}


@pytest.mark.parametrize("key", ["steps/action", "steps/observation/image"])
def test_a_column_that_records_lack_is_an_error(key):
    source = made(lambda a: {"state": measured(a), "action": deltas(a)}, rest=UP)
    for number in (2, 5):
        raw = source.episodes[number]
        raw.numbers.pop(key, None)
        raw.texts.pop(key, None)
    found = examine(source)
    (row,) = [row for row in found.findings if row.severity == "error"]
    assert (row.code, sorted(row.episodes)) == ("records.missing", [2, 5])


def test_pictures_of_distances_are_no_camera():
    source = made(lambda a: {"state": measured(a), "action": deltas(a)}, rest=UP)
    picture = io.BytesIO()
    Image.fromarray(np.full((24, 32), 4000, np.uint16)).save(picture, "PNG")
    for raw in source.episodes:
        raw.texts["steps/observation/range"] = [picture.getvalue()] * raw.steps
    assert [row.name for row in examine(source).robot.cameras] == ["image"]


FEW = ("gripper pulses inverted in half", "gripper of 0 to 100 in half",
       "all axes inverted in a few", "absolute instead of delta in a few",
       "actions in degrees in one", "steps in random order in one", "steps reversed in a few",
       "joints in another order in a few")  # fmt: skip


@pytest.mark.parametrize("name", FEW)
def test_a_few_odd_episodes_do_not_decide_a_draft(name):
    fault = next(row for row in battery.FAULTS if row.name == name)
    found = examine(Memory(battery.faulty(fault, 1)))
    assert found.exit_code == 1
    wrong = [row for row in found.findings if row.severity == "error"]
    assert {row.episodes for row in wrong} == {fault.episodes}
    assert read(found.robot) == read(robots()[fault.robot])


def test_grippers_that_begin_closed_are_asked_once(tmp_path):
    robot = load_robot("aloha")
    write(robot, tmp_path / "set", episodes=6, seconds=2.0)
    turned = {
        group: {f"{side}_gripper": {"open": 0, "closed": 1} for side in ("left", "right")}
        for group in ("state", "action")
    }
    spec = table(tmp_path, {"extends": "aloha", **turned})
    found = examine(tmp_path / "set", spec=spec)
    assert [row.code for row in found.findings if row.severity == "warning"] == ["gripper.both"]
    assert found.exit_code == 0


def test_the_table_that_reads_more_of_what_moves_is_taken(tmp_path):
    write(load_robot("mobile_aloha"), tmp_path / "set", episodes=6, seconds=2.0)
    found = examine(tmp_path / "set")
    assert found.exit_code == 0
    assert "mobile_aloha" in found.origin


def test_another_arm_in_degrees_is_not_taken_for_the_shipped_one(tmp_path):
    names = ["joint_a", "joint_b", "joint_c", "joint_d", "joint_e"]
    joints = {"names": names}
    spec = table(
        tmp_path, {"extends": "so101", "state": {"joints": joints}, "action": {"joints": joints}}
    )
    write(load_robot(spec), tmp_path / "set", episodes=5, seconds=1.5, lerobot=True)
    found = examine(tmp_path / "set")
    assert not found.stated
    write(load_robot("so101"), tmp_path / "so101", episodes=4, seconds=1.0, lerobot=True)
    assert examine(tmp_path / "so101").stated


def test_the_line_of_a_lerobot_set_runs(tmp_path):
    source = tmp_path / "my arm"
    write(load_robot("so101"), source, episodes=3, seconds=0.5, lerobot=True)
    line = Place(str(source)).delete([1]).replace("DST", shlex.quote(str(tmp_path / "out")))
    first, second = line.split(" && ")
    assert convert_main(shlex.split(first)[3:]) == 0
    assert data_main(shlex.split(second)[3:]) == 0
    assert '"shardLengths": [\n        "2"' in (tmp_path / "out/dataset_info.json").read_text()
