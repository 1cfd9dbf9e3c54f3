"""Checkpoints of bare models: round trip and strict loading."""

import json

import pytest
import torch

from selfflow_wm.checkpoints import find_checkpoint, fingerprint
from selfflow_wm.codec import PatchPCA
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model import Backbone, SiT
from selfflow_wm.training.checkpoint import load_tensors, save_tensors
from selfflow_wm.training.model_files import SavedModel, codec_hash, load_model, save_model

IMAGE = Modality("image", (1, 2, 2), 6)
SIT = {"width": 24, "depth": 2, "heads": 2, "mlp_ratio": 2.0}
BACKBONE = {"width": 24, "heads": 2, "double": 1, "single": 1}


def network(kind):
    torch.manual_seed(0)
    if kind == "sit":
        return SavedModel(SiT(Layout((IMAGE,), text_length=1, vocabulary=11), **SIT), SIT)
    return SavedModel(Backbone(Layout((IMAGE,), text_length=8), **BACKBONE), BACKBONE)


def codec():
    pixels = torch.randint(0, 256, (20, 8, 8, 3), generator=torch.Generator().manual_seed(0))
    return PatchPCA((8, 8), patch=4, channels=6).fit(pixels.to(torch.uint8))


@pytest.mark.parametrize("kind", ["sit", "backbone"])
def test_round_trip(tmp_path, kind):
    saved = network(kind)
    saved.codec, saved.training = codec(), {"steps": 3}
    save_model(tmp_path / "model", saved)
    again = load_model(tmp_path / "model")
    assert type(again.model) is type(saved.model) and again.kind == kind
    assert again.model.layout == saved.model.layout and again.training == {"steps": 3}
    assert again.arguments == saved.arguments and again.codec.hash() == saved.codec.hash()
    for name, value in saved.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    save_model(tmp_path / "half", saved, torch.float16)
    small = load_model(tmp_path / "half").model.state_dict()
    assert all(value.dtype == torch.float32 for value in small.values())


def edit(path, **changes):
    config = json.loads((path / "config.json").read_text()) | changes
    config = {key: value for key, value in config.items() if value != "delete"}
    (path / "config.json").write_text(json.dumps(config))


def other_hash(path):
    codecs = json.loads((path / "config.json").read_text())["codecs"]
    return {name: row | {"hash": "0" * 64} for name, row in codecs.items()}


def drop_a_tensor(path):
    tensors = load_tensors(path / "model.safetensors")
    del tensors["pos_embed"]
    save_tensors(path / "model.safetensors", tensors)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda path: edit(path, schema=99), "schema 3, got 99"),
        (lambda path: edit(path, kind="delete"), "kind"),
        (lambda path: edit(path, kind="unet"), "kind among"),
        (lambda path: edit(path, training="delete"), "training"),
        (lambda path: edit(path, colour="red"), "colour"),
        (lambda path: edit(path, arguments=SIT | {"colour": "red"}), "colour"),
        (lambda path: edit(path, arguments=SIT | {"depth": 3}), r"Missing: .*blocks\.2"),
        (lambda path: edit(path, codecs=other_hash(path)), "codec 000000000000"),
        (drop_a_tensor, "pos_embed"),
        (lambda path: (path / "codec_image.safetensors").unlink(), "no such file"),
        (lambda path: (path / "model.safetensors").write_bytes(b"x"), "not a readable"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, damage, match):
    saved = network("sit")
    saved.codec = codec()
    save_model(tmp_path / "model", saved)
    damage(tmp_path / "model")
    with pytest.raises(ValueError, match=match):
        load_model(tmp_path / "model")


def to_schema_1(path, several):
    """What save_model wrote before."""
    config = json.loads((path / "config.json").read_text())
    codecs = config.pop("codecs")
    del config["robot"]
    if several:
        config |= {"codec": None, "codec_hash": None, "codecs": codecs}
    else:
        config |= {"codec": codecs["image"]["config"], "codec_hash": codecs["image"]["hash"]}
        (path / "codec_image.safetensors").rename(path / "codec.safetensors")
    (path / "config.json").write_text(json.dumps(config | {"schema": 1}))


@pytest.mark.parametrize("several", [False, True])
def test_schema_1_is_read(tmp_path, several):
    saved = network("backbone")
    saved.codecs = {"image": codec()}
    save_model(tmp_path, saved)
    expected, mark = load_model(tmp_path), fingerprint(tmp_path)
    to_schema_1(tmp_path, several)
    found = load_model(tmp_path)
    assert found.codec.hash() == found.codecs["image"].hash() == saved.codecs["image"].hash()
    assert codec_hash(tmp_path, "image") == saved.codecs["image"].hash()
    assert codec_hash(tmp_path, "video") is None
    assert found.arguments == expected.arguments and fingerprint(tmp_path) != mark
    for name, value in expected.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)


def test_what_is_meant_by_a_name(tmp_path):
    run = tmp_path / "run"
    save_model(run / "checkpoint", network("backbone"))
    assert find_checkpoint(run) == find_checkpoint(run / "checkpoint") == run / "checkpoint"
    for wrong in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="expected a checkpoint directory"):
            find_checkpoint(wrong)
