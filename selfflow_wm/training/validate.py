"""Validation on fixed batches and fixed noise, so that two steps or two runs compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from selfflow_wm.layout import Batch


class FixedNoiseValidation:
    """Mean loss terms per named group of batches, with the same noise at every call.

    objective: what measures (plain flow matching without caption dropout, for every arm, so
    that arms compare). groups: name -> batches. Returns `<group>/<term>` for every term:
    the loss per modality and per fifth of the noise range.
    """

    def __init__(
        self, objective: Any, groups: Mapping[str, Sequence[Batch]], *, seed: int = 0
    ) -> None:
        self.objective, self.groups, self.seed = objective, groups, seed

    @torch.no_grad()
    def __call__(self, model: nn.Module, step: int = 0) -> dict[str, float]:
        results: dict[str, float] = {}
        for group, batches in self.groups.items():
            collected: dict[str, list[float]] = {}
            for number, batch in enumerate(batches):
                device = batch.text_ids.device
                generator = torch.Generator(device).manual_seed(self.seed * 1_000_003 + number)
                loss = self.objective.loss(model, None, batch, generator)
                for name, value in {"loss": loss.total, **loss.terms}.items():
                    if math.isfinite(value):
                        collected.setdefault(name, []).append(float(value))
            results |= {f"{group}/{k}": sum(v) / len(v) for k, v in collected.items()}
        return results
