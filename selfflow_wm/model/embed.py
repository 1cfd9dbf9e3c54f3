"""Embeddings: noise levels, tokens of each modality, and text bytes."""

from __future__ import annotations

from math import log

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from selfflow_wm.layout import BYTE_VOCABULARY, Modality


def frequencies(
    width: int, max_period: float = 10_000.0, device: torch.device | str | None = None
) -> Float[Tensor, "half"]:
    """width // 2 geometrically spaced frequencies from 1 towards 1 / max_period."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=device)
    return torch.exp(-log(max_period) * steps / max(half, 1))


def sinusoid(
    x: Float[Tensor, "*shape"], width: int, max_period: float = 10_000.0
) -> Float[Tensor, "*shape width"]:
    """cos, then sin, of `x` at the `frequencies`; one zero more when `width` is odd."""
    angles = x.float()[..., None] * frequencies(width, max_period, x.device)
    return F.pad(torch.cat([angles.cos(), angles.sin()], -1), (0, width % 2))


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


def grid_sinusoids(modality: Modality, width: int) -> Float[Tensor, "n D"]:
    """Fixed sinusoids of each token's time, row and column, a third of the width each."""
    third = width // 6 * 2
    positions = sinusoid(modality.positions(), third, max_period=100.0).flatten(1)
    return F.pad(positions, (0, width - 3 * third))


class ModalityEmbedding(nn.Module):
    """Tokens of one modality into the stream: a projection plus a learned vector per token.

    Rotary positions alone leave no trace in what attention carries away from a token, so a
    controller could see that an object is there but hardly where; hence a learned position
    too. It starts from fixed sinusoids of (time, row, column) and an offset of the modality's
    own, so that neighbours look alike and modalities do not.

    stem: add a perceptron with hidden width 4 * D to the projection.
    """

    def __init__(self, modality: Modality, width: int, stem: bool = False) -> None:
        super().__init__()
        self.project = nn.Linear(modality.channels, width)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        self.stem = None
        if stem:
            hidden = 4 * width
            self.stem = nn.Sequential(
                nn.Linear(modality.channels, hidden), nn.SiLU(), nn.Linear(hidden, width)
            )
        self.position = nn.Parameter(grid_sinusoids(modality, width) + torch.randn(width) * 0.5)

    def forward(self, noisy: Float[Tensor, "B n C"]) -> Float[Tensor, "B n D"]:
        tokens = self.project(noisy) + self.position
        return tokens if self.stem is None else tokens + self.stem(noisy)


class VectorEmbedding(nn.Module):
    """A pooled vector into the space of the noise levels' embeddings: a two-layer perceptron.

    frequencies: octaves of Fourier features, sin and cos of 2^k x for k = -1 .. frequencies - 2.
    A centimetre is a small fraction of a normalised workspace; a perceptron on the bare values
    takes long to find such differences (Tancik et al. 2020).
    """

    def __init__(self, channels: int, width: int, frequencies: int = 0) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.linear1 = nn.Linear(channels * (1 + 2 * frequencies), 2 * width)
        self.linear2 = nn.Linear(2 * width, width)

    def forward(self, x: Float[Tensor, "B 1 C"]) -> Float[Tensor, "B 1 D"]:
        if self.frequencies:
            octaves = 2.0 ** torch.arange(-1, self.frequencies - 1, device=x.device)
            angles = (x[..., None] * octaves).flatten(-2)
            x = torch.cat([x, angles.sin(), angles.cos()], dim=-1)
        return self.linear2(F.silu(self.linear1(x)))


class TextEmbedding(nn.Module):
    """Caption ids (bytes or a label) to tokens of `patch` ids each, with learned positions."""

    def __init__(
        self, text_length: int, width: int, patch: int = 1, vocabulary: int = BYTE_VOCABULARY
    ) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"expected text_patch >= 1, got {patch}")
        self.patch, self.null_id = patch, vocabulary - 1
        count = -(-text_length // patch)
        self.bytes = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(sinusoid(torch.arange(count), width, max_period=100.0))
        nn.init.normal_(self.bytes.weight, std=0.7)
        self.merge = nn.Linear(patch * width, width) if patch > 1 else nn.Identity()

    def forward(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B l D"], Bool[Tensor, "B l"] | None]:
        """The tokens, l = ceil(L / patch), and which of them hold any text; None for all, as it is
        where there is one token, because every caption holds some text."""
        missing = -ids.shape[1] % self.patch
        ids = F.pad(ids, (0, missing), value=self.null_id).unflatten(1, (-1, self.patch))
        if mask is None or ids.shape[1] == 1:
            mask = None
        else:
            mask = F.pad(mask, (0, missing)).unflatten(1, (-1, self.patch)).any(-1)
        tokens = self.merge(self.bytes(ids).flatten(2))
        return tokens + self.position[: tokens.shape[1]], mask
