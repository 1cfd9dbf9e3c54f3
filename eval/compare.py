"""`python -m eval.compare`: is one policy better than another? Tables, compare.json, a page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from eval.envs.registry import OneTask, parse_task_names
from eval.report.comparison import compare_runs
from eval.results.real_robot import POLICIES, parse_policies
from eval.results.runs import DIFFERENCES, parse_allowed
from selfflow_wm.cli import Parser, at_least, run_main


def build_parser() -> Parser:
    """The command line of `python -m eval.compare`."""
    parser = Parser(
        prog="python -m eval.compare",
        description="Compare finished runs of python -m eval.simpler on the same start states.",
        epilog=f"""\
A pair is one start state (task and seed, or task and SIMPLER cell) that both runs have. Differences
are the later run minus the earlier one, with McNemar's exact test, Tango's and a bootstrap
interval, and the number of paired episodes that would detect such a difference with 80% power at
the 5% level. Cells that were run more than once are down-weighted to their effective sample size.
Several runs are compared pair by pair with Holm's correction; checkpoints of one training make a
learning curve.

examples:
  python -m eval.compare runs/fm-eval runs/sf-eval
  python -m eval.compare runs/fm-eval runs/sf-eval --task open_drawer --metric drawer_opened
  python -m eval.compare runs/rt1 runs/rt1x runs/octo --against-real rt-1-converged,rt-1-x,octo-base

policies with real-robot numbers: {", ".join(POLICIES)}

Exit codes: 0 done, 2 bad input or runs that should not be compared.""",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="an --out of python -m eval.simpler")
    add(
        "--task",
        action=OneTask,
        help="a task, a comma list, or all (default: the tasks common to all runs)",
    )
    add(
        "--metric",
        default="success",
        metavar="NAME",
        help="success (last step, default), any_success, or a stage such as object_grasped",
    )
    add(
        "--allow",
        default="",
        metavar="WHAT,...",
        help=f"compare the runs despite a difference in: {', '.join(DIFFERENCES)}",
    )
    add(
        "--against-real",
        metavar="POLICY,...",
        help="the published policy that each run evaluates, in order: rank agreement with the real "
        "robot (MMRV, Pearson)",
    )
    parser.add_shared("seed", help="of the bootstrap (default 0)")
    parser.add_shared("out", required=False, help="default runs/compare-<time>")
    add(
        "--video",
        type=at_least(0),
        default=4,
        metavar="N",
        help="videos to show side by side of starts on which two runs disagree, per pair of runs "
        "(default 4)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.compare`; returns the exit code."""
    args = build_parser().parse_args(argv)
    compare_runs(
        args.runs,
        args.out or Path("runs", time.strftime("compare-%Y%m%d-%H%M%S")),
        metric=args.metric,
        tasks=parse_task_names(args.task) if args.task and args.task != "all" else None,
        allowed=parse_allowed(args.allow),
        policies=parse_policies(args.against_real, len(args.runs)) if args.against_real else (),
        seed=args.seed,
        videos=args.video,
    )
    return 0


if __name__ == "__main__":
    run_main(main)
