"""Reports on collecting demonstrations: what is collected, progress, and the result."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from eval.envs.contract import Limits, Simulator
from eval.envs.registry import choose_simulator
from eval.rollout.collect import Schedule, collect
from eval.rollout.demonstrations import Perturbation
from eval.rollout.executors import default_workers
from selfflow_wm.progress import Progress


def collect_and_report(args: Any) -> int:
    """Run the parsed command line of `python -m eval.collect`; returns the exit code."""
    from rich.console import Console

    console = Console(soft_wrap=True)  # paths stay whole where the output is piped
    simulator, why = choose_simulator(args, training=True)
    wanted = parse_counts(simulator, args.task, args.episodes, args.counts)
    perturbation = Perturbation(
        args.position_noise, args.rotation_noise, args.noise_probability, args.terminate_delay
    )
    console.print(f"{why}\n{simulator.training_starts}", highlight=False)
    part = ", of which share {}/{}".format(*args.shard) if args.shard else ""
    console.print(f"{sum(wanted.values())} episodes into {args.out}{part}")
    started = time.monotonic()
    progress = Progress(0, description="collecting", unit="episode", console=Console())

    def show(schedule: Schedule) -> None:
        failed = sum(schedule.failed.values())
        progress.total = sum(schedule.wanted.values())
        note = f"{schedule.current}, {failed} attempts failed"
        progress.advance(sum(schedule.kept.values()), note)

    try:
        schedule = collect(
            wanted, args.out, simulator=simulator, perturbation=perturbation, seed=args.seed,
            shard=args.shard, workers=args.workers or default_workers(), executor=args.executor,
            retries=args.retries, limits=Limits(args.reset_timeout, args.step_timeout),
            on_attempt=show,
        )  # fmt: skip
    except KeyboardInterrupt:
        progress.close()
        console.print(f"interrupted; rerun the same command to continue in {args.out}")
        return 130
    finally:
        progress.close()
    return print_collection(console, schedule, args.out, time.monotonic() - started)


def parse_counts(
    simulator: Simulator, task: str, episodes: int, counts: str | None
) -> dict[str, int]:
    """Episodes per task from `--task`, `--episodes` and `--counts name=N,...`, in the simulator's
    order of tasks."""
    tasks = simulator.parse_tasks(task)
    wanted = dict.fromkeys(tasks, episodes)
    for word in (counts or "").split(","):
        if not word.strip():
            continue
        name, _, number = word.strip().partition("=")
        if not number.isdigit():
            raise ValueError(
                f"counts: expected task=N,..., got {word!r}; e.g. open_drawer_place=200"
            )
        counted = simulator.parse_tasks(name)
        if outside := [task for task in counted if task not in tasks]:
            raise ValueError(
                f"counts: expected tasks of --task ({', '.join(tasks)}), got "
                f"{', '.join(outside)}; write --task {','.join([*tasks, *outside])}"
            )
        wanted |= dict.fromkeys(counted, int(number))
    simulator.require_expert(list(wanted))
    wanted = {name: number for name, number in wanted.items() if number > 0}
    if not wanted:
        raise ValueError("counts: expected at least one episode, got none; raise a count")
    return {name: wanted[name] for name in simulator.tasks if name in wanted}


def print_collection(console: Any, schedule: Schedule, out: Path, seconds: float) -> int:
    """Print what was collected; returns 0, or 1 if episodes crashed or a task was given up."""
    from rich.table import Table

    table = Table("task", "kept", "failed")
    for task in schedule.wanted:
        table.add_row(task, str(schedule.kept[task]), str(schedule.failed[task]))
    console.print(table, soft_wrap=False)
    total = sum(schedule.kept.values())
    if total:
        collection = json.loads((out / "collection-train.json").read_text())
        steps = sum(row["steps"] for row in collection["episodes"].values())
        size = sum(path.stat().st_size for path in out.glob("*.tfrecord-*")) / 2**20
        console.print(
            f"{out}: {total} episodes of these tasks, {steps} steps in all, {size:.1f} MiB; "
            f"{seconds / 60:.1f} min, {schedule.reused} episodes reused from an earlier run"
        )
    for line in schedule.errors:
        console.print(f"error {line}", style="red", highlight=False, markup=False)
    remedy = "fix the errors above" if schedule.errors else "lower the noise"
    for task in schedule.short:
        console.print(
            f"[red]{task}[/]: kept {schedule.kept[task]} of {schedule.wanted[task]} after "
            f"{schedule.failed[task]} failures; {remedy}"
        )
    return 1 if schedule.errors or schedule.short else 0
