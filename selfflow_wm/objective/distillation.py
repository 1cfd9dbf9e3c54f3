"""L = L_gen + gamma * L_rep: student features aligned with a target, and the EMA as target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from selfflow_wm.flow.time_laws import TimeLaw
from selfflow_wm.layout import Batch
from selfflow_wm.objective.base import FlowMatching, LossOutput, Scene
from selfflow_wm.objective.features import (
    STUDENT_LAYER,
    TEACHER_LAYER,
    layer_number,
    mean_cosine,
    valid_generated,
)
from selfflow_wm.objective.schedules import DualTimesteps, SlightlyCleanerTeacher


class Alignment(FlowMatching):
    """L_rep = -mean cos(projector(student features at `student_layer`), target features).

    The mean is over the valid generated tokens that have a target. Given tokens are the same for
    student and teacher, so agreeing there teaches nothing and would dilute the signal; text
    tokens likewise. Subclasses define the target.

    Args:
        width: width of the backbone, for the projector.
        gamma: weight of L_rep; 0 leaves L_gen alone.
        student_layer: a block counted from 1 (int), or a fraction of the depth (float).
        projector_hidden: hidden width of the projector, 4 * width by default (10.6M parameters
            at width 1152).
        target_width: width of the target features, that of the backbone by default.
    """

    def __init__(
        self,
        time_laws: Mapping[str, TimeLaw] | TimeLaw,
        *,
        width: int,
        gamma: float,
        condition_noise: Mapping[str, float] | None = None,
        caption_dropout: float = 0.1,
        student_layer: float | int = STUDENT_LAYER,
        projector_hidden: int | None = None,
        target_width: int | None = None,
    ) -> None:
        super().__init__(time_laws, condition_noise, caption_dropout)
        if gamma < 0:
            raise ValueError(f"expected gamma >= 0, got {gamma}; 0 switches L_rep off")
        self.gamma, self.student_layer = gamma, student_layer
        hidden = projector_hidden or 4 * width
        self.projector = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, target_width or width)
        )

    def modules(self) -> nn.Module:
        return nn.ModuleDict({"projector": self.projector})

    def loss(
        self, student: Any, teacher: Any, batch: Batch, generator: torch.Generator | None = None
    ) -> LossOutput:
        """The loss of one batch; without "rep" when gamma is 0 or no token has a target."""
        if not self.gamma:
            return super().loss(student, teacher, batch, generator)
        layer = self.feature_layer(student.depth)
        scene = self.scene(student.layout, batch, generator)
        # The target first: what is missing for it fails before the student has worked.
        with torch.no_grad():
            target, has_target = self._target(scene, teacher)
        output = scene.show(student, scene.views.student, feature_layer=layer)
        result = scene.generation(output.velocity)
        if target is None:
            return result
        valid = valid_generated(scene.layout, batch) & has_target
        representation = -mean_cosine(self.projector(output.features), target, valid, batch.rows)
        weighted = self.gamma * representation
        return LossOutput(
            result.total + weighted,
            result.terms | {"rep": representation.detach()},
            result.parts | {"representation": weighted},
        )

    def feature_layer(self, depth: int) -> int:
        """The student's layer in a network of `depth` blocks, counted from 1."""
        return layer_number(self.student_layer, depth)

    def _target(
        self, scene: Scene, teacher: Any
    ) -> tuple[Float[Tensor, "B M E"] | None, Bool[Tensor, "B M"]]:
        """Target features of the generated tokens (None: none at all), and which have one."""
        raise NotImplementedError


class SelfDistillation(Alignment):
    """The target is the EMA of the student, without gradient, on the schedule's teacher view.

    The teacher sees the same clean latents, noise, condition noise and dropped captions, every
    generated token at one level that is cleaner than the student's, and stops at
    `teacher_layer`: a block counted from 1 or a fraction of the depth, later than the student's.
    """

    def __init__(
        self,
        time_laws: Mapping[str, TimeLaw] | TimeLaw,
        *,
        width: int,
        gamma: float = 0.8,
        teacher_layer: float | int = TEACHER_LAYER,
        **options: Any,
    ) -> None:
        super().__init__(time_laws, width=width, gamma=gamma, **options)
        self.needs_teacher = gamma > 0
        self.teacher_layer = teacher_layer

    def layers(self, depth: int) -> tuple[int, int]:
        """(student, teacher) layers of a network of `depth` blocks, counted from 1."""
        student = layer_number(self.student_layer, depth)
        teacher = layer_number(self.teacher_layer, depth)
        if student >= teacher:
            raise ValueError(
                f"expected 1 <= student layer < teacher layer <= {depth}, got {student} and "
                f"{teacher}; set student_layer and teacher_layer, or use a deeper network"
            )
        return student, teacher

    def feature_layer(self, depth: int) -> int:
        return self.layers(depth)[0]

    def _target(
        self, scene: Scene, teacher: Any
    ) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"]]:
        if teacher is None:
            raise ValueError(
                "expected a teacher (the EMA of the student), got None; or set gamma=0"
            )
        layer = self.layers(teacher.depth)[1]
        output = scene.show(teacher, scene.views.teacher, feature_layer=layer, stop_at_feature=True)
        return output.features, valid_generated(scene.layout, scene.batch)


class SelfFlow(SelfDistillation):
    """Self-Flow: Dual-Timestep Scheduling, and the EMA teacher at min(t, s).

    The student sees each generated token at its own t or s, so on a masked-to-noise token the
    teacher's view is cleaner. With every mask ratio 0 and gamma 0 this is `FlowMatching`, bit
    for bit.

    separated: in the student, close the generated tokens at t and those at s to each other
        ("attention separation", arXiv 2607.02508). A generated token attends to generated
        tokens of its own level, of every modality, and to all given and text tokens. Given and
        text tokens attend to given and text tokens only: otherwise they would carry one group
        to the other within two blocks. Teacher and sampling, at one level, are not restricted;
        where there are given tokens, compare arms with `Backbone(blind_conditions=True)`, so
        that conditions are computed there as in training.
    """

    def __init__(
        self,
        time_laws: Mapping[str, TimeLaw] | TimeLaw,
        *,
        width: int,
        separated: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(time_laws, width=width, **options)
        self.schedule = DualTimesteps(separated)


class SRA(SelfDistillation):
    """SRA: one timestep for the student, the EMA teacher at max(0, t - U(0, largest_gap))."""

    def __init__(
        self,
        time_laws: Mapping[str, TimeLaw] | TimeLaw,
        *,
        width: int,
        largest_gap: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(time_laws, width=width, **options)
        self.schedule = SlightlyCleanerTeacher(largest_gap)
