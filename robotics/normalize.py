"""Quantile statistics of vectors and the invertible normaliser made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from robotics.embodiment import ACTION_DIM, ARM

ACTION_FLOOR = 1e-3
"""m or rad: a motion that hardly ever occurs must not have its noise blown up."""
PROPRIO_FLOOR = 1e-2


@dataclass(frozen=True)
class Quantiles:
    """Exact statistics of `count` vectors, one value per dimension, in the vectors' units."""

    q01: tuple[float, ...]
    q99: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    count: int

    @classmethod
    def of(cls, values: ArrayLike) -> Quantiles:
        """Statistics of finite `values` (count >= 1, D)."""
        array = np.asarray(values, np.float64)
        if array.ndim != 2 or len(array) == 0 or not np.isfinite(array).all():
            raise ValueError(
                f"expected finite values (count >= 1, D), got shape {array.shape} with "
                f"{int((~np.isfinite(array)).sum())} non-finite; check the data."
            )
        q01, q99 = np.quantile(array, [0.01, 0.99], axis=0)
        columns = (q01, q99, array.mean(0), array.std(0), array.min(0), array.max(0))
        return cls(*(tuple(column.tolist()) for column in columns), count=len(array))


class Normalizer:
    """Maps [q01, q99] of each scaled dimension to [-1, 1], without clipping, and back.

    Args:
        statistics: of the training data.
        scaled: which dimensions to scale, D booleans; the others pass unchanged. Default all.
        floor: smallest half width of [q01, q99] to divide by, in the data's units. A dimension
            that is constant in the training data stays finite and invertible.
    """

    def __init__(
        self, statistics: Quantiles, scaled: Sequence[bool] | None = None, floor: float = 1e-3
    ) -> None:
        dim = len(statistics.q01)
        chosen = np.ones(dim, bool) if scaled is None else np.asarray(scaled, bool)
        if chosen.shape != (dim,) or floor <= 0:
            raise ValueError(
                f"expected {dim} booleans for the scaled dimensions and floor > 0, "
                f"got shape {chosen.shape} and {floor}."
            )
        self.statistics = statistics
        self.floor = float(floor)
        self.scaled = tuple(chosen.tolist())
        low, high = np.asarray(statistics.q01), np.asarray(statistics.q99)
        self._center = np.where(chosen, (low + high) / 2, 0.0)
        self._half = np.where(chosen, np.maximum((high - low) / 2, floor), 1.0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Normalizer) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def dim(self) -> int:
        """D."""
        return len(self.scaled)

    def normalise(self, values: ArrayLike) -> np.ndarray:
        """Physical units (..., D) -> float32 (..., D), mostly in [-1, 1]."""
        return ((self._checked(values) - self._center) / self._half).astype(np.float32)

    def denormalise(self, values: ArrayLike) -> np.ndarray:
        """The inverse of `normalise`."""
        return (self._checked(values) * self._half + self._center).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        statistics = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self.statistics).items()
        }
        return {"statistics": statistics, "scaled": list(self.scaled), "floor": self.floor}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalizer:
        """The inverse of `to_dict`; `ValueError` when a key is missing."""
        try:
            statistics = dict(values["statistics"])
            count = int(statistics.pop("count"))
            rows = {
                name: tuple(float(item) for item in value) for name, value in statistics.items()
            }
            return cls(Quantiles(**rows, count=count), values["scaled"], values["floor"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"expected a normaliser with statistics, scaled and floor, got keys "
                f"{sorted(values)} ({error}); the file is of another version or was edited."
            ) from error

    def _checked(self, values: ArrayLike) -> np.ndarray:
        array = np.asarray(values, np.float64)
        if array.shape[-1:] != (self.dim,):
            raise ValueError(f"expected values (..., {self.dim}), got shape {array.shape}.")
        return array


def action_normalizer(statistics: Quantiles) -> Normalizer:
    """For actions (8): the six arm dimensions are scaled; gripper and terminate are left alone."""
    scaled = np.zeros(ACTION_DIM, bool)
    scaled[ARM] = True
    return Normalizer(statistics, scaled.tolist(), ACTION_FLOOR)


def proprio_normalizer(statistics: Quantiles) -> Normalizer:
    """For proprioception (8): all dimensions are scaled."""
    return Normalizer(statistics, floor=PROPRIO_FLOOR)
