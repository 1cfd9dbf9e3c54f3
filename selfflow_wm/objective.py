"""Training objectives: flow matching, and Self-Flow on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selfflow_wm.flow.noising import TimeLaw
from selfflow_wm.layout import Batch


@dataclass
class LossOutput:
    total: Tensor
    """Scalar to differentiate."""
    terms: dict[str, Tensor]
    """Detached scalars: "gen/<m>", "rep", "bin/<m>/<0..4>" (nan when the bin is empty)."""


class FlowMatching:
    needs_teacher = False

    def __init__(
        self,
        time_laws: Mapping[str, TimeLaw] | TimeLaw,
        condition_noise: Mapping[str, float] | None = None,
        caption_dropout: float = 0.1,
    ) -> None: ...

    def modules(self) -> nn.Module:
        """Trainable modules the objective owns (empty here; SelfFlow: its projector)."""
        raise NotImplementedError

    def loss(self, student, teacher, batch: Batch, generator: torch.Generator) -> LossOutput:
        """`teacher` is the EMA Backbone, or None when `needs_teacher` is False.

        Modules need .layout and .depth.
        """
        raise NotImplementedError


class SelfFlow(FlowMatching):
    """needs_teacher is True iff gamma > 0."""

    def __init__(
        self,
        time_laws,
        *,
        width: int,
        condition_noise=None,
        caption_dropout: float = 0.1,
        gamma: float = 0.8,
        student_layer: float | int = 0.3,
        teacher_layer: float | int = 0.7,
        projector_hidden: int | None = None,
    ) -> None: ...
