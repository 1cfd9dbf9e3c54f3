"""`results.json`: from episode records to rates with intervals, and the means of several tasks.

A crashed episode is an error: it is counted as such and is in no rate.

Several averages of the same episodes are in use. `means` computes them all, each with its name:

| key              | what has equal weight                                                         |
|------------------|-------------------------------------------------------------------------------|
| `micro`          | every episode                                                                 |
| `macro_tasks`    | every task                                                                    |
| `macro_variants` | every variant of a task, then every task: as SIMPLER does, which equals       |
|                  | `macro_tasks` on whole grids                                                  |
| `simpler_rows`   | every row of SIMPLER's tables, in which opening and closing drawers share one |
| `without_place`  | the same without `open_drawer_place`, which many tables leave out             |
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from eval.envs.contract import Simulator, without_turn
from eval.envs.registry import find_task, recorded_simulator
from eval.results.records import SCHEMA_VERSION, Record, wanted_episodes, write_json
from selfflow_wm.intervals import independent_trials, mean_interval, wilson
from selfflow_wm.plugins import Plugins

DRAWERS = ("open_drawer", "close_drawer")
PLACE = "open_drawer_place"
MEANS = ("micro", "macro_tasks", "macro_variants", "simpler_rows", "without_place")
HEADLINES = ("success_last_step", "success_any_step")
METRICS = Plugins(
    "selfflow_wm.metrics",
    {},
    "metric",
    lambda found: None if callable(found) else f"expected a function of records, got {found!r}",
)
"""Name -> `metric(records) -> {name: number}` of a task's episodes that ended (lines of
`episodes.jsonl`). The numbers become "metrics" in the task's results and in the report."""


def results(
    description: Mapping[str, Any], records: Mapping[tuple[str, int], Record]
) -> dict[str, Any]:
    """What `results.json` holds.

    Args:
        description: as `EpisodePlan.describe` gives it.
        records: the latest line of `episodes.jsonl` per (task, seed); episodes that are not in the
            description are ignored.
    """
    wanted = wanted_episodes(description)
    found = {
        task: [records[task, seed] for seed in seeds if (task, seed) in records]
        for task, seeds in wanted.items()
    }
    tasks = {task: summarize(task, those) for task, those in found.items()}
    simulator = recorded_simulator(description["simulator"], description["protocol"])
    variants = _add_cells(simulator, found, tasks)
    for task, those in found.items():
        if replaced := stand_ins(those):
            tasks[task]["stand_ins"] = replaced
        if more := _more_metrics([record for record in those if record["status"] != "error"]):
            tasks[task]["metrics"] = more
    return {
        "schema_version": SCHEMA_VERSION,
        **description,
        "complete": all(len(found[task]) == len(seeds) for task, seeds in wanted.items()),
        "seeds": wanted,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "tasks": tasks,
        "means": means(tasks, variants),
        "errors": sum(summary["errors"] for summary in tasks.values()),
        "retries": sum(summary["retries"] for summary in tasks.values()),
    }


def write_results(
    out: Path, description: Mapping[str, Any], records: Mapping[tuple[str, int], Record]
) -> dict[str, Any]:
    """Write `results.json` into `out`; returns its content."""
    found = results(description, records)
    write_json(out / "results.json", found)
    return found


def stand_ins(records: Iterable[Record]) -> list[str]:
    """What stand-ins replaced in these episodes because a mesh of SIMPLER was missing."""
    return sorted({name for record in records for name in record.get("stand_ins", ())})


def policy_line(found: Mapping[str, Any]) -> str:
    """The policy of some results, with its checkpoint and the checkpoint's hash."""
    policy = found["policy"]
    words = [policy["kind"], policy["path"] or ""]
    if policy["checkpoint_sha256"]:
        words.append(f"sha256 {policy['checkpoint_sha256'][:12]}")
    return " ".join(word for word in words if word)


