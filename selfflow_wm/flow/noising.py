"""The path between data and noise. The sole owner of the time convention.

t = 1 is noise and t = 0 is data; noisy = (1 - t) * clean + t * noise, and the velocity
d noisy / dt = noise - clean points from data to noise.

Every scheme here needs few distinct timesteps per sample, so noise levels travel as a
small table plus an index (`NoiseLevels`) and whatever depends on a timestep is computed
once per level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import log
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from selfflow_wm.layout import Layout

Generator = torch.Generator | None


def _expand(t: Tensor, like: Tensor) -> Tensor:
    """Append axes to `t` so that it broadcasts from the left: (B,) or (B, N) to (B, N, C)."""
    return t.reshape(*t.shape, *([1] * (like.ndim - t.ndim)))


def interpolate(
    clean: Float[Tensor, "B ..."], noise: Float[Tensor, "B ..."], t: Float[Tensor, "B ..."]
) -> Float[Tensor, "B ..."]:
    """noisy = (1 - t) * clean + t * noise; `t` in [0, 1] of shape (B,) or (B, N)."""
    t = _expand(t, clean)
    return (1.0 - t) * clean + t * noise


def velocity(
    clean: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The training target, noise - clean."""
    return noise - clean


def clean_from_velocity(
    noisy: Float[Tensor, "B ..."], velocity: Float[Tensor, "B ..."], t: Float[Tensor, "B ..."]
) -> Float[Tensor, "B ..."]:
    """The clean sample that a velocity at time `t` points back to: noisy - t * velocity."""
    return noisy - _expand(t, noisy) * velocity


def shift_time(t: Tensor, alpha: float) -> Tensor:
    """alpha * t / (1 + (alpha - 1) * t); alpha > 1 moves times towards noise."""
    return alpha * t / (1.0 + (alpha - 1.0) * t)


class TimeLaw(Protocol):
    """A distribution p(t) on (0, 1)."""

    def __call__(self, shape: tuple[int, ...], generator: Generator = None) -> Tensor:
        """Independent float32 draws, on the generator's device (CPU without one)."""
        ...


def _device(generator: Generator) -> torch.device | str:
    return "cpu" if generator is None else generator.device


@dataclass(frozen=True)
class UniformTime:
    """t = shift(u), u uniform on (0, 1): density alpha / (alpha + (1 - alpha) * t)^2."""

    shift: float = 1.0

    def __call__(self, shape: tuple[int, ...], generator: Generator = None) -> Tensor:
        return shift_time(
            torch.rand(shape, generator=generator, device=_device(generator)), self.shift
        )

    def cdf(self, t: Tensor) -> Tensor:
        return shift_time(t, 1.0 / self.shift)


@dataclass(frozen=True)
class LogitNormalTime:
    """logit(t) ~ N(mu + log(shift), sigma^2), optionally with extra mass near pure noise.

    `high_noise` is the fraction of draws taken uniformly from [0.95, 1] instead (the paper's
    low-SNR modification for video uses 0.05).
    """

    mu: float = 0.0
    sigma: float = 1.0
    shift: float = 1.0
    high_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.sigma <= 0 or self.shift <= 0 or not 0 <= self.high_noise <= 1:
            raise ValueError(
                "expected sigma > 0, shift > 0 and high_noise in [0, 1], got "
                f"{self.sigma}, {self.shift}, {self.high_noise}"
            )

    def __call__(self, shape: tuple[int, ...], generator: Generator = None) -> Tensor:
        device = _device(generator)
        normal = torch.randn(shape, generator=generator, device=device)
        t = torch.sigmoid(self.mu + log(self.shift) + self.sigma * normal)
        if self.high_noise:
            pick, place = torch.rand((2, *shape), generator=generator, device=device)
            t = t.where(pick >= self.high_noise, 0.95 + 0.05 * place)
        return t

    def cdf(self, t: Tensor) -> Tensor:
        """P(draw <= t), in float64."""
        t = t.double()
        body = torch.special.ndtr((torch.logit(t) - self.mu - log(self.shift)) / self.sigma)
        tail = ((t - 0.95) / 0.05).clamp(0.0, 1.0)
        return (1 - self.high_noise) * body + self.high_noise * tail


