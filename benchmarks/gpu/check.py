"""What is wrong with a command line, all of it, before anything runs or is written."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import archive, needs
from benchmarks.gpu.runner import CLOSING, GRACE, WRITTEN
from benchmarks.gpu.stages import DEFAULT, Stage, chosen

LEAST = (CLOSING + GRACE + 1) / 60
"""Minutes in which no stage could begin."""


def minutes(text: str) -> float | str:
    """An argparse type that leaves what is no number to `problems`, which names all at once."""
    try:
        return float(text)
    except ValueError:
        return text


def problems(given: argparse.Namespace) -> list[str]:
    """Whatever shows without torch and without a stage's packages."""
    found: list[str] = []

    def check(test: Callable[[argparse.Namespace], Any]) -> None:
        try:
            test(given)
        except ValueError as error:
            found.append(str(error))

    check(lambda given: chosen(given.stages))
    check(_check_minutes)
    check(_check_device)
    check(_check_words)
    check(_check_resume)
    if given.wheels is not None:
        check(lambda given: needs.wheels_in(given.wheels))
    if not given.check:
        check(lambda given: check_out(given.out))
    return found


def _trains(given: argparse.Namespace) -> bool:
    return "train" in (given.stages or "").split(",")


def _check_minutes(given: argparse.Namespace) -> None:
    if isinstance(given.minutes, str) or not LEAST < given.minutes < math.inf:
        raise ValueError(
            f"minutes: expected a number above {LEAST:.2f}, got {given.minutes}; write --minutes 8"
        )


def _check_device(given: argparse.Namespace) -> None:
    if given.device == "cpu" and not given.tiny:
        raise ValueError("device: expected cpu only with --tiny, got cpu alone; add --tiny")


def _check_words(given: argparse.Namespace) -> None:
    if wrong := [word for word in given.words if "=" not in word]:
        raise ValueError(f"words: expected KEY=VALUE, got {' '.join(wrong)}; --help has an example")
    if (given.words or given.resume) and not _trains(given):
        raise ValueError(
            "words: expected KEY=VALUE and --resume only with the stage train, got "
            f"--stages {given.stages or ','.join(DEFAULT)}; add --stages train"
        )


def _check_resume(given: argparse.Namespace) -> None:
    if given.resume is None:
        return
    if not (given.resume / "results.json").is_file():
        raise ValueError(
            f"resume: expected the --out of an earlier run, got {given.resume}, which has no "
            "results.json; give that directory"
        )
    archive.brought_back(given.resume)


def check_out(out: Path) -> None:
    """ValueError for an --out that cannot be made or that holds what would be overwritten."""
    above = next(place for place in (out, *out.absolute().parents) if os.path.lexists(place))
    if not above.is_dir():
        raise ValueError(
            f"out: expected a directory, got {out}; {above} is not one; choose another"
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"out: expected a place to write to, got {out}; choose another")
    there = sorted(file.name for pattern in WRITTEN for file in out.glob(pattern))
    if there and not _is_wreck(out):
        trained = any(name.endswith(".tar") for name in there)
        more = ", and add --resume " + str(out) + " to continue its stage train"
        raise ValueError(
            f"out: expected a new directory, got {out} with an earlier run's {', '.join(there)}; "
            f"choose another{more if trained else ''}"
        )


def _is_wreck(out: Path) -> bool:
    """Whether the earlier run in `out` is over and left no measurement."""
    try:
        results = json.loads((out / "results.json").read_text())
        entries = list(results["stages"].values())
        running = results["status"] == "running" and _alive(results["process"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    measured = ("figures", "tables", "checks", "done")
    if running or any(entry.get(key) for entry in entries for key in measured):
        return False
    return not any(out.glob("train-*.tar")) and not (out / "trace.json.gz").exists()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


# ---------------------------------------------------------------- the stage train


def recipe_problems(given: argparse.Namespace) -> list[str]:
    """Of the recipe's keys and values, where the stage train runs; needs omegaconf, not torch."""
    if not _trains(given):
        return []
    from benchmarks.gpu import recipe

    return recipe.problems([word for word in given.words if "=" in word], given.tiny)


def command_problems(given: argparse.Namespace, stages: Sequence[Stage]) -> list[str]:
    """Of the commands that the recipe makes; imports torch and what the stage train needs.

    stages: those that lack no package.
    """
    if "train" not in [stage.name for stage in stages]:
        return []
    from benchmarks.gpu import recipe

    words = recipe.load(given.words, given.tiny)
    found = [*_collecting(words), *_evaluating(words), *_training(words)]
    return list(dict.fromkeys(found))


def _collecting(words: dict[str, Any]) -> Iterator[str]:
    from benchmarks.gpu import recipe
    from eval.collect import build_parser
    from eval.envs.registry import choose_simulator
    from eval.report.collection import parse_counts

    def work() -> None:
        asked = build_parser().parse_args(recipe.collect_words(words, 1.0, Path("data")))
        simulator, _ = choose_simulator(asked, training=True)
        parse_counts(simulator, asked.task, asked.episodes, asked.counts)

    yield from _refusal("eval.collect", work)


def _evaluating(words: dict[str, Any]) -> Iterator[str]:
    from benchmarks.gpu import recipe
    from eval.policies.options import load_config
    from eval.simpler import build_parser

    def work() -> None:
        line = recipe.evaluate_words(words, Path("checkpoint"), Path("out"))
        load_config(build_parser().parse_intermixed_args(line).overrides)

    yield from _refusal("eval.simpler", work)


def _training(words: dict[str, Any]) -> Iterator[str]:
    from benchmarks.gpu import recipe
    from robotics.training.build import compose_config

    for arm in words["train"]["arms"]:
        job = recipe.Job(arm, words["train"]["seeds"][0])
        line = recipe.train_words(words, job, Path("data"), Path("out"), "cpu", 1.0)
        yield from _refusal("robotics.finetune", lambda line=line: compose_config(line))


def _refusal(module: str, work: Callable[[], Any]) -> Iterator[str]:
    """What `work` refuses, by a ValueError or as argparse does."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            work()
    except ValueError as error:
        yield f"recipe: python -m {module} refuses its words: {error}"
    except SystemExit:
        text = said.getvalue().strip().removeprefix("error: ")
        yield f"recipe: python -m {module} refuses its words: {text}"
