"""Tables of robots: what they refuse, by the entry's place, and what is read from files."""

import dataclasses
import json
import re

import numpy as np
import pytest

from robotics.embodiment.coding import Coder
from robotics.embodiment.columns import column
from robotics.embodiment.parts import FRAMES, KINDS, MODES, NORMALISE, Part, PartModel
from robotics.embodiment.recording import VIEWS, Camera, Filter, Instruction, Steps, Window
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import TABLES, load_robot, shipped

BASE = {
    "rate": 5,
    "cameras": {"front": {"path": "observation/rgb"}},
    "instruction": "task",
    "state": {
        "position": {"path": "state[0:3]", "kind": "position"},
        "rotation": {"path": "state[3:7]", "kind": "rotation", "form": "quaternion_xyzw"},
        "gripper": {"path": "state[7]", "kind": "gripper"},
    },
    "action": {
        "position": {"path": "action[0:3]", "kind": "position", "mode": "delta"},
        "rotation": {"path": "action[3:6]", "kind": "rotation", "form": "euler_xyz"}
        | {"mode": "delta"},
        "gripper": {"path": "action[6]", "kind": "gripper", "mode": "absolute", "open": -1},
    },
}


def changed(place="", **entries):
    """BASE with the entries at a place such as "action.position" changed; None takes one out."""
    content = json.loads(json.dumps(BASE))
    inner = content
    for key in filter(None, place.split(".")):
        inner = inner.setdefault(key, {})
    inner.update(entries)
    return content


# ---------------------------------------------------------------- shipped tables

