"""The exponential moving average of the weights: teacher in training, model in evaluation."""

from __future__ import annotations

import copy

import torch
from torch import nn

from selfflow_wm.training.parallel import local


class EMA:
    """`model` holds the averaged weights; it never takes a gradient.

    decay: share of the old average kept at every step. The paper uses 0.9999 with no warm-up
    over hundreds of thousands of steps. An average remembers about `1 / (1 - decay)` steps, so
    a run of a few thousand steps needs 0.999 or less, or it evaluates its own initialisation.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"ema decay: expected a number in [0, 1), got {decay}")
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model` by one step; buffers are copied. Of sharded networks
        each process averages its shards."""
        averaged = [local(p.data) for p in self.model.parameters()]
        current = [local(p.data) for p in model.parameters()]
        torch._foreach_lerp_(averaged, current, 1.0 - self.decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
