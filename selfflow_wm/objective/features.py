"""Comparing features of two networks: which layer, which tokens, what mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from selfflow_wm.layout import Batch, Layout, Rows

STUDENT_LAYER, TEACHER_LAYER = 0.3, 0.7
"""The paper's layers as fractions of the depth: 8 and 20 of 28 blocks, counted from 1."""


def layer_number(layer: float | int, depth: int) -> int:
    """`layer` as a block of a network of `depth` blocks, counted from 1.

    An int is taken as it is, a float is a fraction of the depth, rounded and at least 1.
    """
    number = layer if isinstance(layer, int) else max(1, int(layer * depth + 0.5))
    if not 1 <= number <= depth:
        raise ValueError(
            f"expected a layer in 1..{depth}, or a fraction of the depth in [0, 1], got {layer}; "
            "name an earlier block or use a deeper network"
        )
    return number


def valid_tokens(batch: Batch, name: str) -> Bool[Tensor, "B n"]:
    """Which tokens of a modality count; all of them where the batch does not say."""
    if name in batch.valid:
        return batch.valid[name]
    return torch.ones_like(batch.latents[name][..., 0], dtype=torch.bool)


def valid_generated(layout: Layout, batch: Batch) -> Bool[Tensor, "B M"]:
    """`valid_tokens` of all generated modalities, in the order of the networks' features."""
    return torch.cat([valid_tokens(batch, name) for name in layout.present(batch.generated)], 1)


def masked_mean(
    values: Float[Tensor, "B n"], valid: Bool[Tensor, "B n"], rows: Rows | None = None
) -> Float[Tensor, ""]:
    """Mean over the valid tokens of the batch (of which these may be some `rows`); 0 when there
    is none."""
    return (rows or Rows()).mean((values * valid).sum(), valid.sum(), at_least=1)


def mean_cosine(
    a: Float[Tensor, "B M D"],
    b: Float[Tensor, "B M D"],
    valid: Bool[Tensor, "B M"],
    rows: Rows | None = None,
) -> Float[Tensor, ""]:
    """Mean over the valid tokens of the cosine between their features, in float32."""
    return masked_mean(F.cosine_similarity(a.float(), b.float(), dim=-1), valid, rows)
