"""The sampler against velocities known in closed form."""

from types import SimpleNamespace

import pytest
import torch

from selfflow_wm.flow.sampler import draw_noise, sample, time_grid
from selfflow_wm.layout import Layout, Modality

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


def test_time_grid_and_errors():
    assert time_grid(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    shifted = time_grid(4, 3.0)
    assert shifted[0] == 1.0 and shifted[-1] == 0.0
    assert all(a > b for a, b in zip(shifted, time_grid(4), strict=True) if 0 < b < 1)
    with pytest.raises(ValueError, match="steps"):
        time_grid(0)
    with pytest.raises(ValueError, match="solver"):
        sample(None, LAYOUT, {"image": IMAGE}, ("action",), *TEXT, solver="magic")
    with pytest.raises(ValueError, match="disjoint"):
        sample(None, LAYOUT, {"image": IMAGE}, ("image",), *TEXT)
