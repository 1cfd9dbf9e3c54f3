"""What holds for every arm, and what tells them apart."""

import copy

import pytest
import torch
from scipy.stats import kstest
from small_networks import LAYOUT, Recorder, backbone, batch, seeded

from selfflow_wm.flow.time_laws import HighNoiseMixture, LogitNormalTime
from selfflow_wm.objective import (
    REPA,
    SRA,
    DiffusionForcing,
    DualTimestep,
    FlowMatching,
    SelfFlow,
)
from selfflow_wm.objective.encoders import RandomProjection
from selfflow_wm.objective.features import layer_number
from selfflow_wm.training.ema import EMA

LAW = HighNoiseMixture(LogitNormalTime(shift=2.95))
NOISE = {"image": 0.2}
GENERATED = slice(4, 11)
PLAIN = {
    "flow_matching": FlowMatching,
    "dual_timestep": DualTimestep,
    "diffusion_forcing": DiffusionForcing,
}
ALIGNED = {
    "self_flow": SelfFlow,
    "self_flow_separated": lambda *a, **k: SelfFlow(*a, separated=True, **k),
    "sra": SRA,
    "repa": lambda *a, **k: REPA(*a, encoder=RandomProjection(7), **k),
}
ARMS = [*PLAIN, *ALIGNED]
TAUGHT = ["self_flow", "self_flow_separated", "sra"]


def arm(name, law=LAW, **options):
    torch.manual_seed(3)
    if name in PLAIN:
        return PLAIN[name](law, NOISE, **options)
    return ALIGNED[name](law, width=24, condition_noise=NOISE, **options)


@pytest.mark.parametrize("name", ARMS)
def test_every_token_keeps_the_marginal(name):
    scene = arm(name).scene(LAYOUT, batch(10_000), seeded(1))
    times = scene.views.student.per_token()[:, GENERATED].double()
    for token in range(times.shape[1]):
        result = kstest(times[:, token].numpy(), lambda t: LAW.cdf(torch.as_tensor(t)).numpy())
        assert result.pvalue > 1e-4, token
    # Never sorted: the levels of two tokens, where they differ, are as often in one order.
    first, last = times[:, 0], times[:, -1]
    differing = first != last
    if name in ("dual_timestep", "self_flow", "self_flow_separated", "diffusion_forcing"):
        above = (first > last)[differing].double().mean()
        assert differing.sum() > 3000 and abs(float(above) - 0.5) < 0.03
    else:
        assert not differing.any()


@pytest.mark.parametrize("name", ARMS)
def test_all_arms_draw_the_same_at_every_step(name):
    plain, other = arm("flow_matching"), arm(name)
    first, second = seeded(5), seeded(5)
    for step in range(3):
        ours, theirs = (
            objective.scene(LAYOUT, batch(8, step), generator).draws
            for objective, generator in ((plain, first), (other, second))
        )
        assert torch.equal(ours.t, theirs.t)
        for part in ("noise", "condition", "text"):
            a, b = getattr(ours, part), getattr(theirs, part)
            assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), part
    assert torch.equal(first.get_state(), second.get_state())


@pytest.mark.parametrize("name", ["dual_timestep", "diffusion_forcing", "self_flow", "sra"])
def test_extra_draws_are_fresh_and_repeatable(name):
    objective, generator = arm(name), seeded(5)
    views = [objective.scene(LAYOUT, batch(64), generator).views for _ in range(2)]
    again = objective.scene(LAYOUT, batch(64), seeded(5)).views
    assert torch.equal(views[0].student.per_token(), again.student.per_token())
    assert torch.equal(views[0].teacher.per_token(), again.teacher.per_token())
    assert not torch.equal(views[0].teacher.per_token(), views[1].teacher.per_token())
    # ... and are not the shared draws of the next step over again
    shared = seeded(5)
    plain = arm("flow_matching")
    steps = [plain.scene(LAYOUT, batch(64), shared).draws.t for _ in range(2)]
    assert not torch.isin(views[0].student.levels[:, 1:].flatten(), steps[1]).any()


