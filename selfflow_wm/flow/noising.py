"""The path between data and noise. The sole owner of the time convention.

t = 1 is noise and t = 0 is data; noisy = (1 - t) * clean + t * noise, and the velocity
d noisy / dt = noise - clean points from data to noise.

Most schemes need few distinct timesteps per sample, so noise levels travel as a small table
plus an index (`NoiseLevels`) and whatever depends on a timestep is computed once per level.
Which times are drawn is another matter: `flow/time_laws.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from selfflow_wm.layout import Layout, Rows

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


@dataclass
class NoiseLevels:
    """Per-token timesteps as a table of K levels per sample and an index into it."""

    levels: Float[Tensor, "B K"]
    index: Int[Tensor, "B N"]
    generated: int | None = None
    """How many of the levels, the first ones, are of generated tokens (None: all of them). The
    others are of conditions, that is given modalities."""
    separated: bool = False
    """Generated tokens of different levels are closed to each other in attention."""

    @property
    def num_levels(self) -> int:
        return self.levels.shape[1]

    def per_token(self) -> Float[Tensor, "B N"]:
        return self.levels.gather(1, self.index)

    def select(self, rows: Rows) -> NoiseLevels:
        """Only `rows` of the batch."""
        return replace(self, levels=rows.of(self.levels), index=rows.of(self.index))

    def groups(self) -> Int[Tensor, "B N"]:
        """Groups of tokens for `model.attention.group_mask`: conditions are 0; generated tokens
        are 1, or 1 + their level's index when they are separated."""
        generated = self.num_levels if self.generated is None else self.generated
        group = self.index + 1 if self.separated else torch.ones_like(self.index)
        return group.masked_fill(self.index >= generated, 0)

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
    """Levels of a mode: generated tokens at `t`, each given modality at a separate level.

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
    separated: bool = False,
) -> NoiseLevels:
    """Dual-Timestep Scheduling (arXiv 2603.06507): each generated token takes `s` or `t`.

    Token i takes `s` with its modality's `mask_ratio`, independently, else `t`. `t` and `s`
    are independent draws of one law and never sorted, so each token keeps the marginal p(t).
    K is 2 + the number of given modalities, or `mode_levels` exactly when every ratio is 0.
    `separated` closes the two groups of tokens to each other in attention.
    """
    generated = [name for name in layout.present(names) if name not in set(given)]
    if all(layout[name].mask_ratio == 0.0 for name in generated):
        return mode_levels(layout, names, given, t, condition)

    def masked(name: str, shape: tuple[int, int]) -> Tensor:
        device = "cpu" if generator is None else generator.device
        draw = torch.rand(shape, generator=generator, device=device)
        return (draw < layout[name].mask_ratio).to(t.device, torch.long)

    levels = _assemble(layout, names, given, torch.stack([t, s], 1), condition, masked)
    return replace(levels, separated=separated)


def independent_timesteps(
    layout: Layout,
    names: Iterable[str],
    given: Iterable[str],
    t: Float[Tensor, "B M"],
    condition: Mapping[str, Float[Tensor, "B"]] | None = None,
) -> NoiseLevels:
    """Diffusion forcing: a separate level for each of the M generated tokens.

    `t` holds them in layout order. K is M + the number of given modalities.
    """
    given = frozenset(given)
    generated = [name for name in layout.present(names) if name not in given]
    if t.shape[1] != layout.num_tokens(generated):
        raise ValueError(
            f"expected {layout.num_tokens(generated)} timesteps, one per token of {generated}, "
            f"got {t.shape[1]}"
        )
    slices = layout.slices(generated)

    def token_index(name: str, shape: tuple[int, int]) -> Tensor:
        piece = slices[name]
        return torch.arange(piece.start, piece.stop, device=t.device).expand(shape)

    return _assemble(layout, names, given, t, condition, token_index)


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
    return NoiseLevels(torch.cat(levels, 1), torch.cat(index, 1), generated_levels.shape[1])
