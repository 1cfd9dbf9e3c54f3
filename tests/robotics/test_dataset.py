"""Windows, their cache and the resumable order."""

import json
import multiprocessing

import numpy as np
import pytest
from rt1_arrays import episode_actions, episode_states, texts

from robotics.data.images import decode_image, resize_image
from robotics.data.rlds import EpisodeReader, EpisodeWriter
from robotics.data.rlds.fake import fake_dataset, fake_episode
from robotics.data.streams import WindowStream
from robotics.data.windows import WindowDataset

SIZE = (32, 40)
LENGTHS = (12, 9, 15, 8, 7)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return fake_dataset(tmp_path_factory.mktemp("rt1"), LENGTHS, shard_episodes=2)


@pytest.fixture(scope="module")
def dataset(directory):
    return WindowDataset(directory, SIZE, progress=False)


def test_windows_match_the_episodes(directory, dataset):
    episodes = EpisodeReader(directory)
    assert [len(steps) for steps in dataset.episodes] == [len(e) for e in episodes]
    assert len(dataset) == sum(LENGTHS) and dataset.num_episodes == 5
    for steps, episode in zip(dataset.episodes, episodes, strict=True):
        frames = [resize_image(decode_image(image), SIZE) for image in episode.cameras["head"]]
        actions, states = episode_actions(episode), episode_states(episode)
        instructions = texts(episode)
        for t, index in enumerate(steps):
            sample = dataset.sample(index)
            np.testing.assert_array_equal(sample["image/head"], frames[t])
            np.testing.assert_array_equal(sample["state"], states[t])
            np.testing.assert_array_equal(sample["state_recorded"], episode.state[t])
            assert sample["instruction"] == instructions[t]
            for i in range(6):
                inside = t + i < len(episode) and instructions[t + i] == sample["instruction"]
                assert sample["action_valid"][i] == inside
                expected = actions[t + i] if inside else np.zeros(8)
                np.testing.assert_array_equal(sample["action"][i], expected)
            for f, offset in enumerate((3, 6)):
                valid = t + offset < len(episode) and sample["action_valid"][:offset].all()
                assert sample["video_valid"][f] == valid
                expected = frames[t + offset] if valid else np.zeros((*SIZE, 3))
                np.testing.assert_array_equal(sample["video/head"][f], expected)


def test_neighbouring_episodes_of_one_instruction_stay_apart(tmp_path):
    writer = EpisodeWriter(tmp_path)
    for seed in range(3):
        writer.write(seed, fake_episode(seed, 4, switch=None))
    writer.finalize()
    dataset = WindowDataset(tmp_path, SIZE, progress=False)
    valid = dataset.batch(range(12))["action_valid"].sum(axis=1)
    assert valid.tolist() == [4, 3, 2, 1] * 3


def test_a_batch_is_its_samples_stacked(dataset):
    indices = [40, 3, 3, 17]
    batch = dataset.batch(indices)
    for row, index in enumerate(indices):
        for name, value in dataset.sample(index).items():
            np.testing.assert_array_equal(
                batch[name] if name == "robot" else batch[name][row], value
            )
    assert "video/head" not in dataset.batch(indices, video=False)
    np.testing.assert_array_equal(dataset.frames([[40], [3]])[:, 0], batch["image/head"][:2])


def test_slices_share_the_cache_and_partition_the_windows(directory, dataset, tmp_path):
    cache = tmp_path / "cache"
    parts = [
        WindowDataset(directory, SIZE, split=split, cache_dir=cache, progress=False)
        for split in ("train[:50%]", "train[50%:]")
    ]
    assert len(list(cache.glob("v*x40"))) == 3  # shards, the middle one shared
    np.testing.assert_array_equal(np.concatenate([part.actions for part in parts]), dataset.actions)
    first = len(parts[0])
    np.testing.assert_array_equal(parts[1].frames([0, 5]), dataset.frames([first, first + 5]))
    assert parts[1].sample(0)["instruction"] == dataset.sample(first)["instruction"]


def test_the_cache_is_reused_after_episodes_were_added(tmp_path, monkeypatch):
    fake_dataset(tmp_path, (4, 5))
    WindowDataset(tmp_path, SIZE, progress=False)
    writer = EpisodeWriter(tmp_path)
    writer.write(9, fake_episode(9, 6))
    writer.finalize()
    decoded = []

    def counting(image):
        decoded.append(1)
        return decode_image(image)

    monkeypatch.setattr("robotics.data.cache.shards.decode_image", counting)
    assert len(WindowDataset(tmp_path, SIZE, progress=False)) == 15
    assert len(decoded) == 6
    # Another size is another entry.
    WindowDataset(tmp_path, (16, 20), progress=False)
    assert len(decoded) == 6 + 15


