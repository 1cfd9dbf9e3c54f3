"""Statistics of two policies on the same start states: tests, intervals and power on pairs.

A pair is one start state (task and seed, or task and cell) that both policies were run from. Pairs
with equal outcomes carry no information about the difference; the test and its power depend on the
discordant ones.

A start may be run more than once (SIMPLER's cells in the paper's protocol). Its pairs are
correlated, so the test swaps the policies of all pairs of a start together, the bootstrap resamples
starts, and interval and power use the effective sample size.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from selfflow_wm.intervals import Z95, independent_trials, paired_difference

LEVEL = 0.05
POWER = 0.8
RESAMPLES = 10_000
EXACT_EPISODES = 5_000
"""Up to here power is exact; beyond, the normal approximation is within two percent."""


@dataclass(frozen=True)
class Counts:
    """Outcomes of pairs; A is the first policy."""

    both: int = 0
    only_a: int = 0
    only_b: int = 0
    neither: int = 0
    repeated: Repeated | None = None
    """Set if some starts have several pairs; None: every pair has its own start."""

    @classmethod
    def of(
        cls, pairs: Iterable[tuple[bool, bool]], starts: Iterable[Hashable] | None = None
    ) -> Counts:
        """Count (A succeeded, B succeeded). starts: of each pair; None: all differ."""
        rows = [(bool(a), bool(b)) for a, b in pairs]
        groups = list(starts) if starts is not None else list(range(len(rows)))
        several = len(set(groups)) < len(rows)
        repeated = Repeated.of([b - a for a, b in rows], groups) if several else None
        return cls(*(rows.count(kind) for kind in _KINDS), repeated=repeated)

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

    @property
    def independent(self) -> float:
        """Effective sample size: the equivalent number of independent pairs."""
        return self.repeated.independent if self.repeated else float(self.pairs)

    def starts(self) -> Sequence[tuple[int, int]]:
        """(only B minus only A, pairs) of each start."""
        if self.repeated:
            return self.repeated.starts
        same = self.both + self.neither
        return [(-1, 1)] * self.only_a + [(1, 1)] * self.only_b + [(0, 1)] * same


@dataclass(frozen=True)
class Repeated:
    """Pairs some of which share a start state."""

    starts: tuple[tuple[int, int], ...]
    """(only B minus only A, pairs) of each start."""
    independent: float
    """Effective sample size: as many independent pairs estimate the difference as well."""

    @classmethod
    def of(cls, differences: Sequence[int], groups: Sequence[Hashable]) -> Repeated:
        """From B minus A of each pair, and its start."""
        sums: dict[Hashable, tuple[int, int]] = {}
        for difference, group in zip(differences, groups, strict=True):
            total, pairs = sums.get(group, (0, 0))
            sums[group] = total + difference, pairs + 1
        return cls(tuple(sums.values()), independent_trials(differences, groups))


_KINDS = ((True, True), (True, False), (False, True), (False, False))


def swap_test(sums: Iterable[int]) -> float:
    """Exact two-sided p of no difference, from only B minus only A of each start.

    If the policies were equal, each start's sum could as well have the opposite sign: p is the
    fraction of all sign assignments whose total is at least as far from 0 as the observed one
    (Fisher, The Design of Experiments, 1935, section 21). If every start has one pair, this is
    McNemar's exact test (McNemar, Psychometrika 12, 1947). 1 if all sums are 0.
    """
    sizes = [total for total in sums if total]
    chances = np.ones(1)  # of every total, lowest first
    for size in map(abs, sizes):
        wider = np.zeros(len(chances) + 2 * size)
        wider[: len(chances)] += chances / 2
        wider[2 * size :] += chances / 2
        chances = wider
    totals = np.arange(len(chances)) - len(chances) // 2
    return min(1.0, float(chances[np.abs(totals) >= abs(sum(sizes))].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for multiple tests, in their order. Holm, Scand. J. Statistics 6 (1979).

    Comparing them with a level keeps the family-wise error rate below it.
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
    """95% percentile interval of the difference (B minus A), resampling starts in each stratum.

    Args:
        strata: counts of each task (or of another fixed group).
        weights: of each stratum's difference in the mean; None: proportional to its pairs.
        seed: of the resampling; the same input gives the same interval.
    """
    total = sum(counts.pairs for counts in strata.values())
    if not strata or min(counts.pairs for counts in strata.values()) == 0:
        raise ValueError(
            "bootstrap: expected pairs in every stratum, got an empty one; leave it out"
        )
    rng = np.random.default_rng(seed)
    differences = np.zeros(RESAMPLES)
    for name, counts in strata.items():
        # Resampling n starts is one multinomial draw of how often each kind of start occurs.
        kinds, often = np.unique(np.array(counts.starts()), axis=0, return_counts=True)
        drawn = rng.multinomial(often.sum(), often / often.sum(), RESAMPLES)
        weight = counts.pairs / total if weights is None else weights[name]
        differences += weight * (drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1])
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


def power(episodes: int, difference: float, discordant: float) -> float:
    """Probability that McNemar's exact test detects a true difference at the 5% level.

    Exact, as a sum over the number of discordant pairs; for few episodes it is lower than the
    normal approximation.

    Args:
        episodes: paired episodes.
        difference: of the success rates, in [-1, 1].
        discordant: fraction of pairs with different outcomes, in [|difference|, 1].
    """
    from scipy.stats import binom

    if not abs(difference) <= discordant <= 1:
        raise ValueError(
            f"power: expected |difference| <= discordant <= 1, got {difference} and {discordant}; "
            "the outcomes differ at least as often as the rates do"
        )
    if discordant == 0:
        return 0.0
    spread = 8 * math.sqrt(episodes * discordant * (1 - discordant)) + 8
    middle = episodes * discordant
    counts = np.arange(max(0, int(middle - spread)), min(episodes, int(middle + spread)) + 1)
    # The largest minority count at which the test rejects, -1 if it never does.
    limit = binom.ppf(LEVEL / 2, counts, 0.5)
    limit -= binom.cdf(limit, counts, 0.5) > LEVEL / 2
    share = (discordant + abs(difference)) / (2 * discordant)
    found = binom.cdf(limit, counts, share) + binom.sf(counts - limit - 1, counts, share)
    found[limit < 0] = 0.0
    return float(np.sum(binom.pmf(counts, episodes, discordant) * found))


@lru_cache(maxsize=512)
def episodes_needed(difference: float, discordant: float) -> int | None:
    """Fewest paired episodes with 80% power to detect `difference`; None for no difference.

    The search starts at the normal approximation (Connor, Biometrics 43, 1987).
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
    """Smallest difference, to 0.1 percentage points, that so many pairs detect with 80% power.

    The discordant fraction grows with the difference where it must. None: not even 100 points.
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
    """All statistics of one set of pairs: rates, difference, intervals, test and power."""
    n = counts.pairs
    found: dict[str, Any] = {
        "pairs": n, "both": counts.both, "only_a": counts.only_a, "only_b": counts.only_b,
        "neither": counts.neither, "rate_a": None, "rate_b": None, "difference": None,
        "interval": None, "bootstrap": None, "mcnemar_p": None, "power": None,
    }  # fmt: skip
    if n == 0:
        return found
    scale = counts.independent / n
    low, high = paired_difference(counts.only_b * scale, counts.only_a * scale, n * scale)
    if counts.repeated:
        found |= {"starts": len(counts.repeated.starts), "independent": counts.independent}
    return found | {
        "rate_a": (counts.both + counts.only_a) / n,
        "rate_b": (counts.both + counts.only_b) / n,
        "difference": counts.difference,
        "interval": {"low": low, "high": high, "method": "Tango 1998"},
        "bootstrap": _bounds(bootstrap({"all": counts}, seed=seed)),
        "mcnemar_p": swap_test(total for total, _ in counts.starts()),
        "power": _power(counts),
    }


def _bounds(interval: tuple[float, float]) -> dict[str, float]:
    return {"low": interval[0], "high": interval[1]}


def _power(counts: Counts) -> dict[str, Any]:
    """Paired episodes to detect the observed difference, 5 and 10 points, as discordant as here.

    If fewer pairs were discordant than a difference needs, the least fraction that it needs is
    assumed. If starts are run more than once, episodes have as many turns per start as here.
    """
    share = counts.discordant / counts.pairs
    size = abs(counts.difference or 0.0)

    def needed(difference: float) -> int | None:
        episodes = episodes_needed(difference, max(share, difference))
        return episodes and math.ceil(episodes * counts.pairs / counts.independent)

    return {
        "level": LEVEL,
        "power": POWER,
        "discordant": share,
        "episodes_observed": needed(size),
        "episodes_5_points": needed(0.05),
        "episodes_10_points": needed(0.10),
        "detectable": detectable(int(counts.independent), share),
    }
