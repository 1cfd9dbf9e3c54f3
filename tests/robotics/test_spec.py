"""Specifications of data sets: what they refuse, and that what they say is done."""

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy.spatial.transform import Rotation

from robotics.data.images import encode_image
from robotics.data.rlds import EpisodeReader
from robotics.data.rlds.convert import decode_episode
from robotics.data.rlds.fake import fake_dataset, fake_episode, write_dataset
from robotics.data.rlds.schema import encode_episode, rt1_stored, stored_features
from robotics.data.rlds.spec import SPEC_DIR, column, load_spec
from robotics.data.windows import WindowDataset

SIZE = (24, 32)
BASE = {
    "control_hz": 5,
    "cameras": {"front": "observation/rgb"},
    "instruction": "task",
    "action": {"position": "action[0:3]", "rotation": "action[3:6]", "gripper": "action[6]"},
    "proprio": {"position": "state[0:3]", "rotation": "state[3:7]", "gripper": "state[7]"}
    | {"rotation_kind": "quaternion_xyzw"},
}


def features(action=7, state=8, png=False):
    f = tfds.features
    image = f.Image(shape=(24, 32, 3), encoding_format="png" if png else "jpeg")
    steps = {
        "action": f.Tensor(shape=(action,), dtype=np.float32),
        "state": f.Tensor(shape=(state,), dtype=np.float32),
        "observation": {"rgb": image, "other": f.Image(shape=(24, 32, 3), encoding_format="jpeg")},
        "task": f.Text(),
        "reward": np.float32,
        "is_first": np.bool_,
        "is_last": np.bool_,
        "is_terminal": np.bool_,
    }
    meta = {"place": np.int64, "good": np.bool_, "who": f.Text()}
    return f.FeaturesDict({"steps": f.Dataset(steps), "meta": meta})


def example(seed, steps=4, action=7, state=8, task="push", **meta):
    rng = np.random.default_rng(seed)
    rows = []
    for t in range(steps):
        row = {
            "action": rng.uniform(-0.4, 0.4, action).astype(np.float32),
            "state": rng.uniform(0.1, 0.9, state).astype(np.float32),
            "observation": {
                "rgb": rng.integers(0, 255, (24, 32, 3), np.uint8),
                "other": rng.integers(0, 255, (24, 32, 3), np.uint8),
            },
            "task": task,
            "reward": np.float32(t),
            "is_first": t == 0,
            "is_last": t == steps - 1,
            "is_terminal": t == steps - 1,
        }
        row["observation"] = {k: encode_image(v) for k, v in row["observation"].items()}
        rows.append(row)
    return {"steps": rows, "meta": {"place": seed, "good": True, "who": "a"} | meta}


def decoded(spec, one, **shapes):
    schema = features(**shapes)
    return decode_episode(
        schema.serialize_example(one), "x", load_spec(spec), stored_features(schema)
    )


def stacked(one, name):
    return np.stack([step[name] for step in one["steps"]])


def changed(group=None, **entries):
    return BASE | entries if group is None else BASE | {group: BASE[group] | entries}


# ---------------------------------------------------------------- what a file may say


@pytest.mark.parametrize("path", sorted(SPEC_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_load_by_name_and_by_path(path):
    assert load_spec(path.stem) == load_spec(path) == load_spec(str(path))
    assert load_spec(path.stem).name == path.stem


def test_a_path_into_the_folder_of_before_is_still_found():
    assert load_spec("configs/dataset_spec/bridge.yaml") == load_spec("bridge")
    with pytest.raises(ValueError, match="dataset_spec/nothing.yaml"):
        load_spec("configs/dataset_spec/nothing.yaml")


def test_embedded_reads_as_rt1_and_the_others_differ():
    prints = {name: load_spec(name).fingerprint() for name in ("rt1", "embedded", "bridge")}
    assert prints["rt1"] == prints["embedded"] == load_spec(None).fingerprint() != prints["bridge"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"extends": "rt1", "camra": "x"}, "unknown camra"),
        (changed("action", griper="x"), r"unknown action\.griper"),
        ({"control_hz": 3}, "expected cameras, instruction, action"),
        (changed("action", kind="relative"), r"action\.kind: expected one of .* got 'relative'"),
        (changed("action", rotation_kind="rpy"), r"action\.rotation_kind: expected one of"),
        (changed("action", rotation_kind="quaternion_wxyz"), "expected 4 values.* with 3"),
        (changed("action", gripper_range=[1, -1]), "expected .smallest, largest., got"),
        (changed("action", gripper_closes="up"), "gripper_closes: expected one of"),
        (changed("action", position=None), "position: expected the path"),
        (changed("action", position="a[0:2]"), "expected 3 values, got 'a.0:2.'"),
        (changed(control_hz=0), "control_hz: expected a positive rate"),
        (changed(cameras={}), "cameras: expected at least one"),
        (changed(cameras="x"), "cameras: expected name: path"),
        (changed(camera="back"), "camera: expected one of"),
        (changed(instruction="a//b"), "instruction: expected a path"),
        (changed(success="good"), "leading '/'"),
        (changed(filters=[{"path": "/meta/place"}]), "either keep or drop"),
        (changed(filters=[{"path": "/meta/who", "keep": "a"}]), "expected a list"),
        (changed("action", kind="absolute") | {"proprio": None}, "absolute targets"),
        ("no_such", r"expected one of \['bridge'.*template"),
    ],
)
def test_what_cannot_be_is_refused_by_name(content, message):
    with pytest.raises(ValueError, match=message):
        load_spec(content)


