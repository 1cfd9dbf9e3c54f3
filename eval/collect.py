"""`python -m eval.collect`: demonstrations as an RLDS dataset in RT-1's format.

How they are perturbed stands in `eval.rollout.demonstrations`. Beside the dataset lies
`executed/`, one `<task>-<seed>.npz` per episode with what was really executed: the dataset's own
actions are the expert's, which are not the ones that moved the robot, so a replay needs both.

Starts follow from training seeds, which tests never use. On SIMPLER, whose tests are cells of a
grid, demonstrations start beside the cells and on none of them; what they share with the tests is
in `eval.envs.simpler.training`, and is printed and kept in the collection's provenance.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.envs.registry import resolve_backend
from eval.envs.tasks import ALL, get_task, parse_tasks
from eval.rollout.demonstrations import Perturbation, Schedule, collect, starts
from eval.rollout.workers import default_workers
from selfflow_wm.cli import Parser, at_least, fraction, progress_bar, run_main


def parse_counts(task: str, episodes: int, counts: str | None) -> dict[str, int]:
    """Episodes per task from `--task`, `--episodes` and `--counts name=N,...`."""
    wanted = dict.fromkeys(parse_tasks(task), episodes)
    for word in (counts or "").split(","):
        if not word.strip():
            continue
        name, _, number = word.strip().partition("=")
        if not number.isdigit():
            raise ValueError(
                f"counts: expected task=N,...; got {word!r}; remedy: e.g. open_drawer_place=200"
            )
        wanted[get_task(name).name] = int(number)
    if others := [name for name in wanted if name not in ALL]:
        raise ValueError(
            f"task: expected tasks of the Google robot, which the experts can do; got "
            f"{', '.join(others)}; remedy: choose from {', '.join(ALL)}"
        )
    wanted = {name: number for name, number in wanted.items() if number > 0}
    if not wanted:
        raise ValueError("counts: expected at least one episode; got none; remedy: raise a count")
    return {name: wanted[name] for name in ALL if name in wanted}


def backend_words(backend: str, simpler_python: str | None) -> str:
    """`--backend` with SIMPLER's training starts; `ValueError` where the python is for another."""
    from eval.envs.simpler import backend_name

    if backend not in ("auto", "simpler"):
        if simpler_python:
            raise ValueError(
                f"backend: expected --simpler-python only with SIMPLER; got --backend {backend}; "
                "remedy: add --backend simpler"
            )
        return backend
    return backend_name("train", simpler_python or "").replace("simpler", backend, 1)


