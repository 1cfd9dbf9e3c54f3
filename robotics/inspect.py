"""`python -m robotics.inspect PATH`: the doctor of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfflow_wm.cli import Parser, at_least, run_main
from selfflow_wm.files import check_out

EXAMPLES = """examples:
  python -m robotics.inspect data/embedded
  python -m robotics.inspect data/mine --spec my_robot.yaml --episodes 1000 --out runs/inspection
  python -m robotics.inspect data/mine --split "train[:10%]"

Without --spec the shipped specifications are tried (rt1, bridge); if none fits, one is guessed from
the names, shapes and values, and the guesses are marked. Conventions of the specification (sense
of the gripper, kind of rotation, delta or absolute, frame, unit) are compared with the measured
motion. Only a sample is read; it is the same in every run.

Written to --out: index.html (everything, in one file), proposed.yaml (for --spec and spec=),
inspection.json (the numbers).

Exit codes: 0 nothing wrong, 1 errors in the data, 2 bad input."""


def build_parser() -> Parser:
    """The command line of `python -m robotics.inspect`."""
    parser = Parser(
        prog="python -m robotics.inspect",
        description="Report what is in an RLDS/TFDS data set, what is wrong, and how to read it.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("data", metavar="PATH|URL", help="directory with dataset_info.json")
    add("--spec", metavar="NAME|YAML", help="how to read it (default: found or guessed)")
    add("--split", default="train", help="split or slice (default: train)")
    add("--episodes", type=at_least(0), default=300, metavar="N",
        help="most episodes that are read, by a fixed seed; 0: all (default: 300)")  # fmt: skip
    add("--out", type=Path, default=None, metavar="DIR",
        help="where to write (default: runs/inspect-NAME)")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m robotics.inspect`; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    out = arguments.out or Path("runs") / f"inspect-{Path(arguments.data).resolve().name}"
    check_out(out)
    from rich.console import Console

    from robotics.inspection.doctor import examine, write
    from robotics.inspection.tables import print_examination
    from selfflow_wm.progress import Progress

    console = Console(stderr=True)
    with Progress(
        0, description="reading episodes", unit="episode", console=console, transient=True
    ) as progress:
        examined = examine(
            arguments.data, arguments.split, arguments.spec, arguments.episodes, progress
        )
    write(examined, out)
    print_examination(Console(), examined)
    print(f"written: {out / 'index.html'}, proposed.yaml, inspection.json")
    return 1 if examined.count("error") else 0


if __name__ == "__main__":
    run_main(main)
