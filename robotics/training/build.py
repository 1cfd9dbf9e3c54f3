"""The parts of a fine-tuning run, made from a composed configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from omegaconf import DictConfig, OmegaConf, open_dict

from robotics.data.augment import Augment
from robotics.data.batches import Dataset, ModeStream, fixed_batches, windows_drawn
from robotics.data.cache.latents import LatentCache, read_key
from robotics.data.cameras import camera_names
from robotics.data.mixture import DatasetMixture
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.storage import is_url
from robotics.data.sources import open_data, parse_mixture, robot_of, to_plain
from robotics.data.windows import WindowDataset
from robotics.embodiment.normalize import check_kind
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from robotics.model.modes import MODES, by_row, possible_modes, robot_schedule
from robotics.model.world_model import WorldModel
from robotics.training.describe import data_lines, robot_lines
from robotics.training.fit import by_robot, check_cacheable, fit_world
from robotics.training.preview import Preview
from robotics.training.warm_start import Loaded, adopt_projector, start_from
from selfflow_wm.objective import FlowMatching
from selfflow_wm.training import config as configuration
from selfflow_wm.training import run
from selfflow_wm.training.trainer import Trainer

PATHS = ("data", "out", "init", "spec", "latents")
NO_OPS = {"position", "rotation"}
"""Keys of `no_ops`."""
RESUMABLE = (*run.RESUMABLE, "on_error", "decoded", "frame_cache_mb")
"""Parts of the configuration that may change between a run and its resumption."""


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """configs/finetune.yaml with hydra overrides; ValueError where they are wrong."""
    config = configuration.compose_config("robotics.finetune", overrides, paths=PATHS)
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


def build(config: DictConfig) -> run.TrainingRun:
    """Assemble a run, resuming it when its state is there; ValueError for misuse."""
    config = with_tables(config)
    return run.assemble(config, _parts, MODES, RESUMABLE, _check)


def with_tables(config: DictConfig) -> DictConfig:
    """The configuration with the robots' tables themselves for their names and paths: a run stays
    what it is when a file changes, and its record and checkpoints need no file."""
    config = config.copy()
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    with open_dict(config):
        if isinstance(plain["data"], dict):
            for name, entry in plain["data"].items():
                source = entry.get("spec") or plain["spec"]
                owner = entry.get("embodiment") or plain["embodiment"]
                config.data[name].spec = robot_of(source, owner).to_dict()
        else:
            config.spec = robot_of(plain["spec"], plain["embodiment"]).to_dict()
    return config


def robots_of(plain: Mapping[str, Any]) -> dict[str, Robot]:
    """The robots of a configuration whose tables were put in (`with_tables`), by name."""
    sets = plain["data"]
    found = [one["spec"] for one in sets.values()] if isinstance(sets, dict) else [plain["spec"]]
    return {robot.name: robot for robot in map(load_robot, found)}


def check_modes(modes: Mapping[str, Any], robots: Mapping[str, Robot]) -> None:
    """ValueError for modes that a robot without recorded actions cannot be trained in."""
    asked = [name for name, share in modes.items() if share and share["probability"] > 0]
    for robot in robots.values():
        possible = possible_modes(bool(robot.action))
        wrong = [name for name in asked if name not in possible]
        if robot.action or not wrong or (len(robots) > 1 and set(asked) & set(possible)):
            continue
        raise ValueError(
            f"modes: expected {' and '.join(possible)} alone for robot {robot.name}, whose table "
            f"has no action, got {', '.join(asked)}; write modes=video_only"
        )


def _check(config: DictConfig) -> None:
    """ValueError for what is wrong without a look into the data, which may take hours to decode."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    Faults(plain["on_error"])
    check_kind(plain["normalizer"]["kind"])
    check_modes(plain["modes"], robots_of(plain))
    sets = plain["data"]
    for key, entry in sets.items() if isinstance(sets, dict) else [("", sets)]:
        place = entry["path"] if key else entry
        if not is_url(place) and not Path(place).is_dir():
            raise ValueError(
                f"data{key and '.'}{key}: expected the directory of an RLDS data set, got {place}, "
                f"{'a file' if Path(place).exists() else 'which is not there'}; check the path"
            )
    if plain["latents"]:
        if isinstance(sets, dict):
            raise ValueError(
                "latents: expected null with a mixture of data sets, got a directory; latents are "
                "of one data set: write latents=null"
            )
        check_cacheable(plain)
        (robot,) = robots_of(plain).values()
        cameras = camera_names(plain["dataset"], robot)
        read_key(Path(plain["latents"]), robot.recorded_cameras(cameras))
    still = plain["no_ops"]
    if still is not None and (not isinstance(still, dict) or still.keys() != NO_OPS):
        raise ValueError(
            f"no_ops: expected null or both of {', '.join(sorted(NO_OPS))}, got {still!r}; write "
            '"no_ops={position: 1.0e-3, rotation: 5.0e-3}"'
        )


