"""Attention goes without a mask where nothing is closed to it, and with small ones elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_networks import LAYOUT, backbone, seeded

from selfflow_wm.flow.sampler import sample
from selfflow_wm.flow.time_laws import UniformTime
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model import Backbone, SiT, attention
from selfflow_wm.objective import DiffusionForcing, DualTimestep, FlowMatching, SelfFlow

MODALITIES = (Modality("image", (1, 2, 2), 4), Modality("video", (2, 1, 2), 4))
LABELS = Layout(MODALITIES, text_length=1, vocabulary=11)
IMAGES = Layout(MODALITIES[:1], text_length=1, vocabulary=11)


@pytest.fixture
def masks(monkeypatch):
    """Every mask that attention is given from here on."""
    seen = []
    plain = attention.F.scaled_dot_product_attention

    def recorded(q, k, v, attn_mask=None, **options):
        seen.append(attn_mask)
        return plain(q, k, v, attn_mask=attn_mask, **options)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", recorded)
    return seen


def networks(layout):
    if layout is IMAGES:
        return [SiT(layout, width=24, depth=3, heads=2) for _ in range(2)]
    return [Backbone(layout, width=24, heads=2, double=1, single=2) for _ in range(2)]


def unpadded(layout, names=None, **options):
    return replace(layout.fake_batch(3, names, seeded(), **options), valid={})


@pytest.mark.parametrize("arm", [FlowMatching, DualTimestep, DiffusionForcing, SelfFlow])
@pytest.mark.parametrize(
    ("layout", "names", "given"),
    [
        (IMAGES, ("image",), ()),
        (LABELS, ("image",), ()),
        (LABELS, ("image", "video"), ()),
        (LABELS, ("image", "video"), ("image",)),
    ],
)
def test_plain_modes_have_no_mask_in_training_or_sampling(masks, layout, names, given, arm):
    student, teacher = networks(layout)
    objective = arm(UniformTime(), **({"width": 24} if arm is SelfFlow else {}))
    batch = unpadded(layout, names, given=given)
    objective.loss(student, teacher, batch, seeded()).total.backward()
    trained = len(masks)
    sample(
        student, layout, {name: batch.latents[name] for name in given}, batch.generated,
        batch.text_ids, batch.text_mask, steps=2, guidance=2.0, generator=seeded(),
    )  # fmt: skip
    assert 0 < trained < len(masks)
    assert all(mask is None for mask in masks)


def test_captions_without_padding_need_no_mask(masks):
    batch = unpadded(LAYOUT)
    batch.text_ids = torch.randint(0, 256, (3, 6), generator=seeded())
    batch.text_mask = None
    objective = FlowMatching(UniformTime(), caption_dropout=0.0)
    objective.loss(backbone(vector_in=("text",)), None, batch, seeded()).total.backward()
    assert masks and all(mask is None for mask in masks)


def test_a_dropped_caption_needs_one_again(masks):
    batch = unpadded(LAYOUT)
    batch.text_mask = None
    objective = FlowMatching(UniformTime(), caption_dropout=1.0)
    objective.loss(backbone(), None, batch, seeded()).total.backward()
    length = batch.text_ids.shape[1]
    assert all(mask[..., :length].sum() == len(mask) for mask in masks)
    # Guidance, too: the captions as they are, then null captions.
    masks.clear()
    call = (LAYOUT, {}, ("image",), batch.text_ids)
    sample(backbone(), *call, None, steps=1, guidance=2.0, generator=seeded())
    assert [mask[:, 0, 0, :length].sum(1).tolist() for mask in masks[:1]] == [
        [length] * 3 + [1] * 3
    ]


def test_padding_is_closed_to_all_queries_alike(masks):
    batch = LAYOUT.fake_batch(3, generator=seeded())
    FlowMatching(UniformTime()).loss(backbone(), None, batch, seeded())
    tokens = batch.text_ids.shape[1] + LAYOUT.num_tokens()
    assert [tuple(mask.shape) for mask in masks] == [(3, 1, 1, tokens)] * 3


def test_groups_alone_need_a_mask_for_every_query(masks):
    batch = LAYOUT.fake_batch(3, generator=seeded())
    objective = SelfFlow(UniformTime(), width=24, separated=True)
    objective.loss(backbone(), backbone(), batch, seeded())
    shapes = [tuple(mask.shape[2:]) for mask in masks]
    tokens = batch.text_ids.shape[1] + LAYOUT.num_tokens()
    teacher, student = shapes[:-3], shapes[-3:]  # the teacher first, and it is not restricted
    assert teacher and set(teacher) == {(1, tokens)}
    assert {columns for _, columns in student} == {tokens} and min(rows for rows, _ in student) > 1


@pytest.mark.parametrize("layout", [IMAGES, LABELS])
def test_without_a_mask_numbers_are_those_of_a_mask_that_closes_nothing(masks, layout):
    network, _ = networks(layout)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded(1)))
    objective = FlowMatching(UniformTime())
    gradients, losses = [], []
    for batch in (unpadded(layout), layout.fake_batch(3, generator=seeded())):
        network.zero_grad()
        loss = objective.loss(network, None, batch, seeded()).total
        loss.backward()
        losses.append(loss)
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    half = len(masks) // 2
    assert all(mask is None for mask in masks[:half]) and all(mask.all() for mask in masks[half:])
    assert torch.equal(*losses)
    assert all(map(torch.equal, *gradients))


def test_torch_takes_its_flash_kernel_on_a_cpu_whatever_the_mask():
    q = torch.zeros(2, 2, 9, 8)
    for shape in (None, (2, 1, 1, 9), (2, 1, 9, 9)):
        mask = None if shape is None else torch.ones(shape, dtype=torch.bool)
        assert attention.chosen_kernel(q, q, q, mask) == "flash"
