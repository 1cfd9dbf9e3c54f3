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

from benchmarks.gpu import check, needs
from benchmarks.gpu.runner import Runner
from benchmarks.gpu.stages import DEFAULT, STAGES, chosen
from selfflow_wm.cli import Parser, exit_code

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
    add("--minutes", type=check.minutes, default=8.0, metavar="M", help="for everything (8)")
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
    wrong = check.problems(given)
    early = needs.importable("omegaconf")
    if early:
        wrong += check.recipe_problems(given)
    if wrong:
        asked = not given.check and given.device != "cpu" and needs.importable("torch")
        return _refuse([*wrong, *(_device(given)[1] if asked else [])])
    stages = chosen(given.stages)
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
    if not early and needs.importable("omegaconf"):  # came with the wheels
        wrong += check.recipe_problems(given)
    device, without = _device(given)
    wrong += without
    if not wrong:
        ready = [stage for stage in stages if stage.name not in lacking]
        wrong += check.command_problems(given, ready)
    if wrong:
        return _refuse(wrong)
    settings = {
        "tiny": given.tiny,
        "device": device,
        "words": given.words,
        "resume": str(given.resume.resolve()) if given.resume else None,
    }
    return Runner(given.out, given.minutes, stages, settings, path, lacking, began).run()


def _refuse(wrong: Sequence[str]) -> int:
    """Print one line for each problem; the exit status."""
    for text in wrong:
        print("error: " + " ".join(text.split()), file=sys.stderr)
    return 2


def _device(given: argparse.Namespace) -> tuple[str, list[str]]:
    """cpu or cuda, and what is wrong where a GPU is needed and there is none."""
    if given.device == "cpu":
        return "cpu", []
    import torch  # only now: --help and --check should not wait for it

    if torch.cuda.is_available():
        return "cuda", []
    if given.device == "auto" and given.tiny:
        return "cpu", []
    return "cpu", [
        f"device: expected a CUDA GPU that torch {torch.__version__} can use, got none; rehearse "
        "on the CPU with --tiny --device cpu"
    ]


if __name__ == "__main__":
    sys.exit(exit_code(main))
