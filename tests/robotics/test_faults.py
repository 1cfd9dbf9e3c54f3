"""Damage in both file formats: the errors, what skipping leaves, and random bytes."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from robotics.data.episodes import Episode
from robotics.data.frame_store import DamagedFrame
from robotics.data.images import encode_image
from robotics.data.replacements import Replacements
from robotics.data.rlds import EpisodeReader, arrayrecord, tfrecord
from robotics.data.rlds.convert import decode_episode
from robotics.data.rlds.fake import fake_dataset, fake_episode
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.frames import SharedFile
from robotics.data.rlds.reader import ShardSlice, container, index_shard, split_shards
from robotics.data.rlds.schema import encode_episode
from robotics.data.windows import WindowDataset
from robotics.training.build import build, compose_config

SIZE = (16, 20)
LENGTHS = (4, 5, 6, 3, 7)
FORMATS = ("tfrecord", "array_record")


@pytest.fixture(scope="module", params=FORMATS)
def intact(request, tmp_path_factory):
    """Three shards of two, two and one episodes."""
    directory = tmp_path_factory.mktemp("rt1")
    fake_dataset(directory / "tfrecord", LENGTHS, shard_episodes=2)
    if request.param == "array_record":
        arrayrecord.repack(directory / "tfrecord", directory / "array_record")
    return directory / request.param


@pytest.fixture
def copy(intact, tmp_path):
    return shutil.copytree(intact, tmp_path / "copy")


def shards(directory):
    return sorted(path for path in directory.glob("fractal*") if path.is_file())


def windows(directory, **options):
    options = {"progress": False} | options
    return WindowDataset(directory, SIZE, **options)


def rewrite(path, edit):
    """Replace the data of a shard's records, checksums and all."""
    from tensorflow_datasets.proto import tf_example_pb2

    module = container(path)
    records = []
    for number, span in enumerate(module.index_records(path)):
        example = tf_example_pb2.Example.FromString(module.read_record(path, span, number))
        edit(number, example.features.feature)
        records.append(example.SerializeToString())
    if module is arrayrecord:
        arrayrecord.write(path, records)
    else:
        path.write_bytes(b"".join(map(tfrecord.frame, records)))


# ---------------------------------------------------------------- both formats, any step


def test_both_formats_hold_the_same_episodes(intact):
    reference = list(EpisodeReader(intact.parent / "tfrecord"))
    for ours, theirs in zip(EpisodeReader(intact), reference, strict=True):
        assert ours.cameras == theirs.cameras
        assert ours.instructions == theirs.instructions
        for name in ("state", "action", "terminate"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert [len(e) for e in EpisodeReader(intact, "train[1:4]")] == [len(e) for e in reference[1:4]]


def test_frames_read_from_the_shards_are_those_of_the_cache(intact, tmp_path):
    decoded = windows(intact, cache_dir=tmp_path / "a")
    stored = windows(intact, cache_dir=tmp_path / "b", decoded=False)
    assert not list((tmp_path / "b").glob("*/frames-*.u8"))
    size = sum(path.stat().st_size for path in (tmp_path / "b").rglob("*") if path.is_file())
    assert size < len(stored) * 500 + 10_000
    order = np.random.default_rng(0).permutation(len(decoded))
    one, other = decoded.batch(order), stored.batch(order)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    part = windows(intact, cache_dir=tmp_path / "b", decoded=False, split="train[2:]")
    first = len(decoded) - len(part)
    np.testing.assert_array_equal(part.frames([0, 3]), decoded.frames([first, first + 3]))


def test_a_draft_is_nearly_the_frame_and_never_what_is_kept(intact, tmp_path):
    exact = windows(intact, cache_dir=tmp_path, decoded=False).frames(range(6)).astype(int)
    draft = windows(intact, cache_dir=tmp_path, decoded=False, draft=True).frames(range(6))
    assert draft.shape == exact.shape
    assert 0 < np.abs(draft - exact).mean() < 3
    with pytest.raises(ValueError, match="decoded=False"):
        windows(intact, cache_dir=tmp_path, draft=True)


def test_a_file_put_in_the_place_of_a_shard_is_read(copy, tmp_path):
    before = windows(copy, cache_dir=tmp_path, decoded=False)
    frames = before.frames([0])
    shutil.copytree(copy, tmp_path / "again")
    for path in shards(copy):
        (tmp_path / "again" / path.name).replace(path)
    after = windows(copy, cache_dir=tmp_path, decoded=False)
    np.testing.assert_array_equal(after.frames([0]), frames)
    assert after.store.frames["head"][0]._file._inode != before.store.frames["head"][0]._file._inode


def test_many_threads_read_more_files_than_are_kept_open(tmp_path):
    paths = [tmp_path / str(number) for number in range(80)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 64)
    files = [SharedFile(path) for path in paths]
    order = np.random.default_rng(0).integers(80, size=4000).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda number: files[number].read(2, 62), order))
    assert read == [bytes([number]) * 2 for number in order]


