"""How episodes are run: the executor, its flags, and how many workers there are by default."""

from __future__ import annotations

import os
from typing import Any

from eval.envs.contract import Limits
from eval.rollout.workers import Pool, Setup
from selfflow_wm.cli import at_least


def make_pool(executor: str, setup: Setup, workers: int, *, limits: Limits, retries: int) -> Any:
    """The pool called `processes` or `ray`; see `Pool`."""
    if executor == "ray":
        from eval.rollout.ray_pool import RayPool

        return RayPool(setup, workers, limits=limits, retries=retries)
    return Pool(setup, workers, limits=limits, retries=retries)


def add_arguments(parser: Any) -> None:
    """Add the flags on how episodes are run, which change no result."""
    add, limits = parser.add_argument, Limits()
    add(
        "--workers", type=at_least(1), metavar="N", help="processes (default: the cores, at most 8)"
    )
    add(
        "--executor", choices=("processes", "ray"), default="processes",
        help="processes of this machine (default), or Ray (the extra ray; a cluster where "
        "RAY_ADDRESS names one, which then has to share --out and checkpoints)",
    )  # fmt: skip
    add(
        "--retries", type=at_least(0), default=2, metavar="K",
        help="retries of an episode that crashed or hung, before it is an error (default 2)",
    )  # fmt: skip
    add(
        "--step-timeout", type=at_least(0.001), default=limits.step, metavar="S",
        help="seconds after which a step counts as hung (default %(default)g)",
    )  # fmt: skip
    add(
        "--reset-timeout", type=at_least(0.001), default=limits.reset, metavar="S",
        help="the same from an episode's start to the end of its first step (default %(default)g)",
    )  # fmt: skip


def default_workers() -> int:
    """One worker per available core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, 8))
