"""From episode records to rates with intervals, and the means of several tasks.

A crashed episode is an error: it is counted as such and appears in no rate.

Several "averages" of the same episodes circulate. `means` gives them all, each with its name:

| key              | what counts the same                                                          |
|------------------|-------------------------------------------------------------------------------|
| `micro`          | every episode                                                                 |
| `macro_tasks`    | every task                                                                    |
| `macro_variants` | every variant of a task, then every task: SIMPLER's own way, which equals     |
|                  | `macro_tasks` on whole grids                                                  |
| `simpler_rows`   | every row of SIMPLER's tables, where opening and closing drawers are one row  |
| `without_place`  | the same without `open_drawer_place`, which many tables leave out             |
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from eval.envs.contract import without_turn
from eval.envs.registry import find_task
from selfflow_wm.intervals import independent_trials, mean_interval, wilson

DRAWERS = ("open_drawer", "close_drawer")
PLACE = "open_drawer_place"
MEANS = ("micro", "macro_tasks", "macro_variants", "simpler_rows", "without_place")
HEADLINES = ("success_last_step", "success_any_step")


def proportion(flags: Iterable[bool], starts: Iterable[Hashable] | None = None) -> dict[str, Any]:
    """{"count", "of", "rate" (None when nothing was seen), "low", "high"} with Wilson's 95%.

    starts: from where each episode began. Where some are run more than once, episodes count as
    what they are worth together: "independent" is added, the trials of the interval.
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
    """Where an episode began: its cell, whatever its turn, or its seed."""
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


def mean_of_tasks(summaries: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The plain mean of the tasks' rates, each task counting the same; None if one has no rate."""
    rates = [summary["success_last_step"]["rate"] for summary in summaries.values()]
    any_rates = [summary["success_any_step"]["rate"] for summary in summaries.values()]
    if len(rates) < 2 or None in rates:
        return None
    return {
        "name": f"mean of {len(rates)} tasks",
        "tasks": list(summaries),
        "success_last_step": sum(rates) / len(rates),
        "success_any_step": sum(any_rates) / len(rates),
    }


def grouped(
    records: Sequence[dict[str, Any]], names: Sequence[str], metric: str = "success"
) -> dict[str, dict[str, Any]]:
    """Rates by group, in the order the groups appear; crashed episodes are left out.

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
        # The rate of one cell is of its own turns, which are independent given the cell.
        several = starts if len(set(starts)) > 1 else None
        rates[name] = proportion((record[metric] for record in found), several)
    return rates


def task_weights(tasks: Sequence[str]) -> dict[str, tuple[str, dict[str, float]]]:
    """The means that are weighted means of tasks: key -> (name, weight of each task in it).

    Empty for a single task. `micro` depends on numbers of episodes and is not among them.
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
    """Every mean of the table above that can be told apart from a task's own rate.

    Args:
        summaries: of each task, as `summarize` gives them.
        variants: of each task, rates by variant for each of `HEADLINES`: `{headline: {variant:
            proportion}}`; empty for simulators without variants.

    Returns:
        key -> {"name", and for each of `HEADLINES` {"rate", "low", "high"}}. Bounds are 95%: of
        `micro` Wilson's, of the others Wilson's combined as of independent rates. Tasks without a
        rate make it empty: a mean of the rest would be another number under the same name.
    """
    if any(summary["success_last_step"]["rate"] is None for summary in summaries.values()):
        return {}
    found: dict[str, dict[str, Any]] = {}
    if len(summaries) > 1:
        episodes = sum(summary["episodes"] for summary in summaries.values())
        found["micro"] = {"name": f"all {episodes} episodes pooled"} | {
            headline: pooled([summary[headline] for summary in summaries.values()])
            for headline in HEADLINES
        }
    for key, (name, weights) in task_weights(list(summaries)).items():
        found[key] = {"name": name} | {
            headline: weighted([summaries[task][headline] for task in weights], weights.values())
            for headline in HEADLINES
        }
    if variants and _several(variants, summaries):
        found["macro_variants"] = _of_variants(variants, len(summaries))
    return {key: found[key] for key in MEANS if key in found}


def _several(variants: Mapping[str, dict[str, dict[str, Any]]], tasks: Iterable[str]) -> bool:
    """Whether every task has variants, and not one each, whose mean is the mean of tasks."""
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
    """{"rate", "low", "high"} of proportions counted together; of at least one trial."""
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
