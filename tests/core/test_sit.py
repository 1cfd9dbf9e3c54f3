"""SiT: levels against tokens, features, labels, padding, objectives, compilation."""

import pytest
import torch

from selfflow_wm.flow.noising import NoiseLevels, dual_timesteps
from selfflow_wm.flow.sampler import sample
from selfflow_wm.flow.time_laws import UniformTime
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model.sit import SIZES, SiT, imagenet_layout
from selfflow_wm.objective import FlowMatching, SelfFlow

LAYOUT = Layout((Modality("image", (1, 2, 3), 5, mask_ratio=0.4),), text_length=1, vocabulary=11)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sit(**kwargs):
    torch.manual_seed(0)
    model = SiT(LAYOUT, **({"width": 24, "depth": 3, "heads": 2} | kwargs))
    with torch.no_grad():  # away from the zero initialisation, or nothing would be tested
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded(1)) * 0.1)
    return model.eval()


def inputs(batch_size=3):
    batch = LAYOUT.fake_batch(batch_size, generator=seeded())
    t, s = torch.rand(2, batch_size, generator=seeded())
    return batch, dual_timesteps(LAYOUT, batch.latents, (), t, s, generator=seeded(2))


def call(model, batch, levels, **kwargs):
    return model(batch.latents, levels, batch.text_ids, batch.text_mask, **kwargs)


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_the_extra_large_model_has_the_papers_size():
    with torch.device("meta"):
        model = SiT(imagenet_layout(), **SIZES["XL"])
    assert model.num_parameters() == pytest.approx(675e6, rel=2e-3)
    assert model.depth == 28 and model.width == 1152
    assert imagenet_layout().null_id == 1000


def test_velocity_starts_at_zero_and_learns_from_there():
    model = SiT(LAYOUT, width=24, depth=2, heads=2)
    velocity = call(model, *inputs()).velocity["image"]
    assert (velocity == 0).all()
    (velocity - 1).square().mean().backward()
    assert model.final_layer.linear.weight.grad.abs().sum() > 0


def test_levels_equal_per_token_timesteps():
    model = sit()
    batch, levels = inputs()
    assert (levels.index == 1).any() and (levels.index == 0).any()
    each = torch.arange(6).expand(3, 6)
    expected = call(model, batch, NoiseLevels(levels.per_token(), each)).velocity["image"]
    close(call(model, batch, levels).velocity["image"], expected)
    flipped = NoiseLevels(levels.levels.flip(1), levels.index)
    assert (call(model, batch, flipped).velocity["image"] - expected).abs().max() > 1e-4


def test_a_uniform_call_is_one_level():
    model = sit()
    batch, _ = inputs()
    t = torch.rand(3, generator=seeded())
    one = NoiseLevels.uniform(t, 6)
    many = NoiseLevels(t[:, None].expand(3, 3), torch.randint(0, 3, (3, 6), generator=seeded()))
    close(call(model, batch, one).velocity["image"], call(model, batch, many).velocity["image"])


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_stopping_at_the_feature_layer_gives_the_same_features(layer):
    model = sit()
    full = call(model, *inputs(), feature_layer=layer)
    stopped = call(model, *inputs(), feature_layer=layer, stop_at_feature=True)
    assert stopped.velocity is None and full.features.shape == (3, 6, 24)
    assert torch.equal(full.features, stopped.features)
    close(full.velocity["image"], call(model, *inputs()).velocity["image"])


def test_the_label_and_its_absence_matter():
    model = sit()
    batch, levels = inputs()
    outputs = []
    for label in (0, 3, LAYOUT.null_id):
        batch.text_ids.fill_(label)
        outputs.append(call(model, batch, levels).velocity["image"])
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4
    assert (outputs[0] - outputs[2]).abs().max() > 1e-4


def test_padding_changes_nothing_for_the_others():
    model = sit()
    batch, levels = inputs()
    batch.valid["image"][:, 4:] = False
    before = call(model, batch, levels, valid=batch.valid).velocity["image"]
    batch.latents["image"][:, 4:] = 100.0
    after = call(model, batch, levels, valid=batch.valid).velocity["image"]
    close(before[:, :4], after[:, :4])


