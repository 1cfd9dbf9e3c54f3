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
  python -m robotics.inspect data/mine --json | jq .headline

Without --spec the shipped tables are tried; if none fits, one is drafted from the names, shapes and
values, and how sure every entry is stands beside it. What the data do not decide is asked: answer
by a line of the table and run again with --spec. With a table, each of its conventions is compared
with what the robot measured: agrees, contradicts, or cannot tell. Only a sample is read; it is the
same in every run.

Written to --out: index.html (everything, in one file), proposed.yaml (for --spec and spec=),
inspection.json (the numbers).

Exit codes: 0 nothing wrong, 1 errors in the data or the table, 2 undetermined (a question is open)
or bad input."""


def build_parser() -> Parser:
    """The command line of `python -m robotics.inspect`."""
    parser = Parser(
        prog="python -m robotics.inspect",
        description="Report what is in an RLDS or LeRobot data set, and how to read it.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("data", metavar="PATH|URL", help="directory with dataset_info.json or meta/info.json")
    add("--spec", metavar="NAME|YAML", help="how to read it (default: found or drafted)")
    add("--split", default="train", help="split or slice (default: train)")
    add("--episodes", type=at_least(0), default=300, metavar="N",
        help="most episodes that are read, by a fixed seed; 0: all (default: 300)")  # fmt: skip
    add("--out", type=Path, default=None, metavar="DIR",
        help="where to write (default: runs/inspect-NAME)")  # fmt: skip
    add("--json", action="store_true", help="print inspection.json instead of tables")
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
    if arguments.json:
        print((out / "inspection.json").read_text())
    else:
        print_examination(Console(), examined)
        print(f"written: {out / 'index.html'}, proposed.yaml, inspection.json")
    return examined.exit_code


if __name__ == "__main__":
    run_main(main)
