"""Two policies on the same start states: what their episodes, pair by pair, say of the difference.

A pair is one start (task and seed, or task and cell) that both policies were run from. Pairs with
the same outcome say nothing of the difference; the test and its power rest on the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from selfflow_wm.intervals import Z95, paired_difference

LEVEL = 0.05
POWER = 0.8
RESAMPLES = 10_000
EXACT_EPISODES = 5_000
"""Up to here power is exact; beyond, the normal approximation is within two percent of it."""


@dataclass(frozen=True)
class Counts:
    """Outcomes of pairs; A is the first policy."""

    both: int = 0
    only_a: int = 0
    only_b: int = 0
    neither: int = 0

    @classmethod
    def of(cls, pairs: Iterable[tuple[bool, bool]]) -> Counts:
        """Count (A succeeded, B succeeded)."""
        rows = [(bool(a), bool(b)) for a, b in pairs]
        return cls(*(rows.count(kind) for kind in _KINDS))

    @property
    def pairs(self) -> int:
        """All of them."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def discordant(self) -> int:
        """Pairs in which one succeeded and the other did not."""
        return self.only_a + self.only_b

    @property
    def difference(self) -> float | None:
        """Rate of B minus rate of A; None without pairs."""
        return (self.only_b - self.only_a) / self.pairs if self.pairs else None


_KINDS = ((True, True), (True, False), (False, True), (False, False))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test: discordant pairs fall either way with probability 1/2.

    1 without discordant pairs. McNemar, Psychometrika 12 (1947).
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for being several, in the order given. Holm, Scand. J. Statistics 6 (1979).

    Comparing them with a level keeps the chance of any false alarm among them below it.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def bootstrap(
    strata: Mapping[Any, Counts], weights: Mapping[Any, float] | None = None, seed: int = 0
) -> tuple[float, float]:
    """95% percentile interval of the difference (B minus A), pairs drawn again within each stratum.

    Args:
        strata: counts of each task (or other group that is not a sample of more such groups).
        weights: of each stratum's difference in the mean; None: by its number of pairs.
        seed: of the draws; the same input gives the same interval.
    """
    total = sum(counts.pairs for counts in strata.values())
    if not strata or min(counts.pairs for counts in strata.values()) == 0:
        raise ValueError(
            "bootstrap: expected pairs in every stratum; got an empty one; remedy: leave it out"
        )
    rng = np.random.default_rng(seed)
    differences = np.zeros(RESAMPLES)
    for name, counts in strata.items():
        # A resample of n pairs is one draw of how often each kind of pair comes up.
        shares = np.array([counts.only_a, counts.only_b, counts.both + counts.neither])
        drawn = rng.multinomial(counts.pairs, shares / counts.pairs, RESAMPLES)
        weight = counts.pairs / total if weights is None else weights[name]
        differences += weight * (drawn[:, 1] - drawn[:, 0]) / counts.pairs
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


def power(episodes: int, difference: float, discordant: float) -> float:
    """Probability that McNemar's exact test finds a true difference at the 5% level.

    Summed over how many of the pairs are discordant, so it is exact, and lower than the normal
    approximation says for few episodes.

    Args:
        episodes: paired episodes.
        difference: of the success rates, in [-1, 1].
        discordant: share of pairs with different outcomes, in [|difference|, 1].
    """
    from scipy.stats import binom

    if not abs(difference) <= discordant <= 1:
        raise ValueError(
            f"power: expected |difference| <= discordant <= 1; got {difference} and {discordant}; "
            "remedy: at least as many outcomes differ as the rates do"
        )
    if discordant == 0:
        return 0.0
    spread = 8 * math.sqrt(episodes * discordant * (1 - discordant)) + 8
    middle = episodes * discordant
    counts = np.arange(max(0, int(middle - spread)), min(episodes, int(middle + spread)) + 1)
    # The largest smaller count that the test rejects at, -1 where it never does.
    limit = binom.ppf(LEVEL / 2, counts, 0.5)
    limit -= binom.cdf(limit, counts, 0.5) > LEVEL / 2
    share = (discordant + abs(difference)) / (2 * discordant)
    found = binom.cdf(limit, counts, share) + binom.sf(counts - limit - 1, counts, share)
    found[limit < 0] = 0.0
    return float(np.sum(binom.pmf(counts, episodes, discordant) * found))


@lru_cache(maxsize=512)
def episodes_needed(difference: float, discordant: float) -> int | None:
    """Fewest paired episodes with 80% power for `difference`; None where there is none to find.

    The normal approximation (Connor, Biometrics 43, 1987) says where to look.
    """
    from scipy.stats import norm

    size = abs(difference)
    if size == 0:
        return None
    spread = math.sqrt(max(discordant - size**2, 0.0))
    guess = ((Z95 * math.sqrt(discordant) + norm.ppf(POWER) * spread) / size) ** 2
    if guess > EXACT_EPISODES:
        return math.ceil(guess)
    high = max(2, math.ceil(guess))
    while power(high, difference, discordant) < POWER:
        high = math.ceil(1.2 * high) + 1
    low = 0  # too few
    while high - low > 1:
        middle = (low + high) // 2
        if power(middle, difference, discordant) < POWER:
            low = middle
        else:
            high = middle
    return high


def detectable(episodes: int, discordant: float) -> float | None:
    """Smallest difference, to a tenth of a point, that so many pairs find with 80% power.

    The discordant share grows with the difference where it must. None: not even 100 points.
    """
    low, high = 0, 1000

    def enough(tenths: int) -> bool:
        size = tenths / 1000
        return power(episodes, size, max(discordant, size)) >= POWER

    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high / 1000


def describe(counts: Counts, seed: int = 0) -> dict[str, Any]:
    """Everything said of one set of pairs: rates, difference, intervals, test and power."""
    n = counts.pairs
    found: dict[str, Any] = {
        "pairs": n, "both": counts.both, "only_a": counts.only_a, "only_b": counts.only_b,
        "neither": counts.neither, "rate_a": None, "rate_b": None, "difference": None,
        "interval": None, "bootstrap": None, "mcnemar_p": None, "power": None,
    }  # fmt: skip
    if n == 0:
        return found
    low, high = paired_difference(counts.only_b, counts.only_a, n)
    return found | {
        "rate_a": (counts.both + counts.only_a) / n,
        "rate_b": (counts.both + counts.only_b) / n,
        "difference": counts.difference,
        "interval": {"low": low, "high": high, "method": "Tango 1998"},
        "bootstrap": _bounds(bootstrap({"all": counts}, seed=seed)),
        "mcnemar_p": mcnemar(counts.only_a, counts.only_b),
        "power": _power(counts),
    }


def _bounds(interval: tuple[float, float]) -> dict[str, float]:
    return {"low": interval[0], "high": interval[1]}


def _power(counts: Counts) -> dict[str, Any]:
    """Paired episodes for the observed difference and for 5 and 10 points, as discordant as here.

    Where no pair was discordant, or fewer than a difference needs, the least share that it needs.
    """
    share = counts.discordant / counts.pairs
    size = abs(counts.difference or 0.0)
    return {
        "level": LEVEL,
        "power": POWER,
        "discordant": share,
        "episodes_observed": episodes_needed(size, share),
        "episodes_5_points": episodes_needed(0.05, max(share, 0.05)),
        "episodes_10_points": episodes_needed(0.10, max(share, 0.10)),
        "detectable": detectable(counts.pairs, share),
    }
