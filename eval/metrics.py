"""From episode records to rates with intervals.

A crashed episode is an error: it is counted as such and appears in no rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from eval.tasks import get_task
from selfflow_wm.intervals import wilson


def proportion(flags: Iterable[bool]) -> dict[str, Any]:
    """{"count", "of", "rate" (None when nothing was seen), "low", "high"} with Wilson's 95%."""
    values = [bool(flag) for flag in flags]
    count, of = sum(values), len(values)
    low, high = wilson(count, of)
    return {
        "count": count, "of": of, "rate": count / of if of else None, "low": low, "high": high,
    }  # fmt: skip


def summarize(task: str, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of one task.

    Args:
        task: its name.
        records: lines of `episodes.jsonl` of this task.
    """
    counted = [record for record in records if record["status"] != "error"]
    names = dict.fromkeys(get_task(task).stages)
    names.update(dict.fromkeys(stage for record in counted for stage in record["stages"]))
    stages = {name: proportion(r["stages"].get(name, False) for r in counted) for name in names}
    steps = [record["steps"] for record in counted]
    return {
        "episodes": len(counted),
        "errors": len(records) - len(counted),
        "retries": sum(record.get("retries", 0) for record in records),
        "success_last_step": proportion(record["success"] for record in counted),
        "success_any_step": proportion(record["success_any"] for record in counted),
        "stages": stages,
        "mean_steps": float(np.mean(steps)) if steps else None,
        "terminated_by_policy": proportion(record["terminated"] for record in counted),
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
