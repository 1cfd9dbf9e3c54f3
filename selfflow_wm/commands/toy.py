"""A contact sheet of the toy world, and how fast its samples are made."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.cli import Parser, at_least, one_of, perform

EPILOG = """\
examples:
  python -m selfflow_wm.evaluate toy --out sheet.png
  python -m selfflow_wm.evaluate toy --out sheet.png --split test --size 96 160 --frames 33
  python -m selfflow_wm.evaluate toy --speed
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    return perform(_parser(), _run, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m selfflow_wm.evaluate toy",
        description="Draw a contact sheet of the toy world, or time its samples.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    do = parser.add_mutually_exclusive_group(required=True)
    do.add_argument("--out", type=Path, metavar="PNG", help="where the contact sheet goes")
    do.add_argument("--speed", action="store_true", help="samples a second of CPU time, by kind")
    add("--split", default="train", help="train (default), validation or test")
    add("--start", type=at_least(0), default=0, metavar="N", help="first sample (0)")
    add("--rows", type=at_least(1), default=3, metavar="N", help="rows of each kind (3)")
    add("--size", type=at_least(32), nargs=2, default=(64, 64), metavar=("H", "W"),
        help="pixels (64 64)")  # fmt: skip
    add("--frames", type=at_least(1), default=17, metavar="T", help="1 + 4k (17)")
    add("--fps", type=at_least(0.1), default=12.5, metavar="F", help="frames a second (12.5)")
    add("--sample-rate", type=at_least(1), default=16000, metavar="HZ", help="of sounds (16000)")
    add("--words", type=Path, metavar="FILE", help="words for the signs, a line each")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from selfflow_wm.data.toy import KINDS, SPLITS, ToyConfig, ToyWorld
    from selfflow_wm.data.toy.sheet import contact_sheet
    from selfflow_wm.files import atomic_file

    one_of("--split", arguments.split, SPLITS)
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
            print(f"{kind}: {_rate(world, kind, arguments):.0f}/s of CPU time")
        return
    sheet = contact_sheet(world, arguments.split, arguments.start, arguments.rows)
    with atomic_file(arguments.out) as path:
        sheet.save(path, format="PNG")
    print(f"sheet: {arguments.out}")


def _rate(world: Any, kind: str, arguments: argparse.Namespace) -> float:
    first = world.seed(arguments.split, arguments.start)
    for seed in range(first, first + 20):  # fonts are read once
        world.sample(kind, seed)
    begin, count = time.process_time(), 0
    while time.process_time() - begin < 0.5:
        world.sample(kind, first + 20 + count)
        count += 1
    return count / (time.process_time() - begin)
