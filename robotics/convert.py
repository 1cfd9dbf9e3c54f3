"""Convert a data set between RLDS and LeRobot's format v3 (needs the extra lerobot).

python -m robotics.convert rlds-to-lerobot data/demo data/demo-lerobot
python -m robotics.convert lerobot-to-rlds data/demo-lerobot data/demo-rlds
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from selfflow_wm.cli import Parser, perform


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status: 0 done, 1 the library is missing, 2 misuse."""
    parser = Parser(prog="python -m robotics.convert", epilog=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("rlds-to-lerobot", "lerobot-to-rlds"):
        sub = verbs.add_parser(verb)
        sub.add_argument("source", type=Path, metavar="SRC")
        sub.add_argument("target", type=Path, metavar="DST")
        sub.add_argument("--spec", metavar="NAME", help="how SRC is read: a name or a yaml")
        if verb == "rlds-to-lerobot":
            sub.add_argument("--split", default="train", help="split or slice; train")
            sub.add_argument("--videos", action="store_true", help="video instead of PNG")
    return perform(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int | None:
    from robotics.data.lerobot import lerobot_to_rlds, rlds_to_lerobot

    convert = {"rlds-to-lerobot": rlds_to_lerobot, "lerobot-to-rlds": lerobot_to_rlds}
    given = dict(vars(arguments))
    try:
        count = convert[given.pop("verb")](**given)
    except ImportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    print(f"{count} episodes; {given['target']}")


if __name__ == "__main__":
    sys.exit(main())
