"""What the training commands share: configuration, the run's directory, their command line."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from selfflow_wm.data import UnusableSample
from selfflow_wm.objective import FlowMatching
from selfflow_wm.objective import plugins as objectives
from selfflow_wm.training import checkpoint, ranks
from selfflow_wm.training.ranks import pick_device as pick_device
from selfflow_wm.training.trainer import NonFiniteLoss, Trainer

CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"

Model = TypeVar("Model", bound=nn.Module)

RESUMABLE = ("trainer", "log", "resume", "device", "out")
"""Parts of the configuration that may change between a run and its resumption."""


class Run(Protocol):
    """Everything a training run is made of, built and not yet started."""

    trainer: Trainer
    description: str


def compose_config(
    name: str, overrides: Sequence[str], *, paths: Sequence[str], folder: str | None = None
) -> DictConfig:
    """configs/`name`.yaml with hydra overrides; ValueError says what was wrong with them.

    paths: keys that hold paths, which need no hydra quotes. folder: of configs/, searched for
    configuration groups too.
    """
    words = [quoted(word, paths) for given in overrides for word in _whole_codecs(given)]
    if folder is not None:
        words.append(f"hydra.searchpath=['file://{CONFIG_DIR / folder}']")
    objectives.offer()
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            config = compose(name, overrides=words)
        OmegaConf.resolve(config)
    except OverrideParseException as error:
        raise ValueError(
            f"configuration: cannot read {error.override!r}; expected KEY=VALUE, with quotes "
            f"around special characters: 'KEY=\"a[:2]\"'. {str(error).splitlines()[0]}"
        ) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"configuration: {error}") from None
    _check_numbers(config)
    return config


def _check_numbers(config: DictConfig) -> None:
    """ValueError for a word where configs/ has a number; a flag is left to its reader."""
    for group, file in (("trainer", "default"), ("optim", "adamw")):
        defaults: Any = OmegaConf.load(CONFIG_DIR / group / f"{file}.yaml")
        for key, default in defaults.items():
            value = config[group].get(key) if group in config else None
            number = default is None or isinstance(default, int | float)
            if number and not isinstance(default, bool) and isinstance(value, str):
                example = 60 if default is None else default
                raise ValueError(
                    f"{group}.{key}: expected a number, such as {example}, got {value!r}; change it"
                )


def _whole_codecs(word: str) -> tuple[str, ...]:
    """A codec of another kind takes the place of the one there, instead of mixing with its
    arguments: codecs.image={kind: tae_flux2, weights: DIR, ...}."""
    key, _, value = word.partition("=")
    group, _, name = key.partition(".")
    if group not in ("codec", "codecs") or not name or not re.match(r"\{.*\bkind\s*:", value):
        return (word,)
    return f"{key}=null", f"++{word}"


def quoted(word: str, paths: Sequence[str]) -> str:
    """Paths as a shell user writes them: ~, blanks and brackets need no hydra quotes."""
    key, equals, value = word.partition("=")
    if key not in paths or not equals or value in ("", "null", "???") or value[0] in "'\"":
        return word
    if key == "data" and value.startswith(("{", "[{")):  # several sets
        return word
    place = value if "://" in value else str(Path(value).expanduser())
    return f"{key}='" + place.replace("'", "\\'") + "'"


def require(config: DictConfig, *keys: str) -> None:
    """ValueError when the command line left out one of the directories `keys`."""
    missing = [f"{key}=DIR" for key in keys if OmegaConf.is_missing(config, key)]
    if missing:
        raise ValueError(f"expected {' and '.join(missing)} on the command line; see --help")


def make_objective(config: Mapping[str, Any] | DictConfig) -> FlowMatching:
    """The arm; what its constructor refuses is misuse of the configuration."""
    try:
        return instantiate(config["objective"], _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise ValueError(f"objective: {error.__cause__}") from error
        raise


def claim(out: Path, config: dict[str, Any], resumable: Sequence[str] = RESUMABLE) -> bool:
    """Make `out` this run's. True: a run with the same configuration is there to go on with."""
    state, record = out / "state", out / "run.json"
    if not config["resume"]:
        _set_aside(out)
    resuming = checkpoint.latest_step(state) is not None
    if resuming:
        before = checkpoint.read_json(record)
        differing = sorted(
            key
            # Parts that a later version has added stand at what was done before them.
            for key in before
            if key not in resumable and before[key] != config.get(key)
        )
        if differing:
            raise ValueError(
                f"{out} holds a run with other settings of {', '.join(differing)}. Repeat its "
                "command to go on with it, choose another out=, or start over with resume=false"
            )
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(record, config)
    return resuming