def test_a_build_that_was_interrupted_is_begun_again(tmp_path, monkeypatch):
    fake_dataset(tmp_path, (4, 5))
    with monkeypatch.context() as patch:
        patch.setattr("robotics.data.cache.entries.np.savez", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            WindowDataset(tmp_path, SIZE, progress=False)
    dataset = WindowDataset(tmp_path, SIZE, progress=False)
    assert dataset.frames(range(9)).any(axis=(1, 2, 3)).all()
    assert not list((tmp_path / ".cache").glob("*.partial"))


def test_a_damaged_cache_entry_is_reported(tmp_path):
    fake_dataset(tmp_path, (4,))
    WindowDataset(tmp_path, SIZE, progress=False)
    (frames,) = (tmp_path / ".cache").glob("*/frames-head.u8")
    frames.write_bytes(frames.read_bytes()[:-1])
    with pytest.raises(ValueError, match="delete the directory"):
        WindowDataset(tmp_path, SIZE, progress=False)


def open_and_sum(directory):
    return int(WindowDataset(directory, SIZE, progress=False).frames([0, 8]).sum())


def test_processes_build_one_cache(tmp_path):
    fake_dataset(tmp_path, (4, 5))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(open_and_sum, [tmp_path] * 2)
    assert first == second > 0
    assert len([path for path in (tmp_path / ".cache").iterdir() if path.is_dir()]) == 1


def test_statistics_are_over_every_step_once(dataset, directory):
    actions = np.concatenate([episode_actions(episode) for episode in EpisodeReader(directory)])
    statistics = dataset.statistics()
    assert statistics["action"].count == sum(LENGTHS)
    np.testing.assert_allclose(statistics["action"].q99, np.quantile(actions, 0.99, axis=0))
    quaternion = np.concatenate(
        [episode_states(episode)[:, 3:7] for episode in EpisodeReader(directory)]
    )
    assert (quaternion[:, 0] + quaternion[:, 1] >= 0).all()
    np.testing.assert_allclose(statistics["state"].min[3:7], quaternion.min(axis=0))


def test_an_epoch_shows_every_window_once_and_epochs_differ(dataset):
    stream = WindowStream(dataset, seed=3)
    epochs = [stream.indices(len(dataset)) for _ in range(2)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(len(dataset)))
    assert (epochs[0] != epochs[1]).any()
    assert (WindowStream(dataset, seed=4).indices(len(dataset)) != epochs[0]).any()


def test_a_resumed_stream_equals_a_straight_one(dataset):
    sizes = [7, 64, 1, 30, 51, 102, 13]
    straight = WindowStream(dataset, seed=1)
    expected = [straight.indices(size) for size in sizes]
    for stop in range(len(sizes) + 1):
        first = WindowStream(dataset, seed=1)
        got = [first.indices(size) for size in sizes[:stop]]
        second = WindowStream(dataset, seed=1)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        got += [second.indices(size) for size in sizes[stop:]]
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert straight.state_dict() == second.state_dict()


@pytest.mark.parametrize("world_size", [1, 2, 4, 51, 60])
def test_readers_share_one_order_without_overlap(dataset, world_size):
    size = len(dataset)
    straight = WindowStream(dataset, seed=2).indices(3 * size)
    readers = [WindowStream(dataset, 2, rank=r, world_size=world_size) for r in range(world_size)]
    draws = -(-3 * size // world_size)
    parts = [
        np.concatenate([reader.indices(count) for count in (draws // 2, draws - draws // 2)])
        for reader in readers
    ]
    together = np.stack(parts, axis=1).reshape(-1)[: 3 * size]
    np.testing.assert_array_equal(together, straight)
    for epoch in range(3):
        assert sorted(together[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_resuming_gives_every_reader_its_next_window(dataset):
    workers = 2  # on each of two ranks
    for number in range(2 * workers):
        straight = WindowStream(dataset, seed=5, rank=number, world_size=2 * workers)
        expected = [straight.indices(size) for size in (9, 30, 4)]
        first = WindowStream(dataset, seed=5, rank=number, world_size=2 * workers)
        first.indices(9)
        state = json.loads(json.dumps(first.state_dict()))
        second = WindowStream(dataset, seed=5, rank=number, world_size=2 * workers)
        second.load_state_dict(state)
        np.testing.assert_array_equal(second.indices(30), expected[1])
        np.testing.assert_array_equal(second.indices(4), expected[2])
    # The state is that of all readers together: another number of them goes on from there.
    whole = WindowStream(dataset, seed=5)
    whole.load_state_dict(state)
    order = WindowStream(dataset, seed=5).indices(36 + 5)
    np.testing.assert_array_equal(whole.indices(5), order[36:])


def test_a_rank_outside_is_refused(dataset):
    for rank, world_size in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="expected a rank"):
            WindowStream(dataset, rank=rank, world_size=world_size)


def test_a_state_of_other_data_is_refused(dataset):
    stream = WindowStream(dataset, seed=1)
    for change in ({"seed": 2}, {"windows": 7}):
        with pytest.raises(ValueError, match="same data, split and seed"):
            stream.load_state_dict(stream.state_dict() | change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "expected a split"),
        ({"split": "train[:0%]"}, "expected episodes in"),
        ({"video_offsets": (0, 3)}, r"video offsets >= 1"),
        ({"video_offsets": (4, 1)}, r"one after the other.*write .1, 4."),
        ({"horizon": 0, "video_offsets": ()}, "horizon >= 1"),
    ],
)
def test_malformed_requests_are_refused(directory, arguments, message):
    with pytest.raises(ValueError, match=message):
        WindowDataset(directory, SIZE, progress=False, **arguments)


def test_indices_outside_are_refused(dataset):
    for indices in ([-1], [len(dataset)], []):
        with pytest.raises(ValueError, match="expected one or more indices"):
            dataset.batch(indices)
