"""Accuracy of linear probes over layers, noise levels and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from selfflow_wm.intervals import wilson
from selfflow_wm.probing.classifier import TEST, classify, split_samples
from selfflow_wm.probing.features import Features, Labelled, extract
from selfflow_wm.probing.table import Table
from selfflow_wm.progress import Progress


@dataclass(frozen=True)
class Row:
    """One probe. Shares are in [0, 1]."""

    layer: int
    level: float
    accuracy: float
    """On the test split."""
    low: float
    high: float
    """Wilson's 95% interval of the accuracy; tokens of one sample count as one trial."""
    chance: float
    """Share of the most frequent label: what a constant answer scores."""
    test_samples: int
    classes: int
    dimension: int
    l2: float
    choose_accuracy: float
    fit_accuracy: float
    converged: bool


def probe(
    model: Callable,
    batches: Iterable[Labelled],
    layers: Sequence[int] | None = None,
    levels: Sequence[float] = (0.0,),
    *,
    modality: str,
    pool: str = "mean",
    seed: int = 0,
    device: torch.device | str = "cpu",
    skip: Collection[tuple[int, float]] = (),
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Train one linear classifier per layer and noise level on the frozen features of `model`.

    Args:
        model: a frozen `Backbone`, or anything called like one with its `layout` and `depth`,
            on `device`.
        batches: (`Batch`, integer labels (B,)) pairs, gone through once per layer and level.
        layers: blocks counted from 1; None for all.
        levels: uniform noise levels t in [0, 1].
        modality: whose tokens are the features.
        pool: "mean" over the tokens of a sample, or "none" for a row per token.
        seed: of the noise and of the splits, so that all probes see the same of both.
        skip: (layer, level) pairs to leave out.
        on_row: called with every row as it is done.

    Returns the rows, level by level. ValueError on anything out of range, and on batches that
    can be gone through only once.
    """
    if iter(batches) is batches:
        raise ValueError(
            "expected batches to go through again and again, got an iterator; pass a list, or "
            "an object whose __iter__ starts afresh"
        )
    rows = []
    for layer, level in units(model, layers, levels):
        if (layer, level) in skip:
            continue
        features = extract(
            model, model.layout, batches, layer, level, modality=modality, pool=pool, seed=seed,
            device=device,
        )  # fmt: skip
        rows.append(_judge(features, layer, level, seed))
        if on_row is not None:
            on_row(rows[-1])
    return rows


def units(
    model: Any, layers: Sequence[int] | None, levels: Sequence[float]
) -> list[tuple[int, float]]:
    """The (layer, level) pairs to probe; ValueError on a layer the model does not have."""
    layers = range(1, model.depth + 1) if layers is None else layers
    if not layers or not levels:
        raise ValueError(f"expected layers and levels, got {list(layers)} and {list(levels)}")
    if wrong := [layer for layer in layers if not 1 <= layer <= model.depth]:
        raise ValueError(f"expected layers in 1..{model.depth}, got {wrong}")
    return [(layer, float(level)) for level in dict.fromkeys(levels)
            for layer in dict.fromkeys(layers)]  # fmt: skip


def _judge(features: Features, layer: int, level: float, seed: int) -> Row:
    count = int(features.sample[-1]) + 1
    group = split_samples(count, seed=seed)
    found = classify(features.values, features.labels, group[features.sample])
    judged = int((group == TEST).sum())
    low, high = wilson(found.accuracy * judged, judged)
    return Row(
        layer=layer,
        level=level,
        low=low,
        high=high,
        test_samples=judged,
        classes=len(features.labels.unique()),
        dimension=features.values.shape[1],
        **asdict(found),
    )


def probe_checkpoints(
    checkpoints: Mapping[str, Path],
    batches: Iterable[Labelled],
    table: Table,
    *,
    load: Callable[[Path], Any],
    fingerprint: Callable[[Path], str],
    layers: Sequence[int] | None = None,
    levels: Sequence[float] = (0.0,),
    device: torch.device | str = "cpu",
    **options: Any,
) -> None:
    """`probe` every checkpoint into `table`, which is saved after each row.

    Rows that the table holds of the same checkpoint are not computed again.

    Args:
        checkpoints: names, as rows and plot show them, and where they lie.
        load: a path to a model in evaluation mode (see `probe`).
        fingerprint: a path to what its content is known by; rows of a checkpoint that has
            changed since are dropped.
        options: the other keywords of `probe`. The table's settings should cover them.
    """
    prints = {name: fingerprint(path) for name, path in checkpoints.items()}
    for name, value in prints.items():
        table.drop_stale(name, value)
    for name, path in checkpoints.items():
        model = load(path).to(device)
        wanted = units(model, layers, levels)
        done = table.done(name) & set(wanted)
        if len(done) == len(wanted):
            continue
        with Progress(
            len(wanted), len(done), description=f"probing {name}", unit="probe"
        ) as progress:

            def keep(row: Row, name: str = name, progress: Progress = progress) -> None:
                table.add({"checkpoint": name, "fingerprint": prints[name]} | asdict(row))
                shown = {"layer": row.layer, "t": row.level, "accuracy": row.accuracy}
                progress.report(progress.done + 1, shown)

            probe(model, batches, layers, levels, device=device, skip=done, on_row=keep, **options)
