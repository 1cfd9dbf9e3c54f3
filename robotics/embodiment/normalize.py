"""Statistics of vectors and the invertible normaliser made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from robotics.embodiment.coding import Field
from robotics.embodiment.parts import NORMALISERS

SPARSE_LIMIT = 10.0
"""Normalised size of the largest value of a dimension that is nearly always the same."""


@dataclass(frozen=True)
class Quantiles:
    """Statistics of `count` vectors, one value per dimension, in the vectors' units. Those of
    `of` are exact; for data that does not fit in memory see `robotics.data.statistics`."""

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

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Quantiles:
        """The inverse of `to_dict`; KeyError or TypeError when the keys are others."""
        columns = dict(values)
        count = int(columns.pop("count"))
        rows = {name: tuple(float(item) for item in value) for name, value in columns.items()}
        return cls(**rows, count=count)


def check_kind(kind: Any) -> None:
    """ValueError for a word that is no kind of `Normalizer`."""
    if kind not in NORMALISERS:
        near = (get_close_matches(str(kind), NORMALISERS, 1) or NORMALISERS)[0]
        raise ValueError(
            f"normalizer.kind: expected one of {', '.join(NORMALISERS)}, got {kind!r}; write "
            f"normalizer.kind={near}"
        )


class Normalizer:
    """Maps each scaled dimension to about unit size, and back.

    kind "quantiles" maps [q01, q99] to [-1, 1]; "minmax" maps [min, max] to [-1, 1], so one
    outlier decides the scale; "standard" maps to mean 0 and standard deviation 1. Where a
    dimension is mostly near zero with rare large values, its quantiles leave it a small share of a
    squared error and little contrast with unit noise.

    Nothing is clipped, in training or in sampling: by "quantiles" 2% of the values lie outside
    [-1, 1], and cutting them would teach shorter motions. `clip` limits what is sent to a robot.

    Args:
        statistics: of the training data.
        scaled: which dimensions to scale, D booleans; the others pass unchanged. Default all.
        floor: smallest half width of the range, or standard deviation, to divide by, in the
            data's units; one for all or one each. A dimension that is constant in the training
            data stays finite and invertible.
        kind: "quantiles", "standard" or "minmax"; one for all or one each.
    """

    def __init__(
        self,
        statistics: Quantiles,
        scaled: Sequence[bool] | None = None,
        floor: float | Sequence[float] = 1e-3,
        kind: str | Sequence[str] = "quantiles",
    ) -> None:
        dim = len(statistics.q01)
        kinds = [kind] * dim if isinstance(kind, str) else list(kind)
        for word in {kind} if isinstance(kind, str) else sorted(set(kinds)):
            check_kind(word)
        if len(kinds) != dim:
            raise ValueError(f"expected one kind of normaliser or {dim}, got {len(kinds)}.")
        chosen = np.ones(dim, bool) if scaled is None else np.asarray(scaled, bool)
        floors = np.asarray(floor, np.float64)
        if chosen.shape != (dim,) or floors.shape not in ((), (dim,)) or not (floors > 0).all():
            raise ValueError(
                f"expected {dim} booleans for the scaled dimensions and one floor > 0 or {dim}, "
                f"got shape {chosen.shape} and {floor}."
            )
        self.statistics = statistics
        self.floor: float | list[float] = floors.tolist()
        self.scaled = tuple(chosen.tolist())
        self.kind: str | list[str] = kind if isinstance(kind, str) else kinds
        center, scale = _centers(statistics, kinds)
        self._center = np.where(chosen, center, 0.0)
        self._scale = np.where(chosen, np.maximum(scale, floors), 1.0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Normalizer) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def of_fields(
        cls,
        statistics: Quantiles,
        fields: Sequence[Field],
        kind: str = "quantiles",
        rotation_floor: float | None = None,
    ) -> Normalizer:
        """For the model's states or actions.

        A sparse dimension, whose quantiles span less than its floor although it takes larger
        values now and then, gets a floor that leaves its largest value at `SPARSE_LIMIT`.

        Args:
            statistics: of the training data, in the model's units.
            fields: of `robotics.embodiment.coding.Coder.fields`.
            kind: of the fields that state none.
            rotation_floor: rad; the floor of rotations. Where a task hardly turns the tool, what it
                turns is mostly the correction of noise, and scaled to unit size it would dominate
                the loss. None: as of the other fields.

        Raises:
            ValueError: fields and statistics of different widths, or an unknown kind.
        """
        check_kind(kind)
        if len(fields) != len(statistics.q01):
            raise ValueError(
                f"expected statistics of {len(fields)} values, {[row.name for row in fields]}, got "
                f"of {len(statistics.q01)}; make them of the same robot's data."
            )
        kinds = [kind if row.normalise in ("default", "none") else row.normalise for row in fields]
        floors = np.array([row.floor for row in fields], np.float64)
        if rotation_floor is not None:
            floors[[row.kind == "rotation" for row in fields]] = rotation_floor
        sparse = _sparse(statistics, fields)
        center, _ = _centers(statistics, kinds)
        least = _farthest(statistics, center) / SPARSE_LIMIT
        floors = np.where(sparse, np.maximum(floors, least), floors)
        scaled = [row.normalise != "none" for row in fields]
        same = kind if all(word == kind for word in kinds) else kinds
        return cls(statistics, scaled, floors.tolist(), same)

    @property
    def dim(self) -> int:
        """D."""
        return len(self.scaled)

    def normalise(self, values: ArrayLike) -> np.ndarray:
        """Physical units (..., D) -> float32 (..., D) of about unit size."""
        return ((self._checked(values) - self._center) / self._scale).astype(np.float32)

    def denormalise(self, values: ArrayLike) -> np.ndarray:
        """The inverse of `normalise`."""
        return (self._checked(values) * self._scale + self._center).astype(np.float32)

    def clip(self, values: ArrayLike) -> np.ndarray:
        """Physical values (..., D), the scaled dimensions limited to the data's [min, max]."""
        array, statistics = self._checked(values), self.statistics
        limited = np.clip(array, statistics.min, statistics.max)
        return np.where(self.scaled, limited, array).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "kind": self.kind,
            "statistics": self.statistics.to_dict(),
            "scaled": list(self.scaled),
            "floor": self.floor,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalizer:
        """The inverse of `to_dict`; `ValueError` when a key is missing."""
        try:
            return cls(
                Quantiles.from_dict(values["statistics"]),
                values["scaled"],
                values["floor"],
                values.get("kind", "quantiles"),
            )
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


