"""L_gen, and the arms that have nothing else: one schedule each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from selfflow_wm.flow.noising import NoiseLevels, interpolate, velocity
from selfflow_wm.flow.time_laws import TimeLaw, source
from selfflow_wm.layout import Batch, Layout, Rows, null_caption
from selfflow_wm.objective.encoders import Pixels
from selfflow_wm.objective.features import (
    STUDENT_LAYER,
    TEACHER_LAYER,
    layer_number,
    masked_mean,
    mean_cosine,
    valid_generated,
    valid_tokens,
)
from selfflow_wm.objective.schedules import (
    Draws,
    DualTimesteps,
    IndependentTimesteps,
    OneTimestep,
    Schedule,
    Views,
)

TIME_BINS = 5


@dataclass
class LossOutput:
    """What one training step minimises, and what it is made of."""

    total: Float[Tensor, ""]
    """Scalar to differentiate."""
    terms: dict[str, Float[Tensor, ""]]
    """Detached scalars: "gen/<m>", "rep", "bin/<m>/<0..4>" (nan when the bin is empty)."""
    parts: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """The summands of `total`, weighted and differentiable: "generation", "representation"."""


@dataclass
class Scene:
    """One batch with its random draws: all that a network can be shown of it."""

    layout: Layout
    batch: Batch
    draws: Draws
    views: Views

    def show(self, network: Any, levels: NoiseLevels, **options: Any) -> Any:
        """`network`'s output on the batch noised to `levels`."""
        return network(
            self.noised(levels),
            levels,
            **self.draws.text,
            valid=self.batch.valid,
            outputs=self.batch.generated,
            **options,
        )

    def noised(self, levels: NoiseLevels) -> dict[str, Float[Tensor, "B n C"]]:
        """Each modality at its tokens' levels; given ones without condition noise as they are."""
        times, slices = levels.per_token(), self.layout.slices(self.batch.latents)
        return {
            name: interpolate(clean, self.draws.noise[name], times[:, slices[name]])
            if name in self.draws.noise
            else clean
            for name, clean in self.batch.latents.items()
        }

    def generation(self, predicted: Mapping[str, Tensor]) -> LossOutput:
        """L_gen of the student's velocities, and its terms."""
        total, weights = torch.zeros((), device=self.batch.text_ids.device), 0.0
        terms: dict[str, Tensor] = {}
        times, slices = self.views.student.per_token(), self.layout.slices(self.batch.latents)
        for name in self.layout.present(self.batch.generated):
            target = velocity(self.batch.latents[name], self.draws.noise[name])
            error = (predicted[name].float() - target).square().mean(-1)
            valid = valid_tokens(self.batch, name)
            loss = masked_mean(error, valid, self.batch.rows)
            total = total + self.layout[name].weight * loss
            weights += self.layout[name].weight
            terms[f"gen/{name}"] = loss.detach()
            terms |= _time_bins(
                name, error.detach(), valid, times[:, slices[name]], self.batch.rows
            )
        if not weights:
            raise ValueError(
                "expected a positive loss weight among the generated "
                f"{self.batch.generated}, got 0; set Modality.weight"
            )
        total = total / weights
        return LossOutput(total, terms, {"generation": total})


