"""Pretraining on the toy world, which needs no data directory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from toy_runs import ALL_MODES, TOY

from selfflow_wm.data.toy import split_of
from selfflow_wm.pretraining.build import build, compose_config
from selfflow_wm.pretraining.preview import draw_mode
from selfflow_wm.training import checkpoint

SMALL = (*TOY, *ALL_MODES, "trainer.total_steps=8")


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


def test_previews_show_every_mode_and_change_nothing(tmp_path):
    ends = []
    for name, every in (("a", 2), ("b", 0)):
        run = made(tmp_path / name, f"trainer.preview_every={every}", "trainer.total_steps=4")
        run.trainer.train()
        ends.append([p.clone() for p in run.trainer.ema.model.parameters()])
    assert all(torch.equal(x, y) for x, y in zip(*ends, strict=True)), "no training noise is drawn"
    pictures = sorted(path.name for path in (tmp_path / "a/previews").glob("*.png"))
    assert pictures == ["step_00000002.png", "step_00000004.png"]
    assert not (tmp_path / "b/previews").exists()
    sheets = [np.asarray(Image.open(tmp_path / "a/previews" / name)) for name in pictures]
    assert sheets[0].shape == sheets[1].shape
    changed = (sheets[0] != sheets[1]).any(axis=(1, 2))
    assert changed.any() and not changed.all(), "held-out samples stay, generated ones change"


@pytest.mark.parametrize(
    ("mode", "made_of"),
    [
        ("image", {"image": (3, 20, 32, 3)}),
        ("video", {"video": (2, 5, 20, 32, 3)}),
        ("audio", {"audio": (1, 700)}),
        ("video_audio", {"video": (1, 5, 20, 32, 3), "audio": (1, 700)}),
    ],
)
def test_a_preview_shows_media_of_any_size(mode, made_of):
    made_now, samples = {}, []
    for name, shape in made_of.items():
        made_now[name] = (
            np.full(shape, 0.5, np.float32) if name == "audio" else np.full(shape, 7, np.uint8)
        )
    for _ in range(next(iter(made_of.values()))[0]):
        one = {"caption": "a ünicode caption " * 20}
        for name, (_, *shape) in made_of.items():
            # A true clip may be shorter than what the codec makes.
            value = np.full([shape[0] - 1, *shape[1:]], 200, np.uint8)
            one[name] = np.full((2, 300), 2.0, np.float32) if name == "audio" else value
        samples.append(one)
    block = np.asarray(draw_mode(mode, samples, made_now))
    pictures = "video" if "video" in made_of else "image" if "image" in made_of else None
    if pictures:
        assert (block == 7).all(-1).any() and (block == 200).all(-1).any()
    else:
        assert (block != 255).any()


def test_the_twin_differs_in_the_objective_alone(tmp_path):
    ours, twin = made(tmp_path / "a"), made(tmp_path / "b", "objective=flow_matching")
    assert (ours.trainer.objective.name, twin.trainer.objective.name) == (
        "SelfFlow",
        "FlowMatching",
    )
    for a, b in zip(ours.model.model.parameters(), twin.model.model.parameters(), strict=True):
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
        made(tmp_path, "toy.world.frames=6", "codec.video.frames=5")


@pytest.mark.parametrize("kind", ["image", "video", "audio"])
def test_one_word_trains_a_modality_alone(tmp_path, kind):
    others = [k for k in ("image", "video", "audio", "video_audio") if k != kind]
    words = [w for w in SMALL if not any(f".{k}." in w for k in others)]
    trainer = build(compose_config([*words, f"only={kind}", f"out={tmp_path}"])).trainer
    assert set(trainer.batches.sources) == {kind}
    assert trainer.model.layout.names == (kind,)
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.train(until=2)
    after = list(trainer.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
