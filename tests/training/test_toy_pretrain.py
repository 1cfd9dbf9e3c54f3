"""Pretraining on the toy world, which needs no data directory."""

from __future__ import annotations

import pytest
import torch

from selfflow_wm.data.toy import split_of
from selfflow_wm.pretraining.build import build, compose_config
from selfflow_wm.training import checkpoint

SMALL = (
    "experiment=toy_multimodal",
    "toy.world.height=32",
    "toy.world.width=32",
    "codecs.image.patch=8",
    "codecs.video.patch=8",
    "toy.world.frames=5",
    "codecs.audio.samples=3200",
    "codecs.video.channels=64",
    "model.width=24",
    "model.heads=2",
    "model.single=2",
    "fit_samples=8",
    *(f"modes.{kind}.batch_size=2" for kind in ("image", "video", "audio", "video_audio")),
    "trainer.total_steps=8",
    "trainer.validation_batches=1",
    "device=cpu",
    "log.wandb=disabled",
)


def made(out, *words):
    return build(compose_config([*SMALL, f"out={out}", *words]))


def test_no_data_directory_is_needed_and_a_cut_run_ends_as_a_straight_one(tmp_path):
    straight, cut = made(tmp_path / "a"), made(tmp_path / "b")
    stream = straight.trainer.batches
    assert set(stream.sources) == {"image", "video", "audio", "video_audio"}
    assert all(split_of(s.rendering(5).seed) == "train" for s in stream.sources.values())
    straight.trainer.train()
    cut.trainer.train(until=4)
    made(tmp_path / "b").trainer.train()
    for name in ("model", "ema", "optimizer"):
        x, y = (
            checkpoint.load_tensors(tmp_path / f"{run}/state/step_00000008/{name}.safetensors")
            for run in "ab"
        )
        assert all(torch.equal(x[k], y[k]) for k in x), name


def test_the_twin_differs_in_the_objective_alone(tmp_path):
    ours, twin = made(tmp_path / "a"), made(tmp_path / "b", "objective=flow_matching")
    assert (ours.trainer.objective.name, twin.trainer.objective.name) == (
        "SelfFlow",
        "FlowMatching",
    )
    for a, b in zip(ours.saved.model.parameters(), twin.saved.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for _ in range(4):
        a, b = next(ours.trainer.batches), next(twin.trainer.batches)
        assert all(torch.equal(a.latents[name], b.latents[name]) for name in a.latents)


def test_data_of_ones_own_replaces_the_toy_world():
    config = compose_config([*SMALL, "data={image: {_target_: mine.Source}}"])
    assert config.data == {"image": {"_target_": "mine.Source"}}
    assert compose_config([*SMALL, "data=/some/where"]).data == "/some/where"


def test_a_wrong_world_is_explained(tmp_path):
    with pytest.raises(ValueError, match="frames = 1 \\+ 4k"):
        made(tmp_path, "toy.world.frames=6", "codecs.video.frames=5")


@pytest.mark.parametrize("kind", ["image", "video", "audio"])
def test_one_word_trains_a_modality_alone(tmp_path, kind):
    others = [k for k in ("image", "video", "audio", "video_audio") if k != kind]
    words = [w for w in SMALL if not any(f"s.{k}." in w for k in others)]
    trainer = build(compose_config([*words, f"only={kind}", f"out={tmp_path}"])).trainer
    assert set(trainer.batches.sources) == {kind}
    assert trainer.model.layout.names == (kind,)
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.train(until=2)
    after = list(trainer.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
