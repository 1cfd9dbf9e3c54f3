"""results.json: every number of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from selfflow_wm.data import JOINT, MODES
from selfflow_wm.evaluation import summary
from selfflow_wm.evaluation.checkpoints import Entry
from selfflow_wm.evaluation.metrics import FRECHET, METRICS, Columns, Metric, frechet_metric
from selfflow_wm.evaluation.run import REFERENCE, TRUE, UNRELATED, Judge, stored
from selfflow_wm.evaluation.summary import Value
from selfflow_wm.files import write_json

SCHEMA = 1
"""Version of results.json. Raise it when a reader of the old one would misread the new one."""


def collect(
    out: Path,
    entries: Sequence[Entry],
    modes: Sequence[str],
    codecs: Mapping[str, str],
    judge: Judge,
    samples: int,
) -> dict[str, Any]:
    """All values, differences and means over seeds of what is measured under `out`."""
    held: dict[tuple[str, str], Columns] = {}

    def columns(key: str, mode: str) -> Columns:
        if (key, mode) not in held:
            held[key, mode] = stored(out, key, mode).columns(samples)
        return held[key, mode]

    def value(metric: Metric, key: str) -> Value | None:
        if metric.name not in FRECHET:
            return summary.describe(metric, columns(key, metric.mode))
        name = f"features/{FRECHET[metric.name][1]}"
        extractor = judge.extractors[FRECHET[metric.name][1]].name
        reference = columns(REFERENCE, metric.mode)[name]
        return summary.frechet(columns(key, metric.mode)[name], reference, extractor)

    rows, differences, table = [], [], {}
    metrics = [m for m in (*METRICS, *map(frechet_metric, FRECHET)) if m.mode in modes]
    for metric in metrics:
        having = [entry for entry in entries if metric.mode in entry.modes]
        values = {entry.label: value(metric, entry.fingerprint) for entry in having}
        values = {label: found for label, found in values.items() if found is not None}
        of_codecs = {codecs[entry.label]: value(metric, codecs[entry.label]) for entry in having}
        table[metric.name] = values
        row = {name: value for name, value in asdict(metric).items() if name != "bounds"}
        row |= {"true": value(metric, TRUE), "codecs": of_codecs, "checkpoints": values}
        if metric.mode == JOINT and metric.name not in FRECHET:
            row["unrelated"] = value(metric, UNRELATED)
        rows.append(row)
        differences += _differences(metric, having, values, columns)
    # A curve, of several checkpoints for an arm and seed, has no means over seeds.
    one_each = len({(entry.name, entry.seed) for entry in entries}) == len(entries)
    means, between = summary.arms(metrics, entries, table) if one_each else ([], [])
    return {
        "schema": SCHEMA,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "samples": samples,
        "modes": list(modes),
        "checkpoints": [_describe(entry, codecs[entry.label], modes) for entry in entries],
        "metrics": rows,
        "differences": differences,
        "arms": means,
        "arm_differences": between,
    }


def _describe(entry: Entry, codec: str, modes: Sequence[str]) -> dict[str, Any]:
    known = {field.name: getattr(entry, field.name) for field in fields(entry)}
    del known["world"]  # stands in the settings
    lacking = [mode for mode in MODES if mode in modes and mode not in entry.modes]
    return known | {"path": str(entry.path), "not_trained": lacking, "codec": codec}


def _differences(
    metric: Metric, having: Sequence[Entry], values: Mapping[str, Value], columns: Any
) -> list[dict[str, Any]]:
    """Of every two checkpoints, the later minus the earlier; of the first and each for many."""
    pairs = list(combinations(having, 2))
    if len(having) > 3:
        pairs = [(having[0], entry) for entry in having[1:]]
    found = []
    for a, b in pairs:
        if a.label not in values or b.label not in values:
            continue
        if metric.name in FRECHET:
            value = summary.unpaired(values[a.label], values[b.label])
        else:
            value = summary.paired(
                metric, columns(a.fingerprint, metric.mode), columns(b.fingerprint, metric.mode)
            )
        found.append({"metric": metric.name, "a": a.label, "b": b.label, **value})
    return found


def write_results(out: Path, results: Mapping[str, Any]) -> Path:
    """Write `out`/results.json."""
    write_json(out / "results.json", results)
    return out / "results.json"