def test_files_that_are_no_specification(tmp_path):
    for text, message in (("- 1\n", "key: value"), ("a: [", "expected a yaml")):
        path = tmp_path / "x.yaml"
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_spec(path)
    path.write_text("extends: x.yaml\n")
    with pytest.raises(ValueError, match="no circle"):
        load_spec(path)


def test_a_file_extends_another_and_renames(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: rt1\ncontrol_hz: 10\naction: {gripper_closes: negative}\n"
        "renames: {action/terminate_episode: action/done, observation/image: observation/rgb}\n"
    )
    mine, rt1 = load_spec(path), load_spec("rt1")
    assert (mine.name, mine.control_hz) == ("mine", 10)
    assert (mine.image, mine.action.terminate) == ("observation/rgb", "action/done[0]")
    assert mine.action.position == rt1.action.position and mine.proprio == rt1.proprio
    assert mine.fingerprint() != rt1.fingerprint()


def test_paths():
    assert column("a/b").key == "steps/a/b" and column("/a/b").key == "a/b"
    assert column("a[2]").values == slice(2, 3) and column("a[2:5]").values == slice(2, 5)
    for path in ("", "/", "a[", "a[3:3]", "a[-1]", "a/[1]", "a[1]b"):
        with pytest.raises(ValueError, match="expected a"):
            column(path)


# ---------------------------------------------------------------- what becomes of values


def test_rt1_values_pass_bit_for_bit():
    from tensorflow_datasets.proto import tf_example_pb2

    record = encode_episode(fake_episode(3, 9))
    got = decode_episode(record)
    stored = tf_example_pb2.Example.FromString(record).features.feature

    def floats(key, width):
        return np.array(stored[key].float_list.value, np.float32).reshape(9, width)

    pose = floats("steps/observation/base_pose_tool_reached", 7)
    np.testing.assert_array_equal(got.world_vector, floats("steps/action/world_vector", 3))
    np.testing.assert_array_equal(got.rotation_delta, floats("steps/action/rotation_delta", 3))
    gripper = floats("steps/action/gripper_closedness_action", 1)
    np.testing.assert_array_equal(got.gripper, gripper[:, 0])
    np.testing.assert_array_equal(got.tool_pose, pose)
    closed = floats("steps/observation/gripper_closed", 1)
    np.testing.assert_array_equal(got.gripper_closed, closed[:, 0])
    terminate = np.array(stored["steps/action/terminate_episode"].int64_list.value).reshape(9, 3)
    np.testing.assert_array_equal(got.terminate, terminate[:, 0] == 1)
    for name in ("embedded", "rt1"):
        again = decode_episode(record, "x", load_spec(name), rt1_stored())
        np.testing.assert_array_equal(again.actions(), got.actions())
        np.testing.assert_array_equal(again.proprio(), got.proprio())


def test_rotations_of_every_kind_are_the_same_rotation():
    truth = Rotation.from_euler("xyz", np.random.default_rng(0).uniform(-0.5, 0.5, (4, 3)))
    xyzw = truth.as_quat()
    forms = {
        "euler_xyz": truth.as_euler("xyz"),
        "axis_angle": truth.as_rotvec(),
        "quaternion_xyzw": xyzw,
        "quaternion_wxyz": np.roll(xyzw, 1, axis=1),
    }
    for kind, values in forms.items():
        width = values.shape[1]
        one = example(0, action=4 + width, state=4 + width)
        for step, value in zip(one["steps"], values, strict=True):
            step["action"][3:-1] = value
            step["state"][3:-1] = value
        group = {"position": "{}[0:3]", "rotation": f"{{}}[3:{3 + width}]", "rotation_kind": kind}
        spec = changed(
            action={key: text.format("action") for key, text in group.items()},
            proprio={key: text.format("state") for key, text in group.items()},
        )
        got = decoded(spec, one, action=4 + width, state=4 + width)
        np.testing.assert_allclose(got.rotation_delta, forms["euler_xyz"], atol=1e-6, err_msg=kind)
        both = got.tool_pose[:, 3:] * np.sign((got.tool_pose[:, 3:] * xyzw).sum(1))[:, None]
        np.testing.assert_allclose(both, xyzw, atol=1e-6, err_msg=kind)