def test_positions_tell_rows_from_columns():
    table = sit().pos_embed[0].unflatten(0, (2, 3))
    column, row = table.chunk(2, dim=-1)
    assert torch.equal(column[0], column[1]) and torch.equal(row[:, 0], row[:, 2])
    assert not torch.equal(column[:, 0], column[:, 1]) and not torch.equal(row[0], row[1])


def test_objectives_and_the_sampler_take_it_as_it_is():
    model, batch = sit(), inputs()[0]
    vanilla = FlowMatching(UniformTime()).loss(model, None, batch, seeded())
    objective = SelfFlow(UniformTime(), width=24, student_layer=1, teacher_layer=2)
    ours = objective.loss(model, model, batch, seeded())
    assert vanilla.total.isfinite() and -1 <= ours.terms["rep"] <= 1
    ours.total.backward()
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    out = sample(
        model, LAYOUT, {}, ("image",), batch.text_ids, batch.text_mask, steps=2, generator=seeded()
    )
    assert out["image"].shape == (3, 6, 5)


def test_a_dropped_label_is_the_null_id_and_not_the_null_byte():
    seen = []

    class Spy(SiT):
        def forward(self, noisy, levels, text_ids, text_mask, **kwargs):
            seen.append(text_ids)
            return super().forward(noisy, levels, text_ids, text_mask, **kwargs)

    objective = FlowMatching(UniformTime(), caption_dropout=1.0)
    objective.loss(Spy(LAYOUT, width=24, depth=1, heads=2), None, inputs()[0], seeded())
    assert (seen[0] == 10).all()


def test_one_graph_without_breaks():
    model = sit()
    batch, levels = inputs()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for kwargs in ({}, {"feature_layer": 2, "stop_at_feature": True}, {"valid": batch.valid}):
        expected, got = (
            call(model, batch, levels, **kwargs),
            call(compiled, batch, levels, **kwargs),
        )
        for a, b in ((expected.velocity, got.velocity), (expected.features, got.features)):
            assert (a is None) == (b is None)
            if a is not None:
                close(*(x["image"] if isinstance(x, dict) else x for x in (a, b)))


@pytest.mark.parametrize(
    ("layout", "match"),
    [
        (Layout((Modality("image", (1, 2, 2), 4),), text_length=8), "class label"),
        (Layout((Modality("video", (2, 2, 2), 4),), text_length=1), "one modality"),
        (Layout((Modality("a", (1, 1, 1), 4), Modality("b", (1, 1, 1), 4)), text_length=1), "one"),
    ],
)
def test_layouts_it_cannot_serve_are_refused(layout, match):
    with pytest.raises(ValueError, match=match):
        SiT(layout, width=8, depth=1, heads=2)


def test_bad_calls_are_refused():
    model, (batch, levels) = sit(), inputs()
    with pytest.raises(ValueError, match="divisible"):
        SiT(LAYOUT, width=24, depth=1, heads=5)
    with pytest.raises(ValueError, match=r"feature_layer.*1\.\.3"):
        call(model, batch, levels, feature_layer=4)
    with pytest.raises(ValueError, match="feature_layer"):
        call(model, batch, levels, stop_at_feature=True)
    with pytest.raises(ValueError, match="alone"):
        call(model, batch, levels, outputs=("action",))
    with pytest.raises(ValueError, match="class label"):
        model(batch.latents, levels, batch.text_ids.expand(3, 2), batch.text_mask)
    batch.latents["image"] = batch.latents["image"][:, 1:]
    with pytest.raises(ValueError, match="noisy tokens"):
        call(model, batch, levels)


def test_separated_levels_do_not_see_each_other():
    model = sit()
    batch = LAYOUT.fake_batch(2, generator=seeded())
    index = (torch.arange(LAYOUT.num_tokens()) % 2).expand(2, -1)
    levels = NoiseLevels(torch.rand(2, 2, generator=seeded()), index, separated=True)
    before = call(model, batch, levels).velocity["image"]
    batch.latents["image"][:, 1] += 1.0  # a token of the second level
    change = (call(model, batch, levels).velocity["image"] - before).abs().amax((0, 2))
    assert (change[0::2] == 0).all()
    assert (change[1::2] > 1e-6).all()
