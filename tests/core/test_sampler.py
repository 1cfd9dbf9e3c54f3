"""The sampler against velocities known in closed form."""

from types import SimpleNamespace

import pytest
import torch

from selfflow_wm.flow.sampler import draw_noise, sample
from selfflow_wm.flow.solvers import SOLVERS
from selfflow_wm.layout import NULL_BYTE, Layout, Modality
from selfflow_wm.model import Backbone

LAYOUT = Layout((Modality("image", (1, 2, 2), 3), Modality("action", (6, 1, 1), 2)), text_length=4)
TEXT = (torch.zeros(3, 4, dtype=torch.long), torch.ones(3, 4, dtype=torch.bool))
IMAGE = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(7))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def field(function, seen=None):
    """A stand-in backbone: velocity = function(noisy, t) on the action tokens."""

    def model(noisy, levels, text_ids, text_mask, valid=None, outputs=None):
        assert set(outputs) == {"action"}
        if seen is not None:
            seen.append((noisy["image"], levels.per_token()[:, :4]))
        t = levels.per_token()[:, LAYOUT.slices()["action"], None]
        return SimpleNamespace(velocity={"action": function(noisy["action"], t)})

    return model


@pytest.mark.parametrize("steps", [1, 3, 8])
@pytest.mark.parametrize("shift", [1.0, 6.93])
def test_a_point_mass_is_reached_exactly(steps, shift):
    point = torch.randn(6, 2, generator=seeded(1))
    model = field(lambda x, t: (x - point) / t)  # E[noise - clean | x] with clean = point
    out = sample(
        model, LAYOUT, {"image": IMAGE}, ("action",), *TEXT, steps=steps, shift=shift,
        generator=seeded(),
    )  # fmt: skip
    assert set(out) == {"action"}
    torch.testing.assert_close(out["action"], point.expand(3, 6, 2), atol=1e-5, rtol=1e-5)


def test_a_gaussian_is_transported_in_closed_form():
    mean, std = 0.7, 0.4

    def velocity(x, t):
        variance = (1 - t) ** 2 * std**2 + t**2
        return -mean + (t - (1 - t) * std**2) / variance * (x - (1 - t) * mean)

    noise = draw_noise(LAYOUT, ("action",), 3, seeded(3))
    exact = mean + std * noise["action"]

    def error(steps):
        out = sample(
            field(velocity), LAYOUT, {"image": IMAGE}, ("action",), *TEXT, steps=steps, noise=noise
        )
        return float((out["action"] - exact).abs().max())

    assert error(1000) < 5e-3
    # First order: twice the steps, half the error.
    assert 1.7 < error(100) / error(200) < 2.3


def test_given_modalities_are_clamped_and_noised_once():
    seen = []
    model = field(lambda x, t: x, seen)
    sample(model, LAYOUT, {"image": IMAGE}, ("action",), *TEXT, steps=3, generator=seeded())
    for image, level in seen:
        assert torch.equal(image, IMAGE)
        assert (level == 0).all()
    seen.clear()
    sample(
        model, LAYOUT, {"image": IMAGE}, ("action",), *TEXT, steps=3, generator=seeded(),
        condition_level=0.2,
    )  # fmt: skip
    torch.testing.assert_close(seen[0][1], torch.full((3, 4), 0.2))
    assert not torch.equal(seen[0][0], IMAGE)
    assert all(torch.equal(image, seen[0][0]) for image, _ in seen)


def test_a_sample_does_not_depend_on_its_batch():
    model = field(lambda x, t: x * t)
    together = sample(
        model, LAYOUT, {"image": IMAGE}, ("action",), *TEXT, generator=[seeded(i) for i in range(3)]
    )
    for i in range(3):
        alone = sample(
            model, LAYOUT, {"image": IMAGE[i : i + 1]}, ("action",), TEXT[0][:1], TEXT[1][:1],
            generator=[seeded(i)],
        )  # fmt: skip
        torch.testing.assert_close(alone["action"][0], together["action"][i])


