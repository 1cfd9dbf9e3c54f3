"""Convert a data set between RLDS and LeRobot's format v3, both ways without loss.

Every feature is kept, and robot.yaml beside the result is the table to read it with:

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
    """Entry; returns the exit status: 0 done, 2 misuse."""
    parser = Parser(prog="python -m robotics.convert", epilog=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("rlds-to-lerobot", "lerobot-to-rlds"):
        sub = verbs.add_parser(verb)
        sub.add_argument("source", type=Path, metavar="SRC")
        sub.add_argument("target", type=Path, metavar="DST")
        sub.add_argument("--split", default="train", help="split or slice; train")
        if verb == "rlds-to-lerobot":
            sub.add_argument("--spec", metavar="NAME", help="the robot's table: a name or a yaml")
            sub.add_argument("--fps", type=float, metavar="N", help="instead of the table's rate")
            sub.add_argument("--videos", action="store_true", help="pictures as video")
            sub.add_argument("--codec", default="av1", choices=("av1", "h264"), help="av1")
        else:
            sub.add_argument(
                "--spec", metavar="NAME", help="table to rewrite; default: SRC's or a draft"
            )
            sub.add_argument(
                "--pictures", default="jpeg", choices=("jpeg", "png"), help="of videos; jpeg"
            )
    return perform(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> None:
    from robotics.data.lerobot.from_rlds import rlds_to_lerobot
    from robotics.data.lerobot.to_rlds import lerobot_to_rlds

    convert = {"rlds-to-lerobot": rlds_to_lerobot, "lerobot-to-rlds": lerobot_to_rlds}
    given = dict(vars(arguments))
    count = convert[given.pop("verb")](**given)
    table = given["target"] / "robot.yaml"
    spec = f"; spec={table}" if table.is_file() else ""
    print(f"{count} episodes; data={given['target']}{spec}")


if __name__ == "__main__":
    sys.exit(main())