def test_absolute_targets_become_deltas_that_reach_them():
    one = example(1, action=8)
    rng = np.random.default_rng(1)
    for step in one["steps"]:
        step["action"][3:7] = Rotation.random(rng=rng).as_quat()
        step["state"][3:7] = Rotation.random(rng=rng).as_quat()
    action = {"kind": "absolute", "rotation": "action[3:7]", "rotation_kind": "quaternion_xyzw"}
    got = decoded(changed("action", **action, gripper="action[7]"), one, action=8)
    target, state = stacked(one, "action"), stacked(one, "state")
    np.testing.assert_allclose(state[:, :3] + got.world_vector, target[:, :3], atol=1e-6)
    turn = Rotation.from_euler("xyz", got.rotation_delta)
    reached = turn * Rotation.from_quat(state[:, 3:7])  # a delta in the base frame comes after
    error = (reached * Rotation.from_quat(target[:, 3:7]).inv()).magnitude()
    assert error.max() < 1e-5
    still = changed("action", **action, gripper="action[7]")
    for step in one["steps"]:
        step["action"][:7] = step["state"][:7]
    same = decoded(still, one, action=8)
    np.testing.assert_allclose(same.actions()[:, :6], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("closes", "bounds", "stored", "command", "closed"),
    [
        ("positive", (-1, 1), (-1, 0, 1), (-1, 0, 1), (0, 0.5, 1)),
        ("negative", (-1, 1), (-1, 0, 1), (1, 0, -1), (1, 0.5, 0)),
        ("positive", (0, 1), (0, 0.25, 1), (-1, -0.5, 1), (0, 0.25, 1)),
        ("negative", (0, 1), (0, 0.25, 1), (1, 0.5, -1), (1, 0.75, 0)),
        ("negative", (0, 0.08), (0, 0.02, 0.08), (1, 0.5, -1), (1, 0.75, 0)),
    ],
)
def test_grippers_of_every_sense_and_range(closes, bounds, stored, command, closed):
    one = example(0, steps=3)
    for step, value in zip(one["steps"], stored, strict=True):
        step["action"][6] = step["state"][7] = value
    sense = {"gripper_closes": closes, "gripper_range": list(bounds)}
    spec = changed(action=BASE["action"] | sense, proprio=BASE["proprio"] | sense)
    got = decoded(spec, one)
    np.testing.assert_allclose(got.gripper, command, atol=1e-6)
    np.testing.assert_allclose(got.gripper_closed, closed, atol=1e-6)


def test_a_gripper_far_outside_its_range_is_an_error():
    one = example(0)
    one["steps"][2]["action"][6] = 100
    with pytest.raises(ValueError, match=r"x: .*action.gripper .* got 100 at step 2; state the"):
        decoded(BASE, one)


def test_what_is_not_there_is_zero_and_the_end_terminates():
    one = example(0, good=False)
    spec = changed(action={"position": "action[0:3]"}, proprio=None, success="/meta/good")
    got = decoded(spec, one)
    assert not got.actions()[:, 3:7].any() and not got.proprio().any() and not got.reward.any()
    assert got.terminate.tolist() == [False] * 3 + [True] and not got.success
    np.testing.assert_array_equal(got.world_vector, stacked(one, "action")[:, :3])
    fuller = decoded(changed(reward="reward", instruction="/meta/who"), one)
    assert fuller.reward.tolist() == [0, 1, 2, 3] and list(fuller.instruction) == ["a"] * 4
    assert decoded(BASE, one).reward.tolist() == [0, 0, 0, 1]


# ---------------------------------------------------------------- whole data sets


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_windows_of_another_data_set(tmp_path, file_format):
    examples = [
        example(seed, steps=3 + seed, task=t) for seed, t in enumerate(("push", "", "lift"))
    ]
    write_dataset(tmp_path, features(), examples, file_format=file_format)
    spec = changed(filters=[{"path": "task", "drop": [""]}], cameras={"b": "observation/other"})
    episodes = list(EpisodeReader(tmp_path, spec=spec))
    assert [len(episode) for episode in episodes] == [3, 5]
    assert episodes[1].images[2] == examples[2]["steps"][2]["observation"]["other"]
    path = tmp_path / "mine.yaml"
    from omegaconf import OmegaConf

    OmegaConf.save(OmegaConf.create(spec), path)
    dataset = WindowDataset(tmp_path, SIZE, progress=False, spec=path)
    assert len(dataset) == 8 and dataset.faults.filtered == 1
    assert [len(steps) for steps in dataset.episodes] == [3, 5]
    assert dataset.sample(4)["instruction"] == "lift"
    expected = np.concatenate([episode.actions() for episode in episodes])
    np.testing.assert_array_equal(dataset.actions, expected)
    again = WindowDataset(tmp_path, SIZE, progress=False, spec=path)
    assert again.faults.filtered == 1