def test_errors():
    def attempt(**options):
        return sample(None, LAYOUT, {"image": IMAGE}, ("action",), *TEXT, **options)

    for options, match in (
        ({"steps": 0}, "steps"),
        ({"solver": "magic"}, "magic"),
        ({"guidance": -1.0}, "guidance >= 0"),
        ({"guidance": float("nan")}, "guidance >= 0"),
        ({"guidance_interval": (0.5, 0.1)}, "lo <= hi"),
        ({"guidance_interval": (0.0, 1.5)}, "lo <= hi"),
    ):
        with pytest.raises(ValueError, match=match):
            attempt(**options)
    with pytest.raises(ValueError, match="disjoint"):
        sample(None, LAYOUT, {"image": IMAGE}, ("image",), *TEXT)


# ---------------------------------------------------------------- solvers


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_given_modalities_stay_as_they_are_for_every_solver(solver, steps):
    seen, before = [], IMAGE.clone()
    out = sample(
        field(lambda x, t: x * t, seen), LAYOUT, {"image": IMAGE}, ("action",), *TEXT, steps=steps,
        solver=solver, generator=seeded(),
    )  # fmt: skip
    assert len(seen) >= steps
    assert all(image is IMAGE and (level == 0).all() for image, level in seen)
    assert torch.equal(IMAGE, before)
    assert set(out) == {"action"} and out["action"].isfinite().all()


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_gaussian_data_for_every_solver(solver):
    """4000 samples of 12 values: five standard errors of the mean and deviation, plus the bias
    of 60 steps."""
    mean, std, rows = 0.7, 0.4, 4000

    def velocity(x, t):
        variance = (1 - t) ** 2 * std**2 + t**2
        return -mean + (t - (1 - t) * std**2) / variance * (x - (1 - t) * mean)

    text = (torch.zeros(rows, 4, dtype=torch.long), torch.ones(rows, 4, dtype=torch.bool))
    out = sample(
        field(velocity), LAYOUT, {"image": IMAGE[:1].expand(rows, -1, -1)}, ("action",), *text,
        steps=60, solver=solver, generator=seeded(2),
    )["action"]  # fmt: skip
    error = 5 * std / (12 * rows) ** 0.5
    bias = {"euler": 0.01, "heun": 0.001, "euler_maruyama": 0.03}[solver]
    assert abs(float(out.mean()) - mean) < error + bias
    assert abs(float(out.std()) - std) < error + bias


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_network_in_bfloat16_is_integrated_in_float32(solver):
    def run(back):
        def model(noisy, levels, text_ids, text_mask, valid=None, outputs=None):
            t = levels.per_token()[0, -1] + 0.1 * text_ids[:, :1, None]
            return SimpleNamespace(velocity={"action": back((noisy["action"] * t).bfloat16())})

        return sample(
            model, LAYOUT, {"image": IMAGE}, ("action",), *TEXT, solver=solver, guidance=2.0,
            generator=seeded(),
        )["action"]  # fmt: skip

    assert torch.equal(run(lambda v: v), run(lambda v: v.float()))


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    model = Backbone(LAYOUT, width=24, heads=2, double=1, single=1)
    for parameter in model.parameters():  # its velocity is 0 at initialisation
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_sample_of_a_backbone_does_not_depend_on_its_batch(backbone, solver, guidance):
    """To 1e-5: batched matrix products may round otherwise."""
    ids = torch.arange(12).reshape(3, 4)

    def run(rows):
        return sample(
            backbone, LAYOUT, {"image": IMAGE[rows]}, ("action",), ids[rows], TEXT[1][rows],
            steps=4, solver=solver, guidance=guidance, condition_level=0.1,
            generator=[seeded(i) for i in range(3)[rows]],
        )["action"]  # fmt: skip

    together = run(slice(0, 3))
    assert torch.equal(run(slice(0, 3)), together)
    for i in range(3):
        alone = run(slice(i, i + 1))
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)


