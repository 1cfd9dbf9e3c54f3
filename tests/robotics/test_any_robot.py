"""Data of robots that the code has never heard of, read by their tables."""

from __future__ import annotations

from copy import deepcopy

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from robot_sets import BRIDGE, DROID, LANGUAGE_TABLE, SIZES, VIDEO, bridge, droid, jpeg
from robot_sets import language_table as write_language_table
from robot_sets import video as write_video
from scipy.spatial.transform import Rotation

from robotics.data.images import decode_image, resize_image
from robotics.data.rlds import EpisodeReader
from robotics.data.rlds.fake import write_dataset
from robotics.data.windows import WindowDataset
from robotics.embodiment.coding import Coder
from robotics.embodiment.normalize import Quantiles
from robotics.embodiment.tables import load_robot


def changed(table, path, value):
    """A copy of a table with one entry, "action.gripper.open", replaced."""
    found = deepcopy(table)
    *places, last = path.split(".")
    row = found
    for place in places:
        row = row[place]
    row[last] = value
    return found


def opened(directory, table, size=(24, 32), **options):
    return WindowDataset(directory, size, spec=table, progress=False, **options)


@pytest.fixture(scope="module")
def bridge_set(tmp_path_factory):
    return bridge(tmp_path_factory.mktemp("bridge"))


@pytest.fixture(scope="module")
def droid_set(tmp_path_factory):
    return droid(tmp_path_factory.mktemp("droid"))


# ---------------------------------------------------------------- episodes


def test_an_episode_is_as_recorded(bridge_set):
    episodes = list(EpisodeReader(bridge_set, spec=BRIDGE))
    assert [len(episode) for episode in episodes] == [6, 5, 7, 4]
    assert [sorted(episode.cameras) for episode in episodes] == [
        ["primary", "side"],
        ["primary"],
    ] * 2
    rng = np.random.default_rng(0)
    expected = rng.normal(0, 0.02, (6, 7))
    expected[0], expected[:, 6] = 0, np.arange(6) % 3 > 0
    np.testing.assert_array_equal(episodes[0].action, expected.astype(np.float32))
    np.testing.assert_array_equal(episodes[0].part("action.gripper")[:, 0], [0, 1, 1, 0, 1, 1])
    assert episodes[0].cameras["primary"][3] == jpeg(15, SIZES["image"])
    assert episodes[0].instructions == [("put the spoon on towel 0",)] * 6
    assert episodes[3].instructions == [("",)] * 4
    assert episodes[0].terminate.tolist() == [False] * 5 + [True]


def test_episodes_are_kept_by_what_a_value_contains(droid_set):
    episodes = list(EpisodeReader(droid_set, spec=DROID))
    assert [len(episode) for episode in episodes] == [6, 4]
    assert episodes[0].instructions[0] == ("pick up the cup", "", "lift the cup")
    assert episodes[0].state.shape == (6, 8) and episodes[0].state.dtype == np.float32


def test_instructions_of_characters(tmp_path):
    (first, second) = EpisodeReader(write_language_table(tmp_path), spec=LANGUAGE_TABLE)
    assert first.instructions[0] == ("push the cube 0 à gauche",)
    assert second.instructions[0] == ("push the cube 1 à gauche",)
    assert first.action.shape == (5, 2)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("action.gripper.open", 50, "expected action.gripper 'action.6.' in .0, 50."),
        ("state.gripper.range", [10, 20], "expected state.gripper .* in .10, 20.*state range"),
        (
            "action.position.path",
            "acton[0:3]",
            "'steps/acton' for action.position .*steps/action",
        ),
        ("action.position.path", "action[5:8]", "at least 8 values for action.position"),
        ("cameras.primary", "observation/state", "for cameras.primary .* as bytes, got float_list"),
        ("instruction", "action", r"for instruction\[0\] .* as bytes"),
        ("cameras.side.present", "/episode_metadata/nothing", "cameras.side.present .*has_image_1"),
    ],
)
def test_tables_that_do_not_fit_are_refused_by_name(bridge_set, place, value, message):
    table = changed(BRIDGE, place, value)
    if place == "action.gripper.open":
        table["action"]["gripper"]["range"] = None
        table["action"]["gripper"]["closed"] = 49
        message = "expected action.gripper 'action.6.' in .49, 50."
    with pytest.raises(ValueError, match=message):
        list(EpisodeReader(bridge_set, spec=table))


