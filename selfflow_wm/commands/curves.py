"""Learning curves of trainings side by side."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.cli import Parser, perform, split_name
from selfflow_wm.files import write_file
from selfflow_wm.intervals import over_seeds
from selfflow_wm.tables import print_table, with_interval
from selfflow_wm.training.curves import Curve, choose, common_steps, draw, read_curves

Arms = Mapping[str, Sequence[Mapping[str, Curve]]]

EPILOG = """\
RUN is out= of a training, finished or not. Runs of one NAME are one arm, as seeds are: its line is
their mean, its band goes from the lowest to the highest, and the table has Student's 95% interval.
Held-out losses are of the EMA with the same noise at every step, and twins share it too.

examples:
  python -m selfflow_wm.evaluate curves runs/sf runs/fm --out curves.png
  python -m selfflow_wm.evaluate curves sf=runs/sf-0 sf=runs/sf-1 fm=runs/fm-0 --out curves.png
  python -m selfflow_wm.evaluate curves runs/sf --out curves.png --metrics 'validation/*/gen/*'
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    return perform(_parser(), _run, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m selfflow_wm.evaluate curves",
        description="Draw what trainings logged, side by side, and show the last values.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="[NAME=]RUN", help="directories of trainings")
    parser.add_shared("out", metavar="FILE.png", help="the picture")
    add("--metrics", nargs="+", default=[], metavar="PATTERN",
        help="names as in metrics.jsonl, * for anything (held-out losses)")  # fmt: skip
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.out.suffix.lower() != ".png":
        raise ValueError(f"out: expected a name that ends in .png, got {options.out}; add it")
    arms = read_arms(options.runs)
    names = dict.fromkeys(name for runs in arms.values() for found in runs for name in found)
    metrics = choose(list(names), options.metrics)
    if not metrics:
        raise ValueError(
            "runs: expected a logged loss, got none; wait until training has logged one"
        )
    write_file(options.out, draw(arms, metrics))
    _show(arms, metrics)
    print(f"curves: {options.out}")


def read_arms(words: Sequence[str]) -> dict[str, list[dict[str, Curve]]]:
    """Arm -> the curves of its runs, from `[NAME=]RUN`; without a name, the directory's."""
    arms: dict[str, list[dict[str, Curve]]] = {}
    seen: set[Path] = set()
    for word in words:
        name, place = split_name(word)
        path = Path(place).expanduser().resolve()
        if path in seen or not (label := name or path.name):
            raise ValueError(f"runs: expected each run once, got {word} again; leave it out")
        if not name and label in arms:
            raise ValueError(
                f"runs: expected different names, got {label!r} twice; write NAME={word} (the same "
                "NAME for seeds of one arm)"
            )
        seen.add(path)
        arms.setdefault(label, []).append(read_curves(path))
    return arms


def table(arms: Arms, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Each metric at the last step that all runs with it have: arm -> mean over seeds, with its
    interval where there are several. Metrics without such a step have `step` None."""
    rows = []
    for metric in metrics:
        by_arm = {
            name: [run[metric] for run in runs if metric in run] for name, runs in arms.items()
        }
        steps = common_steps([curve for curves in by_arm.values() for curve in curves])
        step = steps[-1] if steps else None
        values = {
            name: over_seeds([curve[step] for curve in curves])
            for name, curves in by_arm.items()
            if curves and step is not None
        }
        rows.append({"metric": metric, "step": step, "arms": values})
    return rows


def _show(arms: Arms, metrics: Sequence[str]) -> None:
    rows = [
        (
            row["metric"],
            "–" if row["step"] is None else row["step"],
            *(with_interval(row["arms"][n], ".4g") if n in row["arms"] else "–" for n in arms),
        )
        for row in table(arms, metrics)
    ]
    print_table(("metric", "step", *arms), rows)
