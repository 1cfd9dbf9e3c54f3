"""Train one world model on an RLDS robot data set.

python -m robotics.finetune experiment=embedded objective=self_flow data=DIR out=DIR
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from robotics.data.augment import Augment
from robotics.data.batches import ModeStream, fixed_batches
from robotics.data.cache.latents import LatentCache
from robotics.data.episodes import no_op_steps
from robotics.data.mixture import MixtureDataset
from robotics.data.mixture_spec import check_conventions, parse_mixture, to_plain
from robotics.data.windows import WindowDataset
from robotics.embodiment.table import embodiment
from robotics.model.modes import Mixture
from robotics.model.world_model import WorldModel
from robotics.training.fit import fit_world
from robotics.training.plan import plan
from robotics.training.preview import Preview
from robotics.training.warm_start import Loaded, adopt_projector, start_from
from selfflow_wm.cli import exit_code
from selfflow_wm.model import Backbone
from selfflow_wm.objective import FlowMatching
from selfflow_wm.pretraining.plan import add_plan_flags
from selfflow_wm.training import checkpoint
from selfflow_wm.training import run as core
from selfflow_wm.training.log import MetricsLog
from selfflow_wm.training.parallel import make_parallel
from selfflow_wm.training.ranks import join
from selfflow_wm.training.run import CONFIG_DIR as CONFIG_DIR
from selfflow_wm.training.run import pick_device as pick_device
from selfflow_wm.training.trainer import Trainer
from selfflow_wm.training.validate import FixedNoiseValidation

PATHS = ("data", "out", "init", "spec", "latents")
LOADED = "loaded"
"""Key of run.json: what came of the checkpoint in `init`."""
RESUMABLE = (*core.RESUMABLE, "on_error", "decoded", "frame_cache_mb", LOADED)
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
experiment=NAME  a file of configs/experiment: embedded, rt1_paper, rt1_small
init=DIR         start from a checkpoint, or a run's newest, of selfflow_wm.pretrain or of this
                 command: the modalities may be others, width and depth may not. What was loaded,
                 added and dropped is printed and stands in run.json and init.txt
objective=NAME   a file of configs/objective: flow_matching, dual_timestep, self_flow,
                 self_flow_separated, diffusion_forcing, sra, repa
augment=NAME     a file of configs/augment: crop_colour; off by default
latents=DIR      train from latents written by python -m robotics.encode
Anything else in configs/ can be overridden the same way, for example
    seed=1 trainer.total_steps=2000 trainer.max_minutes=60 optim.lr=5e-4 model=small
    log.wandb=disabled objective.gamma=0.5 trainer.compile=true

Several GPUs share every batch, so batch sizes are multiples of their number:
    torchrun --nproc-per-node 8 -m robotics.finetune ... trainer.parallel=ddp     or fsdp2

Ctrl-C (or SIGTERM) saves the state and stops; the same command goes on.

    python -m robotics.finetune experiment=embedded objective=self_flow data=data/demo out=runs/sf
    python -m robotics.finetune experiment=embedded objective=flow_matching data=data/demo \\
        out=runs/fm seed=0 trainer.total_steps=2000
    python -m robotics.finetune experiment=rt1_small init=runs/media data=data/demo out=runs/b
    python -m robotics.finetune --config ...   print the composed configuration and stop
    python -m robotics.finetune --plan experiment=rt1_paper --gpus 64   what it costs; needs no data
"""


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """configs/finetune.yaml with hydra overrides; ValueError says what was wrong with them."""
    config = core.compose_config("finetune", overrides, paths=PATHS)
    _read_mixture(config)
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


@dataclass
class Run:
    """Everything a training run is made of, built and not yet started."""

    world: WorldModel
    trainer: Trainer
    description: str


