"""The time convention, the noise levels, and the marginal of every token's timestep."""

import pytest
import torch
from scipy.stats import kstest

from selfflow_wm.flow.noising import (
    NoiseLevels,
    clean_from_velocity,
    dual_timesteps,
    independent_timesteps,
    interpolate,
    mode_levels,
    velocity,
)
from selfflow_wm.flow.time_laws import LogitNormalTime, UniformTime
from selfflow_wm.layout import Layout, Modality

LAYOUT = Layout(
    (
        Modality("image", (1, 2, 2), 3),
        Modality("video", (1, 1, 4), 3, mask_ratio=0.25),
        Modality("action", (6, 1, 1), 2, mask_ratio=0.5),
    )
)
LAWS = [UniformTime(shift=3.0), LogitNormalTime(0.3, 0.8, shift=2.95)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_time_one_is_noise_and_velocity_is_the_derivative():
    clean, noise = torch.randn(2, 4, 5, 3, generator=seeded()).double()
    t = torch.rand(4, 5, generator=seeded()).double()
    torch.testing.assert_close(interpolate(clean, noise, torch.ones(4)), noise)
    torch.testing.assert_close(interpolate(clean, noise, torch.zeros(4)), clean)
    after = interpolate(clean, noise, t + 1e-6)
    noisy = interpolate(clean, noise, t)
    torch.testing.assert_close((after - noisy) / 1e-6, velocity(clean, noise), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(clean_from_velocity(noisy, velocity(clean, noise), t), clean)


@pytest.mark.parametrize("law", LAWS)
def test_every_token_keeps_the_marginal(law):
    generator = seeded(1)
    t, s = law((20_000,), generator), law((20_000,), generator)
    names = ("image", "video", "action")
    levels = dual_timesteps(LAYOUT, names, ("image",), t, s, generator=generator)
    times = levels.per_token()
    for token in range(4, 14):
        result = kstest(
            times[:, token].double().numpy(), lambda x: law.cdf(torch.as_tensor(x)).numpy()
        )
        assert result.pvalue > 1e-4, token
    # Sorted timesteps would pass for t alone and fail here: s is the larger as often as t.
    assert abs(float((s > t).float().mean()) - 0.5) < 0.02


def test_mask_ratios_and_sharing():
    generator = seeded(2)
    t, s = torch.rand(2, 20_000, generator=generator)
    levels = dual_timesteps(LAYOUT, LAYOUT.names, ("image",), t, s, generator=generator)
    assert levels.num_levels == 3
    times, slices = levels.per_token(), LAYOUT.slices()
    assert (times[:, slices["image"]] == 0).all()
    for name, ratio in (("video", 0.25), ("action", 0.5)):
        part = times[:, slices[name]]
        assert ((part == t[:, None]) | (part == s[:, None])).all()
        assert abs(float((part == s[:, None]).float().mean()) - ratio) < 0.01
    # Independent across tokens of a modality.
    chosen = (times[:, slices["action"]] == s[:, None]).float()
    correlation = torch.corrcoef(chosen.T) - torch.eye(6)
    assert correlation.abs().max() < 0.04


def test_given_modalities_have_levels_of_their_own():
    t, low = torch.rand(2, 5, generator=seeded())
    levels = mode_levels(LAYOUT, LAYOUT.names, ("image", "action"), t, {"action": low * 0.2})
    times, slices = levels.per_token(), LAYOUT.slices()
    assert levels.num_levels == 3
    assert (times[:, slices["image"]] == 0).all()
    assert (times[:, slices["video"]] == t[:, None]).all()
    assert (times[:, slices["action"]] == 0.2 * low[:, None]).all()


def test_degenerate_and_uniform_cases():
    t, s = torch.rand(2, 5, generator=seeded())
    layout = Layout((Modality("x", (4, 1, 1), 2, mask_ratio=0.0),))
    dual = dual_timesteps(layout, ("x",), (), t, s)
    uniform = NoiseLevels.uniform(t, 4)
    assert dual.num_levels == uniform.num_levels == 1
    assert torch.equal(dual.levels, uniform.levels)
    assert torch.equal(dual.per_token(), uniform.per_token())


def test_groups_of_tokens():
    t, s = torch.rand(2, 50, generator=seeded())
    slices = LAYOUT.slices()
    for separated in (False, True):
        levels = dual_timesteps(
            LAYOUT, LAYOUT.names, ("image",), t, s, generator=seeded(), separated=separated
        )
        groups = levels.groups()
        assert (groups[:, slices["image"]] == 0).all()
        times, generated = levels.per_token(), groups[:, 4:]
        expected = torch.where(times == t[:, None], 1, 2)[:, 4:] if separated else 1
        assert (generated == expected).all()
    assert (NoiseLevels.uniform(t, 4).groups() == 1).all()
    # What the sampler builds knows its conditions too, for a backbone that keeps them blind.
    levels = mode_levels(LAYOUT, LAYOUT.names, ("image", "action"), t)
    expected = torch.tensor([0] * 4 + [1] * 4 + [0] * 6)
    assert (levels.groups() == expected).all()


def test_every_generated_token_can_have_a_level_of_its_own():
    t = torch.rand(5, 10, generator=seeded())
    given = torch.rand(5, generator=seeded(1))
    levels = independent_timesteps(LAYOUT, LAYOUT.names, ("image",), t, {"image": given})
    assert levels.num_levels == 11 and levels.generated == 10
    assert torch.equal(levels.per_token()[:, 4:], t)
    assert (levels.per_token()[:, :4] == given[:, None]).all()
    # a given modality between generated ones
    levels = independent_timesteps(LAYOUT, LAYOUT.names, ("video",), t)
    assert torch.equal(levels.per_token()[:, [0, 1, 2, 3, 8, 9, 10, 11, 12, 13]], t)
    with pytest.raises(ValueError, match="10 timesteps"):
        independent_timesteps(LAYOUT, LAYOUT.names, ("image",), t[:, :9])