def test_stochastic_steps_follow_the_seed():
    def run(seed):
        return sample(
            field(lambda x, t: x * t), LAYOUT, {"image": IMAGE}, ("action",), *TEXT,
            noise={"action": torch.zeros(3, 6, 2)}, solver="euler_maruyama",
            generator=[seeded(seed + i) for i in range(3)],
        )["action"]  # fmt: skip

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    torch.testing.assert_close(run(0)[1], run(1)[0])


# ---------------------------------------------------------------- guidance


def captioned(calls, pull=1.0):
    """A linear field: towards the caption's first byte / 100, towards 0 without a caption."""

    def model(noisy, levels, text_ids, text_mask, valid=None, outputs=None):
        calls.append((float(levels.per_token()[0, -1]), len(text_ids)))
        assert all(len(x) == len(text_ids) for x in (*noisy.values(), levels.index, text_mask))
        assert not valid or all(len(x) == len(text_ids) for x in valid.values())
        null = (text_ids == NULL_BYTE).all(1)
        assert (text_mask.sum(1)[null] == 1).all(), "a null caption is one byte"
        goal = torch.where(null, 0.0, text_ids[:, 0] / 100)[:, None, None]
        return SimpleNamespace(velocity={"action": pull * (noisy["action"] - goal)})

    return model


CAPTIONS = torch.tensor([[10] * 4, [20] * 4, [30] * 4])


def run_captioned(calls=None, **options):
    return sample(
        captioned([] if calls is None else calls), LAYOUT, {"image": IMAGE}, ("action",), CAPTIONS,
        TEXT[1], **({"steps": 4, "generator": seeded()} | options),
    )["action"]  # fmt: skip


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.5])
def test_guidance_in_closed_form(scale):
    """Guiding x - goal against x is x - scale * goal: dx/dt over one unit of time downwards."""
    start = draw_noise(LAYOUT, ("action",), 3, seeded(3))
    out = run_captioned(noise=start, guidance=scale, steps=100, solver="heun")
    goal = scale * CAPTIONS[:, 0, None, None] / 100
    exact = goal + (start["action"] - goal) * torch.exp(torch.tensor(-1.0))
    torch.testing.assert_close(out, exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_guidance_of_one_is_none(solver):
    plain, guided = [], []
    without = run_captioned(plain, solver=solver)
    assert torch.equal(run_captioned(guided, solver=solver, guidance=1.0), without)
    assert guided == plain and all(rows == 3 for _, rows in plain)
    assert not torch.equal(run_captioned(solver=solver, guidance=1.5), without)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_guidance_applies_in_its_interval_only(solver):
    calls = []
    out = run_captioned(calls, solver=solver, steps=8, guidance=3.0, guidance_interval=(0.3, 0.8))
    assert {rows for _, rows in calls} == {3, 6}
    assert all(rows == (6 if 0.3 <= t <= 0.8 else 3) for t, rows in calls)
    # An interval without a step in it changes nothing.
    same = run_captioned(solver=solver, steps=8, guidance=3.0, guidance_interval=(0.001, 0.002))
    assert torch.equal(same, run_captioned(solver=solver, steps=8))
    assert not torch.equal(out, same)


def test_guidance_doubles_everything_a_call_is_given():
    valid = {"action": torch.tensor([[True] * 5 + [False]] * 3)}
    calls = []
    out = run_captioned(calls, guidance=2.0, valid=valid, condition_level=0.2)
    assert out.shape == (3, 6, 2) and all(rows == 6 for _, rows in calls)


def test_a_backbone_is_guided_as_by_two_calls(backbone):
    start = draw_noise(LAYOUT, ("action",), 3, seeded(3))
    null = (torch.full_like(CAPTIONS, NULL_BYTE), torch.tensor([[True, False, False, False]] * 3))

    def run(text, **options):
        return sample(
            backbone, LAYOUT, {"image": IMAGE}, ("action",), *text, noise=start, steps=1, **options
        )["action"]

    bound, free = run((CAPTIONS, TEXT[1])), run(null)
    assert float((bound - free).abs().max()) > 1e-3
    both = run((CAPTIONS, TEXT[1]), guidance=3.0)
    torch.testing.assert_close(both, free + 3.0 * (bound - free), atol=1e-5, rtol=1e-5)