def _parts(setting: run.Setting) -> run.Parts:
    config, plain, ranks, out = setting.config, setting.plain, setting.ranks, setting.out
    train_data = ranks.main_first(lambda: open_data(config, "train_split"))
    held_out = ranks.main_first(lambda: open_data(config, "validation_split"))

    def begin() -> tuple[WorldModel, Loaded | None]:
        if not setting.fresh:
            return WorldModel.load(out / "initial"), None
        modes = setting.modes.names
        if plain["init"]:
            world, start = start_from(plain["init"], train_data, plain, modes)
        else:
            world, start = fit_world(train_data, plain, modes), None
        world.save(out / "initial")
        return world, start

    world, start = ranks.main_first(begin)
    world.config = plain

    def objective(made: FlowMatching) -> FlowMatching:
        if plain["init"] and not setting.resuming:
            projector = adopt_projector(plain["init"], plain["objective"], made.modules())
            if start:
                run.record_loaded(out, replace(start, projector=projector).to_dict())
        return made

    def save(ema: Any, step: int, path: Path) -> None:
        model = world.with_backbone(ema)
        model.config["step"] = step
        model.save(path)

    return run.Parts(
        model=world,
        network=world.backbone,
        pixels=world.pixels,
        objective=objective,
        stream=partial(ModeStream, train_data, world, **_inputs(plain, train_data, world)),
        fixed_batches=partial(fixed_batches, held_out, world),
        preview=partial(Preview, world, held_out),
        save=save,
        describe=partial(_describe, config, world, train_data, held_out),
        by_row=lambda values: by_row(values, world.layout.names),
    )


def _inputs(config: dict[str, Any], dataset: Dataset, world: WorldModel) -> dict[str, Any]:
    """Options of the training stream, which validation does without."""
    inputs: dict[str, Any] = {"group": config["group_episodes"]}
    if config.get("augment"):
        inputs["augment"] = Augment(**config["augment"], seed=config["seed"])
    if config.get("no_ops"):
        inputs["keep"] = np.flatnonzero(~_still(dataset, config["no_ops"]))
    if config.get("latents"):
        one = cast(WindowDataset, dataset)
        robot = world.robots[one.robot.name]
        inputs["latents"] = LatentCache(
            config["latents"],
            one,
            {camera: robot.image_codec(camera) for camera in robot.cameras},
            control_hz=robot.robot.rate,
            seed=config["seed"],
        )
    return inputs


def _still(dataset: Dataset, limits: Mapping[str, float]) -> np.ndarray:
    """bool (windows,): those that start at a step that commands nothing."""
    parts = dataset.parts.values() if isinstance(dataset, DatasetMixture) else [dataset]
    return np.concatenate([part.no_ops(**limits) for part in parts])


def _describe(
    config: DictConfig, world: WorldModel, train: Dataset, held_out: Dataset, trainer: Trainer
) -> list[str]:
    modes: Any = OmegaConf.to_container(config.modes)
    batches = trainer.total_steps * config.trainer.accumulate
    drawn = windows_drawn(train, robot_schedule(modes), batches)
    return [
        *data_lines(config.data, train, held_out, drawn, world.layout.text_length),
        *(line for name in by_robot(train) for line in robot_lines(world.robots[name])),
    ]
