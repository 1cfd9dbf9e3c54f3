"""Is this right on a GPU, how fast is it, what fits? One command with a time limit.

    python -m benchmarks.gpu --out runs/gpu --minutes 8
    python -m benchmarks.gpu --out runs/gpu-tiny --minutes 10 --tiny

Stages run most important first, each in a process with its share of the minutes; results.json and
report.md in --out are up to date at any moment and list what a stage did not reach.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import needs
from benchmarks.gpu.runner import Runner
from benchmarks.gpu.stages import DEFAULT, STAGES, chosen
from selfflow_wm.cli import Parser, at_least, exit_code

EPILOG = (
    "stages:\n"
    + "\n".join(
        f"  {s.name:<9}{s.question}" + (" (only when named)" if s.optional else "") for s in STAGES
    )
    + """

A machine without a package index (bring the repository and wheels there):
  python scripts/gpu_wheels.py --out wheels             where there is an index
  python -m benchmarks.gpu --wheels wheels --out DIR    there

Words with "=" change the recipe of the stage train (benchmarks/gpu/recipes), for example
  python -m benchmarks.gpu --stages train --minutes 9 --out DIR train.seeds=[0,1,2] \\
      train.steps=4000 collect.episodes=100 evaluate.episodes=50
and --resume DIR continues from what it brought back. Exit codes: 0 all done and every
check passed, 1 otherwise, 2 bad input, 130 or 143 interrupted."""
)


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m benchmarks.gpu", description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="at most 8 files of at most 16 MB")
    add("--minutes", type=at_least(0.1), default=8.0, metavar="M", help="for everything (8)")
    add("--stages", metavar="NAME,...", help=f"default: {','.join(DEFAULT)}")
    add("--tiny", action="store_true", help="the same code on sizes for a CPU: a rehearsal")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto",
        help="auto (default): cuda, or cpu with --tiny where there is none")  # fmt: skip
    add("--wheels", type=Path, metavar="DIR", help="install what is missing from these wheels")
    add(
        "--resume",
        type=Path,
        metavar="DIR",
        help="stage train: continue the runs that DIR brought back",
    )
    add("--check", action="store_true", help="list what is missing, and stop")
    add("words", nargs="*", metavar="KEY=VALUE", help="see below")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status."""
    began = time.time()
    given = build_parser().parse_intermixed_args(argv)
    stages = chosen(given.stages)
    _check_words(given)
    needs.check_versions()
    path = ""
    if given.wheels is not None:
        path = str(needs.installed(given.wheels))
        sys.path.insert(0, path)
        importlib.invalidate_caches()
    lacking = needs.missing(stages)
    if lacking:
        print(needs.remedy(lacking), file=sys.stderr, flush=True)
    if given.check or len(lacking) == len(stages):
        if not lacking:
            print("nothing is missing")
        return 2 if lacking else 0
    settings = {
        "tiny": given.tiny,
        "device": _device(given),
        "words": given.words,
        "resume": str(given.resume.resolve()) if given.resume else None,
    }
    return Runner(given.out, given.minutes, stages, settings, path, lacking, began).run()


def _check_words(given: argparse.Namespace) -> None:
    """ValueError for words or --resume that no stage of the run reads, and for unknown words."""
    if wrong := [word for word in given.words if "=" not in word]:
        raise ValueError(f"words: expected KEY=VALUE, got {wrong[0]!r}; see --help")
    if "train" not in (given.stages or "").split(",") and (given.words or given.resume):
        raise ValueError(
            "words: expected KEY=VALUE and --resume only with the stage train, got "
            f"--stages {given.stages or ','.join(DEFAULT)}; add --stages train"
        )
    if (given.out / "results.json").exists() and not given.check:
        raise ValueError(
            f"out: expected a new directory, got {given.out} with an earlier run's results; choose "
            "another, and give this one to --resume to continue its stage train"
        )
    if given.resume and not (given.resume / "results.json").is_file():
        raise ValueError(
            f"resume: expected the --out of an earlier run, got {given.resume}, which has no "
            "results.json; give that directory"
        )


def _device(given: argparse.Namespace) -> str:
    """cpu or cuda; ValueError for a GPU that is not there."""
    import torch  # only now: --help and --check should not wait for it

    if given.device == "cpu" and not given.tiny:
        raise ValueError("device: expected cpu only with --tiny, got cpu alone; add --tiny")
    if given.device != "cpu" and torch.cuda.is_available():
        return "cuda"
    if given.device == "cuda" or not given.tiny:
        raise ValueError(
            f"device: expected a CUDA GPU that torch {torch.__version__} can use, got none; "
            "rehearse on the CPU with --tiny"
        )
    return "cpu"


if __name__ == "__main__":
    sys.exit(exit_code(main))
