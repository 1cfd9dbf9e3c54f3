"""`python -m eval.collect`: demonstrations as an RLDS dataset in RT-1's format.

See `eval.rollout.demonstrations` for how they are perturbed. Next to the dataset is `executed/`,
with one `<task>-<seed>.npz` per episode of the actions that were executed: the dataset records the
expert's actions, which are not the ones that moved the robot, so a replay needs both.

Start states come from training seeds, which tests never use. On SIMPLER, whose tests are cells of a
grid, demonstrations start near the cells but on none of them; what they share with the tests is
described in `eval.envs.simpler.training`, printed, and kept in the collection's provenance.

Each share (`--shard I/N`) makes every N-th attempt; `python -m eval.merge` combines the shares into
the set that one run would have collected.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.envs.registry import OneTask, add_arguments
from eval.policies.spec import DEFAULT_REPLAY
from eval.report.collection import collect_and_report
from eval.rollout.demonstrations import Perturbation
from eval.rollout.executors import add_arguments as add_worker_arguments
from selfflow_wm.cli import Parser, at_least, fraction, run_main


def build_parser() -> Parser:
    """The command line of `python -m eval.collect`."""
    parser = Parser(
        prog="python -m eval.collect",
        description="Collect demonstrations of the scripted expert in RT-1's RLDS format.",
        epilog="""examples:
  python -m eval.collect --task open_drawer_place --episodes 5 --out data/try
  python -m eval.collect --task all --episodes 100 --workers 2 --out data/embedded
  python -m eval.collect --task all --episodes 50 --counts open_drawer_place=200 --out data/embedded
  python -m eval.collect --task all --shard 1/2 --out data/part1   # then: python -m eval.merge

Rerun the same command to continue an interrupted collection; a larger --episodes extends it.
On SIMPLER, which has its own Python environment (what the starts share with the tests is printed):
  python -m eval.collect --task open_drawer,close_drawer,open_drawer_place --episodes 50 \\
      --backend simpler --simpler-python PATH --out data/simpler

Check a collection by replaying it:
  python -m eval.simpler --task open_drawer_place --policy replay:data/embedded""",
    )
    add = parser.add_argument
    add("--task", action=OneTask, default="all", help="a task, a comma list, or all (default)")
    add(
        "--episodes", type=at_least(1), default=100, metavar="N",
        help="successful episodes to keep per task (default 100)",
    )  # fmt: skip
    add("--counts", metavar="TASK=N,...", help="episodes of some tasks instead; 0 skips one")
    parser.add_shared(
        "out",
        required=False,
        default=DEFAULT_REPLAY,
        help="dataset directory (default %(default)s)",
    )
    add_arguments(parser)
    add_worker_arguments(parser)
    parser.add_shared(
        "shard", help="collect share I of N, from 1; python -m eval.merge combines them"
    )
    parser.add_shared("seed", help="block of training seeds (default 0)")
    for name, kind, metavar, text in (
        ("position_noise", at_least(0.0), "M", "noise on the executed position deltas, m"),
        ("rotation_noise", at_least(0.0), "RAD", "noise on the executed rotation deltas, rad"),
        ("noise_probability", fraction, "P", "probability that a step is perturbed"),
        ("terminate_delay", fraction, "P", "probability of delaying a terminate"),
    ):
        add(
            "--" + name.replace("_", "-"), type=kind, default=getattr(Perturbation, name),
            metavar=metavar, help=f"{text} (default %(default)s)",
        )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.collect`; returns the exit code."""
    return collect_and_report(build_parser().parse_args(argv))


if __name__ == "__main__":
    run_main(main)
