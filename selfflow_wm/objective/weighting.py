"""Loss weights between the modalities of different batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from selfflow_wm.layout import Batch
from selfflow_wm.objective.base import FlowMatching, LossOutput


class WeightedByModality:
    """An objective whose loss counts as much as the weights of what a batch generates.

    L_gen alone is a weighted mean over the modalities of one batch, so a batch of one modality
    has the same loss whatever its weight. Here the whole loss, the representation term with it,
    is multiplied by the mean weight of the generated modalities: w_m (L_gen + gamma L_rep) for one
    modality, and for two, of which L_gen is (w_a L_a + w_b L_b) / (w_a + w_b), half of
    w_a L_a + w_b L_b. Logged terms are not weighted.

    The paper (arXiv 2603.06507, appendix D) gives weights per modality; that they also scale the
    representation term is a reading of ours.
    """

    def __init__(self, objective: FlowMatching) -> None:
        self.objective = objective
        self.name = type(objective).__name__

    def __getattr__(self, name: str) -> Any:
        if name == "objective":  # while it is being copied or pickled
            raise AttributeError(name)
        return getattr(self.objective, name)

    def modules(self) -> nn.Module:
        """The trainable modules of the objective."""
        return self.objective.modules()

    def loss(
        self, student: Any, teacher: Any, batch: Batch, generator: torch.Generator | None = None
    ) -> LossOutput:
        """The weighted loss of one batch."""
        found = self.objective.loss(student, teacher, batch, generator)
        weights = [student.layout[name].weight for name in batch.generated]
        weight = sum(weights) / len(weights)
        parts = {name: weight * value for name, value in found.parts.items()}
        return LossOutput(weight * found.total, found.terms, parts)
