"""`python -m eval.collect`: demonstrations as an RLDS dataset in RT-1's format.

How they are perturbed stands in `eval.rollout.demonstrations`. Beside the dataset lies
`executed/`, one `<task>-<seed>.npz` per episode with what was really executed: the dataset's own
actions are the expert's, which are not the ones that moved the robot, so a replay needs both.

Starts follow from training seeds, which tests never use. On SIMPLER, whose tests are cells of a
grid, demonstrations start beside the cells and on none of them; what they share with the tests is
in `eval.envs.simpler.training`, and is printed and kept in the collection's provenance.

Shares (`--shard I/N`) make every N-th attempt each; `python -m eval.merge` puts them together as
the set that one run would have collected.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.envs.registry import add_arguments
from eval.policies.spec import DEFAULT_REPLAY
from eval.report.collection import collect_and_report
from eval.rollout.demonstrations import Perturbation
from eval.rollout.workers import add_arguments as add_worker_arguments
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
        "--episodes", type=at_least(1), default=100, metavar="N",
        help="successful episodes to keep per task (default 100)",
    )  # fmt: skip
    add("--counts", metavar="TASK=N,...", help="other numbers for some tasks; 0 leaves one out")
    parser.add_shared(
        "out",
        required=False,
        default=DEFAULT_REPLAY,
        help="dataset directory (default %(default)s)",
    )
    add_arguments(parser)
    add_worker_arguments(parser)
    parser.add_shared("shard", help="collect share I of N, from 1; python -m eval.merge joins them")
    parser.add_shared("seed", help="block of training seeds (default 0)")
    for name, kind, metavar, text in (
        ("position_noise", at_least(0.0), "M", "noise on the executed position deltas, m"),
        ("rotation_noise", at_least(0.0), "RAD", "noise on the executed rotation deltas, rad"),
        ("noise_probability", fraction, "P", "probability that a step is perturbed"),
        ("terminate_delay", fraction, "P", "probability of holding a terminate back"),
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
