"""Train one world model on an RLDS robot data set.

python -m robotics.finetune experiment=embedded objective=self_flow data=DIR out=DIR
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from robotics.augment import Augment
from robotics.dataset import WindowDataset
from robotics.embodiment import embodiment
from robotics.episodes import no_op_steps
from robotics.latents import LatentCache
from robotics.mixture import MixtureDataset
from robotics.mixture_spec import check_conventions, parse_mixture, to_plain
from robotics.modes import Mixture
from robotics.preparation import fit_world
from robotics.preview import Preview
from robotics.rlds.storage import expanded
from robotics.stream import ModeStream, fixed_batches
from robotics.world_model import WorldModel
from selfflow_wm.model import Backbone
from selfflow_wm.objective import FlowMatching
from selfflow_wm.training import checkpoint
from selfflow_wm.training.log import MetricsLog
from selfflow_wm.training.trainer import NonFiniteLoss, Trainer
from selfflow_wm.training.validate import FixedNoiseValidation

CONFIG_DIR = Path(__file__).resolve().parent.parent / "configs"
PATHS = ("data", "out", "init", "spec", "latents")
RESUMABLE = (
    "trainer", "log", "resume", "device", "out", "on_error", "decoded", "frame_cache_mb"
)  # fmt: skip
"""Parts of the configuration that may change between a run and its resumption."""

HELP = """\
data=DIR         RLDS data set (the directory with dataset_info.json); needed
                 or several sets with weights: a yaml (see configs/mixture/template.yaml) or
                 data="{a: {path: DIR, spec: rt1, weight: 3}, b: {path: DIR}}"
out=DIR          directory of the run: checkpoint/, checkpoints/, state/, metrics.jsonl,
                 previews/; needed. A run that stopped goes on from its state
spec=NAME        how the data is to be read: a file of configs/dataset_spec (rt1, embedded,
                 bridge) or the path of your own, begun from template.yaml there; default rt1
on_error=skip    leave damaged episodes out and count them; default error: stop at the first
experiment=NAME  a file of configs/experiment: embedded
objective=NAME   a file of configs/objective: flow_matching, dual_timestep, self_flow,
                 self_flow_separated, diffusion_forcing, sra, repa
augment=NAME     a file of configs/augment: crop_colour; off by default
latents=DIR      train from latents written by python -m robotics.encode
Anything else in configs/ can be overridden the same way, for example
    seed=1 trainer.total_steps=2000 trainer.max_minutes=60 optim.lr=5e-4 model=small
    log.wandb=disabled objective.gamma=0.5 trainer.compile=true

Ctrl-C (or SIGTERM) saves the state and stops; the same command goes on.

    python -m robotics.finetune experiment=embedded objective=self_flow data=data/demo out=runs/sf
    python -m robotics.finetune experiment=embedded objective=flow_matching data=data/demo \\
        out=runs/fm seed=0 trainer.total_steps=2000
    python -m robotics.finetune --config ...   print the composed configuration and stop
"""


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """configs/finetune.yaml with hydra overrides; ValueError says what was wrong with them."""
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            config = compose("finetune", overrides=[_quoted(word) for word in overrides])
        OmegaConf.resolve(config)
        _read_mixture(config)
    except OverrideParseException as error:
        raise ValueError(
            f"configuration: cannot read {error.override!r}; expected KEY=VALUE, with quotes "
            f"around special characters: 'KEY=\"a[:2]\"'. {str(error).splitlines()[0]}"
        ) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"configuration: {error}") from None
    return config


def _read_mixture(config: DictConfig) -> None:
    """Put the sets of a mixture into the configuration, so that a run's record names them."""
    if OmegaConf.is_missing(config, "data"):
        return
    data: Any = config.data
    entries = parse_mixture(OmegaConf.to_container(data) if OmegaConf.is_config(data) else data)
    if entries is not None:
        with open_dict(config):
            config.data = to_plain(entries)


def _quoted(word: str) -> str:
    """Paths as a shell user writes them: ~, blanks and brackets need no hydra quotes."""
    key, equals, value = word.partition("=")
    if key not in PATHS or not equals or value in ("", "null", "???") or value[0] in "'\"":
        return word
    if key == "data" and value.startswith(("{", "[{")):  # sets of a mixture
        return word
    return f"{key}='" + expanded(value).replace("'", "\\'") + "'"


@dataclass
class Run:
    """Everything a training run is made of, built and not yet started."""

    world: WorldModel
    trainer: Trainer
    description: str