SHIPPED = sorted(path.stem for path in TABLES.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tables_load_by_name_path_and_content(name):
    robot = load_robot(name)
    assert robot.name == name
    assert robot == load_robot(TABLES / f"{name}.yaml") == load_robot(robot) == shipped(name)
    content = json.loads(json.dumps(robot.to_dict()))
    assert load_robot(content) == robot
    assert robot.fingerprint() == load_robot(content).fingerprint()


def test_every_shipped_table_says_what_the_formats_are_known_for():
    """A few facts of each format, so that no edit of a yaml drops them unseen."""
    assert shipped("bridge_dataset").steps.drop_first == shipped("bridge").steps.drop_first == 1
    assert shipped("bridge_dataset").rate == 5
    for name in ("bridge_dataset", "bridge"):
        assert [(part.open, part.closed) for part in shipped(name).action[2:]] == [(1, 0)]
    assert len(shipped("droid").instruction.paths) == 3 and shipped("droid").rate == 15
    assert [row.name for row in shipped("droid").used_cameras()] == ["exterior_1", "wrist"]
    assert {part.mode for part in shipped("droid_cartesian").action} == {"absolute"}
    assert shipped("droid_joint_velocity").action[0].mode == "velocity"
    assert shipped("libero").state_width == 8 and shipped("libero").action[1].scale == 0.5
    assert shipped("aloha").window.horizon == 50 and shipped("aloha").action_width == 14
    assert shipped("mobile_aloha").action_width == 16
    assert shipped("language_table").instruction.encoding == "characters"
    assert shipped("so101").action[0].unit == "deg"
    assert shipped("kuka").state == () and Coder(shipped("kuka")).state_width == 0
    assert load_robot(None) == shipped("rt1")


def test_tables_of_the_same_recordings_share_a_fingerprint():
    prints = {name: load_robot(name).fingerprint() for name in ("rt1", "embedded", "bridge")}
    assert prints["rt1"] == prints["embedded"] != prints["bridge"]
    assert len({load_robot(name).embodiment for name in ("rt1", "embedded", "widowx")}) == 3
    one = load_robot(BASE)
    assert one.fingerprint() != load_robot(changed("cameras.front", rotate=180)).fingerprint()
    assert (
        one.fingerprint() != load_robot(changed(filters=[{"path": "x", "keep": [1]}])).fingerprint()
    )
    assert one.fingerprint() == load_robot(changed(rate=7, name="other")).fingerprint()


def test_the_template_explains_every_entry():
    text = (TABLES / "template.yaml").read_text()
    words = set(re.findall(r"\w+", text))
    for kind in (Robot, Camera, Part, PartModel, Instruction, Steps, Window, Filter):
        entries = {field.name for field in dataclasses.fields(kind)}
        assert entries <= words, f"{kind.__name__}: {entries - words}"
    for choices in (KINDS, MODES, FRAMES, VIEWS, NORMALISE):
        assert set(choices) <= words


def test_every_entry_survives_being_stored():
    content = changed(
        name="mine", embodiment="arm", terminate="done", reward="reward", success="/good",
        instruction=["a", "/b"], steps={"drop_first": 1, "drop_last": 2, "lag": -1},
        window={"horizon": 3, "video_offsets": [2]}, keys={"openpi": {"state": "observation/s"}},
        filters=[{"path": "/x", "contains": "y"}, {"path": "z", "keep": [1]}],
    )  # fmt: skip
    camera = {"size": [4, 5], "rotate": 90, "view": "wrist", "present": "/p", "use": False}
    content["cameras"]["front"] |= camera
    content["action"]["position"] |= {
        "of": "position", "against": "commanded", "frame": "tool", "unit": "mm", "width": 3,
        "scale": [1, 2, 3], "range": [-1, 1], "names": ["x", "y", "z"],
        "model": {"mode": "velocity", "normalise": "minmax"},
    }  # fmt: skip
    content["action"]["gripper"] |= {"continuous": True, "model": {"binarize": True}}
    content["state"]["rotation"]["model"] = {"form": "quaternion_wxyz", "sign": [0, 0, 0, 1]}
    robot = load_robot(content)
    stored = json.loads(json.dumps(robot.to_dict()))
    assert load_robot(stored) == robot
    assert stored["action"]["position"]["scale"] == [1, 2, 3] and stored["embodiment"] == "arm"


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"extends": "rt1", "camra": "x"}, "unknown camra"),
        (changed("action.gripper", opne=1), r"unknown action\.gripper\.opne"),
        (changed("action.gripper.model", sing=1), r"unknown action\.gripper\.model\.sing"),
        (changed("cameras.front", size=[1]), r"cameras\.front\.size: expected .height, width."),
        (changed("cameras.front", rotate=45), r"cameras\.front\.rotate: expected 0, 90"),
        (changed("cameras.front", view="hand"), r"cameras\.front\.view: expected one of"),
        (changed("cameras.front", path="a//b"), r"cameras\.front\.path: expected a path"),
        ({"rate": 3}, "cameras: expected at least one"),
        (changed(rate=0), "rate: expected control steps"),
        (changed(rate=None), "expected rate"),
        (changed(cameras="x"), "cameras: expected key: value"),
        (changed(instruction="a//b"), r"instruction\.paths: expected a path"),
        (changed(instruction={"paths": "a", "encoding": "latin"}), "encoding: expected one of"),
        (changed(success="good"), "leading '/'"),
        (changed(filters=[{"path": "/meta/place"}]), r"filters\[0\]\.path /meta/place: expected"),
        (changed(filters=[{"path": "/meta/who", "keep": "a"}]), "expected a list"),
        (changed("steps", drop_first=-1), r"steps\.drop_first: expected a number"),
        (changed("steps", lag=0.5), r"steps\.lag: expected a number"),
        (changed("window", horizon=0), r"window\.horizon: expected horizon >= 1"),
        (changed("state.position", kind="pose"), r"state\.position\.kind: expected one of"),
        (changed("state.position", path=None), r"expected state\.position\.path"),
        (changed("state.position", path="s[0:2]", width=3), r"state\.position\.path: expected 3"),
        (changed("state.position", unit="feet"), r"state\.position\.unit: expected one of"),
        (changed("state.position", mode="delta"), r"state\.position: expected no mode"),
        (changed("state.position", form="euler_xyz"), r"form: expected it of a rotation"),
        (changed("state.rotation", form="rpy"), r"state\.rotation\.form: expected axis_angle"),
        (changed("state.rotation", form="euler_xxz"), r"state\.rotation\.form: expected"),
        (changed("state.rotation", form=None), r"state\.rotation\.form: expected the form"),
        (changed("state.rotation", form="axis_angle"), r"expected 3 values.* got .* with 4"),
        (changed("state.rotation", unit="deg"), r"state\.rotation\.unit: expected none"),
        (changed("state.gripper", closed=0), r"state\.gripper\.open: expected other"),
        (changed("state.gripper", path="g[0:2]", closed=[1, 0]), r"gripper\.open: expected other"),
        (changed("action.position", scale=[1, 0, 1]), r"action\.position\.scale: expected the"),
        (changed("action.position", scale=float("nan")), r"position\.scale: expected finite"),
        (changed("action.position", unit="deg"), r"action\.position\.unit: expected m, cm"),
        (changed("action.position", continuous=True), r"continuous: expected it of a gripper"),
        (changed("action.position.model", form="rot6d"), r"model\.form: expected it of a rot"),
        (changed("state.rotation.model", sign=[0, 0, 1]), r"model\.sign: expected x, y, z, w"),
        (changed(rate=float("nan")), "rate: expected control steps"),
        (changed(cameras={"state": "i"}), "cameras: expected another name than state"),
        (changed("cameras.front", size=96), r"cameras\.front\.size: expected .height, width."),
        (changed("window", video_offsets=3), r"window\.video_offsets: expected whole numbers"),
        (changed("window", horizon=2.5), r"window\.horizon: expected whole numbers"),
        (changed(keys={"openpi": {"cameras.frnt": "x"}}), r"keys\.openpi: expected .*cameras.fr"),
        (changed("state.gripper.model", binarize=True), "model.binarize: expected it of an act"),
        (changed("state.gripper.model", mode="delta"), r"state\.gripper\.model\.mode: expected"),
        (changed("state.joints", path="q", kind="joints"), r"state\.joints.*number of its values"),
        (changed("action.position", mode=None), r"action\.position\.mode: expected one of"),
        (changed("action.position", mode="pulse"), "pulse only of a gripper"),
        (changed("action.position", of="tool"), r"action\.position\.of: expected a part"),
        (changed("action.position", of="gripper"), r"of: expected a part of position, got grip"),
        (changed("action.position", scale=[1, 2]), r"action\.position\.scale: expected 3 numbers"),
        (changed("action.position", range=[1, -1]), r"range: expected .smallest, largest."),
        (changed("action.position", names=["x"]), "names: expected 3"),
        (changed("action.position", frame="world"), r"frame: expected one of"),
        (changed("action.position", path="a[0:2]", frame="tool"), "frame: expected x, y"),
        (changed("action.position.model", normalise="log"), r"model\.normalise: expected one of"),
        (changed("action.rotation.model", sign=[1, 1, 0, 0]), r"rotation\.model\.sign: expected"),
        (changed("action.rotation", form="homogeneous", path="a[0:16]"), r"form: expected ano"),
        (changed("state.rotation.model", form="homogeneous"), r"model\.form: expected another"),
        (changed(state=None) | {"action": changed("action.position.model", mode="absolute")[
            "action"]}, r"action\.position\.model\.mode: expected the state"),
        (changed("action.position", path="a[0:2]", width=2), "expected 2 values of state.position"),
        ("no_such", r"expected one of \['aloha'.*template"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_place(content, message):
    with pytest.raises(ValueError, match=message):
        load_robot(content)


def test_what_the_model_cannot_be_given_is_refused_with_its_place():
    for content, message in (
        (changed("state.rotation.model", sign=[1, 1, 0, 0]), r"state\.rotation\.model\.sign"),
        (changed("action.gripper.model", mode="delta"), r"action\.gripper\.model\.mode"),
        (
            changed("action.rotation", mode="velocity", form="quaternion_wxyz", path="a[0:4]")
            | {"name": "mine"},
            r"action\.rotation: expected recorded velocity",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            Coder(load_robot(content))
    both = changed("state.other", path="r", kind="rotation", form="axis_angle")
    both["state"]["turn"] = both["state"].pop("rotation")
    del both["action"]["rotation"]
    both["action"]["position"] |= {"frame": "tool", "model": {"mode": "absolute"}}
    with pytest.raises(ValueError, match=r"action\.position: expected the rotation of its tool"):
        Coder(load_robot(both))


def test_files_that_are_no_table(tmp_path):
    unquoted = "cameras:\n  front: {path: image[0:3]}\n"
    for text, message in (
        ("- 1\n", "key: value"),
        ("a: [", "expected a yaml"),
        (unquoted, "inside braces a path with brackets needs quotes"),
    ):
        path = tmp_path / "x.yaml"
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_robot(path)
    path.write_text("extends: x.yaml\n")
    with pytest.raises(ValueError, match="no circle"):
        load_robot(path)


# ---------------------------------------------------------------- files that build on others


def test_a_file_extends_another_and_renames(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: rt1\nrate: 10\naction: {gripper: {open: 1, closed: -1}}\n"
        "state: {rotation: null}\n"
        "renames: {action/terminate_episode: action/done, observation/image: observation/rgb}\n"
    )
    mine, rt1 = load_robot(path), load_robot("rt1")
    assert (mine.name, mine.rate, mine.embodiment) == ("mine", 10, "google_robot")
    assert (mine.cameras[0].path, mine.terminate) == ("observation/rgb", "action/done[0]")
    assert mine.action[:2] == rt1.action[:2] and mine.action[2].closed == -1
    assert [part.name for part in mine.state] == ["position", "gripper"]
    assert mine.fingerprint() != rt1.fingerprint()
    droid = {"extends": "droid", "renames": {"observation/wrist_image_left": "observation/hand"}}
    assert load_robot(droid).camera("wrist").path == "observation/hand"
    assert load_robot(droid).keys == shipped("droid").keys  # not the recording's paths
    near = tmp_path / "rt1_twin.yaml"
    near.write_text("extends: mine.yaml\nrate: 11\n")
    assert dataclasses.replace(mine, rate=11, name="rt1_twin") == load_robot(near)


def test_a_path_into_the_folder_of_before_is_still_found():
    found = load_robot("configs/dataset_spec/bridge.yaml")
    assert dataclasses.replace(found, name="bridge_dataset") == load_robot("bridge_dataset")
    with pytest.raises(ValueError, match="dataset_spec/nothing.yaml"):
        load_robot("configs/dataset_spec/nothing.yaml")


def test_paths():
    assert column("a/b").key == "steps/a/b" and column("/a/b").key == "a/b"
    assert column("a[2]").values == slice(2, 3) and column("a[2:5]").values == slice(2, 5)
    assert column("observation.state[0:5]").width == 5 and column("a").width is None
    assert column("a[3:12:4]").width == 3 and column("a[3:12:4]").values == slice(3, 12, 4)
    for path in ("", "/", "a[", "a[3:3]", "a[1:3:0]", "a[-1]", "a/[1]", "a[1]b"):
        with pytest.raises(ValueError, match="expected a"):
            column(path)


# ---------------------------------------------------------------- the format before this one

OLD = {
    "control_hz": 5,
    "cameras": {"front": "observation/rgb", "wrist": "observation/hand"},
    "camera": "wrist",
    "instruction": "task",
    "action": {"position": "action[0:3]", "rotation": "action[3:6]", "gripper": "action[6]"},
    "proprio": {"position": "state[0:3]", "rotation": "state[3:7]", "gripper": "state[7]"}
    | {"rotation_kind": "quaternion_wxyz", "gripper_closes": "negative"},
    "reward": "reward",
    "is_terminal": "is_terminal",
    "success": "/meta/good",
    "filters": [{"path": "task", "drop": [""]}],
}


def test_a_file_of_the_format_before_means_the_same():
    robot = load_robot(OLD)
    assert robot.rate == 5 and robot.terminate == "is_terminal" and robot.success == "/meta/good"
    assert [row.name for row in robot.used_cameras()] == ["wrist"]
    assert robot.camera("front").path == "observation/rgb" and robot.instruction.paths == ("task",)
    state = np.array([[0.1, 0.2, 0.3, 1, 0, 0, 0, 0.25]])
    assert robot.state[1].form == "quaternion_wxyz"
    coder = Coder(robot)
    assert coder.state(state)[0, coder.slices("state")["gripper"]] == 0.75
    # -1 to 1 without a range: what closes is larger.
    assert (robot.action[2].open, robot.action[2].closed, robot.action[2].mode) == (
        -1, 1, "absolute",
    )  # fmt: skip
    row = {**OLD["action"], "kind": "absolute", "gripper_range": [0, 1], "terminate": "done"}
    robot = load_robot(OLD | {"action": row | {"gripper_closes": "negative"}})
    assert {part.mode for part in robot.action} == {"absolute"} and robot.terminate == "done"
    assert (robot.action[2].open, robot.action[2].closed) == (1, 0)
    with pytest.raises(ValueError, match="entries of one format"):
        load_robot(OLD | {"steps": {}})
    with pytest.raises(ValueError, match="those of the old format"):
        load_robot({"extends": "rt1", "control_hz": 5})
