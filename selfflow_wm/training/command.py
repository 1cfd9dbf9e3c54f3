"""The command line of the training commands; torch and hydra are needed after --help only."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from selfflow_wm.cli import Parser, at_least, exit_code, fraction
from selfflow_wm.plugins import listed

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from selfflow_wm.training.run import TrainingRun


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

    if given.plan:
        return exit_code(lambda: print(plan(make_config(), given)))
    from selfflow_wm.training.run import run_training

    return run_training(program.rpartition(".")[2], make_config, build, given.config)


def without_data(config: Any) -> dict[str, Any]:
    """The plain configuration of a plan, which needs neither data nor a place."""
    from omegaconf import OmegaConf

    config.data, config.out = "none", "none"
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain
