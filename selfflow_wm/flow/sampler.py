"""Sampling: integrate the learned velocity from noise (t = 1) to data (t = 0).

Which modalities are generated, given or absent is the caller's choice, so a policy, a world
model and an inverse dynamics model are the same loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from selfflow_wm.devices import to_device
from selfflow_wm.flow.guidance import doubled_captions, guided, twice
from selfflow_wm.flow.noising import interpolate, mode_levels
from selfflow_wm.flow.solvers import State, VelocityField, get_solver
from selfflow_wm.layout import Layout


def draw_noise(
    layout: Layout,
    names: Sequence[str],
    batch_size: int,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> dict[str, Float[Tensor, "B n C"]]:
    """Standard normal latents of `names`, in layout order.

    With a sequence of generators, one per sample, a sample's noise does not depend on the
    batch it is in.
    """
    if not (generator is None or isinstance(generator, torch.Generator)):
        if len(generator) != batch_size:
            raise ValueError(f"expected {batch_size} generators, got {len(generator)}")
        rows = [draw_noise(layout, names, 1, one) for one in generator]
        return {name: torch.cat([row[name] for row in rows]) for name in layout.present(names)}
    device = "cpu" if generator is None else generator.device
    return {
        name: torch.randn(
            batch_size,
            layout[name].num_tokens,
            layout[name].channels,
            generator=generator,
            device=device,
        )
        for name in layout.present(names)
    }


def starting_noise(
    layout: Layout,
    given: Iterable[str],
    generate: Sequence[str],
    batch_size: int,
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    noise: Mapping[str, Float[Tensor, "B n C"]] | None = None,
    condition_level: float | Mapping[str, float] = 0.0,
) -> dict[str, Float[Tensor, "B n C"]]:
    """All that `sample` draws before its first step: `noise`, and what of it is missing."""
    given, generated = layout.present(given), layout.present(generate)
    held, start = _levels(given, condition_level), dict(noise or {})
    # Generated modalities first: the same draws whether or not the given ones are noised.
    for group in (generated, [name for name in given if held[name]]):
        missing = [name for name in group if name not in start]
        start |= draw_noise(layout, missing, batch_size, generator)
    return start


def _levels(given: Sequence[str], condition_level: float | Mapping[str, float]) -> dict[str, float]:
    """The noise level at which each given modality is held."""
    if not isinstance(condition_level, Mapping):
        condition_level = dict.fromkeys(given, condition_level)
    return {name: float(condition_level.get(name, 0.0)) for name in given}


@torch.no_grad()
def sample(
    model: Callable,
    layout: Layout,
    latents_given: Mapping[str, Float[Tensor, "B n C"]],
    generate: Sequence[str],
    text_ids: Int[Tensor, "B L"],
    text_mask: Bool[Tensor, "B L"] | None,
    *,
    steps: int = 8,
    shift: float = 1.0,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    noise: Mapping[str, Float[Tensor, "B n C"]] | None = None,
    condition_level: float | Mapping[str, float] = 0.0,
    valid: Mapping[str, Bool[Tensor, "B n"]] | None = None,
    solver: str = "euler",
    guidance: float = 1.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
) -> dict[str, Float[Tensor, "B n C"]]:
    """Latents of the `generate` modalities, given the clean `latents_given`.

    Args:
        model: a `Backbone`, or anything called like one.
        text_ids, text_mask: the captions; a mask of None means that all ids are text.
        steps, shift: the time grid, see `solvers.time_grid`.
        generator: source of all noise here, that of stochastic steps too; a sequence of one
            generator per sample makes each sample independent of the batch it is in.
        noise: the starting point at t = 1 instead; modalities missing from it are drawn. It
            may name given modalities too: their condition noise.
        condition_level: noise level in [0, 1] at which given modalities are held, for all or
            by name (0 where missing); their noise is drawn once.
        valid: False tokens are not attended to.
        solver: a key of `solvers.SOLVERS`: euler, heun or euler_maruyama.
        guidance: scale of classifier-free guidance against the null caption; 1 is none and
            costs nothing, anything else doubles the batch. The paper's qualitative samples use
            3.5 (image) and 5 (video, audio), its metrics none.
        guidance_interval: [lo, hi], the times at which guidance applies.

    Returns the generated modalities only. Given ones never change. ValueError on an unknown
    solver or modality, a number out of range, or modalities both given and generated.
    """
    given, generated = layout.present(latents_given), layout.present(generate)
    if not generated or set(given) & set(generated):
        raise ValueError(f"expected disjoint given and generate, got {given} and {generated}")
    method = get_solver(solver)
    times = method.grid(steps, shift)
    held = _levels(given, condition_level)
    start = starting_noise(
        layout, given, generated, len(text_ids),
        generator=generator, noise=noise, condition_level=held,
    )  # fmt: skip
    start = {name: to_device(x, text_ids.device) for name, x in start.items()}
    fixed = {name: _hold(latents_given[name], start.get(name), held[name]) for name in given}
    field = partial(_field, model, layout, generated, held)
    velocity = guided(
        field(fixed, text_ids, text_mask, valid),
        lambda: field(
            twice(fixed), *doubled_captions(text_ids, text_mask, layout.null_id), twice(valid or {})
        ),
        guidance,
        guidance_interval,
    )
    return method.integrate(
        velocity,
        {name: start[name] for name in generated},
        times,
        lambda: draw_noise(layout, generated, len(text_ids), generator),
    )


def _field(
    model: Callable,
    layout: Layout,
    generated: Sequence[str],
    held: Mapping[str, float],
    fixed: State,
    text_ids: Tensor,
    text_mask: Tensor | None,
    valid: Mapping[str, Tensor] | None,
) -> VelocityField:
    """The velocity of the generated modalities beside the `fixed` ones, `held` at their levels."""
    full = torch.ones(len(text_ids), device=text_ids.device)
    condition = {name: level * full for name, level in held.items()}
    outputs = frozenset(generated)

    def velocity(state: State, t: float) -> State:
        levels = mode_levels(layout, [*held, *generated], held, t * full, condition)
        noisy = fixed | state
        found = model(noisy, levels, text_ids, text_mask, valid=valid, outputs=outputs).velocity
        # A network in bfloat16 must not make solver and guidance compute in it.
        return {name: found[name].to(x.dtype) for name, x in state.items()}

    return velocity


def _hold(clean: Tensor, noise: Tensor | None, level: float) -> Tensor:
    """A given modality at its condition level; at 0 the very tensor."""
    if level == 0.0 or noise is None:
        return clean
    return interpolate(clean, noise, torch.full((len(clean),), level, device=clean.device))
