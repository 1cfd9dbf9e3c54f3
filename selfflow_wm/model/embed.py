"""Embeddings: noise levels, tokens of each modality, and text bytes."""

from __future__ import annotations

from math import log

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from selfflow_wm.layout import NULL_BYTE, TEXT_VOCABULARY, Modality


def sinusoid(
    x: Float[Tensor, "*shape"], width: int, max_period: float = 10_000.0
) -> Float[Tensor, "*shape width"]:
    """cos and sin of `x` at geometrically spaced frequencies from 1 to 1 / max_period."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=x.device)
    angles = x.float()[..., None] * torch.exp(-log(max_period) * steps / max(half, 1))
    return F.pad(torch.cat([angles.cos(), angles.sin()], -1), (0, width - 2 * half))


class LevelEmbedding(nn.Module):
    """Noise levels in [0, 1] to vectors: sinusoid, then a two-layer perceptron."""

    def __init__(self, width: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.linear1 = nn.Linear(frequencies, width)
        self.linear2 = nn.Linear(width, width)
        for linear in (self.linear1, self.linear2):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, levels: Float[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
        # Times 1000: the usual range of diffusion timesteps, for which the periods are meant.
        hidden = self.linear1(sinusoid(1000.0 * levels, self.frequencies).to(self.linear1.weight))
        return self.linear2(F.silu(hidden))


class ModalityEmbedding(nn.Module):
    """Tokens of one modality into the stream: a projection plus a learned vector per token.

    Rotary positions alone leave no trace in what attention carries away from a token, so a
    controller could see that an object is there but hardly where; hence a learned position
    too. It starts from fixed sinusoids of (time, row, column) and an offset of the modality's
    own, so that neighbours look alike and modalities do not.
    """

    def __init__(self, modality: Modality, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(modality.channels, width)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        third = width // 6 * 2
        positions = sinusoid(modality.positions(), third, max_period=100.0).flatten(1)
        positions = F.pad(positions, (0, width - 3 * third))
        self.position = nn.Parameter(positions + torch.randn(width) * 0.5)

    def forward(self, noisy: Float[Tensor, "B n C"]) -> Float[Tensor, "B n D"]:
        return self.project(noisy) + self.position


class TextEmbedding(nn.Module):
    """Bytes (and the null byte) to vectors, plus a learned position."""

    def __init__(self, text_length: int, width: int) -> None:
        super().__init__()
        self.bytes = nn.Embedding(TEXT_VOCABULARY, width)
        self.position = nn.Parameter(sinusoid(torch.arange(text_length), width, max_period=100.0))
        nn.init.normal_(self.bytes.weight, std=0.7)

    def forward(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        return self.bytes(ids) + self.position[: ids.shape[1]]


def trim_text(
    ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]
) -> tuple[Int[Tensor, "B l"], Bool[Tensor, "B l"]]:
    """Cut off the columns on the right that no row uses (at least one column stays)."""
    used = mask.any(0)
    length = max(1, int((torch.arange(1, len(used) + 1, device=mask.device) * used).max()))
    return ids[:, :length], mask[:, :length]


def null_caption(
    ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"], drop: Bool[Tensor, "B"]
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Replace the captions of the rows in `drop` by a single null byte."""
    first = torch.arange(ids.shape[1], device=ids.device) == 0
    drop = drop[:, None]
    return ids.masked_fill(drop, NULL_BYTE), torch.where(drop, first, mask)
