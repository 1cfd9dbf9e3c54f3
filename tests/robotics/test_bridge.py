"""An environment's table against a checkpoint's: bridged, or refused by name."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robotics.embodiment.bridge import Bridge
from robotics.embodiment.control import tool_robot
from robotics.embodiment.rotation import rpy_to_axis_angle
from robotics.embodiment.tables import load_robot

RECORDED = {
    "name": "arm",
    "rate": 5,
    "cameras": {"front": {"path": "rgb", "size": [64, 64]}},
    "state": {
        "position": {"path": "s[0:3]", "kind": "position"},
        "rotation": {"path": "s[3:7]", "kind": "rotation", "form": "quaternion_xyzw"},
        "gripper": {"path": "s[7]", "kind": "gripper"},
    },
    "action": {
        "position": {"path": "a[0:3]", "kind": "position", "mode": "delta"},
        "rotation": {"path": "a[3:6]", "kind": "rotation", "form": "euler_xyz", "mode": "delta"},
        "gripper": {
            "path": "a[6]", "kind": "gripper", "mode": "pulse", "open": -1, "closed": 1,
        },
    },
    "instruction": "task",
}  # fmt: skip
ARM = tool_robot("arm", 5.0, (64, 64))


def table(**changes):
    """`RECORDED` with entries changed: action__gripper__mode="absolute"; None removes one."""
    content = copy.deepcopy(RECORDED)
    for path, value in changes.items():
        *way, last = path.split("__")
        row = content
        for key in way:
            row = row[key]
        if value is None:
            del row[last]
        else:
            row[last] = value
    return load_robot(content)


def shown(seed=0, **changes):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (64, 64, 3), np.uint8),
        "tool_pose": np.append(rng.normal(size=3), Rotation.random(random_state=seed).as_quat()),
        "gripper_closed": np.array([0.25]),
    } | changes


def test_what_is_the_same_passes_bit_for_bit():
    bridge = Bridge(ARM, table())
    seen = shown()
    found = bridge.observation(seen)
    assert found["front"] is seen["image"]
    state = np.append(seen["tool_pose"], seen["gripper_closed"]).astype(np.float32)
    np.testing.assert_array_equal(found["state"], state)
    action = np.array([0.1, -0.2, 0.3, 0.3, -0.2, 0.5, -1], np.float32)
    control = bridge.control(action)
    np.testing.assert_array_equal(control[:3], action[:3])
    np.testing.assert_array_equal(control[3:6], rpy_to_axis_angle(action[3:6]))
    assert control[6] == -1 and control.dtype == np.float32
    assert bridge.notes == (
        "camera head shows what front recorded",
        "action.rotation: euler_xyz -> axis_angle",
    )


def test_units_forms_and_senses_are_bridged():
    bridge = Bridge(
        ARM,
        table(
            state__position__unit="mm",
            state__rotation__form="euler_xyz",
            state__rotation__path="s[3:6]",
            state__rotation__unit="deg",
            state__gripper={
                "path": "s[6:8]", "kind": "gripper", "width": 2,
                "open": [0.04, -0.04], "closed": [0, 0],
            },
            action__position__scale=0.05,
            action__rotation__scale=0.5,
            action__rotation__form="axis_angle",
            action__gripper__open=1,
            action__gripper__closed=-1,
        ),
    )  # fmt: skip
    seen = shown()
    state = bridge.observation(seen)["state"]
    np.testing.assert_allclose(state[:3], 1000 * seen["tool_pose"][:3], rtol=1e-6)
    turn = Rotation.from_euler("xyz", state[3:6], degrees=True)
    assert (turn.inv() * Rotation.from_quat(seen["tool_pose"][3:])).magnitude() < 1e-5
    np.testing.assert_allclose(state[6:], [0.03, -0.03], atol=1e-7)
    control = bridge.control(np.array([1, 0, -1, 0.5, 0, 0, 1], np.float32))
    np.testing.assert_allclose(control, [0.05, 0, -0.05, 0.25, 0, 0, -1], atol=1e-7)
    assert len(bridge.notes) == 7


def test_a_target_of_the_gripper_becomes_a_command():
    bridge = Bridge(
        ARM, table(action__gripper={"path": "g", "kind": "gripper", "mode": "absolute",
                                    "open": 1, "closed": 0})
    )  # fmt: skip
    actions = [[0] * 6 + [value] for value in (1, 0.9, 0.2, 0)]
    assert [bridge.control(np.array(row))[6] for row in actions] == [-1, -1, 1, 1]


def test_a_command_becomes_a_target_that_is_held():
    harness = load_robot(
        {
            **RECORDED,
            "action": {
                **RECORDED["action"],
                "gripper": {"path": "g", "kind": "gripper", "mode": "absolute", "open": 0.08,
                            "closed": 0},
            },
        }
    )  # fmt: skip
    bridge = Bridge(harness, table())
    for _ in range(2):  # in the next episode it is open again
        bridge.reset()
        told = [bridge.control(np.array([0] * 6 + [value]))[6] for value in (0, 1, 0, 0, -1, 0)]
        np.testing.assert_allclose(told, [0.08, 0, 0, 0, 0.08, 0.08])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 15}, "rate: 5 Hz against 15 Hz"),
        ({"action__position__mode": "absolute"}, "action.position.mode: delta against absolute"),
        ({"action__rotation__frame": "tool"}, "action.rotation.frame: base against tool"),
        ({"action__gripper": None}, None),
        (
            {"action": {"joints": {"path": "a", "kind": "joints", "width": 7, "mode": "velocity"}}},
            "action.joints: none .* against velocity joints of 7 values",
        ),
        (
            {"state__joints": {"path": "q", "kind": "joints", "width": 7}},
            "state.joints: none .* against joints of 7 values",
        ),
        ({"cameras__front__view": "wrist"}, "cameras.front: third_person against wrist"),
        ({"cameras__wrist": "rgb_wrist"}, "cameras.front: none .head.*cameras.wrist: none .head"),
        ({"cameras__wrist": {"path": "w", "present": "/has"}, "cameras__front": None,
          "cameras__head": "rgb"}, None),
    ],
)  # fmt: skip
def test_what_no_transform_bridges_is_refused_by_name(changes, words):
    if words is None:
        assert Bridge(ARM, table(**changes)).notes
        return
    with pytest.raises(ValueError, match=f"fits the environment's arm.*{words}"):
        Bridge(ARM, table(**changes))


def test_all_differences_are_named_at_once():
    with pytest.raises(ValueError, match="rate.*action.position.mode.*action.rotation.frame"):
        Bridge(
            ARM,
            table(rate=10, action__position__mode="velocity", action__rotation__frame="tool"),
        )


def test_another_embodiment_is_refused_by_name():
    with pytest.raises(ValueError, match="expected a model for 'arm', got one for 'panda'"):
        Bridge(ARM, table(embodiment="panda"))


def test_a_part_that_recordings_never_moved_stands_still():
    bridge = Bridge(ARM, table(action__rotation=None, action__gripper=None))
    np.testing.assert_array_equal(
        bridge.control(np.array([1, 2, 3])), np.array([1, 2, 3, 0, 0, 0, 0], np.float32)
    )
    assert sum("never commanded" in note for note in bridge.notes) == 2


def test_pictures_are_turned_to_where_the_recordings_were():
    bridge = Bridge(ARM, table(cameras__front__rotate=180))
    seen = shown()
    np.testing.assert_array_equal(bridge.observation(seen)["front"], seen["image"][::-1, ::-1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": np.zeros((64, 64, 3), np.float32)}, "expected uint8"),
        ({"tool_pose": np.full(7, np.nan)}, "finite"),
        ({"tool_pose": np.zeros(6)}, "4 values at tool_pose"),
        ({"gripper_closed": np.zeros(2)}, "1 values at gripper_closed"),
        ({"image": None}, None),
    ],
)
def test_malformed_observations_are_refused(change, words):
    seen = shown(**change)
    if words is None:
        del seen["image"]
        words = "without image"
    with pytest.raises(ValueError, match=words):
        Bridge(ARM, table()).observation(seen)
