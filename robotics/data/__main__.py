"""`python -m robotics.data edit SRC --out DST`: a new data set out of others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from selfflow_wm.cli import Parser, perform

HELP = """\
Episodes are named as python -m robotics.inspect names them, a split and numbers: train:3,17-20.
With several SRC, which are merged split by split, 2/train:3 is the second one's.

    python -m robotics.data edit data/mine --out data/clean --delete train:3,17
    python -m robotics.data edit data/mine --out data/few --keep train:0-99
    python -m robotics.data edit data/a data/b --out data/both
    python -m robotics.data edit data/mine --out data/said --relabel train:4 "open the drawer"
    python -m robotics.data edit data/mine --out data/said --relabel-text "pick can" "pick the can"
    python -m robotics.data edit data/mine --out data/short --trim-idle

SRC is never changed. DST appears when it is whole; after an interruption, rerun the same command.
Records that do not change are copied byte for byte, features.json too; edits.json says where every
episode comes from. Embeddings of instructions are not computed again.
"""


def build_parser() -> Parser:
    """The command line of `python -m robotics.data`."""
    parser = Parser(prog="python -m robotics.data", epilog=HELP)
    verbs = parser.add_subparsers(dest="verb", required=True)
    sub = verbs.add_parser("edit", epilog=HELP, description="Write a data set out of others.")
    add = sub.add_argument
    add("sources", nargs="+", metavar="SRC", help="RLDS data set; several are merged")
    add("--out", type=Path, required=True, metavar="DST", help="new directory")
    for name, words in (("delete", "leave these episodes out"), ("keep", "keep these alone")):
        add(f"--{name}", action="append", default=[], metavar="EPISODES", help=words)
    add("--relabel", action="append", nargs=2, default=[], metavar=("EPISODES", "TEXT"),
        help="the instruction of these episodes from now on")  # fmt: skip
    add("--relabel-text", action="append", nargs=2, default=[], metavar=("OLD", "NEW"),
        help="this instruction wherever it stands")  # fmt: skip
    add("--trim-idle", nargs="?", action="append", const="", metavar="EPISODES",
        help="cut off idle beginnings and ends (of all episodes)")  # fmt: skip
    add("--spec", metavar="NAME|YAML", help="the robot's table (default: a shipped one that fits)")
    add("--dry-run", action="store_true", help="say what would be done, and write nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status, see `selfflow_wm.cli.exit_code`."""
    return perform(build_parser(), _edit, argv)


def _edit(given: argparse.Namespace) -> None:
    from robotics.data.edit import edit
    from robotics.data.edit_plan import Edit
    from selfflow_wm.progress import Progress

    trim = given.trim_idle
    change = Edit(
        delete=given.delete,
        keep=given.keep,
        relabel=[(word, text) for word, text in given.relabel],
        relabel_text=[(old, new) for old, new in given.relabel_text],
        trim_idle=None if trim is None else [word for word in trim if word],
        spec=given.spec,
    )
    with Progress(0, description="copying episodes", unit="episode", transient=True) as progress:
        counts = edit(given.sources, given.out, change, dry_run=given.dry_run, progress=progress)
    for split, count in counts.items():
        lines = [f"{split}: {count.kept} of {count.before} episodes"]
        if count.relabelled:
            lines.append(f"{len(count.relabelled)} with another instruction")
        if count.trimmed:
            steps = sum(count.trimmed.values())
            lines.append(f"{len(count.trimmed)} shorter by {steps} idle steps together")
        print("; ".join(lines))
    if given.relabel_text and not any(count.relabelled for count in counts.values()):
        texts = ", ".join(repr(old) for old, _ in given.relabel_text)
        print(f"note: no instruction is {texts}; nothing was relabelled")
    if stale := set().union(*(count.stale for count in counts.values())):
        print(f"note: {', '.join(sorted(stale))} still holds embeddings of the old instructions")
    print("nothing written (--dry-run)" if given.dry_run else f"written: {given.out}")


if __name__ == "__main__":
    sys.exit(main())