# ---------------------------------------------------------------- windows


def test_windows_hold_what_the_recording_has_and_the_coder_makes_of_it(bridge_set):
    dataset = opened(bridge_set, BRIDGE)
    coder = Coder(load_robot(BRIDGE))
    assert [len(steps) for steps in dataset.episodes] == [5, 4, 6, 3]  # without each first step
    episodes = list(EpisodeReader(bridge_set, spec=BRIDGE))
    recorded = np.concatenate([episode.state[1:] for episode in episodes])
    commands = np.concatenate([episode.action[1:] for episode in episodes])
    np.testing.assert_array_equal(dataset.recorded_state, recorded)
    np.testing.assert_array_equal(dataset.recorded_action, commands)
    batch = dataset.batch(range(len(dataset)))
    np.testing.assert_array_equal(batch["state_recorded"], recorded)
    np.testing.assert_array_equal(batch["state"], coder.state(recorded))
    np.testing.assert_array_equal(batch["action"][:, 0, :6], commands[:, :6])
    np.testing.assert_array_equal(batch["action"][:, 0, 6], 1 - 2 * commands[:, 6])  # +1 closes
    assert batch["action"].shape == (18, 4, 7) and batch["robot"] == "bridge_dataset"
    assert batch["action_valid"][:5].sum(1).tolist() == [4, 4, 3, 2, 1]
    assert batch["instruction"][0] == "put the spoon on towel 0" and batch["instruction"][-1] == ""
    at = 0
    for episode in episodes:
        for step in range(1, len(episode)):
            frame = decode_image(episode.cameras["primary"][step])
            np.testing.assert_array_equal(batch["image/primary"][at], frame)
            if step + 2 < len(episode):
                later = decode_image(episode.cameras["primary"][step + 2])
                np.testing.assert_array_equal(batch["video/primary"][at, 1], later)
            at += 1


def test_a_camera_that_is_absent_is_masked_and_black(bridge_set):
    for decoded in (True, False):
        dataset = opened(bridge_set, BRIDGE, decoded=decoded)
        batch = dataset.batch(range(len(dataset)))
        there = batch["camera_valid/side"]
        assert there.tolist() == [True] * 5 + [False] * 4 + [True] * 6 + [False] * 3
        assert "camera_valid/primary" not in batch
        assert not batch["image/side"][~there].any() and batch["image/side"][there].any()
        assert not batch["video/side"][~there].any()
        assert batch["image/primary"].any(axis=(1, 2, 3)).all()


