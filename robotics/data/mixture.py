"""Several data sets trained on as one: windows drawn by weight, statistics pooled by weight.

A model has one robot's conventions and one normaliser, so the sets must share their actions' and
the statistics are those of what is drawn: of a set with share w, every step counts w / steps.
(Octo and OpenVLA normalise each data set separately; a prediction then means a different motion for
each of them, and a checkpoint has to know which one it acts for.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from robotics.data.windows import WindowDataset, checked_indices
from robotics.embodiment.normalize import Quantiles


class DatasetMixture:
    """The windows of several datasets one after the other, under one numbering.

    Args:
        parts: the sets by name, all of one window shape.
        weights: of the windows drawn, what comes from each set, > 0; scaled to sum to 1.

    Raises:
        ValueError: no sets, other names, a weight not above 0, or sets whose windows differ.
    """

    def __init__(self, parts: Mapping[str, WindowDataset], weights: Mapping[str, float]) -> None:
        values = {name: float(value) for name, value in weights.items()}
        if not parts or set(parts) != set(values):
            raise ValueError(
                f"expected a weight for each of {sorted(parts)} and at least one set, got "
                f"{sorted(values)}; see configs/dataset/mixture_template.yaml."
            )
        if not all(np.isfinite(value) and value > 0 for value in values.values()):
            raise ValueError(f"expected weights above 0, got {values}; leave a set out instead.")
        shapes = {
            name: (part.image_size, part.horizon, part.video_offsets, part.history_offsets)
            for name, part in parts.items()
        }
        if len(set(shapes.values())) > 1:
            raise ValueError(
                "expected sets with one image size, horizon, video offsets and history, got "
                f"{shapes}; open them with the same settings."
            )
        self.parts = dict(parts)
        total = sum(values.values())
        self.shares = {name: values[name] / total for name in parts}
        """Share of each set among the windows drawn; sums to 1."""
        self.starts = np.cumsum([0] + [len(part) for part in parts.values()])
        """Number of each set's first window, and the number of windows at the end."""
        first = next(iter(parts.values()))
        self.image_size, self.horizon = first.image_size, first.horizon
        self.video_offsets, self.history_offsets = first.video_offsets, first.history_offsets

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def num_episodes(self) -> int:
        """Episodes of all sets."""
        return sum(part.num_episodes for part in self.parts.values())

    @property
    def actions(self) -> np.ndarray:
        """float32 (windows, 8) in physical units, a copy."""
        return np.concatenate([part.actions for part in self.parts.values()])

    @property
    def episode_start(self) -> np.ndarray:
        """int64 (windows,): the first window of every window's episode."""
        pairs = zip(self.starts.tolist(), self.parts.values(), strict=False)
        return np.concatenate([part.episode_start + start for start, part in pairs])

    @property
    def probabilities(self) -> np.ndarray:
        """float64 (windows,): how often each is drawn; sums to 1."""
        return np.concatenate(
            [np.full(len(part), self.shares[name] / len(part)) for name, part in self.parts.items()]
        )

    def batch(self, indices: ArrayLike, **options: Any) -> dict[str, Any]:
        """Windows of any of the sets stacked in the order asked for, see `WindowDataset.batch`."""
        steps = checked_indices(indices, len(self))
        owner = np.searchsorted(self.starts, steps, side="right") - 1
        merged: dict[str, Any] = {}
        for number, part in enumerate(self.parts.values()):
            rows = np.flatnonzero(owner == number)
            if not len(rows):
                continue
            for name, values in part.batch(steps[rows] - self.starts[number], **options).items():
                _scatter(merged, name, values, rows, len(steps))
        return merged

    def statistics(self) -> dict[str, Quantiles]:
        """Statistics {"action", "proprio"} of the steps as they are drawn: pooled by weight."""
        shares = list(self.shares.values())
        parts = self.parts.values()
        return {
            "action": pooled([part.actions for part in parts], shares),
            "proprio": pooled([part.proprio for part in parts], shares),
        }

    def describe(self, drawn: float) -> list[str]:
        """A line for each set: share, size, and its epochs when `drawn` windows are drawn."""
        width = max(map(len, self.parts))
        return [
            f"{name:<{width}}  {self.shares[name]:6.1%}  {part.num_episodes} episodes, {len(part)} "
            f"windows, {drawn * self.shares[name] / len(part):.3g} epochs"
            for name, part in self.parts.items()
        ]


def _scatter(merged: dict[str, Any], name: str, values: Any, rows: np.ndarray, count: int) -> None:
    """Put the rows of one set into the whole batch."""
    if isinstance(values, np.ndarray):
        if name not in merged:
            merged[name] = np.empty((count, *values.shape[1:]), values.dtype)
        merged[name][rows] = values
        return
    column = merged.setdefault(name, [None] * count)
    for row, value in zip(rows.tolist(), values, strict=True):
        column[row] = value


def pooled(arrays: Sequence[np.ndarray], shares: Sequence[float]) -> Quantiles:
    """Statistics of vectors drawn with probability shares[i] from arrays[i] (n_i, D).

    Quantiles interpolate linearly between the sorted values at the weight that lies below each,
    which for equal weights is numpy's quantile.
    """
    weights = np.concatenate(
        [
            np.full(len(array), share / len(array))
            for array, share in zip(arrays, shares, strict=True)
        ]
    )
    weights /= weights.sum()
    columns = []
    for dimension in range(arrays[0].shape[1]):
        values = np.concatenate([array[:, dimension] for array in arrays]).astype(np.float64)
        mean = float(weights @ values)
        std = float(np.sqrt(weights @ (values - mean) ** 2))
        order = np.argsort(values, kind="stable")
        values, sorted_weights = values[order], weights[order]
        below = np.cumsum(sorted_weights) - sorted_weights
        below /= below[-1] if below[-1] > 0 else 1.0
        q01, q99 = np.interp([0.01, 0.99], below, values).tolist()
        columns.append((q01, q99, mean, std, float(values[0]), float(values[-1])))
    return Quantiles(*zip(*columns, strict=True), count=len(weights))


def shuffled(dataset: WindowDataset | DatasetMixture, generator: np.random.Generator) -> np.ndarray:
    """All windows in random order; of a mixture, those drawn more often tend to come earlier."""
    if isinstance(dataset, WindowDataset):
        return generator.permutation(len(dataset))
    # Each waits for an exponential time of its rate: sampling by weight without replacement.
    return np.argsort(generator.exponential(size=len(dataset)) / dataset.probabilities)