@pytest.mark.parametrize("name", ARMS)
def test_the_teacher_view_is_uniform_and_never_noisier(name):
    views = arm(name).scene(LAYOUT, batch(500), seeded(2)).views
    teacher = views.teacher.per_token()
    generated = teacher[:, GENERATED]
    assert (generated == generated[:, :1]).all()
    assert (teacher <= views.student.per_token()).all() and (teacher >= 0).all()
    assert torch.equal(teacher[:, :4], views.student.per_token()[:, :4])
    assert not views.teacher.separated
    if name == "sra":
        gap = views.student.per_token()[:, 5] - generated[:, 0]
        assert gap.max() <= 0.2 and 0.08 < gap.mean() < 0.12


@pytest.mark.parametrize("name", TAUGHT)
def test_the_teacher_is_the_ema_and_takes_no_gradient(name):
    student = backbone()
    ema = EMA(student, 0.5)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1)
    expected = [
        (a + b) / 2 for a, b in zip(ema.model.parameters(), student.parameters(), strict=True)
    ]
    ema.update(student)
    for averaged, middle in zip(ema.model.parameters(), expected, strict=True):
        torch.testing.assert_close(averaged, middle)
    ema.model.requires_grad_(True)  # even if someone asked for it
    objective = arm(name)
    recorder = Recorder(ema.model)
    out = objective.loss(student, recorder, batch(), seeded())
    out.total.backward()
    assert len(recorder.calls) == 1 and not recorder.calls[0][2].features.requires_grad
    assert all(parameter.grad is None for parameter in ema.model.parameters())
    assert all(p.grad.abs().sum() > 0 for p in objective.modules().parameters())


@pytest.mark.parametrize("name", [*PLAIN, "repa"])
def test_the_other_arms_never_call_the_teacher(name):
    objective = arm(name)
    assert not objective.needs_teacher
    out = objective.loss(backbone(), None, batch(), seeded())
    assert out.total.isfinite() and ("rep" in out.terms) == (name == "repa")
    assert out.total.requires_grad
    torch.testing.assert_close(out.total, sum(out.parts.values()))


def test_dual_timestep_is_self_flow_without_its_representation_loss():
    student = backbone()
    ours = arm("dual_timestep").loss(student, None, batch(), seeded(3))
    theirs = arm("self_flow").loss(student, copy.deepcopy(student), batch(), seeded(3))
    assert torch.equal(ours.parts["generation"], theirs.parts["generation"])
    off = arm("self_flow", gamma=0.0)
    assert not off.needs_teacher
    assert torch.equal(ours.total, off.loss(student, None, batch(), seeded(3)).total)


@pytest.mark.parametrize("name", ARMS)
def test_padding_changes_nothing(name):
    """What stands in invalid tokens reaches neither the loss nor the valid tokens."""
    student = backbone()
    objective = arm(name)
    totals = []
    for value in (0.0, 50.0):
        padded = batch()
        padded.valid["action"][:, 1:] = False
        padded.valid["video"][0] = False
        padded.latents["action"][:, 1:] += value
        padded.latents["video"][0] += value
        totals.append(objective.loss(student, copy.deepcopy(student), padded, seeded(4)).total)
    torch.testing.assert_close(*totals, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "depth", "number"),
    [(0.3, 28, 8), (0.7, 28, 20), (8, 28, 8), (1, 5, 1), (0.01, 5, 1), (1.0, 5, 5), (5, 5, 5)],
)
def test_layers_are_numbers_or_fractions(layer, depth, number):
    assert layer_number(layer, depth) == number


@pytest.mark.parametrize("layer", [0, 6, 1.5, -1])
def test_layers_outside_the_network_are_refused(layer):
    with pytest.raises(ValueError, match=r"1\.\.5.* got"):
        layer_number(layer, 5)


@pytest.mark.parametrize("name", ALIGNED)
def test_number_and_fraction_give_the_same_loss(name):
    student = backbone()
    totals = [
        arm(name, student_layer=layer)
        .loss(student, copy.deepcopy(student), batch(), seeded())
        .total
        for layer in (0.3, 1)
    ]
    assert torch.equal(*totals)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SelfFlow(LAW, width=24, gamma=-1.0), "gamma >= 0, got -1"),
        (lambda: SRA(LAW, width=24, largest_gap=1.5), r"largest_gap in \[0, 1\], got 1.5"),
        (lambda: RandomProjection(0), "width >= 1, got 0"),
        (lambda: FlowMatching(LAW, {"image": 2.0}), r"condition_noise.* got 2"),
        (lambda: FlowMatching(LAW, caption_dropout=-0.1), "caption_dropout"),
    ],
)
def test_bad_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
