"""The parts of a pretraining run, made from a composed configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from selfflow_wm.checkpoints import find_checkpoint
from selfflow_wm.codec import Codec
from selfflow_wm.data import MODES, SampleEncoder, SampleStream, Source, fixed_batches
from selfflow_wm.data.source import check_captions, split_source
from selfflow_wm.files import differing
from selfflow_wm.layout import Layout
from selfflow_wm.model import Backbone
from selfflow_wm.objective import WeightedByModality
from selfflow_wm.pretraining.codecs import fit_codecs, make_codecs, make_layout
from selfflow_wm.pretraining.preview import Preview
from selfflow_wm.pretraining.sources import open_sources
from selfflow_wm.training import config as configuration
from selfflow_wm.training import run
from selfflow_wm.training.model_files import SavedModel, load_model, save_model
from selfflow_wm.training.trainer import Trainer

PATHS = ("data", "out", "init")
RESUMABLE = (*run.RESUMABLE, "fps")


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """configs/pretrain.yaml with hydra overrides; ValueError says what was wrong with them."""
    return configuration.compose_config("selfflow_wm.pretrain", overrides, paths=PATHS)


def build(config: DictConfig) -> run.TrainingRun:
    """Assemble a run, resuming it when its state is there; ValueError for misuse."""
    return run.assemble(config, _parts, MODES, RESUMABLE)


def _parts(setting: run.Setting) -> run.Parts:
    ranks, plain, modes = setting.ranks, setting.plain, setting.modes.names
    saved, sources, held_out = ranks.main_first(
        lambda: _begin(setting.out, plain, modes, setting.fresh)
    )
    saved.training = plain
    encoder = SampleEncoder(saved.model.layout, saved.codecs, ranks.device)

    def save(ema: Any, step: int, path: Path) -> None:
        save_model(path, replace(saved, model=ema, training=plain | {"step": step}))

    return run.Parts(
        model=saved,
        network=saved.model,
        pixels=encoder.pixels,
        objective=WeightedByModality,
        stream=partial(SampleStream, sources, encoder),
        fixed_batches=partial(fixed_batches, held_out, encoder),
        preview=partial(Preview, encoder, held_out),
        save=save,
        describe=partial(_describe, plain, saved, sources),
    )


def _begin(
    out: Path, plain: dict[str, Any], modes: Sequence[str], fresh: bool
) -> tuple[SavedModel, dict[str, Source], dict[str, Source]]:
    """The model at its start, kept in out/initial, with the training and the held-out samples.
    fresh: make it, else read it."""
    if not fresh:
        saved = load_model(out / "initial")
        return saved, *_open(plain, modes, saved.codecs)
    source = load_model(find_checkpoint(plain["init"])) if plain["init"] else None
    codecs = _codecs(plain, source)
    sources, held_out = _open(plain, modes, codecs)
    if source is None:
        fit_codecs(codecs, sources, plain["fit_samples"], plain["seed"])
    saved = _fresh(plain, codecs, source)
    save_model(out / "initial", saved)
    return saved, sources, held_out


def _open(
    plain: dict[str, Any], modes: Sequence[str], codecs: dict[str, Codec]
) -> tuple[dict[str, Source], dict[str, Source]]:
    """Training and held-out samples of every mode."""
    training, held_out = {}, {}
    sources = open_sources(plain["data"], modes, codecs, plain["fps"])
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
        return make_codecs(plain["codec"], names)
    for name in names:
        # The checkpoint holds its weights; where they came from does not matter.
        asked = {k: v for k, v in (plain["codec"].get(name) or {}).items() if k != "weights"}
        found = init.codecs[name].config if name in init.codecs else {}
        if {key: found.get(key) for key in asked} != asked:
            raise ValueError(
                f"init={plain['init']}: expected its codec of {name} to have {asked}, got {found}; "
                f"change codec.{name} to match it, or train from scratch with init=null"
            )
    return {name: init.codecs[name] for name in names}


def _fresh(plain: dict[str, Any], codecs: dict[str, Codec], init: SavedModel | None) -> SavedModel:
    """The untrained model, or the one to start from."""
    layout = make_layout(plain["layout"], codecs)
    SampleEncoder(layout, codecs)  # refuses codecs that do not fit the rows
    if init is None:
        return SavedModel(Backbone(layout, **plain["model"]), plain["model"], None, {}, codecs)
    wanted, found = _shape(layout, plain["model"]), _shape(init.model.layout, init.arguments)
    if changed := differing(wanted, found):
        raise ValueError(
            f"init={plain['init']}: expected a checkpoint with "
            + ", ".join(f"{key}={wanted.get(key)}" for key in changed)
            + ", got "
            + ", ".join(str(found.get(key)) for key in changed)
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


def _describe(
    plain: dict[str, Any], saved: SavedModel, sources: dict[str, Source], trainer: Trainer
) -> list[str]:
    layout: Layout = saved.model.layout
    samples = ", ".join(f"{len(source)} of {kind}" for kind, source in sources.items())
    rows = ", ".join(
        f"{row.name} {row.num_tokens} x {row.channels} ({saved.codecs[row.name].kind})"
        for row in layout.modalities
    )
    lines = [f"samples     {samples} to train on", f"tokens      {rows}"]
    if plain["batch_of"] == "process":
        lines.append(f"batches     one in each of {trainer.ranks.size} processes")
    return lines