def test_only_the_frames_of_a_window_are_decoded(intact, tmp_path, monkeypatch):
    from robotics.data.rlds import frames

    dataset = windows(intact, cache_dir=tmp_path, decoded=False)
    count, decode = [], frames.decode_image
    monkeypatch.setattr(frames, "decode_image", lambda *of: count.append(1) or decode(*of))
    dataset.batch([0], video=False)
    assert len(count) == 1
    last = len(dataset.episodes[0]) - 4  # one future frame lies inside the episode
    assert dataset.batch([last], video=True)["video_valid"].sum() == 1
    assert len(count) == 3


def test_the_index_is_found_once_and_anew_when_the_shard_changes(copy, tmp_path, monkeypatch):
    shard = split_shards(copy)[0]
    spans = index_shard(shard, None, tmp_path)
    module = container(shard.path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "index_records", lambda *_: 1 / 0)
        assert index_shard(shard, None, tmp_path) == spans
    (kept,) = tmp_path.glob("spans-*.npy")
    kept.write_bytes(b"damaged")
    assert index_shard(shard, None, tmp_path) == spans
    data = shard.path.read_bytes()
    shard.path.write_bytes(data[: len(data) // 2 - 7])
    with pytest.raises(ValueError, match="Copy or generate"):
        index_shard(shard, None, tmp_path)


def test_a_shard_that_changed_behind_the_index_is_noticed(copy, tmp_path):
    dataset = windows(copy, cache_dir=tmp_path, decoded=False)
    for path in shards(copy):
        path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(ValueError, match="record 0: "):
        dataset.batch([0])


# ---------------------------------------------------------------- named faults and the policy


def edit_first(change):
    def apply(directory):
        rewrite(shards(directory)[0], lambda number, f: change(f) if number == 1 else None)

    return apply


def truncate(directory):
    path = shards(directory)[0]
    path.write_bytes(path.read_bytes()[:-1000])


def flip(directory):
    path = shards(directory)[0]
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4 if ".tfrecord" in path.name else 1000] ^= 4
    path.write_bytes(data)


def empty(f):
    for key in list(f):
        if key.startswith("steps/"):
            kind = f[key].WhichOneof("kind")
            del getattr(f[key], kind).value[:]


def set_bytes(key, step, value):
    return lambda f: f[key].bytes_list.value.__setitem__(step, value)


def swap_kind(f):
    values = list(f["steps/reward"].float_list.value)
    f["steps/reward"].int64_list.value.extend(int(value) for value in values)


TEXT = "steps/observation/natural_language_instruction"
IMAGE = "steps/observation/image"
JPEG = encode_image(np.zeros((256, 320, 3), np.uint8))
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
FAULTS = {
    "truncated": (truncate, "Copy or generate the file again"),
    "flipped": (flip, "Copy or generate the file again"),
    "missing": (
        lambda d: shards(d)[0].unlink(),
        r"expected shard .* 2 of 3 shards \(00001, 00002\)",
    ),
    "pointer": (lambda d: shards(d)[0].write_text(POINTER), "git lfs pull"),
    "dtype": (edit_first(swap_kind), "record 1: .*'steps/reward' as float_list, got int64_list"),
    "text": (edit_first(set_bytes(TEXT, 2, b"\xff\xfe")), "record 1: .*UTF-8 .* at step 2"),
    "no image": (edit_first(set_bytes(IMAGE, 0, b"no jpeg")), "record 1: undecodable image"),
    "cut image": (edit_first(set_bytes(IMAGE, 2, JPEG[:600])), "record 1: undecodable image"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_stop_with_file_record_and_reason_or_are_counted(copy, fault):
    whole = [len(episode) for episode in EpisodeReader(copy)]
    before = windows(copy, cache_dir=copy.parent / "before")
    damage, message = FAULTS[fault]
    name = shards(copy)[0].name
    damage(copy)
    with pytest.raises(ValueError, match=message) as caught:
        windows(copy)
    assert name in str(caught.value)
    dataset = windows(copy, on_error="skip")
    left = [len(steps) for steps in dataset.episodes]
    assert dataset.faults.episodes == len(whole) - len(left) >= 1
    assert left == whole[-len(left) :] or left == [whole[0], *whole[2:]]
    assert f"skipped {dataset.faults.episodes} damaged episodes in 1 files" in (
        dataset.faults.summary()
    )
    assert name in dataset.faults.summary()
    # What is left is unharmed: the last three episodes are those of before.
    tail = sum(whole[2:])
    one = dataset.batch(range(len(dataset) - tail, len(dataset)))
    other = before.batch(range(len(before) - tail, len(before)))
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])
    # The cache remembers what was skipped: once more, and then as an error.
    assert windows(copy, on_error="skip").faults.found == dataset.faults.found
    with pytest.raises(ValueError, match=message):
        windows(copy)


@pytest.mark.parametrize("fault", FAULTS)
def test_without_pixels_kept_the_same_is_left_out(copy, fault):
    """An index looks at every image: a missing shard or a cut picture costs its episodes."""
    damage, message = FAULTS[fault]
    damage(copy)
    with pytest.raises(ValueError, match=message):
        windows(copy, decoded=False)
    dataset = windows(copy, decoded=False, on_error="skip")
    whole = windows(copy, on_error="skip", cache_dir=copy.parent / "other")
    assert dataset.faults.episodes == whole.faults.episodes >= 1
    np.testing.assert_array_equal(dataset.actions, whole.actions)
    one, other = dataset.batch(range(len(dataset))), whole.batch(range(len(whole)))
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


def spoil(dataset, steps, directory):
    """Overwrite the images of some steps behind an index's back."""
    for step in steps:
        store = dataset.store
        shard = int(np.searchsorted(store.starts, step, side="right")) - 1
        frames = store.frames["head"][shard]
        record, offset, *_ = frames.places[step - store.starts[shard]].item()
        with frames.path.open("r+b") as file:
            file.seek(frames.spans[record].offset + offset + 400)
            file.write(bytes(40))


@pytest.fixture
def lazy(tmp_path):
    """A function that opens one data set, some of whose images went bad after it was indexed."""
    directory = fake_dataset(tmp_path / "set", LENGTHS, shard_episodes=2)
    first = windows(directory, decoded=False, on_error="skip")
    clean = windows(directory, cache_dir=tmp_path / "other")
    one, other = (episode.start for episode in sorted(first.episodes, key=len)[-2:])
    bad = [one + 3, one + 4, other + 3]
    spoil(first, bad, directory)
    return lambda **options: windows(directory, decoded=False, **options), clean, bad


def test_an_undecodable_frame_costs_the_windows_that_show_it_not_the_run(lazy, capsys):
    open_it, clean, bad = lazy
    with pytest.raises(ValueError, match=r"record \d: checksum of the image"):
        open_it().batch([bad[0]])
    dataset = open_it(on_error="skip")
    everything = dataset.batch(range(len(dataset)))
    assert dataset.faults.episodes == 2  # each once, however many frames and windows
    assert capsys.readouterr().err.count("make way") == 2
    steps = np.arange(len(dataset))
    index, valid = dataset.video_steps(steps)
    shows = np.isin(np.column_stack([steps, np.where(valid, index, -1)]), bad).any(axis=1)
    assert 3 < shows.sum() < 12
    expected = clean.batch(range(len(clean)))
    for key in everything:
        if key == "robot":
            continue
        got, true = np.asarray(everything[key]), np.asarray(expected[key])
        np.testing.assert_array_equal(got[~shows], true[~shows])
    for row in np.flatnonzero(shows):  # whole windows of others
        same = [np.array_equal(everything["image/head"][row], f) for f in expected["image/head"]]
        other = int(np.flatnonzero(same)[0])
        assert not shows[other]
        for key in ("video/head", "action", "state", "action_valid"):
            np.testing.assert_array_equal(everything[key][row], expected[key][other])


def test_what_replaces_a_window_follows_from_it_alone(lazy):
    """Whatever was read before and in whichever batch: readers ahead and a resumed run agree."""
    open_it, *_ = lazy
    together = open_it(on_error="skip").batch(range(20))
    threads = open_it(on_error="skip", frame_cache_mb=1, threads=3)
    again = [threads.batch([index]) for index in reversed(range(20))][::-1]
    for index, sample in enumerate(again):
        for key in ("image/head", "video/head", "action", "state"):
            np.testing.assert_array_equal(sample[key][0], together[key][index])


class Slow(frozenset):
    """A set during whose union other threads get their turn."""

    def __or__(self, other):
        time.sleep(0.02)
        return Slow(super().__or__(other))


def test_threads_that_find_frames_of_one_episode_count_it_once():
    faults = Faults("skip")
    replacements = Replacements(9, [range(9)], faults, seed=0)
    replacements.damaged = replacements._spoilt = Slow()
    errors = [DamagedFrame(f"frame {step}", step, "a file") for step in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(replacements.add, errors))
    assert faults.episodes == 1
    assert replacements.damaged == {0, 1, 2, 3}


def test_a_run_goes_on_behind_an_undecodable_frame(lazy, tmp_path, tiny_overrides):
    assert lazy  # makes the set
    words = [*tiny_overrides, f"data={tmp_path / 'set'}", f"out={tmp_path / 'run'}"]
    words += ["decoded=false", "dataset.video_offsets=[1,3]"]
    words += ["modes=policy_only", "modes.policy.batch_size=16", "trainer.validation_batches=1"]
    words += ["dataset.train_split=train", "dataset.validation_split=train", "on_error=skip"]
    words += ["trainer.total_steps=3", "augment=crop_colour"]
    run = build(compose_config(words))
    assert run.trainer.train() == "finished"
    assert run.trainer.batches.windows.dataset.faults.episodes == 2


def test_a_set_whose_frames_are_all_undecodable_ends_in_words(tmp_path):
    directory = fake_dataset(tmp_path / "set", (3, 2))
    dataset = windows(directory, decoded=False, on_error="skip")
    spoil(dataset, range(5), directory)
    with pytest.raises(ValueError, match="copy the data set again"):
        dataset.batch([0])


def test_a_shard_that_goes_away_is_named(copy, tmp_path):
    dataset = windows(copy, cache_dir=tmp_path, decoded=False)
    if ".tfrecord" not in shards(copy)[0].name:
        pytest.skip("its library keeps the file open")
    from robotics.data.rlds import frames

    for path in shards(copy):
        path.unlink()
    frames._opened.cache_clear()
    with pytest.raises(ValueError, match=r"expected the file that was there .* No such file"):
        dataset.batch([0])


def test_reading_episodes_goes_on_behind_damage(copy):
    FAULTS["text"][0](copy)
    reader = EpisodeReader(copy, on_error="skip")
    assert len(list(reader)) == len(list(reader)) == len(LENGTHS) - 1
    assert reader.faults.episodes == 1
    with pytest.raises(ValueError, match="UTF-8"):
        reader[1]
    with pytest.raises(ValueError, match="UTF-8"):
        list(EpisodeReader(copy))
    with pytest.raises(ValueError, match="on_error: expected one of"):
        EpisodeReader(copy, on_error="ignore")


def test_wrong_metadata(copy):
    path = copy / "dataset_info.json"
    info = json.loads(path.read_text())
    lengths = info["splits"][0]["shardLengths"]

    def write(**changes):
        path.write_text(json.dumps(info | changes))

    write(splits=[info["splits"][0] | {"shardLengths": ["3", *lengths[1:]]}])
    with pytest.raises(ValueError, match=r"expected 3 records by dataset_info.json, got 2"):
        windows(copy)
    write(splits=[info["splits"][0] | {"shardLengths": [*lengths, "2"]}])
    with pytest.raises(ValueError, match="expected shard"):
        windows(copy)
    for text in ("{", json.dumps({"name": 3})):
        path.write_text(text)
        with pytest.raises(ValueError, match="expected readable dataset_info.json"):
            windows(copy)
    write(fileFormat="parquet")
    with pytest.raises(ValueError, match="expected files of .*array_record"):
        windows(copy)
    write()
    (copy / "features.json").unlink()
    with pytest.raises(ValueError, match="features"):
        windows(copy)


def test_a_summary_is_short():
    faults = Faults("skip")
    for number in range(9):
        faults.report(ValueError(f"f, record {number}: bad"), "f", number)
    faults.filtered = 2
    lines = faults.summary().splitlines()
    assert lines[0] == "skipped 9 damaged episodes in 1 files:"
    assert lines[-2:] == [
        "  ... and 4 more",
        "left out 2 episodes by the table's filters",
    ]
    assert Faults("skip").summary() == ""


# ---------------------------------------------------------------- random bytes

RECORD = encode_episode(fake_episode(0, 3, None))
KEYS = [RECORD.index(key.encode()) for key in (TEXT, IMAGE, "steps/reward", "aspects/success")]
POSITION = st.one_of(
    st.integers(0, len(RECORD) - 1),
    st.builds(lambda at, by: max(at + by, 0), st.sampled_from(KEYS), st.integers(-12, 60)),
)
EDIT = st.tuples(st.sampled_from(["set", "cut", "insert", "drop"]), POSITION, st.integers(0, 255))
FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck))