def _add_cells(
    simulator: Simulator, ran: dict[str, list[Record]], tasks: dict[str, dict[str, Any]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Add rates by `variants` and by `cells` to the tasks' summaries, for grids that have them.

    Returns the rates by task, headline and variant, for the means. A cell that a protocol runs
    twice is one cell with two episodes.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task, records in ran.items():
        cells = [cell for r in records if (cell := simulator.cell(task, r["seed"])) is not None]
        if len(cells) < len(records) or (not cells and simulator.protocol is None):
            continue
        tasks[task]["cells"] = grouped(records, [cell.start for cell in cells])
        variants = [cell.variant for cell in cells]
        if all(variants):
            found[task] = {
                headline: grouped(records, variants, metric)
                for headline, metric in zip(HEADLINES, ("success", "success_any"), strict=True)
            }
            tasks[task]["variants"] = found[task]["success_last_step"]
    return found


def _more_metrics(records: Sequence[Record]) -> dict[str, float]:
    """The values of installed metrics; one that fails is left out with a warning."""
    found: dict[str, float] = {}
    for name, metric in METRICS.load_all().items():
        try:
            found |= {str(key): float(value) for key, value in metric(records).items()}
        except Exception as error:  # third-party code may raise anything
            warnings.warn(f"metric {name}: {type(error).__name__}: {error}", stacklevel=2)
    return found


def proportion(flags: Iterable[bool], starts: Iterable[Hashable] | None = None) -> dict[str, Any]:
    """{"count", "of", "rate" (None without trials), "low", "high"} with Wilson's 95% interval.

    starts: the start state of each episode. If some are run more than once, repeated episodes are
    down-weighted to their effective sample size, which the interval uses and which is added as
    "independent".
    """
    values = [bool(flag) for flag in flags]
    count, of = sum(values), len(values)
    trials, more = float(of), {}
    if starts is not None and len(set(starts := list(starts))) < of:
        trials = independent_trials(values, starts)
        more = {"independent": trials}
    low, high = wilson(count / of * trials if of else 0, trials)
    return {
        "count": count, "of": of, "rate": count / of if of else None, "low": low, "high": high,
    } | more  # fmt: skip


def start_of(record: Mapping[str, Any]) -> str:
    """The start state of an episode: its cell, without the turn, or its seed."""
    return without_turn(str(record.get("cell", record.get("seed"))))


def summarize(task: str, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of one task.

    Args:
        task: its name.
        records: lines of `episodes.jsonl` of this task.
    """
    counted = [record for record in records if record["status"] != "error"]
    known = find_task(task)
    names = dict.fromkeys(known.stages if known else ())
    names.update(dict.fromkeys(stage for record in counted for stage in record["stages"]))
    starts = [start_of(record) for record in counted]
    stages = {
        name: proportion((r["stages"].get(name, False) for r in counted), starts) for name in names
    }
    steps = [record["steps"] for record in counted]
    return {
        "episodes": len(counted),
        "errors": len(records) - len(counted),
        "retries": sum(record.get("retries", 0) for record in records),
        "success_last_step": proportion((record["success"] for record in counted), starts),
        "success_any_step": proportion((record["success_any"] for record in counted), starts),
        "stages": stages,
        "mean_steps": float(np.mean(steps)) if steps else None,
        "terminated_by_policy": proportion((record["terminated"] for record in counted), starts),
        "policy_latency_ms": latency(counted),
    }


def latency(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{"calls", "p50", "p95"} over every model call of these episodes, ms; None without calls."""
    times = [ms for record in records for ms in record["latency_ms"]]
    if not times:
        return {"calls": 0, "p50": None, "p95": None}
    p50, p95 = np.percentile(times, [50, 95])
    return {"calls": len(times), "p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def grouped(
    records: Sequence[dict[str, Any]], names: Sequence[str], metric: str = "success"
) -> dict[str, dict[str, Any]]:
    """Rates by group, in order of appearance; crashed episodes are left out.

    Args:
        records: lines of `episodes.jsonl`.
        names: the group of each record.
        metric: the flag to count.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for record, name in zip(records, names, strict=True):
        if record["status"] != "error":
            groups.setdefault(name, []).append(record)
    rates = {}
    for name, found in groups.items():
        starts = [start_of(record) for record in found]
        # Within one cell, its turns are independent.
        several = starts if len(set(starts)) > 1 else None
        rates[name] = proportion((record[metric] for record in found), several)
    return rates


def task_weights(tasks: Sequence[str]) -> dict[str, tuple[str, dict[str, float]]]:
    """The weighted means of tasks: key -> (name, weight of each task).

    Empty for a single task. `micro`, which depends on the numbers of episodes, is not included.
    """
    if len(tasks) < 2:
        return {}
    found = {"macro_tasks": (f"mean of {len(tasks)} tasks", {t: 1 / len(tasks) for t in tasks})}
    if set(DRAWERS) < set(tasks):
        found["simpler_rows"] = _rows(tasks, "drawers as one")
        rest = [task for task in tasks if task != PLACE]
        if len(rest) < len(tasks) and set(DRAWERS) < set(rest):
            found["without_place"] = _rows(rest, f"drawers as one, without {PLACE}")
    return found


def _rows(tasks: Sequence[str], words: str) -> tuple[str, dict[str, float]]:
    rows = len(tasks) - 1
    weights = {task: (0.5 if task in DRAWERS else 1.0) / rows for task in tasks}
    return f"mean of {rows} rows ({words})", weights


def means(
    summaries: Mapping[str, dict[str, Any]], variants: Mapping[str, dict[str, dict[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """Every mean of the table above that differs from the rate of a single task.

    Args:
        summaries: of each task, as `summarize` gives them.
        variants: of each task, rates by variant for each of `HEADLINES`: `{headline: {variant:
            proportion}}`; empty for simulators without variants.

    Returns:
        key -> {"name", and for each of `HEADLINES` {"rate", "low", "high"}}. The 95% bounds are
        Wilson's for `micro`; the others combine Wilson's of independent rates. Empty if a task has
        no rate: a mean of the rest would be a different number under the same name.
    """
    rates = [
        means_of({task: summary[headline] for task, summary in summaries.items()})
        for headline in HEADLINES
    ]
    found: dict[str, dict[str, Any]] = {
        key: {"name": name} | {h: of[key][1] for h, of in zip(HEADLINES, rates, strict=True)}
        for key, (name, _) in rates[0].items()
    }
    if variants and _several(variants, summaries):
        found["macro_variants"] = _of_variants(variants, len(summaries))
    return {key: found[key] for key in MEANS if key in found}


def means_of(rates: Mapping[str, dict[str, Any]]) -> dict[str, tuple[str, dict[str, float]]]:
    """The means over tasks of one rate, `micro` first: key -> (name, {"rate", "low", "high"}).

    rates: task -> `proportion`. Empty for a single task, and where a task has no rate.
    """
    if len(rates) < 2 or any(share["rate"] is None for share in rates.values()):
        return {}
    episodes = sum(share["of"] for share in rates.values())
    found = {"micro": (f"all {episodes} episodes pooled", pooled(list(rates.values())))}
    for key, (name, weights) in task_weights(list(rates)).items():
        found[key] = name, weighted([rates[task] for task in weights], weights.values())
    return found


def _several(variants: Mapping[str, dict[str, dict[str, Any]]], tasks: Iterable[str]) -> bool:
    """Whether every task has variants, and some task several (else it is the mean of tasks)."""
    counts = [
        len(variants[task]["success_last_step"]) if variants.get(task) else 0 for task in tasks
    ]
    return min(counts) > 0 and max(counts) > 1


def _of_variants(variants: Mapping[str, dict[str, dict[str, Any]]], tasks: int) -> dict[str, Any]:
    count = sum(len(rows["success_last_step"]) for rows in variants.values())
    name = f"mean of {count} variants" + (f", then of {tasks} tasks" if tasks > 1 else "")
    result: dict[str, Any] = {"name": name}
    for headline in HEADLINES:
        shares = [share for rows in variants.values() for share in rows[headline].values()]
        weights = [
            1 / len(rows[headline]) / tasks for rows in variants.values() for _ in rows[headline]
        ]
        result[headline] = weighted(shares, weights)
    return result


def pooled(shares: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{"rate", "low", "high"} of pooled proportions, with at least one trial in total."""
    count, of = sum(share["count"] for share in shares), sum(share["of"] for share in shares)
    trials = sum(share.get("independent", share["of"]) for share in shares)
    low, high = wilson(count / of * trials, trials)
    return {"rate": count / of, "low": low, "high": high}


def weighted(shares: Sequence[dict[str, Any]], weights: Iterable[float]) -> dict[str, Any]:
    """{"rate", "low", "high"} of a weighted mean of independent proportions."""
    weights = list(weights)
    rows = [(share["rate"], share["low"], share["high"]) for share in shares]
    low, high = mean_interval(rows, weights)
    rate = sum(weight * row[0] for row, weight in zip(rows, weights, strict=True))
    return {"rate": rate, "low": low, "high": high}
