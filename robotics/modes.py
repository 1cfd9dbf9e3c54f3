"""Inference modes as rows: which modalities are given and which are generated.

An absent modality is left out of the sequence, so a policy never pays for video tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

IMAGE, HISTORY, PROPRIO = "image", "history", "proprio"
KEYPOSE, VIDEO, ACTION = "keypose", "video", "action"


@dataclass(frozen=True)
class Mode:
    """One way to use the model. Names are modalities of the layout."""

    name: str
    given: tuple[str, ...]
    """Held at t = 0 (or at a small condition noise)."""
    generated: tuple[str, ...]
    """Denoised together from t = 1 to t = 0."""

    @property
    def present(self) -> tuple[str, ...]:
        return self.given + self.generated


MODES: dict[str, Mode] = {
    row.name: row
    for row in (
        Mode("policy", (IMAGE, HISTORY, PROPRIO), (KEYPOSE, ACTION)),
        Mode("joint", (IMAGE, HISTORY, PROPRIO), (KEYPOSE, VIDEO, ACTION)),
        Mode("forward", (IMAGE, HISTORY, PROPRIO, ACTION), (VIDEO,)),
        Mode("inverse", (IMAGE, HISTORY, PROPRIO, VIDEO), (ACTION,)),
        Mode("video", (IMAGE, HISTORY, PROPRIO), (VIDEO,)),
    )
}
"""What a model's layout lacks (history, key pose) is left out of its rows."""


def mode(name: str) -> Mode:
    """The row called `name`; ValueError with the known names otherwise."""
    if name not in MODES:
        raise ValueError(f"expected a mode out of {sorted(MODES)}, got {name!r}")
    return MODES[name]


@dataclass(frozen=True)
class Share:
    """How often a mode is drawn in training and how many windows its batches hold."""

    probability: float
    batch_size: int


class Mixture:
    """The modes of a training run. Every optimiser step draws one, from its step and seed alone.

    Batch sizes differ so that steps cost about the same (as the paper's appendix D sizes its
    image, video and audio batches). Probabilities are scaled to sum to 1.
    """

    def __init__(self, shares: Mapping[str, Share | Mapping[str, Any]], seed: int = 0) -> None:
        rows = {
            mode(name).name: share if isinstance(share, Share) else Share(**share)
            for name, share in shares.items()
            if share is not None
        }
        self.shares = {name: share for name, share in rows.items() if share.probability > 0}
        if any(share.probability < 0 or share.batch_size < 1 for share in rows.values()) or not (
            self.shares
        ):
            raise ValueError(
                f"expected probability >= 0 (above 0 for one mode), batch_size >= 1, got {rows}; "
                "see configs/modes"
            )
        self.seed = seed
        total = sum(share.probability for share in self.shares.values())
        self._edges = np.cumsum([share.probability / total for share in self.shares.values()])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.shares)

    def draw(self, step: int) -> Mode:
        """The mode of optimiser step `step`."""
        value = np.random.default_rng([self.seed, step]).random()
        index = int(np.searchsorted(self._edges, value, side="right"))
        return MODES[self.names[min(index, len(self.names) - 1)]]

    def batch_size(self, name: str) -> int:
        return self.shares[name].batch_size
