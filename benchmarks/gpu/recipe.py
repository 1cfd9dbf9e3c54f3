"""The recipe of the stage train: a yaml file and the words that change it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

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
    """The resolved recipe; ValueError for an unknown file or key."""
    name = "tiny" if tiny else "embedded"
    rest = []
    for word in words:
        if word.startswith("recipe="):
            name = word.partition("=")[2]
        else:
            rest.append(word)
    path = RECIPES / f"{name}.yaml" if "/" not in name and "." not in name else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise ValueError(f"recipe: expected one of {known}, or a file, got {name}; correct recipe=")
    recipe = OmegaConf.load(path)
    OmegaConf.set_struct(recipe, True)
    try:
        merged: Any = OmegaConf.to_container(
            OmegaConf.merge(recipe, OmegaConf.from_dotlist(rest)), resolve=True
        )
    except OmegaConfBaseException as error:
        raise ValueError(
            f"recipe: expected keys of {path.name}, got {str(error).splitlines()[0]}; see that file"
        ) from None
    return merged


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
    return [*words, "--workers", str(cores(part["workers"])), *part["flags"]]


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
        "--workers", str(cores(part["workers"])), "--out", str(out), *part["flags"],
        *part["words"],
    ]  # fmt: skip
