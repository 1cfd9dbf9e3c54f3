"""Attention over the joint sequence: rotary positions, qk-norm, key mask, groups.

What is closed to attention decides the mask, and the mask which kernels of torch's
`scaled_dot_product_attention` can run on a CUDA GPU:

| closed | `attn_mask` | kernels in bfloat16 |
|---|---|---|
| nothing: no `valid`, captions of one id or `text_mask` None | None | flash, cuDNN, efficient |
| padding of captions or of a modality | bool (B, 1, 1, S) | cuDNN, efficient |
| separated levels, `blind_conditions` | bool (B, 1, S, S) | cuDNN, efficient |

In float32 there is the efficient one alone. Captions of bytes are padded to one length, and a
dropped one is a single id: their padding has to be closed in every batch, by a mask that is one for
all queries and heads. Which of these kernels torch takes is for `chosen_kernel` to say.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend


def rotary_table(
    positions: Float[Tensor, "N 3"], head_width: int, theta: float
) -> Float[Tensor, "2 N 1 half"]:
    """cos and sin of position * frequency for 3-D RoPE, one angle per pair of channels.

    The pairs of a head are divided evenly over (time, row, column), time first for what is
    left over (head width 72 gives 24 channels per axis as in the paper). Positions are taken
    as they are, so frames and actions share the clock of the layout.
    """
    half = head_width // 2
    if head_width % 2 or half < 3:
        raise ValueError(
            f"expected an even head width >= 6 for 3-D RoPE, got {head_width}; change width/heads"
        )
    pairs = [half // 3 + (axis < half % 3) for axis in range(3)]
    angles = [
        positions[:, axis, None].double()
        * theta ** (-torch.arange(count, dtype=torch.float64) / count)
        for axis, count in enumerate(pairs)
    ]
    angles = torch.cat(angles, dim=-1)
    return torch.stack([angles.cos(), angles.sin()]).float()[:, :, None]


def rotary_identity(
    table: Float[Tensor, "2 N 1 half"], length: int
) -> Float[Tensor, "2 length 1 half"]:
    """The table of `length` tokens at position 0, which nothing rotates."""
    cos = torch.ones_like(table[:1, :1]).expand(-1, length, -1, -1)
    return torch.cat([cos, torch.zeros_like(cos)])


def rotate(
    x: Float[Tensor, "B N heads d"], table: Float[Tensor, "2 N 1 half"]
) -> Float[Tensor, "B N heads d"]:
    """Rotate each pair of neighbouring channels by its token's angle (in float32)."""
    # Real arithmetic: a complex product is faster op by op, but breaks a compiled graph.
    cos, sin = table
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)


class HeadNorm(nn.Module):
    """RMS norm over a head's channels with a learned scale (qk-norm), eps 1e-6."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_width))

    def forward(self, x: Float[Tensor, "B N heads d"]) -> Float[Tensor, "B N heads d"]:
        return F.rms_norm(x, self.weight.shape, self.weight, eps=1e-6)


class QueryKeyValue(nn.Module):
    """The fused q, k, v projection of one stream, with bias, qk-norm and rotation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear = nn.Linear(width, 3 * width)
        self.query_norm = HeadNorm(width // heads)
        self.key_norm = HeadNorm(width // heads)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        table: Float[Tensor, "2 N 1 half"] | None,
        queries: slice | Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of shape (B, tokens, heads, d); q for the tokens `queries` only, if given.

        `table` None leaves tokens unrotated: position 0 on every axis.
        """
        if queries is None:
            q, k, v = rearrange(self.linear(x), "b n (s h d) -> s b n h d", s=3, h=self.heads)
        else:
            width = x.shape[-1]
            weight_q, weight_kv = self.linear.weight.split([width, 2 * width])
            bias_q, bias_kv = self.linear.bias.split([width, 2 * width])
            q = F.linear(x[:, queries], weight_q, bias_q)
            q = rearrange(q, "b n (h d) -> b n h d", h=self.heads)
            k, v = rearrange(
                F.linear(x, weight_kv, bias_kv), "b n (s h d) -> s b n h d", s=2, h=self.heads
            )
        q, k = self.query_norm(q), self.key_norm(k)
        if table is not None:
            q = rotate(q, table if queries is None else table[:, queries])
            k = rotate(k, table)
        return q, k, v


def group_mask(
    key_mask: Bool[Tensor, "B 1 1 S"], group: Int[Tensor, "B S"]
) -> Bool[Tensor, "B 1 S S"]:
    """`key_mask`, and a token attends to its own group and to the conditions, group 0, only.

    Conditions thus attend to conditions alone. If they read the other groups, they would pass
    what they read on from one group to another, two blocks later.
    """
    same = group[:, :, None] == group[:, None, :]
    return key_mask & (same | (group == 0)[:, None, :])[:, None]


def attend(
    q: Float[Tensor, "B M heads d"],
    k: Float[Tensor, "B N heads d"],
    v: Float[Tensor, "B N heads d"],
    key_mask: Bool[Tensor, "B 1 #M N"] | None,
) -> Float[Tensor, "B M D"]:
    """Softmax attention of each query over the keys that `key_mask` keeps (None: all)."""
    q, k, v = (rearrange(x, "b n h d -> b h n d") for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
    return rearrange(mixed, "b h n d -> b n (h d)")


def chosen_kernel(
    q: Float[Tensor, "B heads M d"],
    k: Float[Tensor, "B heads N d"],
    v: Float[Tensor, "B heads N d"],
    key_mask: Bool[Tensor, "B 1 #M N"] | None,
) -> str:
    """The kernel that torch picks for `attend` here: math, flash, efficient or cudnn."""
    number = torch._fused_sdp_choice(q, k, v, key_mask)
    return SDPBackend(number).name.removesuffix("_ATTENTION").split("_")[0].lower()
