"""Past frames as an input: absent by default, masked at the start, the same live as in the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from robotics.data.batches import ModeStream
from robotics.data.cache.latents import LatentCache, load_codec
from robotics.data.images import decode_image
from robotics.data.rlds.reader import EpisodeReader
from robotics.data.windows import WindowDataset
from robotics.imagine import main as imagine
from robotics.model.modes import MODES, robot_schedule
from robotics.model.policy import CheckpointPolicy
from robotics.model.world_model import WorldModel
from robotics.training.build import build, compose_config
from robotics.training.encode import encode
from robotics.training.fit import fit_world

OFFSETS = (4, 2)
WORDS = ("dataset.history=2", "dataset.history_stride=2")
SHARES = {"policy": {"probability": 1, "batch_size": 4}}


@pytest.fixture(scope="module")
def past_windows(rt1_directory):
    past = {"history": 2, "history_stride": 2}
    return WindowDataset(rt1_directory, (32, 48), **past, progress=False, spec="embedded")


def fitted(dataset, *words) -> WorldModel:
    config = OmegaConf.to_container(compose_config([*words, "data=x", "out=x"]), resolve=True)
    torch.manual_seed(0)
    model = fit_world(dataset, config, tuple(config["modes"]))
    model.backbone.eval().requires_grad_(False)
    for parameter in model.backbone.parameters():  # the heads start at zero: nothing would show
        parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def past_world(past_windows, tiny_overrides) -> WorldModel:
    return fitted(past_windows, *tiny_overrides, *WORDS)


def act(world, samples, seed=0):
    generators = [torch.Generator().manual_seed(seed) for _ in samples["instruction"]]
    return world.act(samples, steps=2, generator=generators)


def test_without_history_nothing_of_it_is_there(world, windows, past_windows):
    assert "history/head" not in world.layout and world.robot().history_offsets == ()
    assert not any("history" in name for name, _ in world.backbone.named_parameters())
    with_past = past_windows.batch([0, 20])
    assert "history/head" in with_past
    np.testing.assert_array_equal(act(world, with_past), act(world, windows.batch([0, 20])))


def test_history_has_negative_times_and_is_always_given(past_world, past_windows):
    times = past_world.layout["history/head"].positions()[:, 0].unique().tolist()
    assert times == [-4.0, -2.0] and past_world.robot().history_offsets == OFFSETS
    for mode in MODES.values():
        batch = past_world.encode(past_windows.batch([0, 5]), mode)
        batch.check(past_world.layout)
        assert "history/head" in batch.given


def test_past_frames_are_coded_like_the_current_one_and_masked_at_the_start(
    past_world, past_windows
):
    steps = np.arange(6)  # of the first episode
    batch = past_world.encode(past_windows.batch(steps), MODES["policy"])
    valid = batch.valid["history/head"].reshape(6, 2, -1)
    exists = steps[:, None] >= np.array(OFFSETS)
    assert np.array_equal(valid.all(-1).numpy(), exists)
    assert np.array_equal(valid.any(-1).numpy(), exists)
    coded = batch.latents["history/head"].unflatten(1, (2, -1))
    torch.testing.assert_close(coded[5, 0], batch.latents["image/head"][1], rtol=0, atol=1e-6)
    torch.testing.assert_close(coded[5, 1], batch.latents["image/head"][3], rtol=0, atol=1e-6)


def test_it_acts_on_what_exists_and_on_nothing_else(past_world, past_windows):
    samples = past_windows.batch([0, 5])
    changed = samples | {"history/head": 255 - samples["history/head"]}
    before, after = act(past_world, samples), act(past_world, changed)
    np.testing.assert_array_equal(before[0], after[0])  # all of it masked
    assert np.abs(before[1] - after[1]).max() > 1e-3


def test_windows_without_the_past_it_needs_are_refused(past_world, windows):
    with pytest.raises(ValueError, match="of 2 past frames, got 0.*\\(4, 2\\)"):
        act(past_world, windows.batch([5]))


@pytest.mark.parametrize("offsets", [(5, 2), (2, 4), (4, 0)])
def test_uneven_offsets_are_refused(world, offsets):
    with pytest.raises(ValueError, match="equal steps"):
        replace(world.robot(), history_offsets=offsets).rows()


def observations(episode):
    """As a simulator of the robot would show them."""
    for image, state in zip(episode.cameras["head"], episode.state, strict=True):
        yield {
            "image": decode_image(image),
            "tool_pose": state[:7],
            "gripper_closed": state[7:],
        }


def test_the_policys_past_is_that_of_the_datas_windows(
    past_world, past_windows, rt1_directory, monkeypatch
):
    """Across chunks of 3 and a change of instruction, and nothing of the episode before."""
    seen = []
    generate = past_world.generate

    def spy(samples, mode, **rest):
        seen.append(samples)
        return generate(samples, mode, **rest)

    monkeypatch.setattr(past_world, "generate", spy)
    policy = CheckpointPolicy(past_world, steps=1)
    for number, episode in enumerate(EpisodeReader(rt1_directory)[:2]):
        seen.clear()
        policy.reset(episode.instructions[0][0])
        looked = []
        for step, observation in enumerate(observations(episode)):
            if step and episode.instructions[step] != episode.instructions[step - 1]:
                policy.instruct(episode.instructions[step][0])
            assert policy.needs_observation
            before = len(seen)
            policy.act(observation)
            if len(seen) > before:
                looked.append(past_windows.episodes[number].start + step)
        expected = past_windows.batch(looked)
        assert 3 <= len(looked) == len(policy.latencies) < len(episode)
        policy.latencies.clear()
        for name in ("image/head", "state", "history/head", "history_valid"):
            got = np.concatenate([samples[name] for samples in seen])
            np.testing.assert_array_equal(got, expected[name], err_msg=name)
        assert not expected["history_valid"].all() and expected["history_valid"].any()


def test_a_policy_with_history_asks_for_every_frame(past_world):
    policy = CheckpointPolicy(past_world, steps=1)
    policy.reset("open top drawer")
    with pytest.raises(ValueError, match="looks back"):
        policy.act(None)


def test_cached_latents_are_those_of_the_pixels(
    past_windows, rt1_directory, tiny_overrides, tmp_path
):
    words = [*tiny_overrides, f"data={rt1_directory}"]
    encode(compose_config([*words, "device=cpu"]), tmp_path, dtype="float32", progress=False)
    codec = load_codec(tmp_path, "head")
    world = fitted(past_windows, *tiny_overrides, *WORDS, f"latents={tmp_path}")
    cache = LatentCache(tmp_path, past_windows, {"head": codec.base}, control_hz=3.0)
    streams = [
        ModeStream(past_windows, world, robot_schedule(SHARES, seed=1), latents=source)
        for source in (None, cache)
    ]
    for _ in range(4):
        pixels, cached = (next(stream) for stream in streams)
        assert torch.equal(pixels.latents["history/head"], cached.latents["history/head"])
        assert torch.equal(pixels.valid["history/head"], cached.valid["history/head"])


def test_a_run_with_history_trains_acts_and_imagines(rt1_directory, tiny_overrides, tmp_path):
    words = [
        *tiny_overrides,
        *WORDS,
        "modes=policy_only",
        "modes.policy.batch_size=4",
        'dataset.train_split="train[:4]"',
        'dataset.validation_split="train[4:]"',
        "trainer.total_steps=2",
        "trainer.validation_batches=1",
        f"data={rt1_directory}",
    ]
    run = build(compose_config([*words, f"out={tmp_path / 'run'}"]))
    assert run.trainer.train() == "finished"
    saved = tmp_path / "run" / "checkpoint"
    assert WorldModel.load(saved).robot().history_offsets == OFFSETS
    where = ["--checkpoint", str(saved), "--data", str(rt1_directory)]
    assert imagine([*where, "--out", str(tmp_path / "seen"), "--windows", "4", "--steps", "1"]) == 0
    plain = [word for word in words if "history" not in word]
    other = compose_config([*plain, f"init={saved}", f"out={tmp_path / 'other'}"])
    # Its tokens have nowhere to go in a model without history: dropped, and reported.
    assert build(other).model.robot().history_offsets == ()
    assert "history" in (tmp_path / "other" / "init.txt").read_text()