def warnings(statistics: Quantiles, fields: Sequence[Field]) -> list[str]:
    """What a user should know of dimensions that are scaled: constant ones, and ones that are
    nearly always the same; a line each, naming the dimension. Of a rotation, constant values are
    named where all of its values are."""
    lines = []
    sparse = _sparse(statistics, fields)
    turning = {
        _part(row) for row, low, high in zip(fields, statistics.min, statistics.max, strict=True)
        if row.kind == "rotation" and low != high
    }  # fmt: skip
    for index, row in enumerate(fields):
        if row.normalise == "none":
            continue
        low, high = statistics.min[index], statistics.max[index]
        if low == high and row.kind == "rotation" and _part(row) in turning:
            continue  # of a turn about one axis, some of a matrix's values are always the same
        if low == high:
            lines.append(f"{row.name}: is {low:.6g} in all {statistics.count} steps")
        elif sparse[index]:
            lines.append(
                f"{row.name}: 98% of {statistics.count} steps lie between "
                f"{statistics.q01[index]:.3g} and {statistics.q99[index]:.3g}, the others between "
                f"{low:.3g} and {high:.3g}; scaled so that these stay within {SPARSE_LIMIT:g}"
            )
    return lines


def _part(field: Field) -> str:
    return field.name.rpartition(".")[0]


def _sparse(statistics: Quantiles, fields: Sequence[Field]) -> np.ndarray:
    """(D,) bool: the scaled dimensions whose quantiles span less than the floor, and which reach
    beyond `SPARSE_LIMIT` floors."""
    floor = np.array([row.floor for row in fields], np.float64)
    scaled = np.array([row.normalise not in ("none", "minmax") for row in fields], bool)
    low, high = np.asarray(statistics.q01), np.asarray(statistics.q99)
    far = _farthest(statistics, (low + high) / 2)
    return scaled & ((high - low) / 2 < floor) & (far > SPARSE_LIMIT * floor)


def _farthest(statistics: Quantiles, center: np.ndarray) -> np.ndarray:
    return np.maximum(np.asarray(statistics.max) - center, center - np.asarray(statistics.min))


def _centers(statistics: Quantiles, kinds: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Center and scale (D,) of each dimension by its kind."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {
        "standard": (np.asarray(statistics.mean), np.asarray(statistics.std))
    }
    for name, ends in (("quantiles", ("q01", "q99")), ("minmax", ("min", "max"))):
        low, high = (np.asarray(getattr(statistics, end)) for end in ends)
        found[name] = (low + high) / 2, (high - low) / 2
    center, scale = (
        np.array([found[kind][which][index] for index, kind in enumerate(kinds)], np.float64)
        for which in (0, 1)
    )
    return center, scale
