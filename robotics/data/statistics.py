"""Statistics of vectors in one pass: exact while they fit in memory, a t-digest beyond that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from robotics.embodiment.normalize import Quantiles
from selfflow_wm.files import atomic_file

VERSION = 2
"""Raise it when a stored statistic changes its meaning."""
EXACT_LIMIT = 1_000_000
"""Vectors up to which quantiles are exact: 64 MB of float64 for 8 dimensions."""
CENTROIDS = 1000
"""Size of a dimension's t-digest (16 kB). Ranks of its q01 and q99 were off by at most 5e-5 on
normal, zero-inflated and sorted values (400,000 of each); the tests hold it to 5e-4."""


class StreamingStatistics:
    """Count, mean, deviation, extremes and 1% / 99% quantiles of vectors that arrive in pieces.

    Up to `exact_limit` vectors everything is kept and `result` equals `Quantiles.of` of all of
    them. Beyond, the quantiles come from one t-digest per dimension (Dunning and Ertl 2019, by the
    `fastdigest` library), which is deterministic for one order of the same pieces; everything else
    stays exact up to rounding.

    Args:
        dim: D, values of a vector.
        exact_limit: vectors kept before the digest takes over.
        centroids: size of the digests.
    """

    def __init__(
        self, dim: int, exact_limit: int = EXACT_LIMIT, centroids: int = CENTROIDS
    ) -> None:
        if dim < 1 or exact_limit < 0 or centroids < 20:
            raise ValueError(
                "expected dim >= 1, exact_limit >= 0 and centroids >= 20, got "
                f"{dim}, {exact_limit} and {centroids}"
            )
        self.dim, self.exact_limit, self.centroids = dim, exact_limit, centroids
        self.count = 0
        self._mean, self._square = np.zeros(dim), np.zeros(dim)  # _square: sum of (x - mean)^2
        self._min, self._max = np.full(dim, np.inf), np.full(dim, -np.inf)
        self._kept: list[np.ndarray] = []
        self._digests: list[Any] | None = None

    def update(self, values: ArrayLike) -> None:
        """Add vectors (n, D); ValueError for another width or values that are not finite."""
        array = np.asarray(values, np.float64)
        if array.ndim != 2 or array.shape[1] != self.dim:
            raise ValueError(f"expected values (n, {self.dim}), got shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(
                f"expected finite values, got {int((~np.isfinite(array)).sum())} of {array.size} "
                "that are not; check the data"
            )
        if len(array):
            self._add_moments(array)
            self._add_values(array.copy())

    def result(self) -> Quantiles:
        """The statistics so far; ValueError before the first vector."""
        if not self.count:
            raise ValueError("expected at least one vector, got none; is the dataset empty?")
        if self._digests is None:
            return Quantiles.of(np.concatenate(self._kept))
        columns = [np.array([d.quantile(q) for d in self._digests]) for q in (0.01, 0.99)]
        columns += [self._mean, np.sqrt(self._square / self.count), self._min, self._max]
        return Quantiles(*(tuple(column.tolist()) for column in columns), count=self.count)

    def _add_moments(self, values: np.ndarray) -> None:
        """Chan, Golub and LeVeque (1983): no cancellation, however far the mean is from zero."""
        count, mean = len(values), values.mean(0)
        total, delta = self.count + count, mean - self._mean
        square = ((values - mean) ** 2).sum(0)
        self._square = self._square + square + delta**2 * (self.count * count / total)
        self._mean = self._mean + delta * (count / total)
        self._min = np.minimum(self._min, values.min(0))
        self._max = np.maximum(self._max, values.max(0))
        self.count = total

    def _add_values(self, values: np.ndarray) -> None:
        if self._digests is not None:
            for digest, column in zip(self._digests, values.T, strict=True):
                digest.batch_update(column.tolist())
            return
        self._kept.append(values)
        if self.count > self.exact_limit:
            from fastdigest import TDigest  # only large datasets need it

            self._digests = [TDigest(max_centroids=self.centroids) for _ in range(self.dim)]
            kept, self._kept = self._kept, []
            for piece in kept:
                self._add_values(piece)


class Blocks(NamedTuple):
    """Vectors too many to hold, which are made in pieces."""

    count: int
    width: int
    pieces: Callable[[], Iterator[np.ndarray]]
    """Float (m, width) each, `count` rows in all."""

    @property
    def shape(self) -> tuple[int, int]:
        """(count, width)."""
        return self.count, self.width


def cached_statistics(
    arrays: Mapping[str, np.ndarray | Blocks],
    fingerprint: str,
    cache_dir: Path,
    exact_limit: int = EXACT_LIMIT,
    chunk: int = 65_536,
) -> dict[str, Quantiles]:
    """Statistics of each array (n, D) over all its rows, kept beside the decoded frames.

    The file is named by what the statistics depend on: `fingerprint` of the data, `VERSION`, and
    the limit and the digest's size when the digest is in use. A damaged file is written again, and
    a cache directory that cannot be written costs the time only.
    """
    count = max((array.shape[0] for array in arrays.values()), default=0)
    method = "exact" if count <= exact_limit else f"tdigest{CENTROIDS}-{exact_limit}"
    path = cache_dir / f"statistics-v{VERSION}-{fingerprint}-{method}.json"
    try:
        stored = json.loads(path.read_text())
        return {name: Quantiles.from_dict(stored[name]) for name in arrays}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    results = {}
    for name, array in arrays.items():
        statistics = StreamingStatistics(array.shape[1], exact_limit)
        pieces = array.pieces() if isinstance(array, Blocks) else _pieces(array, chunk)
        for piece in pieces:
            statistics.update(piece)
        results[name] = statistics.result()
    text = json.dumps({name: values.to_dict() for name, values in results.items()}, indent=2)
    with suppress(OSError), atomic_file(path) as temporary:
        temporary.write_text(text)
    return results


def _pieces(array: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    for first in range(0, len(array), chunk):
        yield array[first : first + chunk]


def arrays_hash(arrays: Sequence[np.ndarray], texts: Sequence[str]) -> str:
    """Identifies the contents of arrays and texts, 20 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\0".join(texts).encode())
    return digest.hexdigest()[:20]
