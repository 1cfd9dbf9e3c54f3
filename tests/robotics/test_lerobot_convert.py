"""RLDS to LeRobot and back: nothing is lost, and LeRobot's own library reads what is written."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from lerobot_sets import AXES, JOINTS, SIZE, TOP, WRIST, number_of, numbered, write_set

from benchmarks.robots import synthetic
from robotics.convert import main
from robotics.data.images import decode_image, encode_image
from robotics.data.lerobot import from_rlds, to_rlds
from robotics.data.lerobot.info import read_info
from robotics.data.lerobot.raw import raw_lerobot
from robotics.data.lerobot.recording import LeRobotRecording
from robotics.data.rlds.convert import parse_example
from robotics.data.rlds.fake import write_dataset
from robotics.data.rlds.reader import container, index_shard, record_features, split_shards
from robotics.embodiment.tables import load_robot

LENGTHS = (6, 9, 4)
TABLE = """
name: two_arms
rate: 10
cameras:
  high: {path: observation/cam_high, size: [96, 128]}
  wrist: {path: observation/wrist_image, view: wrist, present: /episode_metadata/has_wrist}
instruction: [language_instruction, language_instruction_2]
state:
  joints: {path: "observation/state[0:3]", kind: joints}
  gripper: {path: "observation/state[3]", kind: gripper}
action:
  joints: {path: action, kind: joints, width: 3, mode: absolute}
