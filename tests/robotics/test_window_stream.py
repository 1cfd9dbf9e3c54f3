"""The grouped order: each window once an epoch, exact resumption, frames decoded once."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from robotics.data.cache.frames import FrameCache
from robotics.data.order import grouped_order, same_episode_share
from robotics.data.rlds.fake import fake_dataset
from robotics.data.streams import WindowStream
from robotics.data.windows import WindowDataset

SIZE = (32, 48)
LENGTHS = (12, 9, 15, 8, 11, 10, 3)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return fake_dataset(tmp_path_factory.mktemp("grouped"), LENGTHS)


@pytest.fixture(scope="module")
def dataset(directory):
    return WindowDataset(directory, SIZE, progress=False)


def grouped(dataset, group=2, **options):
    return WindowStream(dataset, 3, group=group, **options)


def episodes_of(dataset, indices):
    return [int(dataset.episode_start[index]) for index in indices]


def test_an_epoch_opens_a_few_episodes_at_a_time_and_shows_every_window_once(dataset):
    size = len(dataset)
    drawn, epochs = grouped(dataset).draw(2 * size + 5)
    for epoch in (0, 1):
        order = drawn[epochs == epoch]
        assert sorted(order) == list(range(size))
        met = list(dict.fromkeys(episodes_of(dataset, order)))
        length = {episode.start: len(episode) for episode in dataset.episodes}
        place = 0
        for opened in (met[i : i + 2] for i in range(0, len(met), 2)):
            end = place + sum(length[first] for first in opened)
            assert set(episodes_of(dataset, order[place:end])) == set(opened)
            place = end
    first, second = drawn[:size], drawn[size : 2 * size]
    assert (first != second).any()
    block = episodes_of(dataset, first[: length[episodes_of(dataset, first)[0]]])
    assert len(set(block)) == 2  # shuffled within the group, not one episode after the other
    other = WindowStream(dataset, 4, group=2).indices(size)
    assert (other != first).any()


@pytest.mark.parametrize("world_size", [1, 2, 3, 68])
def test_readers_of_groups_share_an_epoch_and_keep_episodes_to_themselves(dataset, world_size):
    size = len(dataset)
    readers = [grouped(dataset, rank=r, world_size=world_size) for r in range(world_size)]
    draws = -(-3 * size // world_size)
    parts = np.stack([reader.indices(draws) for reader in readers], axis=1)
    together = parts.reshape(-1)[: 3 * size]
    for epoch in range(3):
        assert sorted(together[epoch * size : (epoch + 1) * size]) == list(range(size))
    if world_size == 2:
        seen = [set(episodes_of(dataset, part[: size // 2])) for part in parts.T]
        assert len(seen[0] & seen[1]) <= 1


def test_a_grouped_stream_resumes_exactly_and_only_as_it_was(dataset):
    sizes = [7, 64, 1, 30, 51]
    for stop in range(len(sizes) + 1):
        straight, first, second = (grouped(dataset, rank=1, world_size=2) for _ in range(3))
        expected = [straight.indices(size) for size in sizes]
        for size in sizes[:stop]:
            first.indices(size)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        for size, order in zip(sizes[stop:], expected[stop:], strict=True):
            np.testing.assert_array_equal(second.indices(size), order)
    state = first.state_dict()
    for other in (
        WindowStream(dataset, 3),
        grouped(dataset, group=3, world_size=2),
        grouped(dataset, world_size=1),
    ):
        with pytest.raises(ValueError, match="number of readers"):
            other.load_state_dict(state)
    with pytest.raises(ValueError, match="at least one episode"):
        grouped(dataset, group=-1)


def test_a_filter_leaves_the_rest_in_groups(dataset):
    keep = np.flatnonzero(np.arange(len(dataset)) % 3 != 0)
    order = WindowStream(dataset, 1, keep, group=1).indices(len(keep))
    assert sorted(order) == keep.tolist()
    met = episodes_of(dataset, order)
    assert [met[0], *(b for a, b in zip(met, met[1:], strict=False) if a != b)] == list(
        dict.fromkeys(met)
    )


@pytest.mark.parametrize(
    ("group", "lengths"), [(4, [9] * 40), (8, [3, 9, 15] * 14), (None, [9] * 5)]
)
def test_the_share_of_pairs_from_one_episode_is_what_is_stated(group, lengths):
    episode = np.repeat(np.arange(len(lengths)), lengths)
    same = pairs = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        if group is None:
            order = generator.permutation(len(episode))
        else:
            order = grouped_order(episode, generator, group, 1, 0)
        rows = episode[order[: len(order) // 6 * 6]].reshape(-1, 6)
        if group is not None:  # batches that lie in one group
            rows = rows[:3]
        equal = rows[:, :, None] == rows[:, None, :]
        same += equal.sum() - rows.size
        pairs += rows.shape[0] * 6 * 5
    assert same / pairs == pytest.approx(same_episode_share(lengths, group), abs=0.035)


def test_groups_decode_each_frame_once_and_random_windows_many_times(directory, dataset):
    frame = int(np.prod((*SIZE, 3)))

    def decoded(group, budget):
        lazy = WindowDataset(
            directory, SIZE, decoded=False, frame_cache_mb=budget * frame / 1e6, progress=False
        )
        stream = WindowStream(lazy, 0, group=group)
        for _ in range(len(lazy) // 4):
            indices = stream.indices(4)
            expected = dataset.batch(indices)
            for name, values in lazy.batch(indices).items():
                np.testing.assert_array_equal(values, expected[name])
        assert lazy.store.caches["head"].capacity == budget
        return lazy.store.caches["head"].decoded

    # What the largest group holds and a batch more: the finished group goes as the next comes in.
    assert decoded(2, 27 + 12) <= len(dataset)
    assert decoded(None, 8) > 1.5 * len(dataset)
    assert decoded(2, 0) > 1.5 * len(dataset)


def test_threads_that_read_at_once_get_what_one_would(directory, dataset):
    frame = int(np.prod((*SIZE, 3)))
    lazy = WindowDataset(
        directory, SIZE, decoded=False, frame_cache_mb=9 * frame / 1e6, progress=False
    )
    order = [WindowStream(dataset, seed).indices(8) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lazy.batch, order))
    for indices, samples in zip(order, read, strict=True):
        for name, values in dataset.batch(indices).items():
            np.testing.assert_array_equal(samples[name], values)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_frame_cache_keeps_to_its_budget_and_the_frames_used_last(threads):
    cache = FrameCache(3 * 12 + 5, (2, 2), threads)

    def ask(keys):
        out = [np.empty((2, 2, 3), np.uint8) for _ in keys]
        asked = []
        cache.copy(np.array(keys), out, lambda i: asked.append(keys[i]) or full(keys[i]))
        for key, frame in zip(keys, out, strict=True):
            np.testing.assert_array_equal(frame, full(key))
        return sorted(asked)

    def full(key):
        return np.full((2, 2, 3), key, np.uint8)

    assert cache.capacity == 3
    assert ask([1, 2, 1]) == [1, 2]
    assert ask([3]) == [3] and ask([1]) == []
    assert ask([4]) == [4] and ask([1, 3, 4]) == []  # 2 went, it was used longest ago
    assert ask([5, 6, 7, 8, 9]) == [5, 6, 7, 8, 9] and ask([7, 8, 9]) == []
    assert cache.decoded == 9
    cache = copy.deepcopy(cache)  # as for another process: with nothing kept
    assert ask([9]) == [9]
    with pytest.raises(ValueError, match="budget"):
        FrameCache(-1, (2, 2))
