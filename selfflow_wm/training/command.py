"""The command line of the training commands; torch and hydra are needed after --help only."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from selfflow_wm.cli import Parser, at_least, exit_code, fraction
from selfflow_wm.plugins import CONFIG_DIR, listed

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from selfflow_wm.training.run import TrainingRun


PLACES = ("data", "out")
"""Words that every training needs."""


def make_parser(program: str, doc: str | None, epilog: str) -> argparse.ArgumentParser:
    """KEY=VALUE words, --config and --plan; `program` is the module that `python -m` runs."""
    epilog = f"{epilog}\nFrom other packages that are installed:\n{listed()}"
    parser = Parser(training=True, prog=f"python -m {program}", description=doc, epilog=epilog)
    add = parser.add_argument
    add("--config", action="store_true", help="print the configuration and stop")
    add("--plan", action="store_true", help="print what the run costs and stop; needs no data")
    add("--gpus", type=at_least(1), default=8, metavar="N", help="--plan: number of GPUs (8)")
    add("--peak", type=at_least(0.001), default=989.0, metavar="TFLOPS",
        help="--plan: peak of one GPU (989, an H100's or H200's in dense bfloat16)")  # fmt: skip
    add("--mfu", type=fraction, default=0.4, help="--plan: share of the peak that is used (0.4)")
    add("-m", "--multirun", action="store_true", help=argparse.SUPPRESS)
    add("overrides", nargs="*", metavar="KEY=VALUE", help="see below")
    return parser


def run_command(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    compose: Callable[[Sequence[str]], DictConfig],
    plan: Callable[[DictConfig, argparse.Namespace], str],
    build: Callable[[DictConfig], TrainingRun],
) -> int:
    """Print the configuration or the plan, or train; the exit status: 0 done, 1 a training failure,
    2 misuse, 130 interrupted."""
    given = parser.parse_intermixed_args(argv)
    program = parser.prog.removeprefix("python -m ")

    def make_config() -> DictConfig:
        if given.multirun:
            from selfflow_wm.training.config import one_run_each

            raise ValueError(one_run_each(program, given.overrides))
        return compose(given.overrides)

    def work() -> int | None:
        if given.plan:
            print(plan(make_config(), given))
            return None
        name = program.rpartition(".")[2]
        if not (given.config or given.multirun) and os.environ.get("LOCAL_RANK", "0") == "0":
            _check_places(name, given.overrides)
        from selfflow_wm.training.run import run_training

        return run_training(name, make_config, build, given.config)

    return exit_code(work, resumable=not (given.plan or given.config))


def _check_places(command: str, words: Sequence[str]) -> None:
    """ValueError, before torch is imported, for a line without the directories that it needs.

    A line with other words, which may be wrong themselves, or whose experiment states its data, is
    left to `training.config`.
    """
    given = {key.lstrip("+"): value for key, _, value in (word.partition("=") for word in words)}
    missing = [key for key in PLACES if not given.get(key)]
    if experiment := given.get("experiment"):
        file = CONFIG_DIR / "experiment" / f"{experiment}.yaml"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        if f"\ncommand: {command}\n" not in text or "\ndata:" in text:
            return
    if missing and not given.keys() - {*PLACES, "experiment"}:
        raise ValueError(missing_words(missing))


def missing_words(keys: Sequence[str]) -> str:
    """What is said of a line that leaves out, or leaves empty, the directories `keys`."""
    words = [f"{key}=DIR" for key in keys]
    return (
        f"expected {' and '.join(words)} on the command line, got none; add {' '.join(words)}, "
        "with your directories"
    )


def without_data(config: Any) -> dict[str, Any]:
    """The plain configuration of a plan, which needs neither data nor a place."""
    from omegaconf import OmegaConf

    config.data, config.out = "none", "none"
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain
