"""python -m selfflow_wm.metrics.train_recogniser: train a reader of signs."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from selfflow_wm.cli import Parser, at_least, exit_code, run_main
from selfflow_wm.data.toy import ToyConfig
from selfflow_wm.metrics.recogniser import ceiling, save_recogniser, train

EPILOG = """\
examples:
  python -m selfflow_wm.metrics.train_recogniser --out runs/recogniser
  python -m selfflow_wm.metrics.train_recogniser --out runs/recogniser96 --size 96 96 --steps 4000
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    arguments = _parser().parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m selfflow_wm.metrics.train_recogniser",
        description="Train a network that reads signs; report its accuracy on unseen true signs.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="weights, hash and ceiling")
    add("--size", type=at_least(32), nargs=2, default=(64, 64), metavar=("H", "W"),
        help="of the signs in pixels (default 64 64)")  # fmt: skip
    add("--steps", type=at_least(1), default=4000, help="of the optimiser (default 4000)")
    add("--batch", type=at_least(1), default=32, help="signs a step (default 32)")
    add("--minutes", type=at_least(0.0), help="choose fewer steps to fit (timed on the first ten)")
    add("--test", type=at_least(1), default=1000, metavar="N", help="test signs (default 1000)")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    config = ToyConfig(*arguments.size)
    steps = arguments.steps
    if arguments.minutes is not None:
        begin = time.monotonic()
        train(config, 10, arguments.batch)
        steps = max(1, min(steps, int(arguments.minutes * 600 / (time.monotonic() - begin))))

    def report(step: int, value: float) -> None:
        if step % max(1, steps // 20) == 0:
            sys.stdout.write(f"step {step} of {steps}: loss {value:.3f}\n")
            sys.stdout.flush()

    model = train(config, steps, arguments.batch, report=report)
    scores = ceiling(model, config, arguments.test)
    for name, score in scores.items():
        if score.count:
            sys.stdout.write(
                f"ceiling, {name} words: {score.accuracy:.1%} [{score.low:.1%}, {score.high:.1%}] "
                f"of {score.count}, letter error {score.letter_error:.1%}\n"
            )
    digest = save_recogniser(arguments.out, model, config, scores)
    sys.stdout.write(f"recogniser: {arguments.out}, SHA-256 {digest[:12]}\n")


if __name__ == "__main__":
    run_main(main)
