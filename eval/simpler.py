"""`python -m eval.simpler`: evaluate a policy on the tasks and write a report."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.config import load_config
from eval.envs.registry import is_simpler, require_expert, resolve_backend
from eval.envs.tasks import ALL, GROUPS, WIDOWX, one_robot, parse_tasks, test_seed, train_seed
from eval.policies.make import replay_seeds
from eval.policies.spec import fingerprint, parse_policy
from eval.results.records import EpisodeLog, Record
from eval.results.results_file import write_results
from eval.rollout import controls
from eval.rollout.checkpoints import evaluate_checkpoints, find_checkpoints
from eval.rollout.plan import Plan, parse_films, parse_shard
from eval.rollout.run import evaluate
from eval.rollout.watchdog import Limits
from eval.rollout.workers import default_workers
from selfflow_wm.cli import Parser, at_least, progress_bar, run_main

DEFAULT_EPISODES = 20
"""Per task, where no grid says how many there are."""


def build_parser() -> Parser:
    """The command line of `python -m eval.simpler`."""
    parser = Parser(
        prog="python -m eval.simpler",
        description="Evaluate a policy in closed loop and write a report.",
        epilog=f"""tasks: {", ".join(ALL)}
on SIMPLER also: {", ".join(WIDOWX)}

examples:
  python -m eval.simpler --task open_drawer_place
  python -m eval.simpler --task all --episodes 50 --workers 2
  python -m eval.simpler --task open_drawer,move_near --checkpoint runs/mine/checkpoint
  python -m eval.simpler --task open_drawer_place policy.steps=16 policy.execute=1
  python -m eval.simpler --task all --checkpoint runs/mine --checkpoints all --out runs/mine-curve
  python -m eval.simpler --task all --policy expert         # the positive control
  python -m eval.simpler --task move_near --policy replay:data/embedded
  python -m eval.simpler --task all --policy ws://localhost:8000   # openpi's protocol
  python -m eval.simpler --task all --shard 1/4 --out runs/part1   # then: python -m eval.merge
  python -m eval.simpler --task open_drawer_place --backend simpler --simpler-python PATH
  python -m eval.simpler --task pick_coke_can --protocol va --list-cells

