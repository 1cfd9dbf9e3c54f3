"""Weights of one backbone in another: the shared function stays, the rest is accounted for."""

from __future__ import annotations

import pytest
import torch

from selfflow_wm.flow.noising import NoiseLevels
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model import Backbone
from selfflow_wm.training.transfer import OUTCOMES, differing_shape, part_of, transfer

MODEL = dict(width=24, heads=2, double=1, single=2)
IMAGE, AUDIO = Modality("image", (1, 2, 3), 5), Modality("audio", (4, 1, 1), 6)
ACTION = Modality("action", (3, 1, 1), 7)
MEDIA = Layout((IMAGE, AUDIO), text_length=8)
ROBOT = Layout((IMAGE, ACTION), text_length=8)


def network(layout, **extra):
    """One whose weights are all alive."""
    torch.manual_seed(1)
    made = Backbone(layout, **(MODEL | extra))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def velocity(model, layout):
    batch = layout.fake_batch(2, ["image"], torch.Generator().manual_seed(0))
    levels = NoiseLevels.uniform(torch.tensor([0.3, 0.8]), layout.num_tokens(["image"]))
    return model(batch.latents, levels, batch.text_ids, batch.text_mask).velocity["image"]


@pytest.mark.parametrize(
    "extra", [{}, {"stem": True}, {"skip": True}, {"vector_in": ["image", "action", "text"]}]
)
def test_what_was_known_is_computed_as_before(extra):
    source, target = network(MEDIA), Backbone(ROBOT, **MODEL, **extra)
    done = transfer(target, source.state_dict(), MEDIA, ["image"])
    assert torch.allclose(velocity(target, ROBOT), velocity(source, MEDIA), atol=1e-6)
    assert done.parts["audio"]["dropped"][0] == 5 and done.parts["audio"]["loaded"] == [0, 0]
    assert done.parts["action"]["added"][0] >= 5 and done.parts["action"]["loaded"] == [0, 0]
    assert done.parts["blocks"]["added"] == done.parts["blocks"]["dropped"] == [0, 0]


def test_every_tensor_is_counted_once():
    source, target = network(MEDIA, skip=True), Backbone(ROBOT, **MODEL, stem=True)
    done = transfer(target, source.state_dict(), MEDIA, ["image"])
    tensors, parameters = zip(*(done.total(fate) for fate in OUTCOMES), strict=True)
    ours, theirs = target.state_dict(), source.state_dict()
    assert tensors[0] + tensors[1] + tensors[2] == len(ours)
    assert parameters[0] + parameters[1] + parameters[2] == sum(v.numel() for v in ours.values())
    assert tensors[0] + tensors[1] + tensors[3] == len(theirs)


def test_the_same_network_is_loaded_whole():
    source, target = network(MEDIA), Backbone(MEDIA, **MODEL)
    done = transfer(target, source.state_dict(), MEDIA, MEDIA.names)
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])
    assert done.total("loaded")[0] == len(source.state_dict())
    assert not any(done.total(fate)[0] for fate in OUTCOMES[1:])


def test_a_modality_of_other_values_is_replaced():
    source, target = network(MEDIA), Backbone(ROBOT, **MODEL)
    before = target.embed["image"].project.weight.clone()
    done = transfer(target, source.state_dict(), MEDIA, [])
    assert torch.equal(target.embed["image"].project.weight, before)
    assert done.parts["image"]["dropped"] == done.parts["image"]["added"] != [0, 0]


def test_places_that_both_grids_have_keep_their_vector():
    larger = Layout((Modality("image", (1, 3, 4), 5), ACTION), text_length=12)
    source, target = network(MEDIA), Backbone(larger, **MODEL)
    done = transfer(target, source.state_dict(), MEDIA, ["image"])
    old = source.embed["image"].position.unflatten(0, (2, 3))
    new = target.embed["image"].position.unflatten(0, (3, 4))
    assert torch.equal(new[:2, :3], old)
    # What was learned of a place is kept at the edge: the change from the fixed sinusoids.
    fresh = Backbone(larger, **MODEL).embed["image"].position.unflatten(0, (3, 4))
    offset = new - fresh  # differs from a fresh table by a constant and what was learned
    assert torch.allclose(offset[2, 3], offset[1, 2], atol=1e-5)
    assert torch.equal(target.text.position[:8], source.text.position)
    assert done.parts["image"]["resized"][0] == done.parts["text"]["resized"][0] == 1

    smaller = Backbone(Layout((Modality("image", (1, 1, 2), 5),), text_length=4), **MODEL)
    transfer(smaller, source.state_dict(), MEDIA, ["image"])
    assert torch.equal(smaller.embed["image"].position.unflatten(0, (1, 2)), old[:1, :2])
    assert torch.equal(smaller.text.position, source.text.position[:4])


def test_other_shapes_are_named():
    assert differing_shape(MODEL, MODEL | {"mlp_ratio": 4.0, "skip": True}) == []
    assert differing_shape(MODEL, MODEL | {"width": 48, "single": 3}) == ["width", "single"]
    weights = network(MEDIA).state_dict()
    with pytest.raises(ValueError, match="another network"):
        transfer(Backbone(ROBOT, **MODEL | {"width": 48}), weights, MEDIA, ["image"])
    del weights["level.linear1.weight"]
    with pytest.raises(ValueError, match=r"level\.linear1\.weight"):
        transfer(Backbone(ROBOT, **MODEL), weights, MEDIA, ["image"])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("double_blocks.0.x", ("blocks", None)),
        ("embed.image.project.weight", ("image", "image")),
        ("gate.video.bias", ("video", "video")),
        ("vector_in.proprio.linear1.weight", ("vector_in.proprio", "proprio")),
        ("vector_in.text.linear1.weight", ("vector_in.text", None)),
        ("modulation.main.x", ("modulation", None)),
    ],
)
def test_parts_are_told_from_names(name, part):
    assert part_of(name) == part
