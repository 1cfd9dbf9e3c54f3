"""Fine-tuning from a checkpoint: of pretraining, or of another fine-tuning run.

A checkpoint holds the EMA weights and no others. Student and teacher both start from them: they are
better than the last student's, they are the ones that were evaluated, and a teacher is the average
of its student's past, so at step 0 the two are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robotics.data.batches import Dataset
from robotics.embodiment.table import Embodiment
from robotics.model.modes import HISTORY, IMAGE, VIDEO
from robotics.model.world_model import WorldModel
from robotics.training.fit import (
    assemble,
    cached_codec,
    check_cacheable,
    fit_codecs,
    unfitted_codecs,
)
from selfflow_wm.checkpoints import find_checkpoint, read_config
from selfflow_wm.codec import Codec, PairedCodec, ResidualCodec, codec_from_state
from selfflow_wm.layout import BYTE_VOCABULARY, Layout
from selfflow_wm.training import checkpoint
from selfflow_wm.training.model_files import read_codecs
from selfflow_wm.training.transfer import (
    OUTCOMES,
    Transfer,
    differing_shape,
    full_arguments,
    transfer,
)

_FREE = {"image_size", "frames", "dtype", "tile"}
"""What a codec is applied to and how exactly, not what the values of a token mean."""


@dataclass(frozen=True)
class InitCheckpoint:
    """A checkpoint to start from."""

    path: Path
    """Directory of the checkpoint."""
    run: Path | None
    """Directory of the run, if that was given."""
    command: str
    """The command that wrote it."""
    layout: Layout
    arguments: dict[str, Any]
    """Keyword arguments of its `Backbone`."""
    codecs: dict[str, Codec]
    """"image" and "video", those it has."""
    training: dict[str, Any]


@dataclass
class Loaded:
    """What was loaded from a checkpoint, for the run's record and for people."""

    source: str
    command: str
    step: int | None
    transfer: Transfer
    codecs: dict[str, str]
    """"image" and "video" -> where the codec comes from and why."""
    projector: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values; counts as [tensors, parameters]."""
        return {
            "source": self.source,
            "written_by": self.command,
            "step": self.step,
            "weights": "EMA, for student and teacher",
            "parts": self.transfer.parts,
            "codecs": self.codecs,
            "projector": self.projector,
            "statistics": "of the training data",
            "table": self.lines(),
        }

    def lines(self) -> list[str]:
        """A table of parts: tensors and parameters that were loaded, resized, added, dropped."""
        step = "" if self.step is None else f", step {self.step}"
        shown = [outcome for outcome in OUTCOMES if self.transfer.total(outcome)[0]]
        parts = self.transfer.parts | {"all": {name: self.transfer.total(name) for name in shown}}
        width = max(map(len, [*parts, "tensors, parameters"]))
        return [
            f"init        {self.source} ({self.command}{step}): EMA weights for student and "
            "teacher",
            _row("tensors, parameters", shown, width),
            *(
                _row(name, [_pair(part[outcome]) for outcome in shown], width)
                for name, part in parts.items()
            ),
            *(f"{f'{name} codec':<12}{words}" for name, words in self.codecs.items()),
            f"projector   {self.projector}",
            "statistics  of the training data",
        ]


def _row(name: str, cells: Sequence[str], width: int) -> str:
    return f"            {name:<{width}}" + "".join(f"{cell:>18}" for cell in cells)


def _pair(counts: Sequence[int]) -> str:
    return f"{counts[0]}, {counts[1]:,}" if counts[0] else "-"


def start_from(
    place: Path | str,
    dataset: Dataset,
    config: Mapping[str, Any],
    modes: Sequence[str],
    embodiment: Embodiment,
) -> tuple[WorldModel, Loaded]:
    """The world model of `config` with what it shares with the checkpoint at `place`.

    place: a checkpoint of `selfflow_wm.pretrain` or `robotics.finetune`, or the directory of such
    a run. Modalities keep their projections if their tokens have the same meaning, that is with the
    checkpoint's codec; statistics are those of `dataset`.

    Raises:
        ValueError: no checkpoint there, not of a backbone, or one of another shape.
    """
    source = read_source(place)
    _check_shape(source, config)
    codec, words, taken = _codecs(source, dataset, config)
    world = assemble(dataset, config, modes, embodiment, codec)
    held = {IMAGE: "image" in taken, HISTORY: "image" in taken, VIDEO: "video" in taken}
    kept = [
        row.name
        for row in world.layout.modalities
        if row.name in source.layout
        and held.get(row.name, True)
        and source.layout[row.name].channels == row.channels
    ]
    weights = checkpoint.load_tensors(source.path / "model.safetensors")
    done = transfer(world.backbone, weights, source.layout, kept)
    return world, Loaded(str(place), source.command, source.training.get("step"), done, words)


def read_source(place: Path | str) -> InitCheckpoint:
    """What is known of a checkpoint before its weights are read. place: as for
    `selfflow_wm.checkpoints.find_checkpoint`."""
    path = find_checkpoint(place)
    config = read_config(path)
    if config["kind"] != "backbone":
        raise ValueError(
            f"init={place}: expected a multimodal backbone, got a network of kind "
            f"{config['kind']!r}; start from a run of selfflow_wm.pretrain"
        )
    run = path.parent if path.name == "checkpoint" and path != Path(place).expanduser() else None
    return InitCheckpoint(
        path,
        run,
        "robotics.finetune" if config["robot"] else "selfflow_wm.pretrain",
        Layout.from_dict(config["layout"]),
        config["arguments"],
        read_codecs(path, (IMAGE, VIDEO)),
        config["training"] or {},
    )


def _check_shape(source: InitCheckpoint, config: Mapping[str, Any]) -> None:
    asked, found = full_arguments(config["model"]), full_arguments(source.arguments)
    if differing := differing_shape(asked, found):
        raise ValueError(
            f"init={config['init']}: expected a backbone with "
            + ", ".join(f"{name} {asked[name]}" for name in differing)
            + ", got "
            + ", ".join(f"{name} {found[name]}" for name in differing)
            + "; set "
            + " ".join(f"model.{name}={found[name]}" for name in differing)
            + ", or choose another checkpoint"
        )
    if source.layout.vocabulary != BYTE_VOCABULARY:
        raise ValueError(
            f"init={config['init']}: expected captions of {BYTE_VOCABULARY} ids (bytes), got "
            f"{source.layout.vocabulary}; choose a checkpoint trained on captions"
        )


# ---------------------------------------------------------------- codecs


def _codecs(
    source: InitCheckpoint, dataset: Dataset, config: Mapping[str, Any]
) -> tuple[ResidualCodec | PairedCodec, dict[str, str], set[str]]:
    """The codec to train with, where its two parts come from, and which are the checkpoint's."""
    check_cacheable(config)
    asked = unfitted_codecs(config["codec"], dataset.image_size, len(dataset.video_offsets))
    taken: dict[str, Codec] = {}
    words: dict[str, str] = {}
    for name, wanted in asked.items():
        try:
            taken[name] = adopt(wanted, source.codecs.get(name))
        except ValueError as error:
            words[name] = f"new: {error}"
    video = taken.get("video")
    if isinstance(video, ResidualCodec):  # it contains the same image codec
        taken["image"] = video.base
    if taken.keys() < asked.keys() and config.get("latents"):
        codec: ResidualCodec | PairedCodec = cached_codec(dataset, config)
        words |= dict.fromkeys(asked, f"that of latents={config['latents']}")
        return codec, words, set()
    codec = fit_codecs(dataset, config["codec"], config["seed"], taken)
    words |= {name: f"the checkpoint's, {found.kind}" for name, found in taken.items()}
    if "image" in taken and codec.base.state_dict():
        words["image"] += _suits(codec, dataset)
    return codec, {name: words[name] for name in asked}, set(taken)


