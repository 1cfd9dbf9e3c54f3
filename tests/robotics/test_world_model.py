"""Encoding, the verbs, and what loading refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robotics.embodiment.tables import load_robot
from robotics.imagination.scores import action_scores, video_scores
from robotics.model.modes import MODES, rows_of
from robotics.model.world_model import WorldModel
from selfflow_wm.checkpoints import SCHEMA, SHIPPED, find_checkpoint, read_config
from selfflow_wm.intervals import Bootstrap
from selfflow_wm.training.checkpoint import load_tensors, save_tensors


def generators(count, seed=0):
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


@pytest.mark.parametrize("name", MODES)
def test_batches_hold_the_modalities_of_their_mode(world, windows, name):
    mode = MODES[name]
    batch = world.encode(windows.batch([0, 5, 20]), mode)
    batch.check(world.layout)
    here = world.layout.names
    assert set(batch.latents) == set(rows_of(mode.present, here))
    assert batch.given == set(rows_of(mode.given, here))
    assert list(batch.latents) == list(world.layout.present(batch.latents))
    assert here == ("image/head", "state", "video/head", "action")  # others are options


def test_the_samples_values_survive_encoding(world, windows):
    samples = windows.batch(np.arange(12))
    batch = world.encode(samples, MODES["joint"])
    normalizers = world.robot().normalizers
    action = normalizers["action"].denormalise(batch.latents["action"].numpy())
    np.testing.assert_allclose(action, samples["action"], atol=1e-5)
    state = normalizers["state"].denormalise(batch.latents["state"][:, 0].numpy())
    np.testing.assert_allclose(state, samples["state"], atol=1e-5)
    assert np.array_equal(batch.valid["action"].numpy(), samples["action_valid"])
    per_frame = batch.valid["video/head"].reshape(12, 2, -1)
    assert np.array_equal(per_frame.all(-1).numpy(), samples["video_valid"])
    assert np.array_equal(per_frame.any(-1).numpy(), samples["video_valid"])
    assert not samples["video_valid"].all() and samples["video_valid"].any()


def test_verbs_return_physical_units(world, windows):
    samples = windows.batch([0, 1])
    assert world.act(samples, steps=2, generator=generators(2)).shape == (2, 6, 8)
    video = world.imagine(samples, steps=2, generator=generators(2))["head"]
    assert video.shape == samples["video/head"].shape and video.dtype == np.uint8
    assert world.inverse(samples, steps=2, generator=generators(2)).shape == (2, 6, 8)
    both = world.generate(samples, "joint", steps=1, generator=generators(2))
    assert set(both) == {"action", "video/head"}


def test_a_policy_with_keyposes_tells_where_it_is_going(keypose_world, windows):
    world = keypose_world
    samples = windows.batch([0, 5, 20])
    batch = world.encode(samples, MODES["policy"])
    batch.check(world.layout)
    assert batch.generated == ("keypose", "action")
    encoded = world.robot().normalizers["state"].denormalise(batch.latents["keypose"][:, 0].numpy())
    np.testing.assert_allclose(encoded, samples["keypose"], atol=1e-5)
    drawn = world.generate(samples, "policy", steps=2, generator=generators(3))
    assert drawn["keypose"].shape == (3, 8) and drawn["action"].shape == (3, 6, 8)
    assert "keypose" not in world.encode(samples, MODES["forward"]).latents
    shown = world.act(samples, steps=2, generator=generators(3))
    np.testing.assert_array_equal(shown, drawn["action"])


def test_one_generator_a_sample_makes_batching_invisible(world, windows):
    together = world.act(windows.batch([0, 3]), steps=2, generator=generators(2))
    alone = world.act(windows.batch([3]), steps=2, generator=generators(1, seed=1))
    # captions of one length each: attention then differs in nothing but the rounding
    np.testing.assert_allclose(together[1], alone[0], atol=1e-4)
    other = world.act(windows.batch([3]), steps=2, generator=generators(1, seed=2))
    assert np.abs(other - alone).max() > 1e-3


def test_given_frames_and_actions_matter(world, windows):
    samples = windows.batch([0])
    base = world.imagine(samples, steps=2, generator=generators(1))["head"]
    samples["action"] = samples["action"] + 1.0
    other = world.imagine(samples, steps=2, generator=generators(1))["head"]
    assert not np.array_equal(base, other)


def test_a_mode_that_was_not_trained_refuses(world, windows):
    world.robots = {"embedded": replace(world.robot(), modes=("policy",))}
    with pytest.raises(ValueError, match="trained in"):
        world.imagine(windows.batch([0]))


def test_frames_and_actions_share_the_clock(world):
    time = {name: world.layout[name].positions()[:, 0].tolist() for name in world.layout.names}
    assert time["action"] == [0, 1, 2, 3, 4, 5]
    assert sorted(set(time["video/head"])) == [3, 6] and set(time["image/head"]) == {0}
    with pytest.raises(ValueError, match="equally spaced"):
        replace(world.robot(), video_offsets=(3,)).rows()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_saving_and_loading_keeps_what_it_does(world, windows, tmp_path, dtype):
    samples = windows.batch([0, 4])
    before = world.act(samples, steps=2, generator=generators(2))
    world.config = {"seed": 5}
    world.save(tmp_path / "saved", dtype=dtype)
    loaded = WorldModel.load(tmp_path / "saved", embodiment="embedded")
    after = loaded.act(samples, steps=2, generator=generators(2))
    if dtype == torch.float32:
        np.testing.assert_array_equal(after, before)
    else:
        np.testing.assert_allclose(after, before, atol=0.05)
    assert loaded.layout == world.layout and loaded.config == {"seed": 5}
    assert loaded.robot().normalizers == world.robot().normalizers
    assert loaded.robot().robot == world.robot().robot
    assert not any(p.requires_grad for p in loaded.backbone.parameters())


def edit_config(path, change):
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))


def edit_weights(path, change):
    tensors = load_tensors(path / "model.safetensors")
    change(tensors)
    save_tensors(path / "model.safetensors", tensors)


def edit_robot(path, change):
    edit_config(path, lambda config: change(config["robot"]["robots"]["embedded"]))


def edit_old_statistics(path, change):
    """Of schema 1, whose statistics are a file of their own."""
    values = json.loads((path / "statistics.json").read_text())
    change(values)
    (path / "statistics.json").write_text(json.dumps(values))


def other_codec(path, file="codec_video_head.safetensors"):
    tensors = load_tensors(path / file)
    name = next(name for name in tensors if name.endswith("mean"))
    tensors[name] = tensors[name] + 1
    save_tensors(path / file, tensors)


DAMAGE = {
    "no such checkpoint": (lambda p: p.rename(p.with_name("moved")), "checkpoint directory"),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "no such file"),
    "no codec arrays": (lambda p: (p / "codec_video_head.safetensors").unlink(), "no such file"),
    "half of the statistics": (
        lambda p: edit_robot(p, lambda r: r["statistics"].pop("state")),
        "expected statistics of state",
    ),
    "empty statistics": (
        lambda p: edit_robot(p, lambda r: r.update(statistics={"action": {}, "state": {}})),
        "expected a normaliser",
    ),
    "statistics of another robot": (
        lambda p: edit_robot(p, lambda r: r["table"].update(embodiment="google_robot")),
        "statistics .* trained with",
    ),
    "statistics of another checkpoint": (
        lambda p: edit_robot(p, lambda r: r["statistics"]["action"]["statistics"]["q99"].reverse()),
        "statistics .* trained with",
    ),
    "statistics of another kind": (
        lambda p: edit_robot(p, lambda r: r["statistics"]["state"].update(kind="minmax")),
        "statistics .* trained with",
    ),
    "other schema": (lambda p: edit_config(p, lambda c: c.update(schema=99)), "schema 3, got 99"),
    "lacking configuration": (lambda p: edit_config(p, lambda c: c.pop("layout")), "layout"),
    "lacking modes": (lambda p: edit_robot(p, lambda r: r.pop("modes")), "modes"),
    "statistics of other vectors": (
        lambda p: edit_robot(p, lambda r: r["table"]["state"].pop("gripper")),
        "expected statistics of 7 values of its state, got 8",
    ),
    "broken table": (
        lambda p: edit_robot(p, lambda r: r["table"].update(rate=0)),
        "rate: expected",
    ),
    "no robot": (lambda p: edit_config(p, lambda c: c.update(robot=None)), "init="),
    "broken json": (lambda p: (p / "config.json").write_text("{"), "not valid JSON"),
    "other codec": (other_codec, "belongs to another checkpoint"),
    "missing weight": (lambda p: edit_weights(p, lambda t: t.pop("head.action.bias")), "Missing"),
    "unknown weight": (
        lambda p: edit_weights(p, lambda t: t.update(extra=torch.zeros(1))),
        r"unknown: \['extra'\]",
    ),
    "other shape": (
        lambda p: edit_weights(p, lambda t: t.update({"head.action.bias": torch.zeros(7)})),
        r"expected \(8,\), got \(7,\)",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_loading_refuses(world, tmp_path, damage):
    path = tmp_path / "saved"
    world.save(path)
    change, message = DAMAGE[damage]
    change(path)
    with pytest.raises(ValueError, match=message):
        WorldModel.load(path)


def test_another_robots_checkpoint_is_refused(world, tmp_path):
    world.save(tmp_path / "saved")
    with pytest.raises(ValueError, match="'google_robot', got one for 'embedded'"):
        WorldModel.load(tmp_path / "saved", embodiment="google_robot")


# ---------------------------------------------------------------- checkpoints of schema 1


@pytest.fixture(params=["self_flow", "simpler_flow_matching"])
def shipped(request, tmp_path):
    """A copy of a checkpoint that comes with the project; they are of schema 1."""
    return Path(shutil.copytree(SHIPPED / request.param, tmp_path / "shipped"))


def test_migration_keeps_the_actions(shipped, tmp_path):
    old = WorldModel.load(shipped)
    generator = np.random.default_rng(0)
    samples = {
        "image/head": generator.integers(0, 256, (2, 96, 128, 3), dtype=np.uint8),
        "state": generator.normal(size=(2, 8)).astype(np.float32),
        "instruction": ["open the drawer", "close it"],
    }
    assert json.loads((shipped / "config.json").read_text())["schema"] == 1
    old.save(tmp_path / "new")
    new = WorldModel.load(tmp_path / "new")
    assert json.loads((tmp_path / "new/config.json").read_text())["schema"] == SCHEMA
    for answer in zip(
        *(w.generate(samples, "joint", steps=2, generator=generators(2)).values()
          for w in (old, new)), strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(*answer)
    assert new.config == old.config and new.modes == old.modes
    before, after = (read_config(path)["robot"] for path in (shipped, tmp_path / "new"))
    assert before.keys() == after.keys() and before["robots"].keys() == after["robots"].keys()
    for name, content in before["robots"].items():
        assert load_robot(content["table"]) == load_robot(after["robots"][name]["table"])
        rest = {"table", "statistics_hash", "modes"}
        assert {k: v for k, v in content.items() if k not in rest} == {
            k: v for k, v in after["robots"][name].items() if k not in rest
        }


def test_a_shipped_checkpoint_goes_by_its_name():
    assert find_checkpoint("self_flow") == SHIPPED / "self_flow"
    assert WorldModel.load("self_flow").robot().robot.embodiment == "embedded"
    with pytest.raises(ValueError, match="self_flow"):
        find_checkpoint("self_flo")


def test_the_oldest_hold_no_hash_of_their_statistics(shipped):
    expected = WorldModel.load(shipped).robot().normalizers
    edit_config(shipped, lambda config: config.pop("statistics_hash"))
    edit_old_statistics(shipped, lambda values: values.pop("embodiment"))
    assert WorldModel.load(shipped).robot().normalizers == expected


OLD_DAMAGE = {
    "no statistics": (lambda p: (p / "statistics.json").unlink(), "no such file"),
    "no codec arrays": (lambda p: (p / "statistics.safetensors").unlink(), "no such file"),
    "other codec": (lambda p: other_codec(p, "statistics.safetensors"), "another checkpoint"),
    "another robot's": (
        lambda p: edit_old_statistics(p, lambda s: s.update(embodiment="spot")),
        "got those of 'spot'",
    ),
    "another checkpoint's": (
        lambda p: edit_old_statistics(p, lambda s: s["action"]["statistics"]["q99"].reverse()),
        "statistics .* trained with",
    ),
    "no layout": (lambda p: edit_config(p, lambda c: c.pop("layout")), "layout"),
}


@pytest.mark.parametrize("damage", OLD_DAMAGE)
def test_loading_an_old_one_refuses(shipped, damage):
    change, message = OLD_DAMAGE[damage]
    change(shipped)
    with pytest.raises(ValueError, match=message):
        WorldModel.load(shipped)


# ---------------------------------------------------------------- scores of imagined windows


def made_up_video():
    generator = np.random.default_rng(0)
    current = generator.integers(0, 255, (6, 32, 32, 3), np.uint8)
    true = np.repeat(current[:, None], 2, 1).copy()
    true[:4, :, :16, :16] = 255 - true[:4, :, :16, :16]  # a patch moves in 4 of 6 windows
    return current, true, np.ones((6, 2), bool), np.arange(6) // 2


def test_a_perfect_prediction_beats_copying_where_things_move():
    current, true, valid, episode = made_up_video()
    still = np.repeat(current[:, None], 2, 1)
    near = (true.astype(int) + np.where(true < 128, 1, -1)).astype(np.uint8)
    scores = video_scores(current, true, valid, {"copy": still, "model": near}, episode)
    assert scores["counts"] == {"windows": 6, "episodes": 3, "moving": 4, "patch": 16}
    # off by one everywhere: PSNR of 255^2 / 1
    for region in ("all", "moving windows", "moving patches"):
        row = scores[region]["PSNR"]
        assert row["model"]["mean"] == pytest.approx(48.13, abs=0.01)
        assert row["model - copy"]["low"] > 0
    assert scores["moving patches"]["PSNR"]["copy"]["mean"] < scores["all"]["PSNR"]["copy"]["mean"]
    assert scores["moving windows"]["SSIM"]["model - copy"]["mean"] > 0


def test_invalid_frames_do_not_count():
    current, true, valid, episode = made_up_video()
    still = np.repeat(current[:, None], 2, 1)
    broken = true.copy()
    broken[:, 1] = 0
    valid[:, 1] = False
    scores = video_scores(current, true, valid, {"copy": still, "model": broken}, episode)
    assert scores["moving patches"]["PSNR"]["model"]["mean"] is None  # no error at all


def test_the_mean_action_has_share_one():
    generator = np.random.default_rng(0)
    true = generator.normal(size=(40, 6, 6))
    guesses = {"mean": np.zeros_like(true), "half": true / 2, "perfect": true}
    rows = action_scores(true, np.ones((40, 6), bool), guesses, np.arange(40) // 4)
    assert rows["mean"]["share"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert rows["half"]["share"]["mean"] == pytest.approx(0.25)
    assert rows["perfect"]["MSE"]["high"] == 0.0


def test_the_interval_covers_the_mean_of_its_episodes():
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(100):
        episodes = generator.normal(size=30)
        values = np.repeat(episodes, 5) + 0.01 * generator.normal(size=150)
        _, resampled = Bootstrap(np.repeat(np.arange(30), 5), 500, seed).ratio(values, np.ones(150))
        low, high = np.quantile(resampled, [0.025, 0.975])
        covered += low < 0 < high
    assert 86 <= covered <= 100  # resampling windows instead of episodes covers about 60
