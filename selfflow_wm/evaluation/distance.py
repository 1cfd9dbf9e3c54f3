"""Fréchet distances of any two sets of media: FID, FVD, FAD (`evaluate distance`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Float

from selfflow_wm.cli import run_evaluate
from selfflow_wm.evaluation.features import Extractor, checked
from selfflow_wm.evaluation.media_sets import MediaSet
from selfflow_wm.metrics.frechet import frechet_distance, plug_in_distance
from selfflow_wm.progress import Progress

BATCH = {"image": 32, "video": 8, "audio": 16}

TITLES = {
    ("image", "inception"): "FID",
    ("video", "i3d"): "FVD",
    ("video", "videomae"): "FVD",
    ("audio", "clap"): "FAD",
}
"""What the distance is called in the literature, by modality and extractor."""

RESAMPLES, AFFORDABLE = 100, 768
"""Resamples behind the interval, and the widest features whose eigenvalues are taken that often
unless --resamples is given: six minutes of a CPU core."""

QUICK = 256
"""Features up to which that takes seconds, so nothing is printed about it."""


@dataclass(frozen=True)
class Distance:
    """A Fréchet distance with what it rests on."""

    metric: str
    """FID, FVD, FAD, or Fréchet distance."""
    value: float
    """The plug-in one."""
    unbiased: float | None
    """Extrapolated to infinitely many samples; with `low` and `high`, its 95% interval, None where
    samples were too few or features too wide. See `metrics.frechet.Frechet`."""
    low: float | None
    high: float | None
    counts: tuple[int, int]
    width: int
    """Features of a sample."""
    extractor: str


def features(media: MediaSet, extract: Extractor, batch: int) -> Float[np.ndarray, "N D"]:
    """Of all samples of a set, `batch` at a time, with a progress bar.

    ValueError for features that are not finite (B, D), or what reading the media raises.
    """
    rows: list[np.ndarray] = []
    group: list[np.ndarray] = []
    with Progress(media.count, description=media.path.name, unit="sample") as progress:
        for number, sample in enumerate(media.samples(), start=1):
            group.append(sample)
            if len(group) < batch and number < media.count:
                continue
            rows += _extract(extract, group)
            group = []
            progress.advance(number)
    return np.concatenate(rows)


def _extract(extract: Extractor, group: Sequence[np.ndarray]) -> list[np.ndarray]:
    if getattr(extract, "mixed_sizes", False):
        parts: list[Any] = [group]
    else:
        parts = [np.stack(list(same)) for _, same in groupby(group, lambda sample: sample.shape)]
    return [checked(extract, part) for part in parts]


def measure(
    metric: str,
    a: Float[np.ndarray, "N D"],
    b: Float[np.ndarray, "M D"],
    extractor: str,
    resamples: int | None = None,
) -> Distance:
    """The distance of two sets of features, extrapolated where there are more than 2 D of each and
    `resamples` (None: RESAMPLES of features no wider than AFFORDABLE) is not 0."""
    width = a.shape[1]
    if resamples is None:
        resamples = RESAMPLES if width <= AFFORDABLE else 0
    counts = (len(a), len(b))
    if not resamples or min(counts) <= 2 * width:
        value = plug_in_distance(a, b)
        return Distance(metric, value, None, None, None, counts, width, extractor)
    if width > QUICK:
        sys.stderr.write(f"extrapolating: {resamples} resamples of {width} features, minutes\n")
    found = frechet_distance(a, b, resamples)
    interval = (found.unbiased, found.low, found.high)
    return Distance(metric, found.distance, *interval, counts, width, extractor)


def describe(distance: Distance, noun: str) -> str:
    """One line of text."""
    d = distance
    extrapolated = (
        ""
        if d.unbiased is None
        else f" (extrapolated {d.unbiased:.5g} [{d.low:.5g}, {d.high:.5g}])"
    )
    return (
        f"{d.metric} {d.value:.5g}{extrapolated}, {d.counts[0]} against {d.counts[1]} {noun}, "
        f"{d.extractor}"
    )


if __name__ == "__main__":
    run_evaluate("distance")
