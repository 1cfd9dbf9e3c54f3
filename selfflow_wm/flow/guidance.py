"""Classifier-free guidance: away from what the model would make of no caption at all.

Ho and Salimans, arXiv 2207.12598; the limited interval of Kynkäänniemi et al., arXiv 2404.07724.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from selfflow_wm.flow.solvers import State, VelocityField
from selfflow_wm.layout import null_caption


def guided(
    plain: VelocityField,
    double: Callable[[], VelocityField],
    scale: float,
    interval: tuple[float, float],
) -> VelocityField:
    """The velocity without caption + scale * (with - without), where t lies in `interval`.

    Args:
        plain: the conditional velocity of B rows, used alone outside of `interval` = [lo, hi].
        double: makes the velocity of 2 * B rows, B with their captions and then B without
            (see `doubled_captions`), so that both come out of one call of the model. Not
            called when `scale` is 1.
        scale: 1 is `plain` itself at no cost, 0 ignores the captions, above 1 exaggerates them.

    ValueError unless scale >= 0 and 0 <= lo <= hi <= 1.
    """
    low, high = interval
    if not isfinite(scale) or scale < 0:
        raise ValueError(f"expected a finite guidance >= 0 (1 is none), got {scale}")
    if not 0.0 <= low <= high <= 1.0:
        raise ValueError(f"expected a guidance_interval 0 <= lo <= hi <= 1, got {interval}")
    if scale == 1.0:
        return plain
    doubled = double()

    def velocity(state: State, t: float) -> State:
        if not low <= t <= high:
            return plain(state, t)
        both = doubled(twice(state), t)
        halves = {name: v.chunk(2) for name, v in both.items()}
        return {name: free + scale * (bound - free) for name, (bound, free) in halves.items()}

    return velocity


def twice(tensors: Mapping[str, Tensor]) -> State:
    """The rows of every tensor, and once more."""
    return {name: torch.cat([x, x]) for name, x in tensors.items()}


def doubled_captions(
    text_ids: Int[Tensor, "B L"], text_mask: Bool[Tensor, "B L"] | None, null_id: int
) -> tuple[Int[Tensor, "2*B L"], Bool[Tensor, "2*B L"] | None]:
    """The captions, then as many null captions (a single `null_id`)."""
    everyone = torch.ones(len(text_ids), dtype=torch.bool, device=text_ids.device)
    null_ids, null_mask = null_caption(text_ids, text_mask, everyone, null_id)
    ids = torch.cat([text_ids, null_ids])
    if null_mask is None:
        return ids, None
    text_mask = torch.ones_like(null_mask) if text_mask is None else text_mask
    return ids, torch.cat([text_mask, null_mask])
