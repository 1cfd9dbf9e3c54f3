"""The exponential moving average of the weights: teacher in training, model in evaluation."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

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
    def update(self, model: nn.Module, unless: Tensor | None = None) -> None:
        """Move the average towards `model` by one step; buffers are copied. Of sharded networks
        every process moves its own shards.

        unless: a scalar on the device that is 1 to leave the average as it is, else 0; only the
        device looks at it."""
        averaged = [local(p.data) for p in self.model.parameters()]
        current = [local(p.data) for p in model.parameters()]
        share = 1.0 - self.decay
        if unless is None:
            torch._foreach_lerp_(averaged, current, share)
        else:
            torch._foreach_lerp_(averaged, current, [share * (1.0 - unless)] * len(averaged))
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