Words with "=" are hydra overrides of configs/eval.yaml. The same command with the same --out
continues an interrupted run and tries its errors again. Exit codes: 0 done, 1 episodes crashed
or hung in spite of --retries, 2 bad input.""",
    )
    add = parser.add_argument
    add(
        "--task",
        required=True,
        help="a task, a comma list, all (the Google robot's), or widowx (SIMPLER's Bridge tasks)",
    )
    add(
        "--policy",
        default="checkpoint",
        metavar="NAME",
        help="checkpoint (default), expert, random, replay or replay:DIR (a collected dataset), or "
        "ws://HOST:PORT (a policy server, see eval.serve)",
    )
    add(
        "--checkpoint",
        metavar="DIR",
        help="directory of a checkpoint or of its run (the newest), or a name in checkpoints/ "
        "(default: the shipped checkpoints/self_flow, with SIMPLER checkpoints/simpler_self_flow)",
    )
    add(
        "--checkpoints",
        metavar="WHICH",
        help="with --checkpoint RUN, a training run's directory: evaluate all its checkpoints, or "
        "those of STEP,STEP,...; each in OUT/step_*, the learning curve in OUT/curve. Repeated, it "
        "evaluates what has been added",
    )
    add(
        "--backend",
        default="auto",
        help="auto (default): SIMPLER where it can run, else mujoco; mujoco; simpler",
    )
    _add_simpler(parser)
    _add_running(parser)
    add(
        "--episodes",
        type=at_least(1),
        metavar="N",
        help="per task (default 20; with SIMPLER's grids, their first N cells, default all)",
    )
    add(
        "--seed",
        type=at_least(0),
        default=0,
        help="block of test seeds (default 0); not with SIMPLER's grids, which draw nothing",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="default runs/<task>-<policy>-<backend>-<time>; an earlier run's is continued",
    )
    add(
        "--video",
        type=at_least(0),
        default=4,
        metavar="N",
        help="episodes to film per task, and one more where only successes or only failures "
        "were among them (default 4)",
    )
    add(
        "--film",
        metavar="N,...",
        help="film these episodes too, by number (a cell's, else the seed; eval.compare names "
        "those worth seeing), also of a run that is over",
    )
    add("overrides", nargs="*", metavar="key=value", help="hydra overrides of configs/eval.yaml")
    return parser


def _add_simpler(parser: Parser) -> None:
    """Flags that only SIMPLER reads."""
    add = parser.add_argument
    add(
        "--protocol",
        metavar="NAME",
        help="SIMPLER's grid: vm (default), va, paper, prepackaged, or N cells of vm; "
        "train (the default of a replay): where demonstrations start, no test",
    )
    add(
        "--simpler-python",
        metavar="PATH",
        help="the python that SIMPLER is installed in (default: this one); see eval.doctor",
    )
    add(
        "--ray-tracing",
        action="store_true",
        help="draw as the published drawer numbers were; needs a GPU that traces rays",
    )
    add("--list-cells", action="store_true", help="print the cells of the protocol and stop")


def _add_running(parser: Parser) -> None:
    """Flags on how episodes are run; of these only --shard changes what is in the results, and
    --batch-inference how they are rounded."""
    add, limits = parser.add_argument, Limits()
    add(
        "--workers", type=at_least(1), metavar="N", help="processes (default: the cores, at most 8)"
    )
    add(
        "--executor", choices=("processes", "ray"), default="processes",
        help="processes of this machine (default), or Ray (the extra ray; a cluster where "
        "RAY_ADDRESS names one, which then has to share --out and checkpoints)",
    )  # fmt: skip
    add(
        "--batch-inference", type=at_least(1), metavar="B",
        help="let one process hold the checkpoint for all workers and predict for up to B of them "
        "at once, for a GPU; 1: exactly the results without this flag, for any --workers; more: "
        "the same up to rounding",
    )  # fmt: skip
    add(
        "--retries", type=at_least(0), default=2, metavar="K",
        help="more tries for an episode that crashed or hung, before it is an error (default 2)",
    )  # fmt: skip
    add(
        "--step-timeout", type=at_least(0.001), default=limits.step, metavar="S",
        help="seconds after which a step counts as hung (default %(default)g)",
    )  # fmt: skip
    add(
        "--reset-timeout", type=at_least(0.001), default=limits.reset, metavar="S",
        help="the same from an episode's start to its first step's end (default %(default)g)",
    )  # fmt: skip
    add(
        "--shard", metavar="I/N",
        help="run share I of N (from 1) of the episodes; python -m eval.merge puts them together",
    )  # fmt: skip


def make_plan(args: Any, command: str) -> tuple[Plan, str]:
    """The plan for parsed arguments and a line on the backend; `ValueError` for bad input."""
    tasks = parse_tasks(args.task)
    one_robot(tasks)
    config = load_config(args.overrides)
    backend, why = resolve_backend(_backend_words(args))
    spec = parse_policy(args.policy, args.checkpoint, config, backend.name)
    if spec.kind == "checkpoint":
        config["policy"] = spec.options
    if spec.kind == "remote" and (idle := [w for w in args.overrides if w.startswith("policy.")]):
        raise ValueError(
            f"override: expected options of the server's own with --policy {args.policy}; got "
            f"{' '.join(idle)}, which nobody would read; remedy: give them to the server "
            "(python -m eval.serve), and remote.execute=N here"
        )
    if spec.kind == "expert":
        require_expert(backend.name, tasks)
    if spec.kind == "replay":
        seeds = {
            task: replay_seeds(Path(spec.path), task)[: args.episodes or DEFAULT_EPISODES]
            for task in tasks
        }
        missing = [task for task, found in seeds.items() if not found]
        if missing:
            raise ValueError(
                f"replay: expected collected episodes of {', '.join(missing)} in {spec.path}; "
                "got none; remedy: collect them, or choose another task"
            )
    else:
        seeds = {task: _seeds(backend.name, task, args) for task in tasks}
    _check_batching(args)
    if args.executor == "ray":
        from eval.rollout.ray_pool import require_ray

        require_ray()
    name = next((word for word, group in GROUPS.items() if tasks == group), "+".join(tasks))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    simulator = _file_name(backend.name.partition("?")[0])
    shard = parse_shard(args.shard) if args.shard else None
    part = "-{}of{}".format(*shard) if shard else ""
    out = args.out or Path("runs", f"{name}-{spec.kind}-{simulator}-{stamp}{part}")
    jobs = sum(len(found) for found in seeds.values())
    plan = Plan(
        tasks, seeds, spec, fingerprint(spec), backend, config, args.seed, args.video,
        args.workers or min(default_workers(), jobs), out, command, shard, args.retries,
        Limits(args.reset_timeout, args.step_timeout), args.executor, args.batch_inference or 0,
        parse_films(args.film, seeds),
    )  # fmt: skip
    return plan, why


def _check_batching(args: Any) -> None:
    """`ValueError` where there is no model to share, or nobody near enough to share it."""
    if not args.batch_inference:
        return
    if args.policy != "checkpoint" or args.executor != "processes":
        raise ValueError(
            "batch-inference: expected a checkpoint and processes of this machine; got --policy "
            f"{args.policy} --executor {args.executor}; remedy: leave --batch-inference out, or "
            "serve the checkpoint with python -m eval.serve"
        )


def _backend_words(args: Any) -> str:
    """`--backend` with SIMPLER's settings; `ValueError` where they are for another simulator."""
    from eval.envs.simpler import backend_name

    shader = "ray_traced" if args.ray_tracing else "rasterised"
    # The seeds of a replay are those of collected demonstrations.
    usual = "train" if args.policy.partition(":")[0] == "replay" else "vm"
    if usual == "train" and args.protocol not in (None, "train"):
        raise ValueError(
            f"protocol: expected train with --policy replay; got {args.protocol}; "
            "remedy: leave --protocol out"
        )
    words = backend_name(args.protocol or usual, args.simpler_python or "", shader)
    given = [args.protocol, args.simpler_python, args.ray_tracing]
    if args.backend in ("auto", "simpler") and (args.simpler_python or args.backend == "simpler"):
        return words
    if any(given):
        raise ValueError(
            "backend: expected --protocol, --simpler-python and --ray-tracing only with SIMPLER; "
            f"got --backend {args.backend}; remedy: add --backend simpler"
        )
    return args.backend


