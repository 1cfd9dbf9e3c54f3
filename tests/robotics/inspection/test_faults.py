"""A table against data that contradict it in one known way; and no alarm where it holds."""

import numpy as np
import pytest
from omegaconf import OmegaConf
from recorded_worlds import deltas, made, pose
from scipy.spatial.transform import Rotation

from robotics.embodiment.tables import load_robot
from robotics.inspection.doctor import examine

TABLE = {
    "rate": 5,
    "cameras": {"front": "observation/image"},
    "instruction": "language_instruction",
    "state": {
        "position": {"path": "state[0:3]", "kind": "position"},
        "rotation": {"path": "state[3:6]", "kind": "rotation", "form": "euler_xyz"},
        "gripper": {"path": "state[6]", "kind": "gripper", "open": 0, "closed": 1},
    },
    "action": {
        "position": {"path": "action[0:3]", "kind": "position", "mode": "delta"},
        "rotation": {
            "path": "action[3:6]", "kind": "rotation", "form": "euler_xyz", "mode": "delta",
        },
        "gripper": {
            "path": "action[6]", "kind": "gripper", "mode": "absolute", "open": -1, "closed": 1,
        },
    },
}  # fmt: skip
UP = {"rest": Rotation.identity()}


def recorded(a):
    return {"state": np.column_stack([pose(a), a.closed[:-1]]), "action": deltas(a)}


def scaled(column, *factors):
    def record(a):
        rows = recorded(a)
        rows[column] = rows[column] * np.array(factors)
        return rows

    return record


def rolled(steps):
    """Actions that stand some steps late."""

    def record(a):
        rows = recorded(a)
        rows["action"] = np.concatenate([rows["action"][:1]] * steps + [rows["action"][:-steps]]) \
            if steps > 0 else np.concatenate([rows["action"][-steps:]] + [rows["action"][-1:]] * -steps)  # fmt: skip  # noqa: E501
        return rows

    return record


def both(first, second):
    def record(a):
        return first(a) | {"action": second(a)["action"]}

    return record


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "mine.yaml"
    OmegaConf.save(OmegaConf.create(TABLE), path)
    return str(path)


def codes(examined, *severities):
    return [row.code for row in examined.findings if row.severity in severities]


def test_no_alarm_where_the_table_is_right(table):
    examined = examine(made(recorded, **UP), spec=table)
    assert codes(examined, "error", "question", "warning") == [] and examined.exit_code == 0
    assert {row.answer for row in examined.verdicts} == {"agrees"}
    assert examined.motions[0].stated.gain == pytest.approx(1, abs=0.02)