def test_png_images_decode_without_loss(tmp_path):
    one = example(0, steps=2)
    truth = np.random.default_rng(5).integers(0, 255, (2, 24, 32, 3), np.uint8)
    for step, image in zip(one["steps"], truth, strict=True):
        step["observation"]["rgb"] = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    write_dataset(tmp_path, features(png=True), [one])
    dataset = WindowDataset(tmp_path, SIZE, progress=False, spec=load_spec(BASE))
    np.testing.assert_array_equal(dataset.frames([0, 1]), truth)


def test_filters_by_attribute(tmp_path):
    examples = [example(seed, steps=2 + seed, good=seed != 1) for seed in range(4)]
    write_dataset(tmp_path, features(), examples)
    for row, lengths in (
        ({"path": "/meta/place", "keep": [0, 3]}, [2, 5]),
        ({"path": "/meta/place", "drop": [0, 3]}, [3, 4]),
        ({"path": "/meta/good", "keep": [True]}, [2, 4, 5]),
        ({"path": "/meta/who", "drop": ["a"]}, []),
    ):
        got = EpisodeReader(tmp_path, spec=changed(filters=[row]))
        assert [len(episode) for episode in got] == lengths
    with pytest.raises(ValueError, match="got none. left out 4 episodes by the spec"):
        WindowDataset(tmp_path, SIZE, spec=load_spec(changed(filters=[row])), progress=False)


def test_bridge_reads_its_published_layout(tmp_path):
    f = tfds.features
    images = {f"image_{i}": f.Image(shape=(24, 32, 3), encoding_format="jpeg") for i in range(4)}
    state = f.Tensor(shape=(7,), dtype=np.float32)
    steps = {
        "observation": {**images, "state": state},
        "action": state,
        "language_instruction": f.Text(),
        "reward": np.float32,
        "discount": np.float32,
        "is_first": np.bool_,
        "is_last": np.bool_,
        "is_terminal": np.bool_,
    }
    jpeg = encode_image(np.zeros((24, 32, 3), np.uint8))
    row = {
        "observation": dict.fromkeys(images, jpeg)
        | {"state": np.array([0.3, 0, 0.1, 0, 0, 0.5, 1], np.float32)},
        "action": np.array([0.01, 0, 0, 0, 0, 0.1, 0], np.float32),
        "language_instruction": "put the spoon down",
        **{"reward": 0.0, "discount": 1.0, "is_first": True, "is_last": True, "is_terminal": True},
    }
    meta = {"file_path": f.Text(), "has_language": np.bool_}
    schema = f.FeaturesDict({"steps": f.Dataset(steps), "episode_metadata": meta})
    one = {"steps": [row], "episode_metadata": {"file_path": "x", "has_language": True}}
    write_dataset(tmp_path, schema, [one], name="bridge_dataset")
    (episode,) = EpisodeReader(tmp_path, spec="bridge")
    assert episode.gripper[0] == 1 and episode.gripper_closed[0] == 0  # told to close, still open
    np.testing.assert_allclose(episode.rotation_delta[0], [0, 0, 0.1])
    np.testing.assert_allclose(episode.tool_pose[0, 3:], [0, 0, np.sin(0.25), np.cos(0.25)])


def test_a_specification_that_does_not_fit_the_data(tmp_path):
    rt1 = fake_dataset(tmp_path / "rt1", (3,))
    with pytest.raises(ValueError, match=r"image_0' for image .* nearest are \["):
        WindowDataset(rt1, SIZE, spec="bridge", progress=False)
    other = write_dataset(tmp_path / "other", features(), [example(0)])
    with pytest.raises(ValueError, match=r"specification rt1, got no such feature; .* spec="):
        EpisodeReader(other)
    for spec, message in (
        (changed(instruction="reward"), "instruction .* as bytes, got float_list"),
        (changed(reward="task"), "reward .* as numbers, got bytes_list"),
        (changed("action", gripper="action[9]"), "at least 10 values"),
    ):
        with pytest.raises(ValueError, match=message):
            EpisodeReader(other, spec=spec)
    wide = EpisodeReader(other, spec=changed("action", position="action"))
    with pytest.raises(ValueError, match=r"3 values .* got 7; take them with brackets"):
        wide[0]
