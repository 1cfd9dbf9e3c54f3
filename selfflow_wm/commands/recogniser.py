"""Train the network that reads the signs of the toy world."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from selfflow_wm.cli import Parser, at_least, perform

EPILOG = """\
examples:
  python -m selfflow_wm.evaluate recogniser --out runs/recogniser
  python -m selfflow_wm.evaluate recogniser --out runs/recogniser96 --size 96 96 --steps 4000
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    return perform(_parser(), _run, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m selfflow_wm.evaluate recogniser",
        description="Train a network that reads signs; report its accuracy on unseen true signs.",
        epilog=EPILOG,
        renamed={"--batch": "--batch-size", "--test": "--samples"},
    )
    add = parser.add_argument
    parser.add_shared("out", help="weights, hash and ceiling")
    add("--size", type=at_least(32), nargs=2, default=(64, 64), metavar=("H", "W"),
        help="of the signs in pixels (64 64)")  # fmt: skip
    parser.add_shared("steps", default=4000, help="of the optimiser (%(default)s)")
    parser.add_shared("batch-size", default=32, help="signs a step (%(default)s)")
    add("--minutes", type=at_least(0.0), help="choose fewer steps to fit (timed on the first ten)")
    parser.add_shared("samples", default=1000, help="test signs (%(default)s)")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from selfflow_wm.data.toy import ToyConfig
    from selfflow_wm.evaluation.recogniser import train_with_progress
    from selfflow_wm.metrics.recogniser import ceiling, save_recogniser, train

    config = ToyConfig(*arguments.size)
    steps = arguments.steps
    if arguments.minutes is not None:
        begin = time.monotonic()
        train(config, 10, arguments.batch_size)
        steps = max(1, min(steps, int(arguments.minutes * 600 / (time.monotonic() - begin))))
    model = train_with_progress(config, steps, arguments.batch_size)
    scores = ceiling(model, config, arguments.samples)
    for name, score in scores.items():
        if score.count:
            print(
                f"ceiling, {name} words: {score.accuracy:.1%} [{score.low:.1%}, {score.high:.1%}] "
                f"of {score.count}, letter error {score.letter_error:.1%}"
            )
    digest = save_recogniser(arguments.out, model, config, scores)
    print(f"recogniser: {arguments.out}, SHA-256 {digest[:12]}")
