"""`python -m eval.merge`: combines the shares of an evaluation or of a collection."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.report.merge import merge_and_report
from selfflow_wm.cli import Parser, run_main


def build_parser() -> Parser:
    """The command line of `python -m eval.merge`."""
    parser = Parser(
        prog="python -m eval.merge",
        description="Combine the shares of an evaluation (eval.simpler --shard) or of a "
        "collection of demonstrations (eval.collect --shard).",
        epilog="""examples:
  python -m eval.simpler --task all --shard 1/2 --out runs/part1
  python -m eval.simpler --task all --shard 2/2 --out runs/part2
  python -m eval.merge runs/all runs/part1 runs/part2
  python -m eval.merge data/all data/part1 data/part2

Shares may be merged before they are finished; the shares' command without --shard and with
--out runs/all then runs the missing episodes and retries errors. Exit codes: 0 done, 1 errors or
missing episodes, 2 bad input.""",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="a new directory")
    parser.add_argument("shares", type=Path, nargs="+", metavar="SHARD_DIR", help="shares to merge")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.merge`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if flags := [word for word in words if word.partition("=")[0] == "--out"]:
        out = flags[0].partition("=")[2] or next(iter(words[words.index(flags[0]) + 1 :]), "OUT")
        shares = [word for word in words if word not in (flags[0], out)]
        raise ValueError(
            f"merge: expected OUT as the first word, got {flags[0]}; write "
            f"{shlex.join(['python', '-m', 'eval.merge', out, *shares])}"
        )
    args = build_parser().parse_args(words)
    return merge_and_report(
        args.out, args.shares, shlex.join(["python", "-m", "eval.merge", *words])
    )


if __name__ == "__main__":
    run_main(main)