def adopt(asked: Codec, found: Codec | None) -> Codec:
    """`found` at the sizes of `asked`, its tokens with the same meaning; ValueError with the reason
    where that is impossible."""
    if found is None:
        raise ValueError("the checkpoint has none")
    if differing := codec_differences(asked, found):
        raise ValueError(", ".join(differing))
    if asked.config == found.config:
        return found
    if not found.state_dict():  # published weights, the same ones
        return asked
    return codec_from_state(asked.config, found.state_dict())


def codec_differences(asked: Codec, found: Codec) -> list[str]:
    """Settings in which the tokens of two codecs differ in meaning; sizes and fitted tensors are
    not compared."""
    ours, theirs = _flat(asked.identity()), _flat(found.identity())
    # A mean picture is of one frame size.
    placed = any(v is True for n, v in ours.items() if n.endswith("per_position"))
    free = _FREE - {"image_size"} if placed else _FREE
    return [
        f"{name} {ours.get(name)}, the checkpoint's {theirs.get(name)}"
        for name in dict.fromkeys([*ours, *theirs])
        if name.rpartition(".")[2] not in free and ours.get(name) != theirs.get(name)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _suits(codec: ResidualCodec | PairedCodec, dataset: Dataset, count: int = 64) -> str:
    """How well a codec fitted to other pictures suits these: latents should have mean 0 and
    variance 1, and no model can learn the detail that the codec loses."""
    index = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long().numpy()
    frames = torch.as_tensor(dataset.batch(index, video=False)["image"])
    latents = codec.base.encode(frames)
    error = (codec.base.decode(latents).float() - frames.float()).square().mean()
    return (
        f"; on these data its latents have mean {float(latents.mean()):.2f} and variance "
        f"{float(latents.var()):.2f}, and it restores pictures at "
        f"{float(10 * torch.log10(255**2 / error.clamp(min=1e-9))):.1f} dB PSNR"
    )


# ---------------------------------------------------------------- projector


def adopt_projector(place: Path | str, objective: Mapping[str, Any], modules: nn.Module) -> str:
    """Load the projector of the run at `place` into the objective's `modules`, if there is one of
    the same objective; returns a description of what was done.

    A checkpoint has no projector; the last state of the run has. A new one has to be learned
    first, and until then pulls the student towards an arbitrary projection.

    objective: the configuration's.
    """
    if not list(modules.parameters()):
        return "none"
    source = read_source(place)
    if source.run is None:
        return "new: a checkpoint has none; give the run's directory to keep it"
    state = checkpoint.latest_step(source.run / "state")
    file = state / "objective.safetensors" if state else None
    if file is None or not file.is_file():
        return f"new: no state in {source.run / 'state'}"
    theirs = source.training.get("objective") or {}
    keys = ("_target_", "student_layer", "teacher_layer")
    if differing := [key for key in keys if objective.get(key) != theirs.get(key)]:
        return "new: another objective, " + ", ".join(
            f"{key} {objective.get(key)} and there {theirs.get(key)}" for key in differing
        )
    try:
        checkpoint.load_strict(modules, checkpoint.load_tensors(file), file)
    except ValueError:
        return "new: the run's is of another shape"
    count = sum(parameter.numel() for parameter in modules.parameters())
    return f"the run's, {count:,} parameters, from {file.parent.name}"
