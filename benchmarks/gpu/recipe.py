"""The recipe of the stage train: a yaml file and the words that change it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

RECIPES = Path(__file__).resolve().parent / "recipes"


@dataclass(frozen=True)
class Job:
    """One training run and its evaluation."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"


def load(words: Sequence[str], tiny: bool) -> dict[str, Any]:
    """The resolved recipe; ValueError for the first of its `problems`."""
    merged, found = _read(words, tiny)
    if found:
        raise ValueError(found[0])
    return merged


def problems(words: Sequence[str], tiny: bool) -> list[str]:
    """Everything wrong with the recipe that `words` make; imports no torch."""
    return _read(words, tiny)[1]


def _read(words: Sequence[str], tiny: bool) -> tuple[dict[str, Any], list[str]]:
    name = "tiny" if tiny else "embedded"
    rest = []
    for word in words:
        if word.startswith("recipe="):
            name = word.partition("=")[2]
        else:
            rest.append(word)
    path = RECIPES / f"{name}.yaml" if "/" not in name and "." not in name else Path(name)
    if not path.is_file():
        known = sorted(file.stem for file in RECIPES.glob("*.yaml"))
        near = (get_close_matches(name, known, 1) or ["embedded"])[0]
        return {}, [
            f"recipe: expected one of {', '.join(known)}, or a file, got {name}; "
            f"write recipe={near}"
        ]
    found: list[str] = []
    recipe = OmegaConf.load(path)
    keys = list(_keys(OmegaConf.load(RECIPES / "embedded.yaml")))
    for word in rest:
        key, _, value = word.partition("=")
        if key not in keys:
            same = [full for full in keys if full.rpartition(".")[2] == key.rpartition(".")[2]]
            near = get_close_matches(key, keys, 1) or same
            remedy = f"write {near[0]}={value}" if near else f"{path} lists the keys"
            found.append(f"recipe: expected a key of {path.name}, got {key!r}; {remedy}")
            continue
        try:
            recipe = OmegaConf.merge(recipe, OmegaConf.from_dotlist([word]))
        except (OmegaConfBaseException, YAMLError, ValueError) as error:
            reason = str(error).splitlines()[0]
            found.append(f"recipe: expected a YAML value, got {word!r} ({reason}); correct it")
    try:
        merged: Any = OmegaConf.to_container(recipe, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        return {}, [*found, f"recipe: expected values that resolve, got {reason}; correct {path}"]
    return merged, found + list(_wrong_values(merged))


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the values and sections."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if OmegaConf.is_dict(value):
            yield from _keys(value, f"{prefix}{key}.")


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _all(test: Callable[[Any], bool], distinct: bool = False) -> Callable[[Any], bool]:
    """A list whose entries all pass `test`; a `distinct` one has entries, none of them twice."""

    def passes(value: Any) -> bool:
        if not isinstance(value, list) or not all(map(test, value)):
            return False
        return not distinct or 0 < len(value) == len(set(value))

    return passes


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _share(value: Any) -> bool:
    return _number(value) and 0 < value <= 1


_COUNT = (_whole(1), "a whole number of at least 1", "4")
_INDEX = (_whole(0), "a whole number of at least 0", "0")
_WORDS = (
    _all(lambda value: isinstance(value, str | int | float)),
    "a list of words of a command line",
    "[]",
)
_POSITIVE = (lambda value: _number(value) and value > 0, "a number above 0", "0.4")
_VALUES: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "backend": (_text, "a string", "mujoco"),
    "tasks": (_text, "a string", "all"),
    "shares.collect": _POSITIVE,
    "shares.train": _POSITIVE,
    "shares.evaluate": _POSITIVE,
    "collect.episodes": _COUNT,
    "collect.counts": (
        lambda value: _text(value) and re.fullmatch(r"(\w+=\d+(,\w+=\d+)*)?", value) is not None,
        "TASK=N,...",
        "close_drawer=9",
    ),
    "collect.seed": _INDEX,
    "collect.workers": _INDEX,
    "collect.flags": _WORDS,
    "collect.parts": (_all(_share, distinct=True), "a list of fractions up to 1", "[0.5,1.0]"),
    "train.arms": (_all(_text, distinct=True), "a list of different objectives", "[self_flow]"),
    "train.seeds": (
        _all(_whole(0), distinct=True),
        "a list of different whole numbers of at least 0",
        "[0,1]",
    ),
    "train.steps": _COUNT,
    "train.minutes": (_number, "a number of at least 0", "0"),
    "train.words": _WORDS,
    "evaluate.episodes": _COUNT,
    "evaluate.seed": _INDEX,
    "evaluate.workers": _INDEX,
    "evaluate.flags": _WORDS,
    "evaluate.words": _WORDS,
}
"""Key -> (test of its value, what passes the test, an example)."""


def _wrong_values(recipe: dict[str, Any]) -> Iterator[str]:
    for key, (passes, expected, example) in _VALUES.items():
        section, _, name = key.rpartition(".")
        place = recipe.get(section) if section else recipe
        value = place.get(name) if isinstance(place, dict) else None
        if not passes(value):
            yield f"recipe: expected {key} to be {expected}, got {value!r}; write {key}={example}"


def jobs(recipe: dict[str, Any]) -> list[Job]:
    """Every arm with every seed, seed by seed, so that what finishes in time is comparable."""
    train = recipe["train"]
    return [Job(arm, int(seed)) for seed in train["seeds"] for arm in train["arms"]]


def cores(number: int) -> int:
    """`number` processes; one for each core of this machine for 0."""
    return number or len(os.sched_getaffinity(0))


def collect_words(recipe: dict[str, Any], share: float, out: Path) -> list[str]:
    """Of eval.collect, for a share of the episodes."""
    part = recipe["collect"]

    def some(number: int) -> int:
        return max(1, round(number * share))

    words = ["--task", recipe["tasks"], "--episodes", str(some(part["episodes"]))]
    if part["counts"]:
        pairs = (word.split("=") for word in part["counts"].split(","))
        words += ["--counts", ",".join(f"{name}={some(int(n))}" for name, n in pairs)]
    words += ["--backend", recipe["backend"], "--seed", str(part["seed"]), "--out", str(out)]
    return [*words, "--workers", str(cores(part["workers"])), *map(str, part["flags"])]


def train_words(
    recipe: dict[str, Any], job: Job, data: Path, out: Path, device: str, minutes: float
) -> list[str]:
    """Of robotics.finetune."""
    return [
        *recipe["train"]["words"],
        f"objective={job.arm}", f"seed={job.seed}", f"data={data}", f"out={out}",
        f"device={device}", f"trainer.total_steps={recipe['train']['steps']}",
        f"trainer.max_minutes={recipe['train']['minutes'] or minutes:.3f}",
        "trainer.export_every=0", "log.wandb=disabled",
    ]  # fmt: skip


def evaluate_words(recipe: dict[str, Any], checkpoint: Path, out: Path) -> list[str]:
    """Of eval.simpler."""
    part = recipe["evaluate"]
    return [
        "--task", recipe["tasks"], "--backend", recipe["backend"], "--checkpoint", str(checkpoint),
        "--episodes", str(part["episodes"]), "--seed", str(part["seed"]), "--video", "0",
        "--workers", str(cores(part["workers"])), "--out", str(out), *map(str, part["flags"]),
        *part["words"],
    ]  # fmt: skip
