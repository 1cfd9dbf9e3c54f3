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
    assert got.count == len(data)
    assert got.min == exact.min and got.max == exact.max
    np.testing.assert_allclose(got.mean, exact.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got.std, exact.std, rtol=1e-9, atol=1e-9)
    for name, rank in (("q01", 0.01), ("q99", 0.99)):
        low, high = np.quantile(data, [rank - RANK_ERROR, rank + RANK_ERROR], axis=0)
        value = np.array(getattr(got, name))
        assert (value >= low - 1e-9).all() and (value <= high + 1e-9).all(), name


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 60), pieces=st.integers(1, 9))
def test_small_sets_are_exact_however_they_arrive(count, pieces):
    data = np.random.default_rng(count).normal(3, 2, (count, 3)).astype(np.float32)
    assert streamed(data, pieces).result() == Quantiles.of(data)


def test_large_sets_are_near_and_do_not_keep_their_vectors():
    data = large_set()
    statistics = streamed(data, 17, exact_limit=5000)
    assert_close(statistics, data)
    assert not statistics._kept
    assert statistics.result() == streamed(data, 17, exact_limit=5000).result()


def test_misuse_is_refused():
    statistics = StreamingStatistics(3)
    with pytest.raises(ValueError, match="at least one vector"):
        statistics.result()
    with pytest.raises(ValueError, match="finite"):
        statistics.update([[np.inf, 0, 0]])
    with pytest.raises(ValueError, match=r"values \(n, 3\)"):
        statistics.update(np.ones((4, 2)))


def test_datasets_keep_their_statistics_by_content(rt1_directory, tmp_path, monkeypatch):
    def opened(split):
        return WindowDataset(
            rt1_directory, (16, 24), split=split, cache_dir=tmp_path, progress=False
        )

    whole = opened("train")
    first = whole.statistics()
    assert first["action"] == Quantiles.of(whole.actions)
    assert first["state"] == Quantiles.of(whole.states)
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
