"""An objective: flow matching with a loss on the direction of the velocity (FasterDiT,
arXiv 2410.10356, "velocity direction supervision")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from selfflow_wm.flow.noising import velocity
from selfflow_wm.flow.time_laws import TimeLaw
from selfflow_wm.layout import Batch
from selfflow_wm.objective import FlowMatching, LossOutput


class DirectionFlow(FlowMatching):
    """L_gen + weight * mean(1 - cos(predicted, true velocity)), the cosine per token.

    Args:
        weight: of the direction loss; 0 is plain flow matching.
        time_laws, condition_noise, caption_dropout: `FlowMatching`'s.
    """

    def __init__(
        self,
        time_laws: Mapping[str, TimeLaw] | TimeLaw,
        condition_noise: Mapping[str, float] | None = None,
        caption_dropout: float = 0.1,
        weight: float = 0.1,
    ) -> None:
        super().__init__(time_laws, condition_noise, caption_dropout)
        if weight < 0:
            raise ValueError(f"expected weight >= 0, got {weight}; leave it out for 0.1")
        self.weight = weight

    def loss(
        self, student: Any, teacher: Any, batch: Batch, generator: torch.Generator | None = None
    ) -> LossOutput:
        """The loss of one batch; its term "direction" is logged beside "gen/<modality>"."""
        scene = self.scene(student.layout, batch, generator)
        predicted = scene.show(student, scene.views.student).velocity
        result = scene.generation(predicted)
        cosines = [
            torch.cosine_similarity(
                predicted[name].float(), velocity(batch.latents[name], scene.draws.noise[name]), -1
            ).mean()
            for name in scene.layout.present(batch.generated)
        ]
        direction = 1 - torch.stack(cosines).mean()
        return replace(
            result,
            total=result.total + self.weight * direction,
            terms=result.terms | {"direction": direction.detach()},
        )
