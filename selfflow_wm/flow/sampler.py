"""Sampling: integrate the learned velocity from noise (t = 1) to data (t = 0).

Which modalities are generated, given or absent is the caller's choice, so a policy, a world
model and an inverse dynamics model are the same loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from selfflow_wm.flow.noising import interpolate, mode_levels, shift_time
from selfflow_wm.layout import Layout

State = dict[str, Tensor]
VelocityField = Callable[[State, float], State]


def time_grid(steps: int, shift: float = 1.0) -> list[float]:
    """steps + 1 times from 1 down to 0: a uniform grid, shifted towards noise by `shift`."""
    if steps < 1 or shift <= 0:
        raise ValueError(f"expected steps >= 1 and shift > 0, got {steps} and {shift}")
    uniform = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return shift_time(uniform, shift).tolist()


def euler(velocity: VelocityField, state: State, times: Sequence[float]) -> State:
    """First-order steps; exact when the velocity does not change along the path."""
    for now, after in zip(times[:-1], times[1:], strict=True):
        slope = velocity(state, now)
        state = {name: x + (after - now) * slope[name] for name, x in state.items()}
    return state


SOLVERS: dict[str, Callable[[VelocityField, State, Sequence[float]], State]] = {"euler": euler}


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


@torch.no_grad()
def sample(
    model: Callable,
    layout: Layout,
    latents_given: Mapping[str, Float[Tensor, "B n C"]],
    generate: Sequence[str],
    text_ids: Int[Tensor, "B L"],
    text_mask: Bool[Tensor, "B L"],
    *,
    steps: int = 8,
    shift: float = 1.0,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    noise: Mapping[str, Float[Tensor, "B n C"]] | None = None,
    condition_level: float | Mapping[str, float] = 0.0,
    valid: Mapping[str, Bool[Tensor, "B n"]] | None = None,
    solver: str = "euler",
) -> dict[str, Float[Tensor, "B n C"]]:
    """Latents of the `generate` modalities, given the clean `latents_given`.

    Args:
        model: a `Backbone`, or anything called like one.
        steps, shift: the time grid, see `time_grid`.
        generator: source of all noise here; a sequence of one generator per sample makes each
            sample independent of the batch it is in.
        noise: the starting point at t = 1 instead; modalities missing from it are drawn. It
            may name given modalities too: their condition noise.
        condition_level: noise level in [0, 1] at which given modalities are held, for all or
            by name (0 where missing); their noise is drawn once.
        valid: False tokens are not attended to.
        solver: a key of `SOLVERS`.

    Returns the generated modalities only. Given ones never change.
    """
    given, generated = layout.present(latents_given), layout.present(generate)
    if not generated or set(given) & set(generated):
        raise ValueError(f"expected disjoint given and generate, got {given} and {generated}")
    if solver not in SOLVERS:
        raise ValueError(f"expected a solver among {sorted(SOLVERS)}, got {solver!r}")
    if not isinstance(condition_level, Mapping):
        condition_level = dict.fromkeys(given, condition_level)
    held = {name: float(condition_level.get(name, 0.0)) for name in given}
    noise = dict(noise or {})
    # Generated modalities first: the same draws whether or not the given ones are noised.
    for group in (generated, [name for name in given if held[name]]):
        missing = [name for name in group if name not in noise]
        noise |= draw_noise(layout, missing, len(text_ids), generator)

    device = text_ids.device
    full = torch.ones(len(text_ids), device=device)
    fixed = {
        name: interpolate(latents_given[name], noise[name].to(device), held[name] * full)
        if held[name]
        else latents_given[name]
        for name in given
    }
    condition = {name: held[name] * full for name in given}
    names = [*given, *generated]

    def velocity(state: State, t: float) -> State:
        levels = mode_levels(layout, names, given, t * full, condition)
        output = model(
            fixed | state, levels, text_ids, text_mask, valid=valid, outputs=frozenset(generated)
        )
        return output.velocity

    start = {name: noise[name].to(device) for name in generated}
    return SOLVERS[solver](velocity, start, time_grid(steps, shift))
