"""`results.json` from a run's `plan.json` and its episodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.results.metrics import HEADLINES, grouped, mean_of_tasks, means, summarize
from eval.results.records import SCHEMA_VERSION, Record, write_json
from eval.rollout.plan import parse_shard, share


def results(
    description: Mapping[str, Any], records: Mapping[tuple[str, int], Record]
) -> dict[str, Any]:
    """What `results.json` holds.

    Args:
        description: as `Plan.describe` gives it.
        records: the latest line of `episodes.jsonl` per (task, seed); others than the
            description's episodes are left out.
    """
    wanted = wanted_episodes(description)
    found = {
        task: [records[task, seed] for seed in seeds if (task, seed) in records]
        for task, seeds in wanted.items()
    }
    tasks = {task: summarize(task, those) for task, those in found.items()}
    variants = _add_cells(description["protocol"], found, tasks)
    for task, those in found.items():
        if replaced := stand_ins(those):
            tasks[task]["stand_ins"] = replaced
    return {
        "schema_version": SCHEMA_VERSION,
        **description,
        "complete": all(len(found[task]) == len(seeds) for task, seeds in wanted.items()),
        "seeds": wanted,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "tasks": tasks,
        "mean": mean_of_tasks(tasks),
        "means": means(tasks, variants),
        "errors": sum(summary["errors"] for summary in tasks.values()),
        "retries": sum(summary["retries"] for summary in tasks.values()),
    }


def stand_ins(records: Iterable[Record]) -> list[str]:
    """What these episodes saw a stand-in of, for want of SIMPLER's own mesh."""
    return sorted({name for record in records for name in record.get("stand_ins", ())})


def _add_cells(
    protocol: str | None, ran: dict[str, list[Record]], tasks: dict[str, dict[str, Any]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Add rates by `variants` and by `cells` to the tasks' summaries, where a grid has them.

    Returns the rates by task, headline and variant, for the means. A cell that a protocol runs
    twice is one cell of two episodes.
    """
    from eval.envs.simpler.protocols import cell_at

    found: dict[str, dict[str, dict[str, Any]]] = {}
    if protocol is None or protocol == "prepackaged":
        return found
    for task, records in ran.items():
        cells = [cell_at(task, protocol, record["seed"]) for record in records]
        tasks[task]["cells"] = grouped(records, [cell.start for cell in cells])
        variants = [cell.variant for cell in cells]
        if all(variants):
            found[task] = {
                headline: grouped(records, variants, metric)
                for headline, metric in zip(HEADLINES, ("success", "success_any"), strict=True)
            }
            tasks[task]["variants"] = found[task]["success_last_step"]
    return found


def wanted_episodes(description: Mapping[str, Any]) -> dict[str, list[int]]:
    """Seeds per task that a run is to do, or its share of them."""
    shard = description["shard"] and parse_shard(description["shard"])
    return {
        task: [seed for _, seed in found]
        for task, found in share(description["seeds"], shard).items()
    }


def write_results(
    out: Path, description: Mapping[str, Any], records: Mapping[tuple[str, int], Record]
) -> tuple[dict[str, Any], Path]:
    """Write `results.json` and `report.html` into `out`; the results and the report's path."""
    from eval.report.run import write_report

    found = results(description, records)
    write_json(out / "results.json", found)
    rows = [records.get((task, seed)) for task, seeds in found["seeds"].items() for seed in seeds]
    return found, write_report(out, found, rows)
