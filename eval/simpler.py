"""`python -m eval.simpler`: evaluate a policy on the tasks and write a report."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from eval.envs.registry import SIMULATORS, OneTask, add_arguments, find_starts
from eval.envs.tasks import ALL
from eval.policies.options import OptionParser
from eval.policies.spec import CLIENTS
from eval.report.checkpoints import evaluate_checkpoints, find_checkpoints
from eval.report.run import run_plan
from eval.results.results import METRICS
from eval.rollout.executors import add_arguments as add_worker_arguments
from eval.rollout.plan import list_starts, make_plan
from selfflow_wm.cli import Parser, at_least, run_main


def build_parser() -> Parser:
    """The command line of `python -m eval.simpler`."""
    parser = OptionParser(
        prog="python -m eval.simpler",
        description="Evaluate a policy in closed loop and write a report.",
        epilog=f"""tasks: {", ".join(ALL)}; each simulator may have more
simulators: {SIMULATORS.help_line()}
policy servers: {CLIENTS.help_line()}
metrics beside the success rates: {METRICS.help_line()}

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

Arguments of the form key=value are hydra overrides of configs/eval.yaml. Rerun the same command
with the same --out to continue an interrupted run and retry its errors. Exit codes: 0 done, 1 some
episodes crashed or hung despite --retries, 2 bad input.""",
    )
    add = parser.add_argument
    add(
        "--task",
        action=OneTask,
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
    parser.add_shared(
        "checkpoint", required=False,
        help="a name in checkpoints/, a checkpoint's directory, or a run's (its newest); default: "
        "self_flow, with SIMPLER simpler_self_flow",
    )  # fmt: skip
    add(
        "--checkpoints",
        metavar="WHICH",
        help="with --checkpoint RUN, a training run's directory: evaluate all its checkpoints, or "
        "those of STEP,STEP,...; each in OUT/step_*, the learning curve in OUT/curve. Rerun it to "
        "evaluate the checkpoints that were added",
    )
    add_arguments(parser)
    add(
        "--protocol",
        metavar="NAME",
        help="grid of start states; SIMPLER's: vm (default), va, paper, prepackaged, or N cells of "
        "vm; train (the default of a replay): where demonstrations start, not a test",
    )
    add("--list-cells", action="store_true", help="print the start states of a run and stop")
    add_worker_arguments(parser)
    add(
        "--batch-inference", type=at_least(1), metavar="B",
        help="one process holds the checkpoint for all workers and predicts for up to B of them at "
        "once, for a GPU; 1: exactly the results without this flag, for any --workers; more: "
        "equal up to rounding",
    )  # fmt: skip
    parser.add_shared("shard", help="run share I of N, from 1; python -m eval.merge combines them")
    add(
        "--episodes",
        type=at_least(1),
        metavar="N",
        help="per task (default 20; with SIMPLER's grids, their first N cells, default all)",
    )
    parser.add_shared(
        "seed", help="block of test seeds (default 0); not with SIMPLER's grids, which draw nothing"
    )
    parser.add_shared(
        "out", required=False,
        help="default runs/<task>-<policy>-<backend>-<time>; give an earlier run's to continue it",
    )  # fmt: skip
    add(
        "--video",
        type=at_least(0),
        default=4,
        metavar="N",
        help="videos per task, plus one if these show only successes or only failures (default 4)",
    )
    add(
        "--video-of",
        metavar="N,...",
        help="also record these episodes, by number (the cell's, else the seed; eval.compare lists "
        "the interesting ones), even of a finished run",
    )
    add("--film", dest="video_of", help=argparse.SUPPRESS)  # what --video-of was called
    add("overrides", nargs="*", metavar="key=value", help="hydra overrides of configs/eval.yaml")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.simpler`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_intermixed_args(words)
    if args.list_cells:
        print(list_starts(args, find_starts(args)))
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


if __name__ == "__main__":
    run_main(main)