DEG = 180 / np.pi
WRONG = {
    "an inverted command": (scaled("action", 1, 1, 1, 1, 1, 1, -1), ["gripper.inverted"]),
    "millimetres of the command": (scaled("action", *[1000] * 3, 1, 1, 1, 1), ["unit"]),
    "degrees of the command": (scaled("action", 1, 1, 1, *[DEG] * 3, 1), ["unit"]),
    "degrees of both": (
        both(scaled("state", 1, 1, 1, *[DEG] * 3, 1), scaled("action", 1, 1, 1, *[DEG] * 3, 1)),
        ["unit", "unit"],
    ),
    "millimetres of both": (
        both(scaled("state", *[1000] * 3, 1, 1, 1, 1), scaled("action", *[1000] * 3, 1, 1, 1, 1)),
        ["unit", "unit"],
    ),
    "another factor": (scaled("action", *[20] * 3, 1, 1, 1, 1), ["scale"]),
    "a sign of one axis": (scaled("action", -1, 1, 1, 1, 1, 1, 1), ["sign"]),
    "one step late": (rolled(1), ["steps.lag"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_convention_is_named_and_its_correction_holds(table, tmp_path, name):
    record, expected = WRONG[name]
    examined = examine(made(record, **UP), spec=table)
    assert codes(examined, "error") == expected and examined.exit_code == 1
    assert all(row.why and row.line for row in examined.findings if row.severity == "error")
    (tmp_path / "proposed.yaml").write_text(examined.proposed)
    again = examine(made(record, **UP), spec=str(tmp_path / "proposed.yaml"))
    assert codes(again, "error") == [] and again.exit_code == 0
    assert load_robot(tmp_path / "proposed.yaml").action


def test_late_and_early_actions_are_not_an_inverted_gripper(table):
    for steps, code in ((1, "steps.lag"), (-1, "steps.lead")):
        examined = examine(made(rolled(steps), **UP), spec=table)
        assert code in codes(examined, "error", "warning")
        assert "gripper.inverted" not in codes(examined, "error")
        sense = [row for row in examined.verdicts if row.code == "gripper.sense"]
        assert [row.answer for row in sense] == ["agrees"]


def test_a_gripper_that_is_inverted_in_both_is_doubted(table):
    def record(a):
        rows = recorded(a)
        rows["state"][:, 6] = 1 - rows["state"][:, 6]
        rows["action"][:, 6] *= -1
        return rows

    examined = examine(made(record, **UP), spec=table)
    assert codes(examined, "error") == [] and "gripper.both" in codes(examined, "warning")


def test_swapped_axes_are_told(table):
    def record(a):
        rows = recorded(a)
        rows["action"][:, :3] = rows["action"][:, [1, 0, 2]]
        return rows

    examined = examine(made(record, **UP), spec=table)
    assert codes(examined, "error") == ["axes"]
    np.testing.assert_allclose(
        examined.motions[0].matrix, [[0, 1, 0], [1, 0, 0], [0, 0, 1]], atol=0.05
    )


def test_a_table_that_reads_joints_as_a_pose_is_refused(table):
    def record(a):
        q = np.column_stack([a.q[:, :6], a.closed])
        return {"state": q[:-1], "action": np.column_stack([a.q[1:, :6], a.close]),
                "qvel": np.diff(q, axis=0)}  # fmt: skip

    examined = examine(made(record), spec=table)
    assert examined.exit_code == 1
    assert codes(examined, "error").count("kind") == 4  # position and rotation, state and action


def test_values_that_move_and_are_not_read_are_told(table):
    def record(a):
        rows = recorded(a)
        return {key: np.column_stack([values, a.q[:-1]]) for key, values in rows.items()}

    examined = examine(made(record, **UP), spec=table)
    assert codes(examined, "warning") == ["values.unread", "values.unread"]


def dead(rows):
    rows["state"][:, 2] = 0.25
    return rows


def sparse(rows):
    rows["action"][:, 5] = 0
    rows["action"][7, 5] = 0.3 if rows["action"][7, 0] > 0 else 0
    return rows


def padded(rows):
    rows["action"][0, :6] = 0
    return rows


@pytest.mark.parametrize(("edit", "code"), [(dead, "values.dead"), (sparse, "values.sparse"),
                                            (padded, "ends.zero_first")])  # fmt: skip
def test_habits_of_the_values_are_warned_of(table, edit, code):
    examined = examine(made(lambda a: edit(recorded(a)), **UP), spec=table)
    assert code in codes(examined, "warning") and codes(examined, "error") == []


def change(source, number, **numbers):
    """An episode with other columns or texts."""
    episode = source.episodes[number]
    for key, values in numbers.items():
        episode.numbers[f"steps/{key}"][:] = values
    return episode


def test_single_episodes_are_named(table):
    source = made(recorded, **UP)
    source.episodes[3].numbers["steps/action"][5, 1] = np.nan
    source.episodes[4].texts["steps/language_instruction"][:] = [b""] * 40
    source.episodes[5].texts["steps/language_instruction"][:] = [b"\xff\xfe"] * 40
    source.episodes[6].numbers["steps/action"][9, 1] = 5.0
    source.episodes[7] = type(source.episodes[7])(0, {}, {}, [])
    source.episodes[8].texts["steps/language_instruction"][:] = [b"push " * 40] * 40
    examined = examine(source, spec=table)
    named = {row.code: row.episodes for row in examined.findings if row.episodes}
    assert named["records.nan"] == (3,)
    assert named["instructions.empty"] == (4,)
    assert named["instructions.utf8"] == (5,)
    assert named["values.far"] == (6,)
    assert named["episodes.empty"] == (7,)
    assert named["instructions.long"] == (8,)
    assert codes(examined, "error") == ["records.nan", "instructions.utf8"]


def test_cameras_are_listed_and_black_ones_named_with_their_flag(table):
    from robotics.data.images import encode_image

    source = made(recorded, **UP)
    black = encode_image(np.zeros((24, 32, 3), np.uint8))
    for number, episode in enumerate(source.episodes):
        shown = episode.texts["steps/observation/image"]
        episode.texts["steps/observation/wrist"] = [black] * 40 if number % 2 else list(shown)
        episode.texts["steps/observation/side"] = [black] * 40
        episode.numbers["meta/has_wrist"] = np.array([[1.0 - number % 2]])
    examined = examine(source)
    cameras = {camera.name: camera for camera in examined.robot.cameras}
    assert set(cameras) == {"image", "wrist", "side"}
    assert cameras["wrist"].present == "/meta/has_wrist" and cameras["wrist"].view == "wrist"
    assert not cameras["side"].use and cameras["image"].size == (24, 32)
    assert examined.exit_code == 0 and "cameras.black" in codes(examined, "info")
    assert "cameras.unread" in codes(examine(source, spec=table), "info")


def test_video_without_actions_says_what_trains():
    examined = examine(made(lambda a: {"other": a.q[:-1]}))
    assert examined.robot.action == () and "action.none" in codes(examined, "info")


def test_the_rate_of_time_stamps_is_compared(table):
    def record(a):
        return recorded(a) | {"timestamp": np.arange(a.steps) / 20}

    assert "rate.wrong" in codes(examine(made(record, **UP), spec=table), "error")
    assert examine(made(record, **UP)).robot.rate == pytest.approx(20)
    assert "rate.assumed" in codes(examine(made(recorded, **UP)), "warning")