def test_cameras_have_their_own_sizes_and_are_turned(droid_set):
    sizes = {"exterior": (12, 16), "wrist": (20, 20)}
    dataset = opened(droid_set, DROID, image_sizes=sizes)
    assert dataset.cameras == ("exterior", "wrist") and dataset.image_sizes == sizes
    index = opened(droid_set, DROID, image_sizes=sizes, decoded=False)
    for one in (dataset, index):
        batch = one.batch([0, 3])
        assert batch["image/exterior"].shape == (2, 12, 16, 3)
        assert batch["video/wrist"].shape == (2, 1, 20, 20, 3)
        upright = decode_image(jpeg(0, SIZES["wrist"]))
        np.testing.assert_array_equal(batch["image/wrist"][0], upright[::-1, ::-1])
        small = resize_image(decode_image(jpeg(0, SIZES["image"])), (12, 16))
        np.testing.assert_array_equal(batch["image/exterior"][0], small)
        np.testing.assert_array_equal(one.frames([3], "wrist")[0], batch["image/wrist"][1])
    alone = opened(droid_set, DROID, (20, 20), cameras=["wrist"])
    assert [name for name in alone.batch([0]) if "/" in name] == ["image/wrist", "video/wrist"]
    np.testing.assert_array_equal(alone.batch([3])["image/wrist"][0], batch["image/wrist"][1])
    with pytest.raises(ValueError, match="expected one of exterior, wrist"):
        opened(droid_set, DROID, cameras=["front"])
    with pytest.raises(ValueError, match="image_sizes: expected cameras out of exterior, wrist"):
        opened(droid_set, DROID, image_sizes={"front": (8, 8)})


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turn_is_clockwise(tmp_path, degrees):
    directory = write_video(tmp_path)
    table = changed(VIDEO, "cameras.front", {"path": "observation/image", "rotate": degrees})
    upright = opened(directory, VIDEO, (16, 16)).frames([0])[0]
    expected = upright
    for _ in range(degrees // 90):  # what was at the left is at the top
        expected = expected[::-1].transpose(1, 0, 2)
    for decoded in (True, False):
        turned = opened(directory, table, (16, 16), decoded=decoded).frames([0])[0]
        np.testing.assert_array_equal(turned, expected)


def test_absolute_targets_are_relative_to_the_state_at_the_chunks_start(droid_set):
    dataset = opened(droid_set, DROID)
    assert dataset.coder.relative
    batch = dataset.batch(range(len(dataset)))
    recorded = dataset.recorded_action
    for row in range(len(dataset)):
        for offset in np.flatnonzero(batch["action_valid"][row]):
            change = recorded[row + offset, :7] - batch["state_recorded"][row, :7]
            np.testing.assert_allclose(batch["action"][row, offset, :7], change, atol=1e-6)
    returned, _ = dataset.coder.recorded(batch["action"], batch["state_recorded"])
    valid = batch["action_valid"]
    index = np.arange(len(dataset))[:, None] + np.arange(3)
    np.testing.assert_allclose(returned[valid], recorded[index[valid]], atol=1e-5)
    # Statistics are of all actions of all chunks, which differ from those of single steps.
    statistics = dataset.statistics()
    assert statistics["action"] == Quantiles.of(batch["action"][valid])
    assert statistics["state"] == Quantiles.of(dataset.states)
    longer = opened(droid_set, DROID, horizon=1).statistics()
    assert longer["action"].count == len(dataset) < statistics["action"].count
    assert "keypose" not in batch  # joints are no pose


def test_one_of_several_instructions_is_drawn_by_seed_epoch_and_window(droid_set):
    dataset = opened(droid_set, DROID, seed=3)
    steps = np.arange(6)
    seen = [dataset.batch(steps, epochs=np.full(6, epoch))["instruction"] for epoch in range(12)]
    assert set(sum(seen, [])) == {"pick up the cup", "lift the cup"}
    assert seen[4] == dataset.batch(steps, epochs=np.full(6, 4))["instruction"]
    # Each row follows from its own window alone.
    assert seen[4][2] == dataset.batch([2], epochs=[4])["instruction"][0]
    assert any(row != seen[0] for row in seen)
    assert dataset.batch([len(dataset) - 1])["instruction"] == [""]
    other = opened(droid_set, DROID, seed=4)
    assert seen != [other.batch(steps, epochs=np.full(6, e))["instruction"] for e in range(12)]


def test_video_alone(tmp_path):
    dataset = opened(write_video(tmp_path), VIDEO, (16, 16), history=1)
    assert len(dataset) == 9 and dataset.statistics() == {}
    batch = dataset.batch([0, 4])
    assert batch["instruction"] == ["", ""] and batch["video_valid"].tolist() == [[1, 1], [0, 0]]
    assert set(batch) == {
        "robot", "instruction", "image/front", "video/front", "video_valid", "history/front",
        "history_valid",
    }  # fmt: skip
    assert dataset.no_ops(1e-3, 1e-2).all()  # nothing is commanded


def test_a_table_of_other_meanings_reads_the_same_cache(bridge_set, tmp_path):
    opened(bridge_set, BRIDGE, cache_dir=tmp_path)
    entries = set(tmp_path.glob("v*"))
    other = changed(BRIDGE, "state.rotation.model", {"form": "axis_angle"})
    other = changed(other, "action.gripper.model", {"binarize": True})
    other = changed(other, "steps", {"relabel": True})
    dataset = opened(bridge_set, other, cache_dir=tmp_path, horizon=2)
    assert set(tmp_path.glob("v*")) == entries
    assert dataset.states.shape[1] == 7 and [len(e) for e in dataset.episodes] == [5, 4, 6, 3]
    reached = np.diff(dataset.recorded_state[:5, :3], axis=0)
    np.testing.assert_allclose(dataset.actions[:4, :3], reached, atol=1e-6)
    opened(
        bridge_set, changed(BRIDGE, "cameras.primary", "observation/image_1"), cache_dir=tmp_path
    )
    assert set(tmp_path.glob("v*")) > entries


def test_rules_that_leave_no_step_say_so(bridge_set):
    with pytest.raises(ValueError, match="drop_first"):
        opened(bridge_set, changed(BRIDGE, "steps", {"drop_first": 9}))
    some = opened(bridge_set, changed(BRIDGE, "steps", {"drop_first": 5}))
    assert [len(steps) for steps in some.episodes] == [1, 2]


def test_an_episode_without_steps_is_counted_and_left_out(tmp_path):
    directory = bridge(tmp_path, (4, 0, 5, 3), shard_episodes=4)
    for options in ({}, {"decoded": False}, {}):
        dataset = opened(directory, BRIDGE, **options)
        assert [len(steps) for steps in dataset.episodes] == [3, 4, 2]
        assert dataset.faults.empty == 1 and not dataset.faults.found
        assert "1 episodes without steps" in dataset.faults.summary()
    reader = EpisodeReader(directory, spec=BRIDGE)
    assert [len(episode) for episode in reader] == [4, 5, 3] and reader.faults.empty == 1
    with pytest.raises(ValueError, match="record 1: expected an episode of at least one step"):
        reader[1]


def test_still_steps_of_changes_and_of_targets(bridge_set, droid_set):
    dataset = opened(bridge_set, changed(BRIDGE, "steps", {}))
    still = dataset.no_ops(position=10.0, rotation=10.0)
    recorded = dataset.recorded_action[:, 6]
    first = [episode.start for episode in dataset.episodes]
    repeats = np.append(False, recorded[1:] == recorded[:-1])
    repeats[first] = False  # a command of another episode is not repeated
    np.testing.assert_array_equal(still, repeats)
    assert not dataset.no_ops(position=0.0, rotation=0.0)[recorded == recorded].any()
    # Targets of joints become changes from the state; its gripper turns at every step.
    table = changed(DROID, "action", {"joints": DROID["action"]["joints"]})
    joints = opened(droid_set, table)
    moved = np.linalg.norm(joints.recorded_action - joints.recorded_state[:, :7], axis=1)
    np.testing.assert_array_equal(joints.no_ops(1e-3, 0.13), moved <= 0.13)
    assert 0 < (moved <= 0.13).sum() < len(joints)


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def test_a_record_laid_out_like_no_other(tmp_path):
    """A pose as one matrix, scalars by name, a flag as gripper, PNGs, text and base of the episode,
    steps as a sequence."""
    f = tfds.features
    go = f.Tensor(shape=(2, 2), dtype=np.float32)
    features = f.FeaturesDict(
        {
            "steps": f.Sequence(
                {
                    "obs": {
                        "pose": f.Tensor(shape=(4, 4), dtype=np.float64),
                        "cams": {"hand": f.Image(shape=(30, 20, 3), encoding_format="png")},
                        "open": np.bool_,
                    },
                    "act": {"x": np.float32, "y": np.float32, "go": go},
                }
            ),
            "task": f.Text(),
            "base": f.Tensor(shape=(3,), dtype=np.float32),
        }
    )
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, :3, :3] = Rotation.random(5, rng=rng).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(5, 3))
    pictures = rng.integers(0, 255, (5, 30, 20, 3), np.uint8)
    steps = [
        {
            "obs": {"pose": poses[t], "cams": {"hand": png(pictures[t])}, "open": t % 2 == 0},
            "act": {"x": t / 10, "y": -t / 10, "go": np.array([[t, 1], [2, 3]], np.float32)},
        }
        for t in range(5)
    ]
    example = {"steps": steps, "task": "tidy up", "base": np.array([1, 2, 3], np.float32)}
    directory = write_dataset(tmp_path, features, [example])
    table = {
        "name": "odd",
        "rate": 2.5,
        "cameras": {"hand": {"path": "obs/cams/hand", "view": "wrist", "rotate": 90}},
        "state": {
            "gripper": {"path": "obs/open", "kind": "gripper", "open": 1, "closed": 0},
            "position": {"path": "obs/pose[3:12:4]", "kind": "position"},
            "place": {"path": "/base", "kind": "base", "width": 3},
        },
        "action": {
            "right": {"path": "act/x", "kind": "other", "width": 1, "mode": "velocity"},
            "left": {"path": "act/y", "kind": "other", "width": 1, "mode": "velocity"},
            "wheels": {"path": "act/go[2:4]", "kind": "base", "mode": "velocity"},
        },
        "instruction": "/task",
        "window": {"horizon": 2, "video_offsets": [1]},
    }
    (episode,) = EpisodeReader(directory, spec=table)
    expected = np.column_stack([np.arange(5) % 2 == 0, poses[:, :3, 3], np.tile([1, 2, 3], (5, 1))])
    np.testing.assert_array_equal(episode.state, expected.astype(np.float32))
    line = np.arange(5, dtype=np.float32) / 10
    np.testing.assert_allclose(episode.action, np.column_stack([line, -line, [[2, 3]] * 5]))
    for options in ({}, {"decoded": False}, {"decoded": False, "draft": True}):
        dataset = opened(directory, table, (20, 30), **options)
        batch = dataset.batch(range(5))
        assert batch["instruction"] == ["tidy up"] * 5 and "keypose" in batch
        turned = pictures[:, ::-1].transpose(0, 2, 1, 3)
        np.testing.assert_array_equal(batch["image/hand"], turned)
        np.testing.assert_array_equal(batch["video/hand"][:4, 0], turned[1:])
        returned, _ = dataset.coder.recorded(batch["action"], batch["state_recorded"])
        np.testing.assert_allclose(returned[:4, 1], episode.action[1:], atol=1e-6)


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        ("quaternion_xyzw", [0, 0, 0.6, 0.8], [250, 100, 50, 175]),
        ("rot6d", [1, 0, 0, 0, 1, 0], [0.3, 0.2, 0.1, 0, 1, 0]),
        ("matrix", np.eye(3).ravel(), np.arange(9)),
        ("homogeneous", [1, 0, 0, 3, 0, 1, 0, 4, 0, 0, 1, 5, 0, 0, 0, 1],
         [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 3, 4, 5, 1]),
        ("homogeneous_columns", [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 3, 4, 5, 1],
         [1, 0, 0, 3, 0, 1, 0, 4, 0, 0, 1, 5, 0, 0, 0, 1]),
    ],
)  # fmt: skip
def test_values_that_are_no_rotation_of_the_stated_form_are_refused(form, right, wrong, tmp_path):
    count = len(right)
    F = tfds.features
    features = F.FeaturesDict(
        {
            "steps": F.Dataset(
                {
                    "image": F.Image(shape=(16, 16, 3), encoding_format="jpeg"),
                    "pose": F.Tensor(shape=(count,), dtype=np.float32),
                }
            )
        }
    )
    table = {
        "name": "mine",
        "rate": 5,
        "cameras": {"front": "image"},
        "state": {"turn": {"path": f"pose[0:{count}]", "kind": "rotation", "form": form}},
    }
    for name, values in (("right", right), ("wrong", wrong)):
        rows = [{"image": jpeg(9, (16, 16)), "pose": np.float32(values)} for _ in range(3)]
        write_dataset(tmp_path / name, features, [{"steps": rows}])
    (episode,) = EpisodeReader(tmp_path / "right", spec=table)
    np.testing.assert_array_equal(episode.state, np.tile(np.float32(right), (3, 1)))
    with pytest.raises(ValueError, match=f"state.turn 'pose.*as {form}, got"):
        list(EpisodeReader(tmp_path / "wrong", spec=table))


def test_a_table_that_does_not_fit_is_refused_when_another_has_filled_the_cache(bridge_set):
    opened(bridge_set, BRIDGE)
    for entry, value in (("closed", 9.0), ("open", -9.0)):
        wrong = changed(BRIDGE, f"state.gripper.{entry}", value)
        wrong["state"]["gripper"]["range"] = [20, 21]
        with pytest.raises(ValueError, match="expected state.gripper .* in .20, 21."):
            opened(bridge_set, wrong)
