"""`python -m eval.doctor`: what the simulators lack on this machine, and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence

from eval.envs.contract import Row
from eval.envs.registry import SIMULATORS
from selfflow_wm.cli import Parser, one_of, run_main


def build_parser() -> Parser:
    """The command line of `python -m eval.doctor`."""
    parser = Parser(
        prog="python -m eval.doctor",
        description="Check each simulator's requirements and print fixes.",
        epilog="""examples:
  python -m eval.doctor
  python -m eval.doctor --simpler-python .venv-simpler/bin/python --render

Exit codes: 0 what you asked for is complete, 1 something in it is missing, 2 bad input. You ask for
a simulator with --only or one of its flags, and for all of them with --render; without these, one
complete simulator is enough, because each of them can evaluate policies.""",
    )
    parser.add_argument(
        "--render", action="store_true", help="also start SIMPLER and render one image (a minute)"
    )
    parser.add_argument(
        "--only",
        metavar="NAME",
        help=f"check one simulator: {SIMULATORS.help_line()} (default: all)",
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
    kinds = SIMULATORS.load_all()
    if args.only is not None:
        one_of("--only", args.only, kinds)
    complete, lacking, asked = [], [], []
    for name, kind in kinds.items():
        if args.only not in (None, name):
            continue
        settings = kind.settings_from(args)
        simulator = kind(**settings)
        title = f"{simulator.title} ({simulator.backend})"
        whole = show(title, simulator.check(args.render))
        (complete if whole else lacking).append(simulator.title)
        if args.only or args.render or settings:
            asked.append(whole)
    healthy = all(asked) if asked else bool(complete)
    if not lacking:
        print("nothing is missing")
    elif complete:
        optional = ", which is optional" if healthy else ""
        print(f"complete: {', '.join(complete)}; incomplete: {', '.join(lacking)}{optional}")
    else:
        print("something is missing; see the lines above")
    return 0 if healthy else 1


if __name__ == "__main__":
    run_main(main)