def build(config: DictConfig) -> Run:
    """Assemble a run from a composed configuration, resuming it when its state is there."""
    core.require(config, "data", "out")
    ranks = join(config.trainer.parallel, config.device)
    out = Path(config.out)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    loaded = _recorded(out) if config.resume and plain["init"] else None
    mixture = Mixture(plain["modes"], seed=config.seed)
    own = mixture.divided(ranks.size)
    claimed = plain | ({LOADED: loaded} if loaded else {})
    resuming = ranks.on_main(lambda: core.claim(out, claimed, RESUMABLE))
    train_data = ranks.main_first(lambda: open_data(config, "train_split"))
    held_out = ranks.main_first(lambda: open_data(config, "validation_split"))

    torch.manual_seed(config.seed)  # the backbone's initial weights, then the projector's

    def begin() -> tuple[WorldModel, Loaded | None]:
        if resuming or not ranks.main:  # the others read what the main process has written
            world = WorldModel.load(out / "initial", embodiment=config.embodiment)
            world.backbone.requires_grad_(True)
            return world, None
        world, start = _begin(plain, train_data, mixture.names)
        world.save(out / "initial")
        return world, start

    world, start = ranks.main_first(begin)
    world.config = plain
    objective = core.make_objective(config)
    objective.bind(world.pixels)
    if plain["init"] and not resuming:
        projector = adopt_projector(plain["init"], plain["objective"], objective.modules())
        loaded = _record(out, plain, start, projector) if start else None
    world.backbone.to(ranks.device)

    settings = plain["trainer"] | {"parallel": make_parallel(ranks)}
    per_mode = settings.pop("validation_batches")
    stream = ModeStream(
        train_data,
        world,
        own,
        seed=config.seed,
        accumulate=settings["accumulate"],
        rank=ranks.rank,
        world_size=ranks.size,
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
        device=ranks.device,
        validate=validation,
        preview=Preview(world, held_out, out / "previews"),
        export=core.exporter(_save(world), out),
        **settings,
    )
    if resuming:
        trainer.resume()
    if ranks.main:
        trainer.log = MetricsLog(out, config=plain, resume_step=trainer.step, **plain["log"])
    table = "".join(f"{line}\n" for line in loaded["table"]) if loaded else ""
    return Run(world, trainer, table + _describe(config, train_data, held_out, trainer))


def _begin(
    plain: dict[str, Any], train_data: WindowDataset | MixtureDataset, modes: Sequence[str]
) -> tuple[WorldModel, Loaded | None]:
    """An untrained world model, or one from a checkpoint with what was loaded."""
    robot = embodiment(plain["embodiment"])
    if plain["init"]:
        return start_from(plain["init"], train_data, plain, modes, robot)
    return fit_world(train_data, plain, modes, robot), None


def _recorded(out: Path) -> dict[str, Any] | None:
    """What an earlier start of the run in `out` loaded."""
    file = out / "run.json"
    return checkpoint.read_json(file).get(LOADED) if file.is_file() else None


def _record(out: Path, plain: dict[str, Any], loaded: Loaded, projector: str) -> dict[str, Any]:
    """What was loaded into run.json, beside the configuration, and its table into init.txt."""
    loaded.projector = projector
    found = loaded.to_dict() | {"table": loaded.lines()}
    with checkpoint.atomic_file(out / "run.json") as temporary:
        checkpoint.write_json(temporary, plain | {LOADED: found})
    with checkpoint.atomic_file(out / "init.txt") as temporary:
        temporary.write_text("\n".join(found["table"]) + "\n")
    return found


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
        draft=config.draft,
    )


def _save(world: WorldModel):
    def save(ema: Backbone, step: int, path: Path) -> None:
        model = world.with_backbone(ema)
        model.config["step"] = step
        model.save(path)

    return save


def _describe(
    config: DictConfig,
    train: WindowDataset | MixtureDataset,
    held_out: WindowDataset | MixtureDataset,
    trainer: Trainer,
) -> str:
    name, sets = config.data, []
    if isinstance(train, MixtureDataset):
        shares = [share for share in config.modes.values() if share is not None]
        total = sum(s["probability"] for s in shares)
        batch = sum(s["probability"] * s["batch_size"] for s in shares) / total
        drawn = trainer.total_steps * config.trainer.accumulate * batch
        name = "a mixture, statistics pooled by weight"
        sets = [f"            {line}" for line in train.describe(drawn)]
    return "\n".join(
        (
            f"data        {name}: {train.num_episodes} episodes, {len(train)} windows to "
            f"train on; {held_out.num_episodes} episodes, {len(held_out)} windows held out",
            *sets,
            *core.describe_run(trainer, config),
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status: 0 done, 1 a training failure, 2 misuse, 130 interrupted."""
    parser = core.make_parser("robotics.finetune", __doc__, HELP)
    add_plan_flags(parser)
    given = parser.parse_intermixed_args(argv)
    if given.plan:
        return exit_code(lambda: print(plan(compose_config(given.overrides), given)))
    return core.run_training(
        "finetune", lambda: compose_config(given.overrides), build, given.config
    )


if __name__ == "__main__":
    sys.exit(main())
