"""Solvers: carry a state from noise (t = 1) to data (t = 0) along a velocity field.

A solver is a row of `SOLVERS`: how to integrate, and which times to stop at. Every one makes
at least one step, and `steps` counts the steps, whatever their calls of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from selfflow_wm.devices import to_device
from selfflow_wm.flow.noising import clean_from_velocity, shift_time

State = dict[str, Tensor]
"""The tensors being integrated, by name; solvers act on every element alike."""

VelocityField = Callable[[State, float], State]
"""d state / dt at (state, t): the expected noise - clean."""

NoiseSource = Callable[[], State]
"""Fresh standard normal noise in the shapes of the state."""

LAST_STEP = 0.04
"""Length of the last step of Euler–Maruyama in the paper's ImageNet sampling."""


def time_grid(steps: int, shift: float = 1.0) -> list[float]:
    """steps + 1 times from 1 down to 0: a uniform grid, shifted towards noise by `shift`.

    The paper samples with 50 steps and shifts of 1.78 (SD-VAE), 6.93 (FLUX.2 and Songbloom
    autoencoders) and 15 (Wan2.2). ValueError unless steps >= 1 and shift > 0.
    """
    if steps < 1 or not 0 < shift < float("inf"):
        raise ValueError(f"expected steps >= 1 and a finite shift > 0, got {steps} and {shift}")
    uniform = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return shift_time(uniform, shift).tolist()


def sde_grid(steps: int, shift: float = 1.0, last: float = LAST_STEP) -> list[float]:
    """steps + 1 times from 1 down to 0, the last step of length `last` in (0, 1).

    The other steps - 1 lie between 1 and `last` as `time_grid` would place them, so the last
    step keeps its length whatever the shift. One step is [1, 0].
    """
    if not 0 < last < 1:
        raise ValueError(f"expected a last step of a length in (0, 1), got {last}")
    if steps == 1:
        return time_grid(1, shift)
    return [last + (1.0 - last) * t for t in time_grid(steps - 1, shift)] + [0.0]


def euler(
    velocity: VelocityField, state: State, times: Sequence[float], draw: NoiseSource | None = None
) -> State:
    """First-order steps of the ODE; exact when the velocity does not change along the path."""
    for now, after in pairwise(times):
        state = _advance(state, velocity(state, now), after - now)
    return state


def heun(
    velocity: VelocityField, state: State, times: Sequence[float], draw: NoiseSource | None = None
) -> State:
    """Second-order steps of the ODE: the mean of the velocities at both ends of a step.

    The step that ends at t = 0 is an Euler step, as in EDM (Karras et al., arXiv 2206.00364):
    no velocity is learned at t = 0, and data on a manifold has none there. One such step costs
    no order. 2 * steps - 1 calls of the model; a single step is Euler.
    """
    for now, after in pairwise(times):
        slope = velocity(state, now)
        ahead = _advance(state, slope, after - now)
        if after > 0:
            end = velocity(ahead, after)
            slope = {name: 0.5 * (slope[name] + end[name]) for name in state}
            ahead = _advance(state, slope, after - now)
        state = ahead
    return state


def euler_maruyama(
    velocity: VelocityField, state: State, times: Sequence[float], draw: NoiseSource | None = None
) -> State:
    """Steps of the reverse SDE with the marginals of the ODE, as in the paper's ImageNet samples.

    With diffusion coefficient w(t) = sigma_t = t, over a step of length h down from t,

        x <- x - h * velocity + h * w * score + sqrt(2 * w * h) * fresh noise.

    The score is minus the noise to expect in x, over t; and velocity = noise - clean, so that
    noise is the clean sample the velocity points back to plus the velocity. Hence w * score
    needs no division and small t is no special case.

    The last step adds no noise ("Mean"). Its drift takes out the expected noise twice, once by
    the velocity and once by the score, so what is left of it, `LAST_STEP` times unit noise,
    stays in the sample; that is why the step is short. A single step would leave all the noise
    that way, so one step is an Euler step of the ODE, which ends on the mean of the data.
    Few steps leave more: the scheme is stable where h < t and meant for hundreds. Data that is
    a point comes out with a deviation of 1.66 after 2 steps, 0.27 after 8, 0.067 after 32 and
    0.042 after 250.
    """
    if len(times) == 2:
        return euler(velocity, state, times)
    if draw is None:
        raise ValueError("expected a source of noise for a stochastic solver, got None; pass draw")
    for step, (now, after) in enumerate(pairwise(times), start=1):
        slope = velocity(state, now)
        drift = {name: v + _expected_noise(state[name], v, now) for name, v in slope.items()}
        state = _advance(state, drift, after - now)
        if step < len(times) - 1:
            fresh, scale = draw(), sqrt(2.0 * now * (now - after))
            fresh = {name: to_device(x, state[name].device) for name, x in fresh.items()}
            state = {name: x + scale * fresh[name].to(x.dtype) for name, x in state.items()}
    return state


def _expected_noise(noisy: Tensor, velocity: Tensor, t: float) -> Tensor:
    return clean_from_velocity(noisy, velocity, noisy.new_full((), t)) + velocity


def _advance(state: State, slope: State, by: float) -> State:
    return {name: x + by * slope[name] for name, x in state.items()}


class Solver(NamedTuple):
    """One way to sample."""

    integrate: Callable[[VelocityField, State, Sequence[float], NoiseSource | None], State]
    grid: Callable[[int, float], list[float]]
    """(steps, shift) -> times."""


SOLVERS: dict[str, Solver] = {
    "euler": Solver(euler, time_grid),
    "heun": Solver(heun, time_grid),
    "euler_maruyama": Solver(euler_maruyama, sde_grid),
}


def get_solver(name: str) -> Solver:
    """The row of `SOLVERS`; ValueError on an unknown name."""
    if name not in SOLVERS:
        raise ValueError(f"expected a solver among {sorted(SOLVERS)}, got {name!r}")
    return SOLVERS[name]
