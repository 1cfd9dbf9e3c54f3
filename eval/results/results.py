"""`results.json` from a run's `plan.json` and its episodes; which episodes fall to a shard."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.envs.contract import Simulator
from eval.envs.registry import recorded_simulator
from eval.results.metrics import HEADLINES, grouped, mean_of_tasks, means, summarize
from eval.results.records import SCHEMA_VERSION, Record, write_json
from selfflow_wm.cli import Shard, parse_shard
from selfflow_wm.plugins import Plugins

METRICS = Plugins("selfflow_wm.metrics", {}, "metric")
"""Name -> `metric(records) -> {name: number}` of a task's episodes that ended, which are lines of
`episodes.jsonl`. The numbers stand as "metrics" in the task's results, and in the report."""


def share(
    seeds: Mapping[str, Sequence[int]], shard: Shard | None
) -> dict[str, list[tuple[int, int]]]:
    """(index, seed) of each task's episodes that fall to `shard`; all of them for None.

    Which one an episode falls to depends on its task's place and its index alone, so that asking
    for more episodes later moves none; tasks are staggered, so that shares are of like size.
    """
    number, count = shard or (1, 1)
    return {
        task: [pair for pair in enumerate(found) if (place + pair[0]) % count == number - 1]
        for place, (task, found) in enumerate(seeds.items())
    }


def wanted_episodes(description: Mapping[str, Any]) -> dict[str, list[int]]:
    """Seeds per task that a run is to do, or its share of them."""
    shard = description["shard"] and parse_shard(description["shard"])
    return {
        task: [seed for _, seed in found]
        for task, found in share(description["seeds"], shard).items()
    }


def results(
    description: Mapping[str, Any], records: Mapping[tuple[str, int], Record]
) -> dict[str, Any]:
    """What `results.json` holds.

    Args:
        description: as `EpisodePlan.describe` gives it.
        records: the latest line of `episodes.jsonl` per (task, seed); others than the
            description's episodes are left out.
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
        "mean": mean_of_tasks(tasks),
        "means": means(tasks, variants),
        "errors": sum(summary["errors"] for summary in tasks.values()),
        "retries": sum(summary["retries"] for summary in tasks.values()),
    }


def write_results(
    out: Path, description: Mapping[str, Any], records: Mapping[tuple[str, int], Record]
) -> dict[str, Any]:
    """Write `results.json` into `out`; what it holds."""
    found = results(description, records)
    write_json(out / "results.json", found)
    return found


def stand_ins(records: Iterable[Record]) -> list[str]:
    """What these episodes saw a stand-in of, for want of SIMPLER's own mesh."""
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
    """Add rates by `variants` and by `cells` to the tasks' summaries, where a grid has them.

    Returns the rates by task, headline and variant, for the means. A cell that a protocol runs
    twice is one cell of two episodes.
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
    """What installed metrics say; one that fails is named in a warning and left out."""
    found: dict[str, float] = {}
    for name, metric in METRICS.load_all().items():
        try:
            found |= {str(key): float(value) for key, value in metric(records).items()}
        except Exception as error:  # whatever somebody else's function raises
            warnings.warn(f"metric {name}: {type(error).__name__}: {error}", stacklevel=2)
    return found
