"""Directories like those of `python -m eval.simpler`, with outcomes chosen by the test."""

from __future__ import annotations

import json
from pathlib import Path

from eval.envs.registry import find_task
from eval.results.results import means, summarize


def episode(
    task, index, won, *, seed=None, ever=None, stages=None, cell=None, video=None, words=""
):
    names = find_task(task).stages
    record = {
        "status": "success" if won else "failure", "index": index, "task": task,
        "seed": 1_000_000 + index if seed is None else seed, "success": won,
        "success_any": won if ever is None else ever, "steps": 20, "terminated": won,
        "stages": dict.fromkeys(names, won if stages is None else stages[index]),
        "instructions": [[0, words or f"do {task}"]], "latency_ms": [10.0, 20.0], "wall_s": 1.0,
        "video": video,
    }  # fmt: skip
    return record | ({"cell": cell} if cell else {})


def write(
    out: Path, outcomes, *, simulator="embedded-mujoco", protocol=None, training=None,
    kind="checkpoint", records=None, options=None, sha=None, versions=None,
):  # fmt: skip
    """outcomes: task -> one word of 0, 1, e (crashed) and - (never run), an episode a letter."""
    out.mkdir(parents=True)
    if records is None:
        records = []
        for task, word in outcomes.items():
            for index, letter in enumerate(word):
                if letter == "e":
                    records.append({
                        "status": "error", "index": index, "task": task,
                        "seed": 1_000_000 + index, "error": "boom", "video": None,
                    })  # fmt: skip
                elif letter != "-":
                    records.append(episode(task, index, letter == "1"))
    tasks = {task: summarize(task, [r for r in records if r["task"] == task]) for task in outcomes}
    seeds = {
        task: [r["seed"] for r in records if r["task"] == task]
        if protocol
        else [1_000_000 + i for i in range(len(word))]
        for task, word in outcomes.items()
    }
    results = {
        "schema_version": 1, "simulator": simulator, "simulator_note": "a note",
        "protocol": protocol, "complete": True,
        "policy": {"kind": kind, "path": f"runs/{out.name}/checkpoint", "options": options or {},
                   "checkpoint_sha256": (sha or out.name).ljust(64, "0"), "training": training},
        "versions": versions or {"python": "3.11"}, "config": {}, "seed": 0, "seeds": seeds,
        "command": f"python -m eval.simpler --out {out.name}", "written": "2026-01-01T00:00:00",
        "tasks": tasks, "means": means(tasks, {}),
        "errors": sum(summary["errors"] for summary in tasks.values()),
    }  # fmt: skip
    (out / "results.json").write_text(json.dumps(results))
    (out / "episodes.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return out
