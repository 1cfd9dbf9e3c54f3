"""Editing data sets: what stays is the same to the byte, what changes is what was asked for."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from robotics.data import edit as editing
from robotics.data.__main__ import main
from robotics.data.edit import edit
from robotics.data.edit_plan import Edit
from robotics.data.images import encode_image
from robotics.data.rlds.fake import write_dataset
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.raw import read_raw, rlds_source
from robotics.data.rlds.reader import container, index_shard, split_shards

TABLE = """
rate: 5
cameras: {front: {path: observation/rgb}}
instruction: [task, /said]
state:
  position: {path: "state[0:3]", kind: position}
  gripper: {path: "state[3]", kind: gripper}
action:
  position: {path: "action[0:3]", kind: position, mode: delta}
  gripper: {path: "action[3]", kind: gripper, mode: absolute}
"""
PICTURE = encode_image(np.zeros((16, 16, 3), np.uint8))


def features(width=4):
    f = tfds.features
    steps = {
        "action": f.Tensor(shape=(4,), dtype=np.float32),
        "state": f.Tensor(shape=(width,), dtype=np.float32),
        "observation": {"rgb": f.Image(shape=(16, 16, 3), encoding_format="jpeg")},
        "task": f.Text(),
        "task_embedding": f.Tensor(shape=(2,), dtype=np.float32),
        "is_first": np.bool_,
        "is_last": np.bool_,
        "reward": np.float32,
    }
    return f.FeaturesDict({"steps": f.Dataset(steps), "said": f.Text()})


def example(seed, steps=20, idle=(0, 0), task="push", width=4):
    """Motion between `idle` steps at the beginning and at the end."""
    rng = np.random.default_rng(seed)
    move = rng.uniform(0.01, 0.02, (steps, 3))
    move[: idle[0]] = 0
    move[steps - idle[1] :] = 0
    place = np.cumsum(np.vstack([np.zeros(3), move]), axis=0)
    rows = [
        {
            "action": np.append(move[t], 0).astype(np.float32),
            "state": np.resize(np.append(place[t], 0), width).astype(np.float32),
            "observation": {"rgb": PICTURE},
            "task": task,
            "task_embedding": np.ones(2, np.float32),
            "is_first": t == 0,
            "is_last": t == steps - 1,
            "reward": float(t == steps - 1),
        }
        for t in range(steps)
    ]
    return {"steps": rows, "said": task}


def records(directory, split="train"):
    return [
        container(shard.path).read_record(shard.path, span, number)
        for shard in split_shards(directory, split)
        for number, span in enumerate(index_shard(shard))
    ]


def columns(directory, number):
    stored = rlds_source(directory, "train").stored
    return read_raw(records(directory)[number], "record", stored)


@pytest.fixture
def source(tmp_path):
    examples = [example(n, idle=(4, 6) if n == 2 else (0, 0)) for n in range(5)]
    return write_dataset(tmp_path / "source", features(), examples)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE)
    return str(path)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_deleting_leaves_the_others_byte_for_byte(tmp_path, file_format):
    examples = [example(n) for n in range(5)]
    source = write_dataset(tmp_path / "a", features(), examples, file_format=file_format)
    counts = edit([str(source)], tmp_path / "b", Edit(delete=["train:0-1,3"]))
    before = records(source)
    assert records(tmp_path / "b") == [before[2], before[4]]
    assert (tmp_path / "b/features.json").read_bytes() == (source / "features.json").read_bytes()
    assert (counts["train"].before, counts["train"].kept) == (5, 2)
    # The first shard lost all of its episodes; the others' names follow.
    assert len(list((tmp_path / "b").glob("*-of-00002"))) == 2
    assert len(tfds.builder_from_directory(str(tmp_path / "b")).info.splits["train"].filenames) == 2


def test_keeping_is_deleting_the_rest(source, tmp_path):
    edit([str(source)], tmp_path / "kept", Edit(keep=["train:1,4"]))
    edit([str(source)], tmp_path / "left", Edit(delete=["train:0,2-3"]))
    assert records(tmp_path / "kept") == records(tmp_path / "left") == records(source)[1::3]


def test_merging_appends_and_names_episodes_by_source(source, tmp_path):
    other = write_dataset(tmp_path / "other", features(), [example(9), example(10)], name="other")
    edit([str(source), str(other)], tmp_path / "both", Edit(delete=["2/train:0"]))
    assert records(tmp_path / "both") == [*records(source), records(other)[1]]
    notes = json.loads((tmp_path / "both/edits.json").read_text())
    assert notes["episodes"]["train"] == [[0, 0, 4], [1, 1, 1]]
    with pytest.raises(ValueError, match="1/train:0"):
        edit([str(source), str(other)], tmp_path / "c", Edit(delete=["train:0"]))


def test_other_schemas_do_not_merge(source, tmp_path):
    other = write_dataset(tmp_path / "other", features(5), [example(9, width=5)])
    with pytest.raises(ValueError, match="steps/state"):
        edit([str(source), str(other)], tmp_path / "both", Edit())
    assert not (tmp_path / "both").exists()


def test_relabelling_changes_every_path_and_nothing_else(source, table, tmp_path):
    change = Edit(relabel=[("train:1", "open the drawer")], spec=table)
    counts = edit([str(source)], tmp_path / "said", change)
    old, new = columns(source, 1), columns(tmp_path / "said", 1)
    assert new.texts["steps/task"] == [b"open the drawer"] * 20
    assert new.texts["said"] == [b"open the drawer"]
    assert all(np.array_equal(old.numbers[key], new.numbers[key]) for key in old.numbers)
    assert old.texts["steps/observation/rgb"] == new.texts["steps/observation/rgb"]
    before, after = records(source), records(tmp_path / "said")
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True, True, True]
    assert counts["train"].relabelled == ["train:1"]
    assert counts["train"].stale == {"steps/task_embedding"}


def test_relabelling_by_text_finds_it_wherever_it_stands(tmp_path, table):
    examples = [example(n, task=("push", " pull ")[n % 2]) for n in range(4)]
    source = write_dataset(tmp_path / "a", features(), examples)
    counts = edit(
        [str(source)], tmp_path / "b", Edit(relabel_text=[("pull", "pull it")], spec=table)
    )
    assert counts["train"].relabelled == ["train:1", "train:3"]
    assert columns(tmp_path / "b", 3).texts["steps/task"][0] == b"pull it"
    assert records(tmp_path / "b")[0] == records(source)[0]


def test_trimming_cuts_idle_ends_and_keeps_what_marks_them(source, table, tmp_path):
    counts = edit([str(source)], tmp_path / "short", Edit(trim_idle=[], spec=table))
    old, new = columns(source, 2), columns(tmp_path / "short", 2)
    # Moves from step 4 to 13; the state after the last motion is that of step 14.
    assert np.array_equal(new.numbers["steps/state"], old.numbers["steps/state"][4:15])
    assert np.flatnonzero(new.numbers["steps/is_first"]).tolist() == [0]
    assert np.flatnonzero(new.numbers["steps/is_last"]).tolist() == [10]
    assert new.numbers["steps/reward"][-1] == 1
    assert counts["train"].trimmed == {"train:2": 9}
    assert records(tmp_path / "short")[0] == records(source)[0]


def test_other_splits_stay_whole(source, tmp_path):
    info = json.loads((source / "dataset_info.json").read_text())
    for path in source.glob("*-train.*"):
        (source / path.name.replace("-train.", "-val.")).write_bytes(path.read_bytes())
    info["splits"].append({**info["splits"][0], "name": "val"})
    (source / "dataset_info.json").write_text(json.dumps(info))
    edit([str(source)], tmp_path / "b", Edit(keep=["train:0"]))
    assert len(records(tmp_path / "b", "train")) == 1
    assert records(tmp_path / "b", "val") == records(source, "val")


def test_a_dry_run_counts_and_writes_nothing(source, table, tmp_path, capsys):
    words = ["edit", str(source), "--out", str(tmp_path / "x"), "--delete", "train:0"]
    assert main([*words, "--trim-idle", "--spec", table, "--dry-run"]) == 0
    assert "4 of 5 episodes" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "source"]


def test_after_a_crash_the_same_call_succeeds(source, tmp_path, monkeypatch):
    out, write = tmp_path / "out", editing._write_shard
    calls = []

    def dying(path, rows):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(path, rows)

    monkeypatch.setattr(editing, "_write_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        edit([str(source)], out, Edit(delete=["train:0"]))
    assert not out.exists()
    monkeypatch.setattr(editing, "_write_shard", write)
    (tmp_path / ".out.partial/left over").write_text("")
    edit([str(source)], out, Edit(delete=["train:0"]))
    assert records(out) == records(source)[1:]
    assert not [path for path in out.iterdir() if path.name.startswith((".", "left"))]
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Edit(delete=["train:5"]), "from 0 to 4"),
        (Edit(delete=["test:0"]), "out of train"),
        (Edit(delete=["train"]), "train:3,17-20"),
        (Edit(delete=["train:0-4"]), "--keep train:0"),
        (Edit(relabel=[("train:0", "x")]), "--spec"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(source, tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        edit([str(source)], tmp_path / "out", change)
    assert not (tmp_path / "out").exists()


def test_the_source_is_never_written_over(source):
    with pytest.raises(ValueError, match="new directory"):
        edit([str(source)], source, Edit(delete=["train:0"]))
    with pytest.raises(ValueError, match="outside"):
        edit([str(source)], source / "new", Edit(delete=["train:0"]))
    assert not (source / "new").exists()


def test_edits_of_edits_are_remembered(source, tmp_path):
    edit([str(source)], tmp_path / "b", Edit(delete=["train:0"]))
    edit([str(tmp_path / "b")], tmp_path / "c", Edit(delete=["train:1"]))
    notes = json.loads((tmp_path / "c/edits.json").read_text())
    assert notes["sources"][0]["edits"]["delete"] == ["train:0"]
    assert records(tmp_path / "c") == [records(source)[n] for n in (1, 3, 4)]


def test_a_damaged_record_can_be_left_out(source, tmp_path):
    path = sorted(source.glob("*-train.*"))[0]
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="record 0"):
        edit([str(source)], tmp_path / "b", Edit())
    edit([str(source)], tmp_path / "b", Edit(delete=["train:0"]))
    assert len(records(tmp_path / "b")) == 4


def test_episodes_of_a_slice_have_the_numbers_of_the_whole_split(source):
    numbers = [place.number for place in rlds_source(source, "train[3:]").places(Faults())]
    assert numbers == [3, 4]
    assert [place.number for place in rlds_source(source).places(Faults())] == [0, 1, 2, 3, 4]
