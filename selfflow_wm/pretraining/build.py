"""A pretraining run, assembled from a composed configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from selfflow_wm.codec import Codec
from selfflow_wm.data import Mixture, MixtureStream, SampleEncoder, Source, fixed_batches
from selfflow_wm.data.source import check_captions, split_source
from selfflow_wm.files import newest_checkpoint
from selfflow_wm.layout import Layout
from selfflow_wm.model import Backbone
from selfflow_wm.objective import FlowMatching, WeightedByModality
from selfflow_wm.pretraining.codecs import fit_codecs, make_codecs, make_layout
from selfflow_wm.pretraining.preview import Preview
from selfflow_wm.pretraining.sources import open_sources
from selfflow_wm.training import run as core
from selfflow_wm.training.log import MetricsLog
from selfflow_wm.training.model_files import SavedModel, load_model, save_model
from selfflow_wm.training.parallel import make_parallel
from selfflow_wm.training.ranks import join
from selfflow_wm.training.trainer import Trainer
from selfflow_wm.training.validate import FixedNoiseValidation

PATHS = ("data", "out", "init")
RESUMABLE = (*core.RESUMABLE, "workers", "fps")


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """configs/pretrain.yaml with hydra overrides; ValueError says what was wrong with them."""
    return core.compose_config("pretrain", overrides, paths=PATHS, folder="pretrain")


@dataclass
class Run:
    """Everything a training run is made of, built and not yet started."""

    saved: SavedModel
    trainer: Trainer
    description: str


def build(config: DictConfig) -> Run:
    """Assemble a run, resuming it when its state is there; ValueError for misuse."""
    core.require(config, "data", "out")
    ranks = join(config.trainer.parallel, config.device)
    out, plain, device = Path(config.out), _plain(config), ranks.device
    stated = Mixture(plain["modes"], seed=config.seed)
    mixture = of_run(stated, plain["batch_of"], ranks.size)
    own = mixture.divided(ranks.size)
    resuming = ranks.on_main(lambda: core.claim(out, plain, RESUMABLE))

    torch.manual_seed(config.seed)  # the backbone's initial weights, then the projector's
    saved, sources, held_out = ranks.main_first(
        # The others read what the main process has written.
        lambda: _begin(out, plain, mixture, fresh=ranks.main and not resuming)
    )
    saved.model.train().requires_grad_(True).to(device)
    saved.training = plain
    encoder = SampleEncoder(saved.model.layout, saved.codecs, device)
    objective = core.make_objective(config)
    objective.bind(encoder.pixels)

    settings = plain["trainer"] | {"parallel": make_parallel(ranks)}
    per_mode = settings.pop("validation_batches")
    stream = MixtureStream(
        sources,
        encoder,
        own,
        seed=config.seed,
        accumulate=settings["accumulate"],
        rank=ranks.rank,
        world_size=ranks.size,
        workers=config.workers,
    )
    noise = instantiate(config.noise, _convert_="all")
    validation = FixedNoiseValidation(
        FlowMatching(noise["time_laws"], noise["condition_noise"], caption_dropout=0.0),
        fixed_batches(held_out, encoder, stated, per_mode),
    )
    trainer = Trainer(
        saved.model,
        WeightedByModality(objective),
        stream,
        out_dir=out,
        optim=instantiate(config.optim, _convert_="all"),
        seed=config.seed,
        device=device,
        validate=validation,
        preview=Preview(encoder, held_out, out / "previews") if settings["preview_every"] else None,
        export=core.exporter(_save(saved), out),
        **settings,
    )
    if resuming:
        trainer.resume()
    if ranks.main:
        trainer.log = MetricsLog(out, config=plain, resume_step=trainer.step, **plain["log"])
    return Run(saved, trainer, _describe(config, saved, sources, trainer))


def of_run(mixture: Mixture, batch_of: str, processes: int) -> Mixture:
    """The mixture with the batches that all processes share. batch_of: of the configuration."""
    if batch_of not in ("run", "process"):
        raise ValueError(
            f"batch_of: expected run (all processes share a batch) or process (each has one), got "
            f"{batch_of!r}"
        )
    return mixture.times(processes) if batch_of == "process" else mixture


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain


def _begin(
    out: Path, plain: dict[str, Any], mixture: Mixture, fresh: bool
) -> tuple[SavedModel, dict[str, Source], dict[str, Source]]:
    """The model at its start, kept in out/initial, with the training and the held-out samples.
    fresh: make it, else read it."""
    if not fresh:
        saved = load_model(out / "initial")
        return saved, *_open(plain, mixture, saved.codecs)
    source = load_model(newest_checkpoint(Path(plain["init"]))) if plain["init"] else None
    codecs = _codecs(plain, source)
    sources, held_out = _open(plain, mixture, codecs)
    if source is None:
        fit_codecs(codecs, sources, plain["fit_samples"], plain["seed"])
    saved = _fresh(plain, codecs, source)
    save_model(out / "initial", saved)
    return saved, sources, held_out


def _open(
    plain: dict[str, Any], mixture: Mixture, codecs: dict[str, Codec]
) -> tuple[dict[str, Source], dict[str, Source]]:
    """Training and held-out samples of every mode."""
    training, held_out = {}, {}
    sources = open_sources(plain["data"], mixture.names, codecs, plain["fps"])
    for kind, source in sources.items():
        check_captions(source, kind, plain["layout"]["text_length"])
        try:
            training[kind], held_out[kind] = split_source(source, plain["held_out"])
        except ValueError as error:
            raise ValueError(f"data.{kind}: {error}") from None
    return training, held_out


def _codecs(plain: dict[str, Any], init: SavedModel | None) -> dict[str, Codec]:
    """Of the configuration, or of the checkpoint to start from, which must agree with it."""
    names = [name for name, row in plain["layout"]["rows"].items() if row is not None]
    if init is None:
        return make_codecs(plain["codecs"], names)
    for name in names:
        # What its weights are, the checkpoint says; where they lie does not matter.
        asked = {k: v for k, v in (plain["codecs"].get(name) or {}).items() if k != "weights"}
        found = init.codecs[name].config if name in init.codecs else {}
        if {key: found.get(key) for key in asked} != asked:
            raise ValueError(
                f"init={plain['init']}: expected its codec of {name} to have {asked}, got {found}; "
                f"change codecs.{name} to match it, or train from scratch with init=null"
            )
    return {name: init.codecs[name] for name in names}


def _fresh(plain: dict[str, Any], codecs: dict[str, Codec], init: SavedModel | None) -> SavedModel:
    """The untrained model, or the one to start from."""
    layout = make_layout(plain["layout"], codecs)
    SampleEncoder(layout, codecs)  # refuses codecs that do not fit the rows
    if init is None:
        return SavedModel(Backbone(layout, **plain["model"]), plain["model"], None, {}, codecs)
    wanted, found = _shape(layout, plain["model"]), _shape(init.model.layout, init.arguments)
    if differing := sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key)):
        raise ValueError(
            f"init={plain['init']}: expected a checkpoint with "
            + ", ".join(f"{key}={wanted.get(key)}" for key in differing)
            + ", got "
            + ", ".join(str(found.get(key)) for key in differing)
            + "; change them to match it, or train from scratch with init=null"
        )
    model = Backbone(layout, **plain["model"])  # whose rows have this run's weights and mask ratios
    model.load_state_dict(init.model.state_dict())
    return replace(init, model=model)


def _shape(layout: Layout, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint to start from has to agree in, by name in the configuration."""
    fields = {
        f"layout.rows.{row.pop('name')}": {
            key: value for key, value in row.items() if key not in ("weight", "mask_ratio")
        }
        for row in layout.to_dict()["modalities"]
    }
    fields |= {"layout.text_length": layout.text_length, "vocabulary": layout.vocabulary}
    return fields | {f"model.{key}": value for key, value in arguments.items()}


def _save(saved: SavedModel):
    def save(ema: nn.Module, step: int, path: Path) -> None:
        save_model(path, replace(saved, model=ema, training=saved.training | {"step": step}))

    return save


def _describe(
    config: DictConfig, saved: SavedModel, sources: dict[str, Source], trainer: Trainer
) -> str:
    layout: Layout = saved.model.layout
    samples = ", ".join(f"{len(source)} of {kind}" for kind, source in sources.items())
    rows = ", ".join(
        f"{row.name} {row.num_tokens} x {row.channels} ({saved.codecs[row.name].kind})"
        for row in layout.modalities
    )
    lines = [f"samples     {samples} to train on", f"tokens      {rows}"]
    if config.batch_of == "process":
        lines.append(f"batches     one in each of {trainer.ranks.size} processes")
    return "\n".join([*lines, *core.describe_run(trainer, config)])