def build(config: DictConfig) -> Run:
    """Assemble a run from a composed configuration, resuming it when its state is there."""
    missing = [f"{key}=DIR" for key in ("data", "out") if OmegaConf.is_missing(config, key)]
    if missing:
        raise ValueError(f"expected {' and '.join(missing)} on the command line; see --help")
    _refuse_ranks()
    out = Path(config.out)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    resuming = _claim(out, plain)
    train_data = open_data(config, "train_split")
    held_out = open_data(config, "validation_split")
    mixture = Mixture(plain["modes"], seed=config.seed)

    torch.manual_seed(config.seed)  # the backbone's initial weights, then the projector's
    if resuming:
        world = WorldModel.load(out / "initial", embodiment=config.embodiment)
        world.backbone.requires_grad_(True)
    else:
        world = fit_world(train_data, plain, mixture.names, embodiment(config.embodiment))
        world.save(out / "initial")
    world.config = plain
    objective = _objective(config)
    objective.bind(world.pixels)
    device = pick_device(config.device)
    world.backbone.to(device)

    settings = dict(plain["trainer"])
    per_mode = settings.pop("validation_batches")
    stream = ModeStream(
        train_data,
        world,
        mixture,
        seed=config.seed,
        accumulate=settings["accumulate"],
        **_inputs(plain, train_data, world),
    )
    noise = instantiate(config.noise, _convert_="all")
    validation = FixedNoiseValidation(
        FlowMatching(noise["time_laws"], noise["condition_noise"], caption_dropout=0.0),
        fixed_batches(held_out, world, mixture, per_mode),
    )
    trainer = Trainer(
        world.backbone,
        objective,
        stream,
        out_dir=out,
        optim=instantiate(config.optim, _convert_="all"),
        seed=config.seed,
        device=device,
        validate=validation,
        preview=Preview(world, held_out, out / "previews"),
        export=_exporter(world, out),
        **settings,
    )
    if resuming:
        trainer.resume()
    trainer.log = MetricsLog(out, config=plain, resume_step=trainer.step, **plain["log"])
    return Run(world, trainer, _describe(config, train_data, held_out, trainer))


def _refuse_ranks() -> None:
    """The trainer averages no gradients: under torchrun every rank would train a model of its own,
    and all would write to one directory."""
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size != "1":
        raise ValueError(
            f"expected one process, got WORLD_SIZE={world_size}: training over several ranks is "
            "not supported. Start without torchrun, and trainer.accumulate=N for larger batches"
        )


def _inputs(
    config: dict[str, Any], dataset: WindowDataset | MixtureDataset, world: WorldModel
) -> dict[str, Any]:
    """What the training stream is told beyond the plain windows; validation never is."""
    inputs: dict[str, Any] = {"group": config["group_episodes"]}
    if config.get("augment"):
        inputs["augment"] = Augment(**config["augment"], seed=config["seed"])
    if config.get("no_ops"):
        still = no_op_steps(dataset.actions, dataset.episode_start, **config["no_ops"])
        inputs["keep"] = np.flatnonzero(~still)
    if config.get("latents"):
        if isinstance(dataset, MixtureDataset):
            raise ValueError(
                "expected latents=null with a mixture of data sets, got a directory; latents are "
                "of one data set"
            )
        inputs["latents"] = LatentCache(
            config["latents"],
            dataset,
            world.video_codec.base,
            control_hz=world.embodiment.control_hz,
            seed=config["seed"],
        )
    return inputs


