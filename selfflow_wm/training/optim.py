"""AdamW with warm-up and a cosine, as an object that the configuration names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class AdamWCosine:
    """AdamW, gradient clipping, linear warm-up, then a cosine to `floor * lr`.

    lr: peak learning rate. warmup: steps from 0 to the peak. floor: last rate as a fraction
    of the peak. clip_norm: largest global gradient norm (the paper clips at 1).
    The rate is a pure function of the step, so there is no scheduler state to save.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup: int = 100
    floor: float = 0.05
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(
                f"optim.lr: expected a positive number, got {self.lr}; write optim.lr=1e-3"
            )
        if not self.clip_norm > 0:
            raise ValueError(
                f"optim.clip_norm: expected a positive number, got {self.clip_norm}; "
                "use .inf to train without clipping"
            )

    def build(self, modules: Iterable[nn.Module]) -> torch.optim.AdamW:
        """An AdamW over the trainable parameters of `modules`, in their order."""
        groups = parameter_groups(modules, self.weight_decay)
        return torch.optim.AdamW(
            groups, lr=self.lr, betas=(self.betas[0], self.betas[1]), eps=self.eps, fused=True
        )

    def rate(self, step: int, total_steps: int) -> float:
        """Learning rate of optimiser step `step` (counted from 0) out of `total_steps`."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        span = max(1, total_steps - self.warmup)
        progress = min(1.0, (step - self.warmup) / span)
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.lr * (self.floor + (1.0 - self.floor) * cosine)


def rescheduled(optim: AdamWCosine, step: int, before: int, now: int) -> str:
    """What training on from `step` to `now` steps in all does to the rate that was planned for
    `before` steps; "" where it is planned for as many."""
    if before == now:
        return ""
    counts = f"of {now} steps now, {before} before"
    if step >= now:
        return f"{counts}: none is left"
    ahead = range(step, now)
    if all(optim.rate(s, before) == optim.rate(s, now) for s in ahead[:: 1 + len(ahead) // 100]):
        return f"{counts}: constant after warm-up, as before"
    was, is_, last = optim.rate(step, before), optim.rate(step, now), optim.rate(now - 1, now)
    next_step = f"stays at {is_:.3g}" if was == is_ else f"jumps from {was:.3g} to {is_:.3g}"
    return f"{counts}: the schedule is over them all, the rate {next_step} and ends at {last:.3g}"


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict]:
    """Two groups: matrices with decay; biases, norm scales and other 1-D tensors without."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
