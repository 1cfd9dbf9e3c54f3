"""Statistics of features as meta/stats.json and meta/episodes keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
SAMPLED = 100
"""Pictures of an episode that are looked at."""
PIXELS = 150
"""About as many rows and columns of a picture are looked at."""


def of_numbers(values: np.ndarray) -> dict[str, np.ndarray]:
    """min, max, mean, std, count and quantiles of rows (T, ...), value by value."""
    rows = np.asarray(values, np.float64)
    found = {
        "min": rows.min(0),
        "max": rows.max(0),
        "mean": rows.mean(0),
        "std": rows.std(0),
        "count": np.array([len(rows)]),
    }
    levels = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return found | dict(zip(QUANTILES, levels, strict=True))


def sampled(steps: int) -> np.ndarray:
    """The pictures of an episode that statistics are taken of."""
    return np.unique(np.linspace(0, steps - 1, min(steps, SAMPLED)).round().astype(int))


class PictureStatistics:
    """Statistics of an episode's pictures, by channel, values in [0, 1]."""

    def __init__(self, steps: int) -> None:
        self._wanted = set(sampled(steps).tolist())
        self._counts = np.zeros((3, 256), np.int64)

    def wants(self, step: int) -> bool:
        """Whether this step's picture is looked at."""
        return step in self._wanted

    def add(self, image: np.ndarray) -> None:
        """Take in a picture, uint8 (H, W, 3)."""
        every = max(1, max(image.shape[:2]) // PIXELS)
        thinned = image[::every, ::every]
        for channel in range(3):
            self._counts[channel] += np.bincount(thinned[..., channel].reshape(-1), minlength=256)

    def result(self) -> dict[str, np.ndarray]:
        """Arrays (3, 1, 1), and the number of pictures."""
        levels = np.arange(256) / 255
        share = self._counts / self._counts.sum(1, keepdims=True)
        mean = share @ levels
        below = share.cumsum(1)
        found = {
            "min": levels[(self._counts > 0).argmax(1)],
            "max": levels[255 - (self._counts[:, ::-1] > 0).argmax(1)],
            "mean": mean,
            "std": np.sqrt(np.maximum(share @ levels**2 - mean**2, 0)),
        }
        found |= {
            name: levels[(below >= level - 1e-12).argmax(1)] for name, level in QUANTILES.items()
        }
        shaped = {name: values.reshape(3, 1, 1) for name, values in found.items()}
        return shaped | {"count": np.array([len(self._wanted)])}


def pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Statistics of several episodes out of each one's; quantiles are their weighted means."""
    stacked = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
    counts = stacked["count"].astype(np.float64)
    weights = (counts / counts.sum()).reshape(-1, *[1] * (stacked["mean"].ndim - 1))
    mean = (stacked["mean"] * weights).sum(0)
    variance = ((stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2) * weights).sum(0)
    found = {
        "min": stacked["min"].min(0),
        "max": stacked["max"].max(0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": stacked["count"].sum(0),
    }
    return found | {name: (stacked[name] * weights).sum(0) for name in QUANTILES}
