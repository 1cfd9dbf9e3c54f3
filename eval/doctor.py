"""`python -m eval.doctor`: what the simulators lack on this machine, and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence

from eval.envs.contract import Row
from eval.envs.registry import SIMULATORS
from selfflow_wm.cli import Parser, run_main


def build_parser() -> Parser:
    """The command line of `python -m eval.doctor`."""
    parser = Parser(
        prog="python -m eval.doctor",
        description="Report what the simulators lack on this machine and how to fix it.",
        epilog="""examples:
  python -m eval.doctor
  python -m eval.doctor --simpler-python .venv-simpler/bin/python --render

Exit codes: 0 nothing is missing, 1 something is, 2 bad input.""",
    )
    parser.add_argument(
        "--render", action="store_true", help="also start SIMPLER and render one image (a minute)"
    )
    parser.add_argument(
        "--only", choices=SIMULATORS.names(), help="check one simulator (default: all)"
    )
    for kind in SIMULATORS.load_all().values():
        kind.add_arguments(parser)
    return parser


def show(title: str, rows: Sequence[Row]) -> bool:
    """Print a section; returns whether nothing is missing."""
    print(title)
    for row in rows:
        mark = "ok     " if row["ok"] else "note   " if row["note"] else "MISSING"
        print(f"  {mark} {row['name']}: {row['found']}")
        if row["remedy"]:
            print(f"          remedy: {row['remedy']}")
    return all(row["ok"] or row["note"] for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.doctor`; returns the exit code."""
    args = build_parser().parse_args(argv)
    healthy = True
    for name, kind in SIMULATORS.load_all().items():
        if args.only in (None, name):
            simulator = kind(**kind.settings_from(args))
            healthy &= show(
                f"{simulator.title} ({simulator.backend})", simulator.check(args.render)
            )
    print("nothing is missing" if healthy else "something is missing; see the lines above")
    return 0 if healthy else 1


if __name__ == "__main__":
    run_main(main)
