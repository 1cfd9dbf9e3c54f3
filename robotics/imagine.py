"""What a checkpoint imagines, next to what happened in held-out episodes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from selfflow_wm.cli import Parser, at_least, exit_code
from selfflow_wm.defaults import IMAGINE_STEPS

EXAMPLES = """\
examples:
  python -m robotics.imagine --checkpoint runs/sf/checkpoint --data data/demo --out runs/imagined
  python -m robotics.imagine --checkpoint runs/sf/checkpoint --data data/demo --out runs/imagined \\
      --episode 0 --episode 7 --windows 0        strips and videos of two episodes, no statistics

forward: future frames given the recorded actions. video: the same without the actions.
inverse: actions given the recorded future frames. policy: actions from the current frame alone.
joint: frames and actions together from the current frame. The modes it was trained in are shown.
Written to --out: results.json, index.html, strips/*.png, videos/*.mp4.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status, see `selfflow_wm.cli.exit_code`."""
    arguments = _parser().parse_args(argv)

    def work() -> None:
        from robotics.imagination.run import imagine

        imagine(arguments)

    return exit_code(work)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m robotics.imagine", description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    parser.add_shared("checkpoint")
    add("--data", type=Path, required=True, metavar="DIR", help="data set of a robot")
    add("--robot", metavar="NAME", help="which of the checkpoint's; needed if it has several and "
        "the data are not among those it was trained on")  # fmt: skip
    parser.add_shared("out")
    add("--split", help="default: the one held out when the checkpoint was trained")
    add("--episode", type=int, action="append", metavar="N", help="to draw; default 0 1 2 3")
    add("--windows", type=at_least(0), default=512, metavar="N",
        help="to measure on; 0: none (%(default)s)")  # fmt: skip
    parser.add_shared("steps", default=IMAGINE_STEPS)
    parser.add_shared("seed", help="of windows and sampling noise (%(default)s)")
    parser.add_shared("device")
    add("--threads", type=at_least(1), metavar="N", help="of torch (all cores)")
    add("--cache-dir", type=Path, help="decoded frames; default beside the data")
    return parser


if __name__ == "__main__":
    sys.exit(main())