PARTS = (
    "state", "checkpoints", "checkpoint", "initial", "previews", "metrics.jsonl", "run.json",
    "init.txt",
)  # fmt: skip
"""Of a run's directory."""


def _set_aside(out: Path) -> None:
    """Move the run in `out` to out/replaced, so that a mistake in the command loses nothing.

    What was set aside before is deleted, unless the run in `out` has not come to save anything.
    """
    found = [out / name for name in PARTS if (out / name).exists()]
    if not any(path.name in ("state", "checkpoint") for path in found):
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    aside = out / "replaced"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for path in found:
        path.rename(aside / path.name)
    print(f"resume=false: the run that was in {out} now lies in {aside}", flush=True)


def exporter(save: Callable[[Model, int, Path], None], out: Path) -> Callable[[Model, int], None]:
    """Writes the EMA weights to checkpoints/step_* and, as the newest, to checkpoint/.

    save: `(ema, step, directory)` writes one checkpoint.
    """

    def export(ema: Model, step: int) -> None:
        save(ema, step, checkpoint.step_directory(out / "checkpoints", step))
        save(ema, step, out / "checkpoint")

    return export


def describe_run(trainer: Trainer, config: DictConfig) -> list[str]:
    """Lines on model, objective, modes, steps and directory, printed before training."""

    def count(module: nn.Module) -> float:
        return sum(p.numel() for p in module.parameters()) / 1e6

    modes = ", ".join(
        f"{name} {share['probability']:g} x {share['batch_size']}"
        for name, share in config.modes.items()
        if share is not None and share["probability"] > 0
    )
    objective = getattr(trainer.objective, "name", type(trainer.objective).__name__)
    shared = [
        f"processes   {trainer.ranks.size} that share every batch, {trainer.ranks.mode}",
    ]
    return [
        f"model       {count(trainer.model):.2f}M parameters, "
        f"{count(trainer.extra):.2f}M in the projector; {trainer.device}",
        f"objective   {objective}, EMA {trainer.ema.decay:g}, seed {config.seed}",
        f"modes       {modes}",
        *(shared if trainer.ranks.size > 1 else []),
        f"steps       {trainer.step} done of {trainer.total_steps}"
        + (f", at most {trainer.max_minutes:g} minutes" if trainer.max_minutes else ""),
        f"out         {config.out}",
    ]


def make_parser(program: str, doc: str | None, epilog: str) -> argparse.ArgumentParser:
    """KEY=VALUE words and --config; `program` is the module that `python -m` runs."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=doc,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", action="store_true", help="print the configuration and stop")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="see below")
    return parser


def run_training(
    name: str, make_config: Callable[[], DictConfig], build: Callable[[DictConfig], Run], show: bool
) -> int:
    """Compose, build and train; the exit status: 0 done, 1 a training failure, 2 misuse, 130
    interrupted. name: of the command, before its errors. show: print the configuration only.

    Of several processes one says what all have to say."""
    try:
        config = make_config()
        if show:
            if ranks.is_main():
                print(OmegaConf.to_yaml(config), end="")
            return 0
        run = build(config)
    except ValueError as error:
        return _failed(name, error, 2)
    except ConnectionError as error:  # data behind a URL
        return _failed(name, error, 1)
    if ranks.is_main():
        print(run.description, flush=True)
    try:
        outcome = run.trainer.train()
    except (NonFiniteLoss, UnusableSample, ConnectionError) as error:
        return _failed(name, error, 1)
    if ranks.is_main():
        print(f"{outcome} at step {run.trainer.step}; checkpoint {Path(config.out) / 'checkpoint'}")
    ranks.leave()
    return 130 if outcome == "interrupted" else 0


def _failed(name: str, error: Exception, status: int) -> int:
    if ranks.says(str(error)):
        print(f"{name}: {error}", file=sys.stderr, flush=True)
    return status
