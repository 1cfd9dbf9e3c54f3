"""RT-1 datasets on disk: writer, reader, and what becomes of damage and crashes."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds

from robotics.data.images import decode_image, encode_image
from robotics.data.rlds import EpisodeReader, EpisodeWriter, tfrecord
from robotics.data.rlds.convert import decode_episode
from robotics.data.rlds.fake import INSTRUCTIONS, fake_dataset, fake_episode
from robotics.data.rlds.schema import encode_episode, rt1_features

LENGTHS = (12, 9, 15, 8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return fake_dataset(tmp_path_factory.mktemp("rt1"), LENGTHS)


def shards(directory):
    return sorted(directory.glob("fractal*"))


def assert_same(a, b):
    assert a.cameras == b.cameras
    assert a.instructions == b.instructions
    assert a.success == b.success
    for name in ("state", "action", "terminate", "reward"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def by_length(directory, split="train"):
    return {len(episode): episode for episode in EpisodeReader(directory, split)}


def test_episodes_come_back_bit_for_bit(dataset):
    episodes = by_length(dataset)
    assert set(episodes) == set(LENGTHS)
    for seed, steps in enumerate(LENGTHS):
        assert_same(episodes[steps], fake_episode(seed, steps))


def test_tfds_reads_metadata_features_and_records(dataset):
    builder = tfds.builder_from_directory(dataset)
    assert (builder.name, str(builder.version)) == ("fractal20220817_data", "0.1.0")
    assert builder.info.splits["train"].num_examples == 4
    assert builder.info.splits["train"].shard_lengths == [3, 1]
    assert builder.info.features.to_json() == rt1_features().to_json()
    path = builder.info.splits["train"].filepaths[1]
    span = tfrecord.index_records(path)[0]
    example = builder.info.features.deserialize_example_np(tfrecord.read_record(path, span, 0))
    ours = EpisodeReader(dataset)[3]
    steps = list(example["steps"])
    assert len(steps) == len(ours)
    assert example["aspects"]["success"] == ours.success
    for t, step in enumerate(steps):
        np.testing.assert_array_equal(
            step["action"]["world_vector"], ours.part("action.position")[t]
        )
        turn = ours.part("action.rotation")[t]
        np.testing.assert_array_equal(step["action"]["rotation_delta"], turn)
        done = bool(ours.terminate[t])
        np.testing.assert_array_equal(step["action"]["terminate_episode"], [done, not done, 0])
        view = step["observation"]
        assert (view["natural_language_instruction"].decode(),) == ours.instructions[t]
        np.testing.assert_array_equal(view["base_pose_tool_reached"], ours.state[t, :7])
        assert view["image"].shape == (256, 320, 3)
        assert not view["natural_language_embedding"].any()
        assert (step["is_first"], step["is_last"]) == (t == 0, t == len(ours) - 1)
        assert step["is_terminal"] == (t == len(ours) - 1)


def test_records_hold_every_feature_of_the_schema():
    from tensorflow_datasets.proto import tf_example_pb2

    record = encode_episode(fake_episode(0, 3, None))
    stored = tf_example_pb2.Example.FromString(record).features.feature
    observation = stored["steps/observation/natural_language_embedding"]
    assert len(observation.float_list.value) == 3 * 512
    assert len(stored["steps/action/terminate_episode"].int64_list.value) == 9
    assert list(stored["steps/is_last"].int64_list.value) == [0, 0, 1]
    assert len(stored) == 5 + 12 + 6 + 14 + 4


def test_splits_are_those_of_tfds(dataset):
    lengths = [len(episode) for episode in EpisodeReader(dataset)]
    first, last = EpisodeReader(dataset, "train[:75%]"), EpisodeReader(dataset, "train[75%:]")
    assert [len(e) for e in first] + [len(e) for e in last] == lengths
    assert len(first) == 3
    assert [len(e) for e in EpisodeReader(dataset, "train[1:3]")] == lengths[1:3]
    assert [len(e) for e in EpisodeReader(dataset)[1:3]] == lengths[1:3]
    assert len(EpisodeReader(dataset)[-1]) == lengths[-1]
    with pytest.raises(IndexError):
        EpisodeReader(dataset)[4]
    with pytest.raises(ValueError, match=r"expected a split .*'train'.* got 'validation'"):
        EpisodeReader(dataset, "validation")


def test_nothing_needs_tensorflow(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from robotics.data.rlds.fake import fake_dataset\n"
        "from robotics.data.windows import WindowDataset\n"
        "d = fake_dataset(pathlib.Path(sys.argv[1]), (4,))\n"
        "assert len(WindowDataset(d, (32, 40))) == 4\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


# ---------------------------------------------------------------- writer


def test_order_does_not_depend_on_the_order_of_writing(tmp_path, dataset):
    writer = EpisodeWriter(tmp_path, shard_episodes=3)
    for seed in (2, 0, 3, 1):
        writer.write(seed, fake_episode(seed, LENGTHS[seed]))
    writer.finalize()
    for ours, theirs in zip(shards(tmp_path), shards(dataset), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_reopened_writer_continues_and_adds_shards(tmp_path):
    fake_dataset(tmp_path, LENGTHS)
    writer = EpisodeWriter(tmp_path, shard_episodes=3, provenance={"simulator": "no"})
    assert writer.done() == {"0", "1", "2", "3"}
    assert 2 in writer and 4 not in writer
    with pytest.raises(ValueError, match="expected a new episode key, got '2'"):
        writer.write(2, fake_episode(2))
    before = [path.read_bytes() for path in shards(tmp_path)]
    writer.write(4, fake_episode(4, 5), seed=4)
    writer.discard(5, reason="expert failed")
    assert 4 in writer and 5 in writer
    assert len(EpisodeReader(tmp_path)) == 4
    writer.finalize()
    assert [path.read_bytes() for path in shards(tmp_path)[:2]] == before
    assert len(EpisodeReader(tmp_path)) == 5
    assert len(shards(tmp_path)) == 3
    notes = json.loads((tmp_path / "collection-train.json").read_text())
    assert notes["provenance"] == {"simulator": "no"}
    assert notes["episodes"]["4"] == {"seed": 4, "steps": 5, "success": True}
    assert notes["discarded"] == {"5": {"reason": "expert failed"}}
    assert notes["counts"] == {"episodes": 5, "steps": sum(LENGTHS) + 5, "discarded": 1}
    assert EpisodeWriter(tmp_path).done() == {str(seed) for seed in range(6)}


def test_finalize_twice_changes_nothing(tmp_path):
    fake_dataset(tmp_path, (3, 4))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    EpisodeWriter(tmp_path).finalize()
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def crashing(monkeypatch, step):
    """Makes the `step`-th durable operation (rename or link) raise, as a kill there would."""
    from pathlib import Path

    count = 0

    def counted(real):
        def wrapper(*args, **kwargs):
            nonlocal count
            count += 1
            if count > step:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    monkeypatch.setattr(os, "link", counted(os.link))


def test_a_crash_at_any_moment_loses_nothing(tmp_path, monkeypatch):
    begun = fake_dataset(tmp_path / "begun", (1, 2), shard_episodes=1)
    fresh = {seed: fake_episode(seed, seed) for seed in (3, 4, 5)}

    def collect(directory):
        writer = EpisodeWriter(directory, shard_episodes=1)
        for seed, episode in fresh.items():
            if seed not in writer:
                writer.write(seed, episode)
        writer.finalize()

    for step in itertools.count():
        directory = tmp_path / str(step)
        shutil.copytree(begun, directory)
        with monkeypatch.context() as patch:
            crashing(patch, step)
            try:
                collect(directory)
                finished = True
            except KeyboardInterrupt:
                finished = False
        # What a reader finds meanwhile is complete: the old dataset or the new one.
        assert set(by_length(directory)) in ({1, 2}, {1, 2, 3, 4, 5})
        collect(directory)
        assert sorted(len(episode) for episode in EpisodeReader(directory)) == [1, 2, 3, 4, 5]
        assert len(shards(directory)) == 5
        assert not list(directory.glob(".fractal*"))
        assert not list((directory / ".staging" / "train").glob("*.tfrecord"))
        if finished:
            break
    assert step > 10


def test_an_incomplete_episode_is_not_done(tmp_path):
    writer = EpisodeWriter(tmp_path)
    writer.write(1, fake_episode(1, 3))
    staged = tmp_path / ".staging" / "train"
    # Killed after the note, and while the record was being written.
    (staged / "2.json").write_text("{}")
    (staged / ".2.tfrecord.123.partial").write_bytes(b"half")
    assert EpisodeWriter(tmp_path).done() == {"1"}
    writer.write(2, fake_episode(2, 4))
    writer.finalize()
    assert set(by_length(tmp_path)) == {3, 4}
    assert not list(staged.iterdir())


def test_several_writers_collect_one_dataset(tmp_path):
    def collect(worker):
        writer = EpisodeWriter(tmp_path, provenance={"simulator": "no"})
        for seed in range(worker, 9, 3):
            writer.write(seed, fake_episode(seed, seed + 1))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(collect, range(3)))
    EpisodeWriter(tmp_path, shard_episodes=4).finalize()
    assert set(by_length(tmp_path)) == set(range(1, 10))
    assert [len(tfrecord.index_records(path)) for path in shards(tmp_path)] == [4, 4, 1]


def test_a_second_split_keeps_the_first(tmp_path):
    fake_dataset(tmp_path, (3, 4))
    writer = EpisodeWriter(tmp_path, "validation")
    writer.write("a", fake_episode(0, 5))
    writer.finalize()
    assert set(by_length(tmp_path)) == {3, 4}
    assert set(by_length(tmp_path, "validation")) == {5}


def test_writer_refuses(tmp_path, dataset):
    with pytest.raises(ValueError, match="expected the provenance"):
        EpisodeWriter(dataset, provenance={"simulator": "other"})
    with pytest.raises(ValueError, match="at least one episode"):
        EpisodeWriter(tmp_path / "empty").finalize()
    with pytest.raises(ValueError, match="expected a key of letters"):
        EpisodeWriter(tmp_path / "empty").write("../x", fake_episode(0, 2))
    episode = fake_episode(0, 1, None)
    for image, message in (
        (b"no jpeg", "at step 0"),
        (encode_image(np.zeros((8, 8, 3), np.uint8)), "8 x 8"),
    ):
        object.__setattr__(episode, "cameras", {"head": [image]})
        with pytest.raises(ValueError, match=message):
            EpisodeWriter(tmp_path / "empty").write(0, episode)
    foreign = tmp_path / "foreign"
    fake_dataset(foreign, (2,))
    (foreign / "collection-train.json").unlink()
    with pytest.raises(ValueError, match="of other origin"):
        EpisodeWriter(foreign)


# ---------------------------------------------------------------- damage


@pytest.fixture
def broken(tmp_path):
    return fake_dataset(tmp_path, (4, 5))


def test_truncated_file(broken):
    (path,) = shards(broken)
    data = path.read_bytes()
    for size in (len(data) - 1, len(data) // 2, 5):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=rf"{path.name}, record [01]: .*expected a complete"):
            EpisodeReader(broken)


def test_flipped_byte_in_data_is_found_and_other_records_still_read(broken):
    (path,) = shards(broken)
    span = tfrecord.index_records(path)[1]
    data = bytearray(path.read_bytes())
    data[span.offset + span.length // 2] ^= 1
    path.write_bytes(data)
    episodes = EpisodeReader(broken)
    assert len(episodes[0]) in (4, 5)
    with pytest.raises(ValueError, match=rf"{path.name}, record 1: checksum of the data"):
        episodes[1]


def test_flipped_byte_in_a_length(broken):
    (path,) = shards(broken)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="record 0: checksum of the length"):
        EpisodeReader(broken)


def test_missing_and_miscounted_shards(broken):
    (path,) = shards(broken)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ValueError, match=r"expected 2 records .* got 4"):
        EpisodeReader(broken)
    path.unlink()
    with pytest.raises(ValueError, match="expected shard"):
        EpisodeReader(broken)
    with pytest.raises(ValueError, match=r"expected a TFDS dataset with dataset_info\.json"):
        EpisodeReader(broken / "nowhere")


def change(record, edit):
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example.FromString(record)
    edit(example.features.feature)
    return example.SerializeToString()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f.pop("steps/reward"), "x: expected 'steps/reward' as float_list, got no such"),
        (lambda f: f["steps/reward"].int64_list.value.append(1), "float_list, got int64_list"),
        (lambda f: f["steps/reward"].float_list.value.append(1), "for each of 3 images, got 4"),
        (
            lambda f: f["steps/action/world_vector"].float_list.value.__setitem__(4, np.nan),
            "x: expected finite action.position, got NaN or infinity at step 1",
        ),
        (lambda f: f["aspects/success"].int64_list.ClearField("value"), "expected one value of"),
    ],
)
def test_malformed_records_name_the_reason(edit, message):
    record = change(encode_episode(fake_episode(0, 3, None)), edit)
    with pytest.raises(ValueError, match=message):
        decode_episode(record, "x")


def test_a_record_that_is_no_example():
    with pytest.raises(ValueError, match=r"here: expected a tf\.train\.Example"):
        decode_episode(b"\xff" * 20, "here")


# ---------------------------------------------------------------- with TensorFlow


@pytest.mark.extra("rlds")
def test_tensorflow_reads_the_same(dataset):
    builder = tfds.builder_from_directory(dataset)
    theirs = builder.as_dataset(split="train", shuffle_files=False)
    episodes = EpisodeReader(dataset)
    count = 0
    for example, ours in zip(theirs, episodes, strict=True):
        count += 1
        steps = list(example["steps"].as_numpy_iterator())
        assert len(steps) == len(ours)
        assert bool(example["aspects"]["success"].numpy()) == ours.success
        for t, step in enumerate(steps):
            view, action = step["observation"], step["action"]
            np.testing.assert_array_equal(action["world_vector"], ours.part("action.position")[t])
            turn, gripper = ours.part("action.rotation")[t], ours.part("action.gripper")[t]
            np.testing.assert_array_equal(action["rotation_delta"], turn)
            assert action["gripper_closedness_action"] == gripper
            assert (action["terminate_episode"][0] == 1) == ours.terminate[t]
            assert (view["natural_language_instruction"].decode(),) == ours.instructions[t]
            assert ours.instructions[t][0] in INSTRUCTIONS
            np.testing.assert_array_equal(view["base_pose_tool_reached"], ours.state[t, :7])
            # The decoders may round differently.
            difference = np.abs(view["image"].astype(int) - decode_image(ours.cameras["head"][t]))
            assert difference.max() <= 3
    assert count == len(LENGTHS)