class FlowMatching:
    """L_gen: the squared error of the velocity at one timestep per sample.

    L_gen = sum_m weight_m * L_m / sum_m weight_m over the generated modalities m of the batch,
    with L_m the mean over m's valid tokens and channels.

    Args:
        time_laws: p(t) of the generated modalities, one law or one per modality. Modalities
            generated together share their timesteps; the law is then that of the modality
            which comes first in this mapping.
        condition_noise: largest noise level of given modalities, whose level is drawn
            uniformly from (0, x) per sample; those not named stay clean.
        caption_dropout: chance that a sample's caption becomes the null byte.
    """

    needs_teacher = False
    schedule: Schedule = OneTimestep()

    def __init__(
        self,
        time_laws: Mapping[str, TimeLaw] | TimeLaw,
        condition_noise: Mapping[str, float] | None = None,
        caption_dropout: float = 0.1,
    ) -> None:
        self.time_laws = time_laws
        self.condition_noise = dict(condition_noise or {})
        self.caption_dropout = caption_dropout
        for name, largest in self.condition_noise.items():
            if not 0.0 <= largest <= 1.0:
                raise ValueError(f"expected condition_noise[{name!r}] in [0, 1], got {largest}")
        if not 0.0 <= caption_dropout <= 1.0:
            raise ValueError(f"expected caption_dropout in [0, 1], got {caption_dropout}")

    def modules(self) -> nn.Module:
        """The trainable modules that the objective owns; none here."""
        return nn.Module()

    def bind(self, pixels: Pixels) -> None:
        """Offer the way from latents to frames; only arms with an encoder take it."""

    def loss(
        self, student: Any, teacher: Any, batch: Batch, generator: torch.Generator | None = None
    ) -> LossOutput:
        """The loss of one batch; `teacher` is the EMA of the student, or None if not needed."""
        scene = self.scene(student.layout, batch, generator)
        return scene.generation(scene.show(student, scene.views.student).velocity)

    @torch.no_grad()
    def teacher_cosine(
        self, student: Any, teacher: Any, batch: Batch, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """How alike the raw features of student and teacher are, for any arm: a diagnosis.

        The mean cosine over the valid generated tokens between the student's features (on its
        own view) and the teacher's (on the teacher's view) at the arm's layers, the paper's where
        it has none. No projector, no gradient.
        """
        scene = self.scene(student.layout, batch, generator)
        pairs = (
            (student, scene.views.student, getattr(self, "student_layer", STUDENT_LAYER)),
            (teacher, scene.views.teacher, getattr(self, "teacher_layer", TEACHER_LAYER)),
        )
        ours, theirs = (
            scene.show(
                network,
                levels,
                feature_layer=layer_number(layer, student.depth),
                stop_at_feature=True,
            ).features
            for network, levels, layer in pairs
        )
        return mean_cosine(ours, theirs, valid_generated(scene.layout, batch), batch.rows)

    def scene(
        self, layout: Layout, batch: Batch, generator: torch.Generator | None = None
    ) -> Scene:
        """Draw all that is random about one batch. When several processes share a batch, each draws
        for all of it and keeps its rows."""
        draws = self._draw(layout, batch, generator)
        views = self.schedule(layout, batch, draws, self._law(batch.generated), generator)
        return Scene(layout, batch, draws.select(batch.rows), views.select(batch.rows))

    def _law(self, generated: tuple[str, ...]) -> TimeLaw:
        if not isinstance(self.time_laws, Mapping):
            return self.time_laws
        for name, law in self.time_laws.items():
            if name in generated:
                return law
        raise ValueError(
            f"expected a time law for one of {generated}, got {sorted(self.time_laws)}; add one"
        )

    def _draw(self, layout: Layout, batch: Batch, generator: torch.Generator | None) -> Draws:
        """What all arms draw, on the generator's device, in a fixed order."""
        batch.check(layout)
        device, size = batch.text_ids.device, batch.batch_size * batch.rows.step
        t = self._law(batch.generated)((size,), generator).to(device)
        dropped = (torch.rand(size, **source(generator)) < self.caption_dropout).to(device)
        ids, mask = batch.text_ids, batch.text_mask
        if self.caption_dropout:
            ids, mask = null_caption(ids, mask, batch.rows.of(dropped), layout.null_id)
        noise, condition = {}, {}
        for name in layout.present(batch.latents):
            largest = self.condition_noise.get(name, 0.0)
            if name in batch.given and not largest:
                continue
            if name in batch.given:
                condition[name] = largest * torch.rand(size, **source(generator)).to(device)
            shape = (size, *batch.latents[name].shape[1:])
            noise[name] = torch.randn(shape, **source(generator)).to(device)
        return Draws(t, noise, condition, {"text_ids": ids, "text_mask": mask})


class DualTimestep(FlowMatching):
    """The student's side of Self-Flow alone: t or s per token, no teacher, no projector."""

    schedule = DualTimesteps()


class DiffusionForcing(FlowMatching):
    """An independent timestep for every generated token."""

    schedule = IndependentTimesteps()


def _time_bins(
    name: str,
    error: Float[Tensor, "B n"],
    valid: Bool[Tensor, "B n"],
    times: Float[Tensor, "B n"],
    rows: Rows,
) -> dict[str, Float[Tensor, ""]]:
    """Mean error of the valid tokens whose level lies in each fifth of (0, 1)."""
    bins = (times * TIME_BINS).long().clamp(max=TIME_BINS - 1).flatten()
    weight = valid.to(error.dtype).flatten()
    zeros = torch.zeros(TIME_BINS, dtype=error.dtype, device=error.device)
    sums = zeros.index_add(0, bins, error.flatten() * weight)
    means = rows.mean(sums, zeros.index_add(0, bins, weight))
    return {f"bin/{name}/{i}": mean for i, mean in enumerate(means.unbind())}