def _seeds(backend: str, task: str, args: Any) -> list[int]:
    """Numbers of the episodes: cells of SIMPLER's grid, or test seeds of the embedded simulator."""
    if not is_simpler(backend):
        if task in WIDOWX:
            raise ValueError(
                f"task: expected a task of the Google robot; got {task}, which only SIMPLER has; "
                "remedy: use --backend simpler"
            )
        return [test_seed(args.seed, i) for i in range(args.episodes or DEFAULT_EPISODES)]
    from eval.envs.simpler import settings
    from eval.envs.simpler.cells import SEEDED, cells

    protocol = settings(backend)["protocol"]
    if protocol in SEEDED:
        draw = train_seed if protocol == "train" else test_seed
        return [draw(args.seed, i) for i in range(args.episodes or DEFAULT_EPISODES)]
    if args.seed:
        raise ValueError(
            f"seed: expected none with the grid {protocol}, whose cells and each cell's sampling "
            f"noise are given; got {args.seed}; remedy: leave --seed out, or draw starts with "
            "--protocol prepackaged"
        )
    return list(range(len(cells(task, protocol))))[: args.episodes]


def list_cells(tasks: Sequence[str], args: Any) -> str:
    """One line per cell that a run would have: number, name, environment, its arguments and the
    reset's options. Where cells are drawn from seeds, the seed is the number."""
    import json

    from eval.envs.simpler import backend_name
    from eval.envs.simpler.protocols import cell_at

    protocol, lines = args.protocol or "vm", []
    for task in tasks:
        numbers = _seeds(backend_name(protocol), task, args)
        lines.append(f"{task}: {len(numbers)} cells of {protocol}")
        for number in numbers:
            cell = cell_at(task, protocol, number)
            lines.append(
                f"{number}\t{cell.name}\t{cell.env_id}\t{json.dumps(cell.build)}"
                f"\t{json.dumps(cell.reset)}"
            )
    return "\n".join(lines)


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.simpler`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_intermixed_args(words)
    if args.list_cells:
        print(list_cells(parse_tasks(args.task), args))
        return 0
    command = shlex.join(["python", "-m", "eval.simpler", *words])
    if args.checkpoints is None:
        return run_plan(*make_plan(args, command))
    found = find_checkpoints(args.checkpoint, args.checkpoints)
    out = args.out or Path("runs", time.strftime("checkpoints-%Y%m%d-%H%M%S"))

    def run(path: Path, directory: Path) -> int:
        args.checkpoint, args.out = str(path), directory
        return run_plan(*make_plan(args, command))

    return evaluate_checkpoints(found, out, run)


def run_plan(plan: Plan, why: str) -> int:
    """Run what is left of a plan and write its results; returns the exit code."""
    from rich.console import Console

    from eval.report.run import print_errors, print_tables

    log = EpisodeLog(plan.out, plan.settings())
    console = Console()
    console.print(f"{why}\nwriting to {plan.out}", highlight=False)
    if log.continued:
        console.print(f"continuing: {log.continued} episodes are already there")
    progress = progress_bar(console)
    total = sum(not log.done(job.task, job.seed) for job in plan.jobs())
    bar = progress.add_task("episodes", total=total, note="")
    seen = {"success": 0, "failure": 0, "error": 0}

    def show(record: Record) -> None:
        seen[record["status"]] += 1
        note = f"{seen['success']} succeeded" + (f", {seen['error']} crashed" * (seen["error"] > 0))
        progress.start()
        progress.update(bar, advance=1, description=record["task"], note=note)

    code = 0
    try:
        evaluate(plan, log, show)
    except KeyboardInterrupt:
        code = 130
    finally:
        progress.stop()
        log.close()
    if code and not log.records:
        console.print("interrupted before the first episode")
        return code
    found, report = write_results(plan.out, plan.describe(), log.records)
    print_tables(console, found)
    if code:
        console.print(f"interrupted; add --out {plan.out} to the same command to continue")
        return code
    console.print(f"report: {report}", highlight=False)
    for line in controls.check(found, plan.backend):
        console.print(f"warning: {line}", style="yellow", highlight=False, markup=False,
                      soft_wrap=True)  # fmt: skip
    print_errors(console, log.records.values())
    return 1 if found["errors"] else 0


if __name__ == "__main__":
    run_main(main)
