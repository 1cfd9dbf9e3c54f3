"""python -m selfflow_wm.data.toy: a contact sheet, and how fast samples are made."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from selfflow_wm.cli import Parser, at_least, exit_code, run_main
from selfflow_wm.data.toy.config import KINDS, SPLITS, ToyConfig
from selfflow_wm.data.toy.sheet import contact_sheet
from selfflow_wm.data.toy.world import ToyWorld
from selfflow_wm.files import atomic_file

EPILOG = """\
examples:
  python -m selfflow_wm.data.toy --out sheet.png
  python -m selfflow_wm.data.toy --out sheet.png --split test --size 96 160 --frames 33
  python -m selfflow_wm.data.toy --speed
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    arguments = _parser().parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m selfflow_wm.data.toy",
        description="Draw a contact sheet of the toy world, or time its samples.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    do = parser.add_mutually_exclusive_group(required=True)
    do.add_argument("--out", type=Path, metavar="PNG", help="where the contact sheet goes")
    do.add_argument("--speed", action="store_true", help="samples a second of CPU time, by kind")
    add("--split", choices=tuple(SPLITS), default="train", help="default: train")
    add("--start", type=at_least(0), default=0, metavar="N", help="first sample (default 0)")
    add("--rows", type=at_least(1), default=3, help="rows of each kind (default 3)")
    add("--size", type=at_least(32), nargs=2, default=(64, 64), metavar=("H", "W"),
        help="pixels (default 64 64)")  # fmt: skip
    add("--frames", type=at_least(1), default=17, help="1 + 4k (default 17)")
    add("--fps", type=at_least(0.1), default=12.5, help="frames a second (default 12.5)")
    add("--sample-rate", type=at_least(1), default=16000, metavar="HZ", help="default 16000")
    add("--words", type=Path, metavar="FILE", help="words for the signs, a line each")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    height, width = arguments.size
    chosen = {}
    if arguments.words is not None:
        try:
            text = arguments.words.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"{arguments.words}: expected a file of words: {error}") from None
        chosen["words"] = tuple(dict.fromkeys(text.lower().split()))
    world = ToyWorld(
        ToyConfig(height, width, arguments.frames, arguments.fps, arguments.sample_rate, **chosen)
    )
    if arguments.speed:
        for kind in KINDS:
            sys.stdout.write(f"{kind}: {_rate(world, kind, arguments):.0f}/s of CPU time\n")
        return
    sheet = contact_sheet(world, arguments.split, arguments.start, arguments.rows)
    with atomic_file(arguments.out) as path:
        sheet.save(path, format="PNG")
    sys.stdout.write(f"sheet: {arguments.out}\n")


def _rate(world: ToyWorld, kind: str, arguments: argparse.Namespace) -> float:
    first = world.seed(arguments.split, arguments.start)
    for seed in range(first, first + 20):  # fonts are read once
        world.sample(kind, seed)
    begin, count = time.process_time(), 0
    while time.process_time() - begin < 0.5:
        world.sample(kind, first + 20 + count)
        count += 1
    return count / (time.process_time() - begin)


if __name__ == "__main__":
    run_main(main)
