"""Schedules: which noise levels the student and its teacher see of one batch."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from selfflow_wm.flow.noising import (
    NoiseLevels,
    dual_timesteps,
    independent_timesteps,
    mode_levels,
)
from selfflow_wm.flow.time_laws import Generator, TimeLaw, source
from selfflow_wm.layout import Batch, Layout, Rows


@dataclass
class Draws:
    """Everything random that all arms, and student and teacher, share."""

    t: Float[Tensor, "B"]
    noise: dict[str, Float[Tensor, "B n C"]]
    condition: dict[str, Float[Tensor, "B"]]
    text: dict[str, Tensor | None]
    """Already of this process's rows only: no draw depends on the other rows' captions."""

    def select(self, rows: Rows) -> Draws:
        """Only `rows` of the batch."""
        return Draws(
            rows.of(self.t),
            {name: rows.of(value) for name, value in self.noise.items()},
            {name: rows.of(value) for name, value in self.condition.items()},
            self.text,
        )


@dataclass
class Views:
    """What the two networks see; given modalities are the same for both."""

    student: NoiseLevels
    teacher: NoiseLevels
    """Never noisier than the student's view, and uniform over the generated tokens. Arms
    without a teacher use it for diagnosis only."""

    def select(self, rows: Rows) -> Views:
        """Only `rows` of the batch."""
        return Views(self.student.select(rows), self.teacher.select(rows))


class Schedule(Protocol):
    """Chooses the views of as many samples as `draws` has, of which `batch` may hold only some;
    anything random beyond `draws` comes from `extra_draws(generator)`."""

    def __call__(
        self, layout: Layout, batch: Batch, draws: Draws, law: TimeLaw, generator: Generator
    ) -> Views: ...


def extra_draws(generator: Generator) -> Generator:
    """The stream for what only some arms draw: seeded by the state of `generator`, apart from it.

    Drawing from `generator` itself would leave an arm with extras at another place of the stream
    after its first step. This way all arms see the same t, noise and captions at every step.
    Without a generator (torch's global one) there is no such promise.
    """
    if generator is None:
        return None
    state = blake2b(generator.get_state().numpy().tobytes(), digest_size=8).digest()
    seed = int.from_bytes(state, "little", signed=True)
    return torch.Generator(generator.device).manual_seed(seed)


def uniform_levels(
    layout: Layout, batch: Batch, draws: Draws, t: Float[Tensor, "B"]
) -> NoiseLevels:
    """Every generated token of a sample at its `t`, given modalities at their condition noise."""
    return mode_levels(layout, batch.latents, batch.given, t, draws.condition)


class OneTimestep:
    """Flow matching: both views at t."""

    def __call__(
        self, layout: Layout, batch: Batch, draws: Draws, law: TimeLaw, generator: Generator
    ) -> Views:
        levels = uniform_levels(layout, batch, draws, draws.t)
        return Views(levels, levels)


@dataclass(frozen=True)
class DualTimesteps:
    """Dual-Timestep Scheduling: the student's tokens at t or s, the teacher at min(t, s).

    separated: the student's tokens at t and those at s do not attend to each other.
    """

    separated: bool = False

    def __call__(
        self, layout: Layout, batch: Batch, draws: Draws, law: TimeLaw, generator: Generator
    ) -> Views:
        extra = extra_draws(generator)
        s = law((len(draws.t),), extra).to(draws.t.device)
        student = dual_timesteps(
            layout,
            batch.latents,
            batch.given,
            draws.t,
            s,
            draws.condition,
            extra,
            separated=self.separated,
        )
        return Views(student, uniform_levels(layout, batch, draws, torch.minimum(draws.t, s)))


class IndependentTimesteps:
    """Diffusion forcing: a draw of p(t) for every generated token, the teacher at the least.

    The shared t is drawn, to keep the order of the draws, and not used.
    """

    def __call__(
        self, layout: Layout, batch: Batch, draws: Draws, law: TimeLaw, generator: Generator
    ) -> Views:
        shape = (len(draws.t), layout.num_tokens(batch.generated))
        t = law(shape, extra_draws(generator)).to(draws.t.device)
        student = independent_timesteps(layout, batch.latents, batch.given, t, draws.condition)
        return Views(student, uniform_levels(layout, batch, draws, t.amin(1)))


@dataclass(frozen=True)
class SlightlyCleanerTeacher:
    """SRA: the student at t, the teacher at max(0, t - U(0, largest_gap)) per sample."""

    largest_gap: float = 0.2

    def __post_init__(self) -> None:
        if not 0.0 <= self.largest_gap <= 1.0:
            raise ValueError(f"expected largest_gap in [0, 1], got {self.largest_gap}")

    def __call__(
        self, layout: Layout, batch: Batch, draws: Draws, law: TimeLaw, generator: Generator
    ) -> Views:
        share = torch.rand(len(draws.t), **source(extra_draws(generator)))
        cleaner = (draws.t - self.largest_gap * share.to(draws.t.device)).clamp(min=0.0)
        return Views(
            uniform_levels(layout, batch, draws, draws.t),
            uniform_levels(layout, batch, draws, cleaner),
        )
