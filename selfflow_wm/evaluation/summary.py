"""Values with intervals, differences between checkpoints, means over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from selfflow_wm.evaluation.metrics import Columns, Metric
from selfflow_wm.intervals import Bootstrap, over_seeds, paired_difference, percentiles, wilson
from selfflow_wm.metrics.frechet import frechet_distance, reduce

RESAMPLES = 1000
FRECHET_RESAMPLES = 50
DIRECTIONS = 24
"""Most principal directions of the true samples' features that Fréchet distances use: with few
samples, more could not be told from noise."""

Value = dict[str, Any]
"""value, low, high (95%) and count; None where undefined."""


def describe(metric: Metric, columns: Columns, seed: int = 0) -> Value:
    """A metric with Wilson's interval (of right or wrong) or the bootstrap's."""
    above, below = columns[metric.name], columns[f"{metric.name}/of"]
    count = int((below > 0).sum())
    if not below.sum():
        return _value(None, None, None, count)
    value = float(above.sum() / below.sum())
    if metric.binary:
        return _value(value, *wilson(float(above.sum()), count), count)
    _, draws = Bootstrap(len(above), RESAMPLES, seed).ratio(above, below)
    return _value(value, *percentiles(draws), count)


def paired(metric: Metric, a: Columns, b: Columns, seed: int = 0) -> Value:
    """b minus a on the same samples, with Tango's interval (of right or wrong) or the bootstrap's
    of samples resampled together."""
    sums = [(c[metric.name], c[f"{metric.name}/of"]) for c in (a, b)]
    if not all(below.sum() for _, below in sums):
        return _value(None, None, None, 0)
    if metric.binary:
        concerned = (sums[0][1] > 0) & (sums[1][1] > 0)
        first, second = (above[concerned] > 0 for above, _ in sums)
        gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
        pairs = int(concerned.sum())
        bounds = paired_difference(gained, lost, pairs)
        return _value((gained - lost) / pairs, *bounds, pairs)
    point = [above.sum() / below.sum() for above, below in sums]
    # The same draws for both.
    bootstrap = Bootstrap(len(sums[0][0]), RESAMPLES, seed)
    draws = [bootstrap.ratio(above, below)[1] for above, below in sums]
    count = int(((sums[0][1] > 0) & (sums[1][1] > 0)).sum())
    return _value(float(point[1] - point[0]), *percentiles(draws[1] - draws[0]), count)


def _value(value: Any, low: Any, high: Any, count: int) -> Value:
    return {"value": value, "low": low, "high": high, "count": count}


def frechet(
    features: np.ndarray, reference: np.ndarray, extractor: str, seed: int = 0
) -> Value | None:
    """Distance to the true samples, extrapolated; None with too few samples (below 9)."""
    least = min(len(features), len(reference))
    width = min(DIRECTIONS, features.shape[1], (least - 1) // 4)
    if width < 2:
        return None
    project = reduce(reference, width)
    found = frechet_distance(project(features), project(reference), FRECHET_RESAMPLES, seed)
    value = _value(found.unbiased, found.low, found.high, len(features))
    name = f"{extractor}, {width} principal directions"
    return value | {"plug_in": found.distance, "features": name}


def unpaired(a: Value, b: Value) -> Value:
    """b minus a of two Fréchet distances, their errors added in squares."""
    if any(v["value"] is None for v in (a, b)):
        return _value(None, None, None, 0)
    difference = b["value"] - a["value"]
    error = math.hypot(a["high"] - a["value"], b["high"] - b["value"])
    return _value(difference, difference - error, difference + error, min(a["count"], b["count"]))


def arms(
    metrics: Sequence[Metric], entries: Sequence[Any], table: Mapping[str, Mapping[str, Value]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Means over seeds by arm, and differences between arms over the seeds that both have.

    entries: with name, seed and label, one step each. table: metric -> label -> value.
    """
    groups: dict[str, dict[int, str]] = {}
    for entry in entries:
        groups.setdefault(entry.name, {})[entry.seed] = entry.label
    if max(len(seeds) for seeds in groups.values()) < 2:
        return [], []
    means, differences = [], []
    for metric in metrics:
        values = table[metric.name]
        known = {
            name: {s: values[label]["value"] for s, label in seeds.items() if _there(values, label)}
            for name, seeds in groups.items()
        }
        for name, found in known.items():
            if found:
                value = _within(over_seeds(list(found.values())), metric.bounds)
                row = {"metric": metric.name, "name": name, "seeds": sorted(found)}
                means.append(row | value)
        for a, b in combinations(groups, 2):
            common = sorted(known[a].keys() & known[b].keys())
            if common:
                value = over_seeds([known[b][seed] - known[a][seed] for seed in common])
                row = {"metric": metric.name, "a": a, "b": b, "seeds": common}
                differences.append(row | value)
    return means, differences


def _within(value: Value, bounds: tuple[float, float]) -> Value:
    """`value`, its interval cut to what is possible."""
    if value["low"] is None:
        return value
    return value | {"low": max(value["low"], bounds[0]), "high": min(value["high"], bounds[1])}


def _there(values: Mapping[str, Value], label: str) -> bool:
    return label in values and values[label]["value"] is not None