def attempt(function, *arguments):
    """The result, or the message of the one error that is documented."""
    try:
        return function(*arguments), ""
    except ValueError as error:
        return None, str(error)


def mutated(data, edits):
    """`data` after edits (kind, position, value); negative positions count from its end."""
    for kind, position, value in edits:
        at = min(position, max(len(data) - 1, 0)) if position >= 0 else max(len(data) + position, 0)
        if kind == "set":
            data = data[:at] + bytes([value]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + bytes([value]) * (value % 7 + 1) + data[at:]
        elif kind == "drop":
            data = data[:at] + data[at + value % 9 + 1 :]
        elif value % 8 == 0:  # seldom, for it makes the other edits pointless
            data = data[:at]
    return data


@settings(FUZZ, max_examples=300)
@given(st.lists(EDIT, min_size=1, max_size=4))
def test_random_records_decode_or_say_why(edits):
    episode, message = attempt(decode_episode, mutated(RECORD, edits), "here")
    if episode is None:
        assert message.startswith("here: ")
        return
    assert isinstance(episode, Episode) and len(episode) >= 1
    assert np.isfinite(episode.action).all() and np.isfinite(episode.state).all()


@settings(FUZZ, max_examples=100)
@given(st.binary(max_size=200))
def test_random_bytes_decode_or_say_why(data):
    with pytest.raises(ValueError, match="^here: "):
        decode_episode(data, "here")


RECORDS = [np.random.default_rng(0).bytes(size) for size in (300, 1, 70_000, 40)]
# Near the ends of records, and of ArrayRecord's blocks of 64 KiB.
PLACE = st.builds(
    lambda at, by: min(at + by, -1) if at < 0 else at + by,
    st.sampled_from([0, 300, 370, 65_536, 70_400, -70_000, -65_536]),
    st.integers(0, 120),
)
DAMAGE = st.tuples(
    st.sampled_from(["set", "insert", "drop", "cut"]),
    st.one_of(st.integers(0, 72_000), PLACE),
    st.integers(0, 255),
)
SECOND_RECORD = [("drop", 316, 8), ("drop", 316, 7)]  # its 17 bytes, as TFRecord frames it


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A directory, and a shard of either format with records of which each byte matters."""
    directory = tmp_path_factory.mktemp("small")
    paths = [directory / f"x-train.{kind}-00000-of-00001" for kind in FORMATS]
    paths[0].write_bytes(b"".join(map(tfrecord.frame, RECORDS)))
    arrayrecord.write(paths[1], RECORDS)
    return directory, {kind: path.read_bytes() for kind, path in zip(FORMATS, paths, strict=True)}


@pytest.mark.parametrize("kind", FORMATS)
@settings(FUZZ, max_examples=150)
@example(edits=SECOND_RECORD)
@given(edits=st.lists(DAMAGE, min_size=1, max_size=3))
def test_damaged_files_give_the_true_records_or_an_error(small, kind, edits):
    directory, contents = small
    damaged = directory / f"y-train.{kind}-00000-of-00001"
    damaged.write_bytes(mutated(contents[kind], edits))
    # What TFRecord's framing cannot tell, that a whole frame is gone, the metadata's count tells.
    shard = ShardSlice(damaged, 0, len(RECORDS), len(RECORDS))
    spans, message = attempt(index_shard, shard)
    if spans is None:
        assert damaged.name in message
        return
    assert len(spans) == len(RECORDS)
    for number, span in enumerate(spans):
        record, message = attempt(container(damaged).read_record, damaged, span, number)
        assert record == RECORDS[number] or f"{damaged.name}, record {number}: " in message


def test_a_whole_frame_that_is_gone_shows_in_the_count_alone(small):
    directory, contents = small
    damaged = directory / "z-train.tfrecord-00000-of-00001"
    damaged.write_bytes(mutated(contents["tfrecord"], SECOND_RECORD))
    spans = tfrecord.index_records(damaged)
    found = [tfrecord.read_record(damaged, span, number) for number, span in enumerate(spans)]
    assert found == [RECORDS[0], *RECORDS[2:]]