def build_parser() -> Parser:
    """The command line of `python -m eval.collect`."""
    parser = Parser(
        prog="python -m eval.collect",
        description="Collect demonstrations of the scripted expert in RT-1's RLDS format.",
        epilog="""examples:
  python -m eval.collect --task open_drawer_place --episodes 5 --out data/try
  python -m eval.collect --task all --episodes 100 --workers 2 --out data/embedded
  python -m eval.collect --task all --episodes 50 --counts open_drawer_place=200 --out data/embedded

The same command again continues an interrupted collection; a larger --episodes makes it grow.
On SIMPLER, in an environment of its own (what starts share with the tests is printed first):
  python -m eval.collect --task open_drawer,close_drawer,open_drawer_place --episodes 50 \\
      --backend simpler --simpler-python PATH --out data/simpler

Check a collection by replaying it:
  python -m eval.simpler --task open_drawer_place --policy replay:data/embedded""",
    )
    add = parser.add_argument
    add("--task", default="all", help="a task, a comma list, or all (default)")
    add(
        "--episodes",
        type=at_least(1),
        default=100,
        metavar="N",
        help="successful episodes to keep per task (default 100)",
    )
    add("--counts", metavar="TASK=N,...", help="other numbers for some tasks; 0 leaves one out")
    add(
        "--out",
        type=Path,
        default=Path("data/embedded"),
        metavar="DIR",
        help="dataset directory (default data/embedded)",
    )
    add(
        "--backend",
        default="auto",
        help="auto (default): SIMPLER where it can run, else mujoco; mujoco; simpler; "
        "module:factory for your own",
    )
    add(
        "--simpler-python",
        metavar="PATH",
        help="the python that SIMPLER is installed in (default: this one); see eval.doctor",
    )
    add(
        "--workers",
        type=at_least(1),
        default=default_workers(),
        metavar="N",
        help="processes (default: the cores, at most 8)",
    )
    add("--seed", type=at_least(0), default=0, help="block of training seeds (default 0)")
    add(
        "--position-noise",
        type=at_least(0.0),
        default=Perturbation.position_noise,
        metavar="M",
        help="noise on the executed position deltas, m (default %(default)s)",
    )
    add(
        "--rotation-noise",
        type=at_least(0.0),
        default=Perturbation.rotation_noise,
        metavar="RAD",
        help="noise on the executed rotation deltas, rad (default %(default)s)",
    )
    add(
        "--noise-probability",
        type=fraction,
        default=Perturbation.noise_probability,
        metavar="P",
        help="probability that a step is perturbed (default %(default)s)",
    )
    add(
        "--terminate-delay",
        type=fraction,
        default=Perturbation.terminate_delay,
        metavar="P",
        help="probability of holding a terminate back (default %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.collect`; returns the exit code."""
    from rich.console import Console

    args = build_parser().parse_args(argv)
    console = Console()
    wanted = parse_counts(args.task, args.episodes, args.counts)
    backend, why = resolve_backend(backend_words(args.backend, args.simpler_python))
    perturbation = Perturbation(
        args.position_noise, args.rotation_noise, args.noise_probability, args.terminate_delay
    )
    console.print(f"{why}\n{starts(backend)}", highlight=False)
    console.print(f"{sum(wanted.values())} episodes into {args.out}")
    started = time.monotonic()
    progress = progress_bar(console)
    bar = progress.add_task("collecting", total=sum(wanted.values()), note="")

    def show(schedule: Schedule) -> None:
        failed = sum(schedule.failed.values())
        note = f"{schedule.current}, {failed} attempts failed"
        progress.start()  # only now: a bar above an error about the input would confuse
        progress.update(bar, completed=sum(schedule.kept.values()), note=note)

    try:
        schedule = collect(
            wanted, args.out, backend=backend, perturbation=perturbation,
            seed=args.seed, workers=args.workers, on_attempt=show,
        )  # fmt: skip
    except KeyboardInterrupt:
        progress.stop()
        console.print(f"interrupted; the same command continues in {args.out}")
        return 130
    finally:
        progress.stop()
    return report(console, schedule, args.out, time.monotonic() - started)


def report(console: Any, schedule: Schedule, out: Path, seconds: float) -> int:
    """Print what was collected; 0, or 1 when episodes crashed or a task was given up."""
    from rich.table import Table

    table = Table("task", "kept", "failed")
    for task in schedule.wanted:
        table.add_row(task, str(schedule.kept[task]), str(schedule.failed[task]))
    console.print(table)
    total = sum(schedule.kept.values())
    if total:
        collection = json.loads((out / "collection-train.json").read_text())
        steps = sum(row["steps"] for row in collection["episodes"].values())
        size = sum(path.stat().st_size for path in out.glob("*.tfrecord-*")) / 2**20
        console.print(
            f"{out}: {total} episodes of these tasks, {steps} steps in all, {size:.1f} MiB; "
            f"{seconds / 60:.1f} min, {schedule.resumed} attempts from earlier runs"
        )
    for line in schedule.errors:
        console.print(f"[red]error[/] {line}", highlight=False)
    remedy = "mend the errors above" if schedule.errors else "lower the noise"
    for task in schedule.short:
        console.print(
            f"[red]{task}[/]: kept {schedule.kept[task]} of {schedule.wanted[task]} after "
            f"{schedule.failed[task]} failures; {remedy}"
        )
    return 1 if schedule.errors or schedule.short else 0


if __name__ == "__main__":
    run_main(main)
