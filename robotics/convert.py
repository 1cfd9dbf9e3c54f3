"""Convert a data set between RLDS and LeRobot's format v3 (needs the extra lerobot).

python -m robotics.convert rlds-to-lerobot data/demo data/demo-lerobot
python -m robotics.convert lerobot-to-rlds data/demo-lerobot data/demo-rlds
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from robotics.data.lerobot import LeRobotReader, write
from robotics.data.rlds import EpisodeReader, EpisodeWriter
from robotics.data.rlds.spec import load_spec


def rlds_to_lerobot(
    source: Path, target: Path, *, split: str = "train", spec: str | None = None, videos: bool
) -> int:
    """Write a split's episodes, in their order, to the new directory `target`; their number."""
    reader = EpisodeReader(source, split, spec=spec)
    return write(target, reader, load_spec(spec).control_hz, videos=videos)


def lerobot_to_rlds(source: Path, target: Path, *, spec: str | None = None) -> int:
    """Write all episodes to `target`, RT-1's features in the split "train"; how many it has.

    Images become 256 x 320. The keys in collection-train.json are the episodes' numbers, and an
    interrupted conversion goes on.
    """
    reader = LeRobotReader(source, spec)
    writer = EpisodeWriter(target, provenance={"lerobot": str(source), "fps": int(reader.data.fps)})
    for number, episode in reader:
        if number not in writer:
            writer.write(number, episode)
    writer.finalize()
    return len(writer.done())


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status: 0 done, 1 the library is missing, 2 misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m robotics.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("rlds-to-lerobot", "lerobot-to-rlds"):
        sub = verbs.add_parser(verb)
        sub.add_argument("source", type=Path, metavar="SRC")
        sub.add_argument("target", type=Path, metavar="DST")
        sub.add_argument("--spec", metavar="NAME", help="how SRC is read: a name or a yaml")
        if verb == "rlds-to-lerobot":
            sub.add_argument("--split", default="train", help="split or slice; train")
            sub.add_argument("--videos", action="store_true", help="video instead of PNG")
    given = vars(parser.parse_args(argv))
    convert = {"rlds-to-lerobot": rlds_to_lerobot, "lerobot-to-rlds": lerobot_to_rlds}
    try:
        count = convert[given.pop("verb")](**given)
    except (ValueError, ImportError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    print(f"{count} episodes; {given['target']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
