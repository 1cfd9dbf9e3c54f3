"""Streaming statistics: exact when small, a merging digest when large, cached by content."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robotics.data.statistics import StreamingStatistics, cached_statistics
from robotics.data.windows import WindowDataset
from robotics.embodiment.normalize import Quantiles

RANK_ERROR = 5e-4
"""Of the 1% and 99% quantiles: between 0.95% and 1.05%."""


def streamed(data, pieces, **settings):
    statistics = StreamingStatistics(data.shape[1], **settings)
    for piece in np.array_split(data, pieces):
        statistics.update(piece)
    return statistics


def large_set():
    """Normal, mostly zero, sorted, constant and two-valued dimensions."""
    generator, count = np.random.default_rng(0), 60_000
    columns = [
        generator.normal(3, 2, count),
        np.where(generator.random(count) < 0.9, 0, generator.normal(size=count)),
        np.linspace(-1, 5, count),
        np.full(count, 0.25),
        generator.choice([-1.0, 1.0], count),
    ]
    return np.stack(columns, axis=1)


def assert_close(statistics, data):
    """Everything exact up to rounding; q01 and q99 by their rank in the data."""
    exact, got = Quantiles.of(data), statistics.result()
    assert got.count == len(data) and not statistics.exact
    assert got.min == exact.min and got.max == exact.max
    np.testing.assert_allclose(got.mean, exact.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got.std, exact.std, rtol=1e-9, atol=1e-9)
    for name, rank in (("q01", 0.01), ("q99", 0.99)):
        low, high = np.quantile(data, [rank - RANK_ERROR, rank + RANK_ERROR], axis=0)
        value = np.array(getattr(got, name))
        assert (value >= low - 1e-9).all() and (value <= high + 1e-9).all(), name


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 60), pieces=st.integers(1, 9), cut=st.integers(0, 60))
def test_small_sets_are_exact_however_they_arrive(count, pieces, cut):
    data = np.random.default_rng(count).normal(3, 2, (count, 3)).astype(np.float32)
    exact = Quantiles.of(data)
    assert streamed(data, pieces).result() == exact
    if 0 < cut < count:
        merged = streamed(data[:cut], pieces)
        merged.merge(streamed(data[cut:], 2))
        assert merged.exact and merged.result() == exact


def test_large_sets_are_near_and_do_not_keep_their_vectors():
    data = large_set()
    statistics = streamed(data, 17, exact_limit=5000)
    assert_close(statistics, data)
    assert not statistics._kept
    assert statistics.result() == streamed(data, 17, exact_limit=5000).result()


def test_shards_merge_whichever_of_them_are_exact():
    data = large_set()
    shards = np.split(data, [2000, 3000, 30_000])  # exact, exact, digest, digest
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        merged = StreamingStatistics(data.shape[1], exact_limit=5000)
        for number in order:
            merged.merge(streamed(shards[number], 3, exact_limit=5000))
        assert_close(merged, data)


@pytest.mark.parametrize("limit", [1000, 10**6])
def test_a_saved_accumulator_goes_on_as_if_it_had_not_stopped(tmp_path, limit):
    data = large_set()[::10]
    half = streamed(data[:3000], 3, exact_limit=limit)
    half.save(tmp_path / "half.npz")
    again = StreamingStatistics.load(tmp_path / "half.npz")
    for statistics in (half, again):
        statistics.update(data[3000:])
    assert again.exact == half.exact == (limit > len(data))
    assert again.result() == half.result()


def test_padding_does_not_count():
    chunks = np.random.default_rng(0).normal(size=(20, 6, 3))
    valid = np.random.default_rng(1).random((20, 6)) < 0.5
    padded = np.where(valid[..., None], chunks, 1e9)
    padded[~valid] = np.nan  # not even that is looked at
    statistics = StreamingStatistics(3)
    statistics.update(padded, valid)
    assert statistics.result() == Quantiles.of(chunks[valid])
    with pytest.raises(ValueError, match="mask of shape"):
        statistics.update(chunks, valid[:3])


def test_misuse_is_refused():
    statistics = StreamingStatistics(3)
    with pytest.raises(ValueError, match="at least one vector"):
        statistics.result()
    with pytest.raises(ValueError, match="finite"):
        statistics.update([[np.inf, 0, 0]])
    with pytest.raises(ValueError, match=r"values \(\.\.\., 3\)"):
        statistics.update(np.ones((4, 2)))
    with pytest.raises(ValueError, match="3 dimensions, got 2"):
        statistics.merge(StreamingStatistics(2))


def test_datasets_keep_their_statistics_by_content(rt1_directory, tmp_path, monkeypatch):
    def opened(split):
        return WindowDataset(
            rt1_directory, (16, 24), split=split, cache_dir=tmp_path, progress=False
        )

    whole = opened("train")
    first = whole.statistics()
    assert first["action"] == Quantiles.of(whole.actions)
    assert first["proprio"] == Quantiles.of(whole.proprio)
    (file,) = tmp_path.glob("statistics-*.json")
    assert whole.fingerprint in file.name
    monkeypatch.setattr(StreamingStatistics, "update", lambda *_: 1 / 0)
    assert opened("train").statistics() == first  # read back, bit for bit
    monkeypatch.undo()
    part = opened("train[:3]")
    assert part.fingerprint != whole.fingerprint
    assert part.statistics()["action"].count == len(part)
    file.write_text("{")  # damaged: computed again
    assert opened("train").statistics() == first
    assert json.loads(file.read_text())["action"]["count"] == len(whole)


def test_the_cache_tells_digests_from_exact_statistics(tmp_path):
    data = {"action": large_set()}
    exact = cached_statistics(data, "abc", tmp_path)["action"]
    sketched = cached_statistics(data, "abc", tmp_path, exact_limit=5000)["action"]
    assert exact == Quantiles.of(data["action"]) != sketched
    assert len(list(tmp_path.iterdir())) == 2
    assert dataclasses.replace(sketched, q01=exact.q01, q99=exact.q99).count == exact.count
