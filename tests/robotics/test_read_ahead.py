"""Windows read ahead by threads: the same batches, however they are stored and drawn."""

from __future__ import annotations

import functools
import json
import shutil

import numpy as np
import pytest
import torch

from robotics.data.augment import Augment
from robotics.data.batches import ModeStream
from robotics.data.mixture import DatasetMixture
from robotics.data.windows import WindowDataset
from robotics.finetune import main
from robotics.model.modes import robot_schedule
from robotics.training.build import build, compose_config
from selfflow_wm.data.ahead import ReadAhead

SHARES = {
    "policy": {"probability": 1, "batch_size": 6},
    "video": {"probability": 1, "batch_size": 3},
}

SHORT = (
    "decoded=false", "augment=crop_colour", "trainer.total_steps=4", "trainer.preview_every=0",
    "trainer.validation_batches=1", "modes=policy_only", "modes.policy.batch_size=4",
    'dataset.train_split="train[:4]"', 'dataset.validation_split="train[4:]"',
)  # fmt: skip


class Uncoded:
    """Stands for a model: batches are a mode and its samples."""

    def encode(self, samples, mode):
        return mode.name, samples


def same(one, other):
    return (
        one[0] == other[0]
        and one[1].keys() == other[1].keys()
        and all(np.array_equal(one[1][name], other[1][name]) for name in one[1])
    )


def copied(source, directory):
    """A copy of a data set, indexed."""
    shutil.copytree(source, directory)
    WindowDataset(directory, (32, 48), spec="embedded", progress=False, decoded=False)
    return directory


def damage(directory):
    """Take a few bytes of a picture."""
    shard = sorted(directory.glob("*.tfrecord*"))[0]
    content = bytearray(shard.read_bytes())
    place = content.index(b"\xff\xd8\xff", len(content) // 2) + 400
    content[place : place + 8] = bytes(8)
    shard.write_bytes(content)


@pytest.fixture(
    scope="module", params=["decoded", "kept", "small cache", "mixture", "robots", "damaged"]
)
def data(request, rt1_directory, tmp_path_factory):
    def opened(directory=rt1_directory, spec="embedded", **options):
        return WindowDataset(directory, (32, 48), spec=spec, progress=False, **options)

    if request.param == "decoded":
        return opened
    if request.param in ("mixture", "robots"):
        other = "rt1" if request.param == "robots" else "embedded"

        def mixed():
            parts = {"a": opened(decoded=False), "b": opened(spec=other, split="train[:3]")}
            return DatasetMixture(parts, {"a": 2.0, "b": 1.0})

        return mixed
    if request.param == "damaged":
        directory = copied(rt1_directory, tmp_path_factory.mktemp("damaged") / "set")
        damage(directory)
        broken = opened(directory, decoded=False)
        with pytest.raises(ValueError, match="does not match"):
            broken.frames(np.arange(len(broken)))
        return functools.partial(opened, directory, decoded=False, on_error="skip")
    # 4,608 bytes a frame of 65: all of them, and a few that are always pushed out.
    megabytes = 1.0 if request.param == "kept" else 0.05
    return functools.partial(opened, decoded=False, frame_cache_mb=megabytes)


@pytest.mark.parametrize("group", [None, 2])
def test_batches_are_bit_for_bit_those_of_one_reader_after_resuming_too(data, group):
    def stream():
        augment = Augment(0.8, 0.2, 0.2, 0.2, 5.0, seed=1)
        schedule = robot_schedule(SHARES, seed=1)
        world = Uncoded()
        return ModeStream(
            data(), world, schedule, seed=1, accumulate=2, augment=augment, group=group
        )

    serial = stream()
    expected = [next(serial) for _ in range(24)]  # more than one epoch
    ahead = ReadAhead(stream(), 3, 4)
    assert all(same(next(ahead), batch) for batch in expected[:9])
    state = json.loads(json.dumps(ahead.state_dict()))
    again = ReadAhead(stream(), 2, 2)
    again.load_state_dict(state)
    assert all(same(next(again), batch) for batch in expected[9:])
    assert again.state_dict() == serial.state_dict()


def test_a_run_may_be_resumed_with_other_threads_and_ends_with_the_same_weights(
    rt1_directory, tiny_overrides, tmp_path
):
    short = [*tiny_overrides, *SHORT, f"data={rt1_directory}"]

    def trained(place, counts):
        for until, workers in counts:
            run = build(compose_config([*short, f"out={tmp_path / place}", f"workers={workers}"]))
            assert isinstance(run.trainer.batches, ReadAhead) == (workers > 0)
            run.trainer.train(until)
        return run.trainer.model.state_dict()

    straight, stopped = trained("a", [(4, 0)]), trained("b", [(2, 2), (4, 3)])
    assert all(torch.equal(value, stopped[name]) for name, value in straight.items())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_ends_the_run_in_one_line(
    rt1_directory, tiny_overrides, tmp_path, capsys, workers
):
    data = copied(rt1_directory, tmp_path / "set")
    words = [*tiny_overrides, *SHORT, f"data={data}", f"out={tmp_path}", f"workers={workers}"]
    assert main([*words, "trainer.total_steps=1"]) == 0
    damage(data)
    capsys.readouterr()
    assert main([*words, "trainer.total_steps=60"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("finetune: ")
    assert "record " in error and "does not match" in error
