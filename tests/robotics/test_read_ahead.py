"""Windows read ahead by threads: the same batches, however they are stored and drawn."""

from __future__ import annotations

import json

import pytest
import torch

from robotics.data.augment import Augment
from robotics.data.batches import ModeStream
from robotics.data.mixture import DatasetMixture
from robotics.data.windows import WindowDataset
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


def same(one, other):
    return (
        one.given == other.given
        and one.latents.keys() == other.latents.keys()
        and all(torch.equal(one.latents[name], other.latents[name]) for name in one.latents)
    )


@pytest.fixture(scope="module", params=["decoded", "kept", "small cache", "mixture"])
def data(request, rt1_directory):
    def opened(**options):
        return WindowDataset(rt1_directory, (32, 48), progress=False, **options)

    if request.param == "decoded":
        return opened()
    if request.param == "mixture":
        parts = {"a": opened(decoded=False), "b": opened(split="train[:3]")}
        return DatasetMixture(parts, {"a": 2.0, "b": 1.0})
    # 4,608 bytes a frame of 65: all of them, and a few that are always pushed out.
    return opened(decoded=False, frame_cache_mb=1.0 if request.param == "kept" else 0.05)


@pytest.mark.parametrize("group", [None, 2])
def test_batches_are_bit_for_bit_those_of_one_reader_after_resuming_too(world, data, group):
    def stream():
        augment = Augment(0.8, 0.2, 0.2, 0.2, 5.0, seed=1)
        schedule = robot_schedule(SHARES, seed=1)
        return ModeStream(data, world, schedule, seed=1, accumulate=2, augment=augment, group=group)

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