@dataclass
class NoiseLevels:
    """Per-token timesteps as a table of K levels per sample and an index into it."""

    levels: Float[Tensor, "B K"]
    index: Int[Tensor, "B N"]

    @property
    def num_levels(self) -> int:
        return self.levels.shape[1]

    def per_token(self) -> Float[Tensor, "B N"]:
        return self.levels.gather(1, self.index)

    @classmethod
    def uniform(cls, t: Float[Tensor, "B"], num_tokens: int) -> NoiseLevels:
        """Every token of a sample at that sample's `t` (K = 1)."""
        index = torch.zeros(t.shape[0], num_tokens, dtype=torch.long, device=t.device)
        return cls(t[:, None], index)


def mode_levels(
    layout: Layout,
    names: Iterable[str],
    given: Iterable[str],
    t: Float[Tensor, "B"],
    condition: Mapping[str, Float[Tensor, "B"]] | None = None,
) -> NoiseLevels:
    """Levels of a mode: generated tokens at `t`, each given modality at a level of its own.

    `condition[name]` is the small condition noise of a given modality, 0 where it is missing.
    K is 1 + the number of given modalities.
    """
    return _assemble(layout, names, given, t[:, None], condition, lambda name, shape: 0)


def dual_timesteps(
    layout: Layout,
    names: Iterable[str],
    given: Iterable[str],
    t: Float[Tensor, "B"],
    s: Float[Tensor, "B"],
    condition: Mapping[str, Float[Tensor, "B"]] | None = None,
    generator: Generator = None,
) -> NoiseLevels:
    """Dual-Timestep Scheduling (arXiv 2603.06507): each generated token takes `s` or `t`.

    Token i takes `s` with its modality's `mask_ratio`, independently, else `t`. `t` and `s`
    are independent draws of one law and never sorted, so each token keeps the marginal p(t).
    K is 2 + the number of given modalities, or `mode_levels` exactly when every ratio is 0.
    """
    generated = [name for name in layout.present(names) if name not in set(given)]
    if all(layout[name].mask_ratio == 0.0 for name in generated):
        return mode_levels(layout, names, given, t, condition)

    def masked(name: str, shape: tuple[int, int]) -> Tensor:
        draw = torch.rand(shape, generator=generator, device=_device(generator))
        return (draw < layout[name].mask_ratio).to(t.device, torch.long)

    return _assemble(layout, names, given, torch.stack([t, s], 1), condition, masked)


def _assemble(
    layout: Layout,
    names: Iterable[str],
    given: Iterable[str],
    generated_levels: Float[Tensor, "B k"],
    condition: Mapping[str, Float[Tensor, "B"]] | None,
    choose: Callable[[str, tuple[int, int]], Tensor | int],
) -> NoiseLevels:
    """Levels [generated..., one per given modality]; `choose` indexes the generated ones."""
    given, condition = set(given), condition or {}
    batch_size, k = generated_levels.shape
    levels, index = [generated_levels], []
    for name in layout.present(names):
        shape = (batch_size, layout[name].num_tokens)
        if name in given:
            level = condition.get(name)
            level = torch.zeros_like(generated_levels[:, 0]) if level is None else level
            levels.append(level[:, None])
            chosen: Tensor | int = k
            k += 1
        else:
            chosen = choose(name, shape)
        if isinstance(chosen, int):
            chosen = torch.full(shape, chosen, dtype=torch.long, device=generated_levels.device)
        index.append(chosen)
    return NoiseLevels(torch.cat(levels, 1), torch.cat(index, 1))