def _objective(config: DictConfig) -> FlowMatching:
    """The arm; what its constructor refuses is misuse of the configuration."""
    try:
        return instantiate(config.objective, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise ValueError(f"objective: {error.__cause__}") from error
        raise


def open_data(config: DictConfig, split: str) -> WindowDataset | MixtureDataset:
    """The windows of `config.data`, one set or several. split: "train_split" or
    "validation_split", of the configuration or of each set that states its own."""
    if isinstance(config.data, str):
        return open_dataset(config, config.dataset[split])
    entries = parse_mixture(OmegaConf.to_container(config.data)) or {}
    check_conventions(entries, config.embodiment, config.spec, config.mixed_rates)
    parts = {}
    for name, entry in entries.items():
        own = config.copy()
        own.data, own.spec = entry.path, entry.spec or config.spec
        own.frame_cache_mb = config.frame_cache_mb / len(entries)
        try:
            parts[name] = open_dataset(own, getattr(entry, split) or config.dataset[split])
        except ValueError as error:
            raise ValueError(f"data.{name}: {error}") from error
    return MixtureDataset(parts, {name: entry.weight for name, entry in entries.items()})


def open_dataset(
    config: DictConfig, split: str, image_size: Sequence[int] | None = None
) -> WindowDataset:
    """The windows of one split of the one set `config.data`. image_size: instead of the
    configuration's."""
    if not isinstance(config.data, str):
        raise ValueError("expected data=DIR, got a mixture; this is done one data set at a time")
    settings: Any = OmegaConf.to_container(config.dataset)
    return WindowDataset(
        config.data,
        settings["image_size"] if image_size is None else image_size,
        split=split,
        horizon=settings["horizon"],
        video_offsets=settings["video_offsets"],
        history=settings["history"],
        history_stride=settings["history_stride"],
        cache_dir=settings["cache_dir"],
        spec=config.spec,
        on_error=config.on_error,
        decoded=config.decoded,
        frame_cache_mb=config.frame_cache_mb,
    )


def pick_device(name: str) -> torch.device:
    """ "auto": the first GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _claim(out: Path, config: dict[str, Any]) -> bool:
    """Make `out` this run's. True: a run with the same configuration is there to go on with."""
    state, record = out / "state", out / "run.json"
    if not config["resume"]:
        for stale in (state, out / "checkpoints", out / "checkpoint", out / "initial"):
            shutil.rmtree(stale, ignore_errors=True)
        (out / "metrics.jsonl").unlink(missing_ok=True)
    resuming = checkpoint.latest_step(state) is not None
    if resuming:
        before = checkpoint.read_json(record)
        differing = sorted(
            key
            for key in set(before) | set(config)
            if key not in RESUMABLE and before.get(key) != config.get(key)
        )
        if differing:
            raise ValueError(
                f"{out} holds a run with other settings of {', '.join(differing)}. Repeat its "
                "command to go on with it, choose another out=, or start over with resume=false"
            )
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(record, config)
    return resuming


def _exporter(world: WorldModel, out: Path):
    """Writes the EMA weights to checkpoints/step_* and, as the newest, to checkpoint/."""

    def export(ema: Backbone, step: int) -> None:
        model = world.with_backbone(ema)
        model.config["step"] = step
        model.save(checkpoint.step_directory(out / "checkpoints", step))
        model.save(out / "checkpoint")

    return export


def _describe(
    config: DictConfig,
    train: WindowDataset | MixtureDataset,
    held_out: WindowDataset | MixtureDataset,
    trainer: Trainer,
) -> str:
    def count(module: torch.nn.Module) -> float:
        return sum(p.numel() for p in module.parameters()) / 1e6

    objective = type(trainer.objective).__name__
    modes = ", ".join(
        f"{n} {s['probability']:g} x {s['batch_size']}" for n, s in config.modes.items()
    )
    name, sets = config.data, []
    if isinstance(train, MixtureDataset):
        total = sum(s["probability"] for s in config.modes.values())
        batch = sum(s["probability"] * s["batch_size"] for s in config.modes.values()) / total
        drawn = trainer.total_steps * config.trainer.accumulate * batch
        name = "a mixture, statistics pooled by weight"
        sets = [f"            {line}" for line in train.describe(drawn)]
    return "\n".join(
        (
            f"data        {name}: {train.num_episodes} episodes, {len(train)} windows to "
            f"train on; {held_out.num_episodes} episodes, {len(held_out)} windows held out",
            *sets,
            f"model       {count(trainer.model):.2f}M parameters, "
            f"{count(trainer.extra):.2f}M in the projector; {trainer.device}",
            f"objective   {objective}, EMA {trainer.ema.decay:g}, seed {config.seed}",
            f"modes       {modes}",
            f"steps       {trainer.step} done of {trainer.total_steps}"
            + (f", at most {trainer.max_minutes:g} minutes" if trainer.max_minutes else ""),
            f"out         {config.out}",
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status: 0 done, 1 a training failure, 2 misuse, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m robotics.finetune",
        description=__doc__,
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", action="store_true", help="print the configuration and stop")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="see below")
    arguments = parser.parse_args(argv)
    try:
        config = compose_config(arguments.overrides)
        if arguments.config:
            print(OmegaConf.to_yaml(config), end="")
            return 0
        run = build(config)
    except ValueError as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 2
    except ConnectionError as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 1
    print(run.description, flush=True)
    try:
        outcome = run.trainer.train()
    except (NonFiniteLoss, ConnectionError) as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 1
    print(f"{outcome} at step {run.trainer.step}; checkpoint {Path(config.out) / 'checkpoint'}")
    return 130 if outcome == "interrupted" else 0


if __name__ == "__main__":
    sys.exit(main())
