"""What a batch trains: rows of given and generated modalities, one of which each step draws."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from selfflow_wm.data.source import JOINT


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
        Mode("image", (), ("image",)),
        Mode("video", (), ("video",)),
        Mode("audio", (), ("audio",)),
        # A picture given, the clip and its sound denoised in one sequence.
        Mode(JOINT, ("image",), ("video", "audio")),
    )
}
"""The modes of pretraining, each named as the kind of source that its samples come from."""


@dataclass(frozen=True)
class Share:
    """How often a mode is drawn in training and how many samples its batches hold."""

    probability: float
    batch_size: int


def _share(name: str, given: Share | Mapping[str, Any]) -> Share:
    if isinstance(given, Share):
        return given
    numbers = [isinstance(value, int | float) for value in given.values()]
    if set(given) != {"probability", "batch_size"} or not all(numbers):
        raise ValueError(
            f"modes.{name}: expected probability and batch_size, got {dict(given)}; state both, or "
            f"leave the mode out with modes.{name}=null"
        )
    return Share(**given)


class ModeSchedule:
    """The modes of a training run. Every optimiser step draws one, from its step and seed alone.

    Batch sizes differ so that steps cost about the same (as the paper's appendix D sizes its
    image, video and audio batches). Probabilities are scaled to sum to 1; a mode whose share is
    None or has probability 0 is left out.

    Args:
        shares: by mode.
        seed: of the draws.
        table: the modes there are.
    """

    def __init__(
        self,
        shares: Mapping[str, Share | Mapping[str, Any] | None],
        seed: int = 0,
        table: Mapping[str, Mode] = MODES,
    ) -> None:
        if unknown := sorted(set(shares) - set(table)):
            raise ValueError(f"expected a mode out of {sorted(table)}, got {unknown[0]!r}")
        rows = {name: _share(name, share) for name, share in shares.items() if share is not None}
        self.shares = {name: share for name, share in rows.items() if share.probability > 0}
        if any(share.probability < 0 or share.batch_size < 1 for share in rows.values()) or not (
            self.shares
        ):
            raise ValueError(
                f"expected probability >= 0 (above 0 for one mode), batch_size >= 1, got {rows}; "
                "see configs/modes"
            )
        self.seed, self.table = seed, table
        self._edges = np.cumsum(list(self.probabilities.values()))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.shares)

    @property
    def probabilities(self) -> dict[str, float]:
        """By mode, summing to 1."""
        total = sum(share.probability for share in self.shares.values())
        return {name: share.probability / total for name, share in self.shares.items()}

    def draw(self, step: int) -> Mode:
        """The mode of optimiser step `step`."""
        value = np.random.default_rng([self.seed, step]).random()
        index = int(np.searchsorted(self._edges, value, side="right"))
        return self.table[self.names[min(index, len(self.names) - 1)]]

    def batch_size(self, name: str) -> int:
        return self.shares[name].batch_size

    def divided(self, processes: int) -> Self:
        """The same schedule with the batches of one of several processes, which share each of them
        evenly; ValueError where that is not possible."""
        shares = {}
        for name, share in self.shares.items():
            size, rest = divmod(share.batch_size, processes)
            if rest:
                raise ValueError(
                    f"modes.{name}.batch_size: expected a multiple of the {processes} processes "
                    f"that share each batch (one of trainer.accumulate in a step), got "
                    f"{share.batch_size}; set modes.{name}.batch_size={(size + 1) * processes}"
                )
            shares[name] = replace(share, batch_size=size)
        return self._with(shares)

    def times(self, processes: int) -> Self:
        """The same schedule with the batches of several processes that each have one of this."""
        return self._with(
            {
                name: replace(share, batch_size=processes * share.batch_size)
                for name, share in self.shares.items()
            }
        )

    def _with(self, shares: dict[str, Share]) -> Self:
        result = copy.copy(self)
        result.shares = shares
        return result
