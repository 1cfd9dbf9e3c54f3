"""Data sets behind URLs: the same windows, by few and small requests, and what goes wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest

from robotics.data.rlds import EpisodeReader, arrayrecord, storage, tfrecord
from robotics.data.rlds.fake import fake_dataset
from robotics.data.rlds.reader import index_shard, split_shards
from robotics.data.sources import parse_mixture
from robotics.data.windows import WindowDataset
from robotics.training.build import compose_config

SIZE = (16, 20)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Three shards of two, two and one episodes."""
    return fake_dataset(tmp_path_factory.mktemp("rt1") / "set", (4, 5, 6, 3, 7), shard_episodes=2)


def upload(directory, place):
    for path in filter(Path.is_file, directory.iterdir()):
        fsspec.filesystem("memory").pipe_file(f"{place}/{path.name}", path.read_bytes())


@pytest.fixture
def memory(local):
    """A copy of it in memory."""
    upload(local, "/bucket/set")
    yield "memory://bucket/set"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture(params=["memory", "file"])
def url(request, local, tmp_path):
    """A copy of it behind a URL."""
    if request.param == "memory":
        return request.getfixturevalue("memory")
    return f"file://{shutil.copytree(local, tmp_path / 'copy')}"


@pytest.fixture
def asked(monkeypatch):
    """(question, *words) of every request."""
    requests, answer = [], storage._ask

    def noted(url, question, *words):
        requests.append((question, *words))
        return answer(url, question, *words)

    monkeypatch.setattr(storage, "_ask", noted)
    return requests


def ranges(asked):
    return [words for question, *words in asked if question == "cat_file" and words]


def shard(url, number=0):
    return split_shards(url)[number].path


def overwrite(path, data):
    system, name = fsspec.url_to_fs(path.url)
    system.pipe_file(name, data)


@pytest.mark.parametrize("decoded", [True, False])
def test_windows_are_those_of_the_local_set(url, local, tmp_path, decoded):
    options = {"split": "train[1:]", "progress": False, "decoded": decoded}
    remote = WindowDataset(url, SIZE, cache_dir=tmp_path / "cache", **options)
    there = WindowDataset(local, SIZE, cache_dir=tmp_path / "other", **options)
    assert remote.fingerprint == there.fingerprint and remote.sources == there.sources
    ours, theirs = remote.batch(range(len(remote))), there.batch(range(len(there)))
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_episodes_are_read_alike(url, local):
    for ours, theirs in zip(EpisodeReader(url), EpisodeReader(local), strict=True):
        assert ours.cameras == theirs.cameras


def test_an_index_takes_a_request_for_each_large_record_and_one_for_many_small(memory, asked):
    spans = tfrecord.index_records(shard(memory))
    assert len(ranges(asked)) <= len(spans) + 1
    assert all(end - begin == storage.BLOCK for begin, end in ranges(asked))
    small = storage.RemoteFile("memory://bucket/set/small.tfrecord-00000-of-00001")
    overwrite(small, b"".join(tfrecord.frame(b"x" * n) for n in range(300)))
    asked.clear()
    assert [span.length for span in tfrecord.index_records(small)] == list(range(300))
    assert len(ranges(asked)) == 1


def test_a_record_takes_one_request_of_its_bytes(memory, asked):
    path = shard(memory)
    spans = tfrecord.index_records(path)
    asked.clear()
    tfrecord.read_record(path, spans[1], 1)
    assert ranges(asked) == [[spans[1].offset, spans[1].offset + spans[1].length]]


def test_the_index_is_kept_until_the_file_changes(memory, asked, tmp_path):
    part = split_shards(memory)[0]
    spans = index_shard(part, cache_dir=tmp_path)
    asked.clear()
    assert index_shard(part, cache_dir=tmp_path) == spans
    assert ranges(asked) == []
    data = fsspec.filesystem("memory").cat_file("/bucket/set/" + part.path.name)
    overwrite(part.path, data)  # as long as before, but written anew
    index_shard(part, cache_dir=tmp_path)
    assert ranges(asked)


def test_without_a_version_nothing_is_kept(memory, monkeypatch, tmp_path):
    monkeypatch.setattr(storage, "_VERSION", ())
    index_shard(split_shards(memory)[0], cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_faults_name_the_url(url, tmp_path):
    path = shard(url)
    system, name = fsspec.url_to_fs(path.url)
    data = system.cat_file(name)
    for damaged, words in (
        (data[:-5], "record 1: needs bytes up to"),
        (data[:5], "record 0: header cut off"),
        (data[:2000] + b"?" + data[2001:], "record 0: checksum of the data"),
    ):
        overwrite(path, damaged)
        with pytest.raises(ValueError, match=words) as caught:
            WindowDataset(url, SIZE, cache_dir=tmp_path / words[:8], progress=False)
        assert str(caught.value).startswith(path.url)
    system.rm(name)
    with pytest.raises(ValueError, match="no such file") as caught:
        WindowDataset(url, SIZE, cache_dir=tmp_path / "gone", progress=False)
    assert path.url in str(caught.value)
    left = WindowDataset(url, SIZE, cache_dir=tmp_path / "skip", progress=False, on_error="skip")
    assert left.num_episodes == 3 and left.faults.episodes == 2


def test_a_network_that_is_down_is_no_damage(memory, monkeypatch, tmp_path):
    def down(*_, **__):
        raise TimeoutError("no route")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", down)
    part = storage.RemoteFile("memory://bucket/set/some.tfrecord-00000-of-00001")
    overwrite(part, tfrecord.frame(b"data"))
    with pytest.raises(ConnectionError, match=r"memory://.*no route.*network"):
        tfrecord.index_records(part, on_damage=lambda *_: None)
    with pytest.raises(ConnectionError, match="memory://bucket/set/"):
        WindowDataset(memory, SIZE, cache_dir=tmp_path, progress=False, on_error="skip")


def test_what_cannot_be_read_is_refused(memory, local, tmp_path):
    with pytest.raises(ValueError, match=f"local cache_dir for {memory}"):
        WindowDataset(memory, SIZE, progress=False)
    with pytest.raises(ValueError, match="memory://bucket/none"):
        split_shards("memory://bucket/none")
    with pytest.raises(ValueError, match="dataset_info.json, got memory://bucket "):
        split_shards("memory://bucket")
    upload(arrayrecord.repack(local, tmp_path / "array"), "/bucket/array")
    with pytest.raises(ValueError, match="TFRecord files at a URL, got array_record"):
        split_shards("memory://bucket/array")


def test_a_file_system_that_is_not_installed_names_the_extra(monkeypatch):
    def absent(url):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(fsspec, "url_to_fs", absent)
    with pytest.raises(ImportError, match=r"gs://bucket/set needs.*selfflow-wm\[gcs\]"):
        split_shards("gs://bucket/set")


def test_a_url_comes_through_the_command_line_as_it_is():
    assert compose_config(["data=gs://bucket/set/1.0.0", "out=x"]).data == "gs://bucket/set/1.0.0"
    entries = parse_mixture([{"path": "gs://bucket/one"}, {"path": "gs://bucket/two"}])
    assert {name: entry.path for name, entry in entries.items()} == {
        "one": "gs://bucket/one",
        "two": "gs://bucket/two",
    }