success: /episode_metadata/success
"""


@pytest.fixture(scope="module")
def rlds(tmp_path_factory):
    """A data set with every kind of feature, and its table."""
    directory = tmp_path_factory.mktemp("rlds")
    f = tfds.features
    features = f.FeaturesDict(
        {
            "episode_metadata": {
                "file_path": f.Text(),
                "success": np.bool_,
                "has_wrist": np.bool_,
                "number": np.int64,
                "pose": f.Tensor(shape=(2,), dtype=np.float32),
            },
            "steps": f.Dataset(
                {
                    "action": f.Tensor(shape=(3,), dtype=np.float32),
                    "action_dict": {"velocity": f.Tensor(shape=(3,), dtype=np.float64)},
                    "observation": {
                        "cam_high": f.Image(shape=(*SIZE, 3), encoding_format="jpeg"),
                        "wrist_image": f.Image(shape=(48, 66, 3), encoding_format="png"),
                        "state": f.Tensor(shape=(4,), dtype=np.float32),
                        "box": f.Tensor(shape=(2, 3), dtype=np.float32),
                        "letters": f.Tensor(shape=(5,), dtype=np.int32),
                    },
                    "language_instruction": f.Text(),
                    "language_instruction_2": f.Text(),
                    "secret": f.Text(),
                    "reward": np.float32,
                    "index": np.int64,
                    "is_first": np.bool_,
                    "is_last": np.bool_,
                    "is_terminal": np.bool_,
                }
            ),
        }
    )
    rng = np.random.default_rng(0)
    write_dataset(directory, features, [_example(rng, n, steps) for n, steps in enumerate(LENGTHS)])
    (directory / "table.yaml").write_text(TABLE)
    return directory


def _png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def _example(rng, number, steps):
    rows = []
    for t in range(steps):
        rows.append(
            {
                "action": np.float32(rng.normal(size=3)),
                "action_dict": {"velocity": np.float32(rng.normal(size=3)).astype(np.float64)},
                "observation": {
                    "cam_high": encode_image(numbered(10 * number + t)),
                    "wrist_image": _png(numbered(t, (48, 66))),
                    "state": np.float32(rng.uniform(size=4)),
                    "box": np.float32(rng.normal(size=(2, 3))),
                    "letters": np.arange(5, dtype=np.int32),
                },
                "language_instruction": f"put it away, {number} — é",
                "language_instruction_2": "",
                "secret": b"\xff\x00\xfe" if t % 2 else "\0 and text",
                "reward": np.float32(t == steps - 1),
                "index": t + 1000,
                "is_first": t == 0,
                "is_last": t == steps - 1,
                "is_terminal": False,
            }
        )
    metadata = {"file_path": f"{number}.h5", "success": number != 1, "has_wrist": number != 2}
    return {
        "episode_metadata": {**metadata, "number": number, "pose": np.float32([number, 0.1])},
        "steps": rows,
    }


def records(directory):
    found = []
    for shard in split_shards(directory):
        for number, span in enumerate(index_shard(shard)):
            record = container(shard.path).read_record(shard.path, span, number)
            found.append(dict(parse_example(record, "").features.feature.items()))
    return found


def pictures_of(record):
    return {key: values for key, values in record.items() if "cam_high" in key or "image" in key}


def to_lerobot(rlds, target, *words):
    table = ["--spec", str(rlds / "table.yaml")]
    assert main(["rlds-to-lerobot", str(rlds), str(target), *table, *words]) == 0
    return target


def test_there_and_back_every_record_is_the_same(rlds, tmp_path, capsys):
    there = to_lerobot(rlds, tmp_path / "there")
    assert f"spec={there / 'robot.yaml'}" in capsys.readouterr().out
    words = ["--spec", str(there / "robot.yaml")]
    assert main(["lerobot-to-rlds", str(there), str(tmp_path / "back"), *words]) == 0
    assert records(tmp_path / "back") == records(rlds)
    assert record_features(tmp_path / "back").to_json() == record_features(rlds).to_json()


@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_as_videos_all_but_the_pictures_are_the_same(rlds, tmp_path, codec):
    there = to_lerobot(rlds, tmp_path / "there", "--videos", "--codec", codec)
    info = read_info(there)
    assert info.features["observation.images.cam_high"].dtype == "video"
    assert main(["lerobot-to-rlds", str(there), str(tmp_path / "back")]) == 0
    for number, (old, new) in enumerate(
        zip(records(rlds), records(tmp_path / "back"), strict=True)
    ):
        pictures = pictures_of(old)
        assert {k: v for k, v in new.items() if k not in pictures} == {
            k: v for k, v in old.items() if k not in pictures
        }
        for key in pictures:
            images = [
                [decode_image(data) for data in row[key].bytes_list.value] for row in (old, new)
            ]
            for one, other in zip(*images, strict=True):
                assert one.shape == other.shape
                assert np.abs(one.astype(int) - other).mean() < 8
            if "cam_high" in key:
                assert [number_of(image) for image in images[1]] == [
                    10 * number + step for step in range(LENGTHS[number])
                ]


def test_what_lerobot_is_given(rlds, tmp_path):
    there = to_lerobot(rlds, tmp_path / "there")
    info = read_info(there)
    assert info.fps == 10 and info.robot_type == "two_arms"
    assert info.tasks == tuple(f"put it away, {number} — é" for number in range(3))
    kinds = {name: (row.dtype, row.shape) for name, row in info.features.items()}
    assert kinds["observation.images.cam_high"] == ("image", (*SIZE, 3))
    assert kinds["observation.images.wrist_image"] == ("image", (48, 66, 3))
    assert kinds["observation.box"] == ("float32", (2, 3))
    assert kinds["action_dict.velocity"] == ("float64", (3,))
    assert kinds["recorded.index"] == ("int64", (1,))
    # LeRobot's policies look for these; `action` is there already.
    rows = [raw_lerobot(there, "train").read(place) for place in info.episodes]
    assert kinds["action"] == ("float32", (3,)) and kinds["observation.state"] == ("float32", (4,))
    assert all(not row.problems for row in rows)
    statistics = json.loads((there / "meta" / "stats.json").read_text())
    rows = pq.read_table(there / "data" / "chunk-000" / "file-000.parquet")
    action = np.stack(rows["action"].to_numpy())
    for name, value in (("mean", action.mean(0)), ("std", action.std(0)), ("max", action.max(0))):
        np.testing.assert_allclose(statistics["action"][name], value, rtol=1e-5)
    assert statistics["action"]["count"] == [sum(LENGTHS)]
    assert np.shape(statistics["observation.images.cam_high"]["mean"]) == (3, 1, 1)


def test_vectors_that_lerobots_policies_look_for_are_made_of_the_tables_parts(tmp_path):
    """RT-1 has them in five features; on the way back they are left out."""
    robot = load_robot("rt1")
    synthetic.write(robot, tmp_path / "rt1", episodes=2, seconds=3)
    words = [str(tmp_path / "rt1"), str(tmp_path / "there"), "--spec", "rt1"]
    assert main(["rlds-to-lerobot", *words]) == 0
    info = read_info(tmp_path / "there")
    assert info.fps == 3 and info.robot_type == "rt1"
    assert info.features["action"].names[-1] == "gripper"
    recording = LeRobotRecording(tmp_path / "there", tmp_path / "there" / "robot.yaml")
    raw = raw_lerobot(tmp_path / "there", "train")
    for place, episode in zip(raw.places, recording.episodes("train"), strict=True):
        columns = raw.read(place)
        np.testing.assert_array_equal(columns.numbers["steps/action"], episode.action)
        np.testing.assert_array_equal(columns.numbers["steps/observation.state"], episode.state)
    assert main(["lerobot-to-rlds", str(tmp_path / "there"), str(tmp_path / "back")]) == 0
    assert records(tmp_path / "back") == records(tmp_path / "rt1")


def test_the_table_beside_a_converted_set_reads_it(rlds, tmp_path):
    there = to_lerobot(rlds, tmp_path / "there", "--videos")
    recording = LeRobotRecording(there, there / "robot.yaml")
    for number, episode in enumerate(recording.episodes("train")):
        assert set(episode.cameras) == ({"high", "wrist"} if number != 2 else {"high"})
        assert episode.instructions[0] == (f"put it away, {number} — é", "")
        assert episode.success == (number != 1)
        assert number_of(decode_image(episode.cameras["high"][2])) == 10 * number + 2
        stored = records(rlds)[number]
        assert (
            episode.state.reshape(-1).tolist() == stored["steps/observation/state"].float_list.value
        )


def test_lerobot_to_rlds_and_back_keeps_everything(tmp_path):
    episodes = write_set(tmp_path / "set", (11, 7, 25))
    words = [str(tmp_path / "set"), str(tmp_path / "rlds"), "--pictures", "png"]
    assert main(["lerobot-to-rlds", *words]) == 0
    metadata = json.loads((tmp_path / "rlds" / "metadata.json").read_text())
    assert metadata["fps"] == 10 and metadata["names"]["steps/action"] == list(JOINTS)
    record = records(tmp_path / "rlds")[2]
    assert record["steps/language_instruction"].bytes_list.value[0] == b"task 2"
    assert record["steps/is_last"].int64_list.value == [0] * 24 + [1]
    assert np.float32(record["steps/action"].float_list.value).reshape(25, 3).tolist() == (
        episodes[2]["action"].tolist()
    )
    assert main(["rlds-to-lerobot", str(tmp_path / "rlds"), str(tmp_path / "back")]) == 0
    before, after = (raw_lerobot(tmp_path / name, "train") for name in ("set", "back"))
    assert before.info.tasks == after.info.tasks and before.info.fps == after.info.fps
    assert before.info.robot_type == after.info.robot_type
    for name, row in before.info.features.items():
        other = after.info.features[name]
        assert (row.shape, row.names) == (other.shape, other.names)
        assert row.dtype == other.dtype or row.dtype == "video"
    for one, other in zip(before.places, after.places, strict=True):
        old, new = before.read(one), after.read(other)
        assert not new.problems and old.numbers.keys() == new.numbers.keys()
        for key, values in old.numbers.items():
            np.testing.assert_array_equal(values, new.numbers[key], key)
        for key, texts in old.texts.items():
            pixels = [
                [decode_image(v) for v in t[key]] for t in (old.texts, new.texts) if "images" in key
            ]
            if pixels:
                np.testing.assert_array_equal(*pixels)
            else:
                assert texts == new.texts[key], key


def test_features_of_varying_length_are_left_out_and_named(tmp_path):
    f = tfds.features
    steps = f.Dataset({"action": f.Tensor(shape=(2,), dtype=np.float32)})
    features = f.FeaturesDict({"steps": steps, "points": f.Sequence(np.float32)})
    rows = [{"action": np.float32([t, 1])} for t in range(4)]
    write_dataset(tmp_path / "rlds", features, [{"steps": rows, "points": [1.0, 2.0]}])
    words = [str(tmp_path / "rlds"), str(tmp_path / "there"), "--fps", "5"]
    assert main(["rlds-to-lerobot", *words]) == 0
    note = json.loads((tmp_path / "there" / "meta" / "rlds.json").read_text())
    assert note["left_out"] == ["points"]
    assert main(["lerobot-to-rlds", str(tmp_path / "there"), str(tmp_path / "back")]) == 0
    (old,), (new,) = records(tmp_path / "rlds"), records(tmp_path / "back")
    assert new == {"steps/action": old["steps/action"]}


def test_values_of_episodes_called_like_the_formats_own_are_kept(tmp_path):
    f = tfds.features
    steps = f.Dataset({"action": f.Tensor(shape=(2,), dtype=np.float32)})
    own = {"length": np.int64, "meta": {"good": np.bool_}, "data": {"place": f.Text()}}
    features = f.FeaturesDict({"steps": steps, **own})
    rows = [{"action": np.float32([t, 1])} for t in range(4)]
    values = {"length": 7, "meta": {"good": True}, "data": {"place": "lab"}}
    write_dataset(tmp_path / "rlds", features, [{"steps": rows, **values}])
    words = [str(tmp_path / "rlds"), str(tmp_path / "there"), "--fps", "5"]
    assert main(["rlds-to-lerobot", *words]) == 0
    (episode,) = read_info(tmp_path / "there").episodes
    assert episode.length == 4
    expected = {"recorded.length": 7, "meta/good": True, "data/place": "lab"}
    assert expected.items() <= episode.values.items()
    assert main(["lerobot-to-rlds", str(tmp_path / "there"), str(tmp_path / "back")]) == 0
    assert records(tmp_path / "back") == records(tmp_path / "rlds")


def test_numbers_that_rlds_cannot_hold_are_refused(tmp_path, capsys):
    from robotics.data.lerobot.info import Feature
    from robotics.data.lerobot.writer import LeRobotWriter

    row = Feature("action", "float64", (1,))
    writer = LeRobotWriter(tmp_path / "set", {"action": row}, 10)
    writer.add({"action": np.array([[0.1], [0.2]])}, ["", ""])
    writer.finish()
    assert main(["lerobot-to-rlds", str(tmp_path / "set"), str(tmp_path / "rlds")]) == 2
    assert "numbers of action that a float32 holds" in capsys.readouterr().err


# ---------------------------------------------------------------- the command


def test_a_rate_has_to_be_stated(rlds, tmp_path, capsys):
    words = ["rlds-to-lerobot", str(rlds), str(tmp_path / "x")]
    assert main(words) == 2
    assert "--fps 10" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert main([*words, "--fps", "12.5", "--split", "train[1:]"]) == 0
    info = read_info(tmp_path / "x")
    assert info.tasks == tuple(f"put it away, {number} — é" for number in (1, 2))
    assert info.fps == 12.5 and [place.length for place in info.episodes] == [9, 4]
    assert not (tmp_path / "x" / "robot.yaml").exists()


def test_a_conversion_overwrites_nothing(rlds, tmp_path, capsys):
    there = to_lerobot(rlds, tmp_path / "there")
    assert main(["rlds-to-lerobot", str(rlds), str(there), "--fps", "10"]) == 2
    assert "expected a new directory" in capsys.readouterr().err
    assert main(["lerobot-to-rlds", str(there), str(rlds)]) == 2


def test_an_interrupted_conversion_goes_on(rlds, tmp_path, monkeypatch):
    """The first file is complete when the second episode of the next one fails."""
    monkeypatch.setattr(from_rlds, "LeRobotWriter", _small_files(from_rlds.LeRobotWriter))
    value, converted = from_rlds._value, []

    def broken(columns, row, steps, where):
        converted.append(where)
        if len(set(converted)) == 3:
            raise KeyboardInterrupt
        return value(columns, row, steps, where)

    monkeypatch.setattr(from_rlds, "_value", broken)
    with pytest.raises(KeyboardInterrupt):
        from_rlds.rlds_to_lerobot(rlds, tmp_path / "there", fps=10, videos=True)
    assert not (tmp_path / "there").exists()
    converted.clear()
    monkeypatch.setattr(
        from_rlds, "_value", lambda *given: (converted.append(given[3]), value(*given))[1]
    )
    assert from_rlds.rlds_to_lerobot(rlds, tmp_path / "there", fps=10, videos=True) == 3
    assert len(set(converted)) == 1  # the episodes of the first file were not converted again
    raw = raw_lerobot(tmp_path / "there", "train")
    for number, place in enumerate(raw.places):
        episode = raw.read(place)
        pictures = episode.texts["steps/observation.images.cam_high"]
        assert number_of(pictures.decode(1)) == 10 * number + 1
        assert episode.texts["steps/task"][0].decode() == f"put it away, {number} — é"


def test_an_interrupted_conversion_to_rlds_goes_on(tmp_path, monkeypatch):
    write_set(tmp_path / "set", (5, 4, 6))
    example, converted = to_rlds._example, []

    def broken(plan, columns):
        if len(converted) == 2:
            raise KeyboardInterrupt
        converted.append(columns.place.number)
        return example(plan, columns)

    monkeypatch.setattr(to_rlds, "_example", broken)
    with pytest.raises(KeyboardInterrupt):
        to_rlds.lerobot_to_rlds(tmp_path / "set", tmp_path / "rlds")
    assert not (tmp_path / "rlds" / "dataset_info.json").exists()
    monkeypatch.setattr(
        to_rlds, "_example", lambda *given: (converted.append(9), example(*given))[1]
    )
    assert to_rlds.lerobot_to_rlds(tmp_path / "set", tmp_path / "rlds") == 3
    assert converted == [0, 1, 9]
    found = [
        record["steps/episode_index"].int64_list.value for record in records(tmp_path / "rlds")
    ]
    assert [list(numbers) for numbers in found] == [[0] * 5, [1] * 4, [2] * 6]


def _small_files(kind):
    return lambda *words, **settings: kind(*words, **settings, file_frames=8)


# ---------------------------------------------------------------- LeRobot's own library


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset


def rgb(tensor):
    return np.round(tensor.permute(1, 2, 0).numpy() * 255).astype(np.uint8)


@pytest.mark.extra("lerobot")
@pytest.mark.parametrize("kinds", [("video", "image"), ("video", "video")])
def test_lerobot_reads_what_is_written(library, tmp_path, kinds):
    episodes = write_set(tmp_path / "set", (11, 7, 25, 9), kinds=kinds)
    data = library("local/set", root=tmp_path / "set", video_backend="pyav")
    assert data.num_episodes == 4 and data.fps == 10 and data.num_frames == 52
    rows = [(n, step) for n, episode in enumerate(episodes) for step in range(len(episode["note"]))]
    for index, (number, step) in enumerate(rows):
        row, expected = data[index], episodes[number]
        for name in (
            "action",
            "observation.state",
            "next.reward",
            "next.done",
            "observation.torque",
        ):
            np.testing.assert_array_equal(row[name].numpy(), expected[name][step], name)
        assert row["task"] == expected["task"][step] and row["note"] == expected["note"][step]
        assert number_of(rgb(row[TOP])) == index and number_of(rgb(row[WRIST])) == index + 200
    assert set(data.meta.stats) >= {"action", "observation.state", TOP, WRIST}


@pytest.mark.extra("lerobot")
def test_lerobot_reads_a_converted_set(library, rlds, tmp_path):
    there = to_lerobot(rlds, tmp_path / "there", "--videos")
    data = library(
        "local/set", root=there, video_backend="pyav", delta_timestamps={"action": [0, 0.1]}
    )
    assert data.num_episodes == 3 and data[0]["action"].shape == (2, 3)
    assert data[8]["task"] == "put it away, 1 — é"
    assert number_of(rgb(data[8]["observation.images.cam_high"])) == 12


@pytest.mark.extra("lerobot")
@pytest.mark.parametrize("videos", [True, False])
def test_what_lerobot_writes_is_read(library, tmp_path, videos):
    vector = {"dtype": "float32", "shape": (3,), "names": list(JOINTS)}
    picture = {"dtype": "video" if videos else "image", "shape": (*SIZE, 3), "names": list(AXES)}
    data = library.create(
        "local/set", 10, root=tmp_path / "set", use_videos=videos, robot_type="so101_follower",
        features={"action": vector, "observation.state": vector, TOP: picture, WRIST: picture},
    )  # fmt: skip
    rng, number, lengths = np.random.default_rng(0), 0, (12, 5, 20)
    actions = []
    for episode, steps in enumerate(lengths):
        for _ in range(steps):
            actions.append(np.float32(rng.normal(size=3)))
            pictures = {TOP: numbered(number), WRIST: numbered(number + 200)}
            data.add_frame(
                {
                    "action": actions[-1],
                    "observation.state": actions[-1],
                    **pictures,
                    "task": f"task {episode}",
                }
            )
            number += 1
        data.save_episode()
    data.finalize()
    raw, number = raw_lerobot(tmp_path / "set", "train"), 0
    assert raw.info.robot_type == "so101_follower" and raw.names["steps/action"] == JOINTS
    for episode, place in enumerate(raw.places):
        row = raw.read(place)
        assert not row.problems and row.steps == lengths[episode]
        assert row.texts["steps/task"] == [f"task {episode}".encode()] * row.steps
        np.testing.assert_array_equal(
            row.numbers["steps/action"], actions[number : number + row.steps]
        )
        for camera, ahead in ((TOP, 0), (WRIST, 200)):
            pictures = row.texts[f"steps/{camera}"]
            found = [number_of(pictures.decode(step)) for step in range(row.steps)]
            assert found == [number + ahead + step for step in range(row.steps)]
        number += row.steps
