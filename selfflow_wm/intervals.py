"""Intervals: of proportions, of their differences, of means over seeds, and by resampling."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Z95 = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""


def wilson(successes: float, trials: float, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a proportion, in [0, 1]; (0, 1) when nothing was seen.

    Wilson, JASA 22 (1927). Unlike the normal interval it holds its level at 0 and 1. Counts of
    dependent trials may be given as the (fractional) numbers of independent ones they are worth.
    """
    if not 0 <= successes <= trials:
        raise ValueError(
            f"wilson: expected 0 <= successes <= trials, got {successes} of {trials}; "
            "count each trial once"
        )
    if trials == 0:
        return 0.0, 1.0
    rate, weight = successes / trials, z * z / trials
    center = (rate + weight / 2) / (1 + weight)
    spread = z * math.sqrt(rate * (1 - rate) / trials + weight / (4 * trials)) / (1 + weight)
    # At 0 and 1 the bound is exact; rounding must not move it past.
    low = 0.0 if successes == 0 else max(0.0, center - spread)
    high = 1.0 if successes == trials else min(1.0, center + spread)
    return low, high


def independent_trials(values: Sequence[float], groups: Sequence[Hashable]) -> float:
    """How many independent trials these are worth for the mean of all groups, where trials of a
    group may resemble each other (as two runs of one start): between the numbers of groups and of
    trials.

    The trials whose variance is that of the mean with groups taken as they are, residuals summed
    in each (Korn and Graubard, Survey Methodology 24, 1998). Where all agree nothing can be told of
    resemblance, and groups are counted.

    values: outcomes (0 and 1), or differences of paired outcomes (-1, 0, 1).
    """
    sums: dict[Hashable, float] = {}
    mean = sum(values) / max(1, len(values))
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + value - mean
    count, distinct = len(values), len(sums)
    spread = sum(value**2 for value in sums.values())
    if distinct in (0, 1, count) or min(values) == max(values):
        return float(distinct)
    if spread == 0:
        return float(count)
    alone = sum((value - mean) ** 2 for value in values)
    together = distinct / (distinct - 1) * spread
    return min(float(count), max(float(distinct), count * alone / together))


def mean_interval(
    rates: Sequence[tuple[float, float, float]], weights: Sequence[float]
) -> tuple[float, float]:
    """Interval of a weighted mean of independent proportions, each given as (rate, low, high).

    Distances to the bounds add in squares (Zou and Donner, Statistics in Medicine 27, 2008), which
    keeps what makes Wilson's bounds good at 0 and 1. weights: summing to 1.
    """
    if len(rates) != len(weights) or abs(sum(weights) - 1) > 1e-9:
        raise ValueError(
            f"mean_interval: expected one weight a rate, summing to 1, got {len(rates)} rates and "
            f"weights {list(weights)}; divide the weights by their sum"
        )
    rows = list(zip(rates, weights, strict=True))
    mean = sum(weight * rate for (rate, _, _), weight in rows)
    below = math.sqrt(sum((weight * (rate - low)) ** 2 for (rate, low, _), weight in rows))
    above = math.sqrt(sum((weight * (high - rate)) ** 2 for (rate, _, high), weight in rows))
    return max(0.0, mean - below), min(1.0, mean + above)


def paired_difference(
    gained: float, lost: float, pairs: float, z: float = Z95
) -> tuple[float, float]:
    """Tango's score interval for the difference of two proportions of the same pairs, in [-1, 1].

    The differences that the score test does not reject; at difference 0 that test is McNemar's.
    Tango, Statistics in Medicine 17 (1998), equations 20 to 23. It holds its level where nothing or
    everything differs, unlike the normal interval. Counts of dependent pairs may be given as the
    (fractional) numbers of independent ones they are worth.

    Args:
        gained: pairs of which only the second succeeded.
        lost: pairs of which only the first succeeded.
        pairs: all pairs; (-1, 1) when there is none.
        z: quantile of the normal distribution.
    """
    if min(gained, lost) < 0 or gained + lost > pairs:
        raise ValueError(
            f"paired_difference: expected 0 <= gained + lost <= pairs, got {gained}, {lost} and "
            f"{pairs}; count each pair once"
        )
    if pairs == 0:
        return -1.0, 1.0
    from scipy.optimize import brentq

    estimate = (gained - lost) / pairs

    def beyond(difference: float) -> float:
        """Score at `difference`, squared, minus z²: negative inside the interval."""
        # The share of `lost` that is likeliest given the difference; larger root of a quadratic.
        linear = (2 * pairs - gained + lost) * difference - gained - lost
        product = lost * difference * (1 - difference)
        share = (math.sqrt(max(0.0, linear**2 + 8 * pairs * product)) - linear) / (4 * pairs)
        variance = pairs * (2 * share + difference * (1 - difference))
        distance = gained - lost - pairs * difference
        return distance**2 - z * z * max(variance, 0.0)

    def bound(end: float) -> float:
        # At the estimate itself the variance can vanish, and with it what makes the value negative.
        start = estimate + math.copysign(1e-9, end)
        if abs(start) >= 1 or beyond(end) <= 0:
            return end
        root: Any = brentq(beyond, start, end)
        return float(root)

    return bound(-1.0), bound(1.0)


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean over training seeds as value, low, high (Student's 95% interval; None from fewer than
    two) and count."""
    import numpy as np
    from scipy.stats import t

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return {"value": mean, "low": None, "high": None, "count": count}
    error = float(t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5)
    return {"value": mean, "low": mean - error, "high": mean + error, "count": count}


class Bootstrap:
    """Resamples groups (such as episodes, whose windows are alike) with replacement.

    The same draws serve every quantity, so intervals of differences are paired.

    Args:
        groups: (N,) the group of each value; an int N: each of N values is its own.
        draws: how many resamples.
        seed: of the draws; the same input gives the same intervals.
    """

    def __init__(self, groups: np.ndarray | int, draws: int, seed: int = 0) -> None:
        import numpy as np

        groups = np.arange(groups) if isinstance(groups, int) else groups
        self.names, self._row = np.unique(groups, return_inverse=True)
        count = len(self.names)
        generator = np.random.default_rng(seed)
        self._weights = generator.multinomial(count, np.full(count, 1 / count), size=draws)

    def ratio(self, above: np.ndarray, below: np.ndarray) -> tuple[float, np.ndarray]:
        """sum(above) / sum(below) over all values (N,), and over each resample (draws,)."""
        import numpy as np

        sums = [np.bincount(self._row, values) for values in (above, below)]
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled = (self._weights @ sums[0]) / (self._weights @ sums[1])
            return float(sums[0].sum() / sums[1].sum()), resampled


def percentiles(resampled: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """95% percentile interval of those of the resampled values that are finite; (None, None) where
    none is."""
    import numpy as np

    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return None, None
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)
