"""The checkpoints to evaluate: their modes, and the toy world they were trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfflow_wm.checkpoints import find_checkpoint, fingerprint, read_config
from selfflow_wm.cli import split_name
from selfflow_wm.codec import Codec
from selfflow_wm.data import MODES, SampleEncoder
from selfflow_wm.data.toy import ToyConfig
from selfflow_wm.training.model_files import SavedModel, load_model


@dataclass(frozen=True)
class Entry:
    """One checkpoint to evaluate."""

    name: str
    """Of its arm; checkpoints of one name differ in seed or step."""
    path: Path
    fingerprint: str
    """Of weights, configuration and codecs, 16 hex digits."""
    seed: int
    step: int
    objective: str
    modes: tuple[str, ...]
    """Of `data.MODES`, those it was trained in."""
    world: ToyConfig
    label: str = ""


def find_checkpoints(words: Sequence[str], curve: bool = False) -> list[Entry]:
    """The checkpoints that `[NAME=]PATH` words mean, labelled so that all differ.

    PATH: a run's directory (its newest checkpoint, or with `curve` all of checkpoints/step_*), or
    a checkpoint's. ValueError for what is no checkpoint, for models of other data than the toy
    world or of different worlds, and for the same checkpoint twice.
    """
    entries = []
    for word in words:
        name, place = split_name(word)
        entries += [_read(path, name) for path in _paths(Path(place).expanduser(), curve)]
    if len({entry.fingerprint for entry in entries}) < len(entries):
        raise ValueError(
            f"expected different checkpoints, got one twice among {list(words)}; leave it out"
        )
    first = entries[0]
    for entry in entries[1:]:
        if entry.world != first.world:
            raise ValueError(
                f"{entry.path}: expected a checkpoint of the same toy world as {first.path}, "
                f"{first.world.to_dict()}, got {entry.world.to_dict()}; evaluate them apart"
            )
    return _labelled(entries)


def _paths(place: Path, curve: bool) -> list[Path]:
    if curve and (steps := sorted((place / "checkpoints").glob("step_[0-9]*"))):
        return steps
    return [find_checkpoint(place)]


def _read(path: Path, name: str) -> Entry:
    config = read_config(path, robot=False)
    training = config["training"]
    objective = _snake(training.get("objective", {}).get("_target_", "unknown").rsplit(".", 1)[-1])
    if training.get("objective", {}).get("separated"):
        objective += "_separated"
    shares = {name: share or {} for name, share in training.get("modes", {}).items()}
    modes = tuple(m for m in MODES if shares.get(m, {}).get("probability", 0) > 0)
    return Entry(
        name or objective,
        path,
        fingerprint(path)[:16],
        int(training.get("seed", 0)),
        int(training.get("step", 0)),
        objective,
        modes,
        _world(path, training.get("data"), modes),
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _world(path: Path, data: Any, modes: Sequence[str]) -> ToyConfig:
    worlds = []
    for mode in modes:
        source = data.get(mode) if isinstance(data, Mapping) else data
        if not isinstance(source, Mapping) or not str(source.get("_target_")).endswith("ToySource"):
            raise ValueError(
                f"{path}: expected a model trained on the toy world, whose captions and truth the "
                f"metrics need, got data.{mode}={source!r}; train one with experiment="
                "toy_multimodal, or sample from this one (python -m selfflow_wm.sample) and "
                "compare that with your media (python -m selfflow_wm.evaluate distance)"
            )
        worlds.append(ToyConfig(**(source.get("world") or {})))
    if not worlds or any(world != worlds[0] for world in worlds):
        raise ValueError(
            f"{path}: expected a checkpoint trained in modes of one toy world, got {len(worlds)} "
            "modes; give one that training exported, with the same data.*.world for all modes"
        )
    return worlds[0]


def _labelled(entries: Sequence[Entry]) -> list[Entry]:
    """Names with seed and step where those are needed to tell checkpoints apart."""
    labelled = []
    for entry in entries:
        same = [other for other in entries if other.name == entry.name]
        label = entry.name
        if len({other.seed for other in same}) > 1:
            label += f" seed {entry.seed}"
        if any(other.step != entry.step for other in same if other.seed == entry.seed):
            label += f" step {entry.step}"
        labelled.append(replace(entry, label=label))
    labels = [entry.label for entry in labelled]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(
            f"expected checkpoints of distinct names, got {twice!r} twice; write NAME=PATH"
        )
    return labelled


def representatives(entries: Sequence[Entry]) -> list[Entry]:
    """The newest checkpoint of each arm's first seed: those whose samples are shown."""
    shown: dict[str, Entry] = {}
    for entry in entries:
        known = shown.get(entry.name)
        if known is None or (entry.seed, -entry.step) < (known.seed, -known.step):
            shown[entry.name] = entry
    return list(shown.values())


def open_checkpoint(entry: Entry, device: Any) -> tuple[SavedModel, SampleEncoder]:
    """The model and the way to its latents; ValueError when its codecs fit neither it nor the
    world's sizes, or when another checkpoint has come to lie at its path."""
    saved = load_model(entry.path, device)
    # The samples of another would be taken for the old one's.
    if fingerprint(entry.path)[:16] != entry.fingerprint:
        raise ValueError(
            f"{entry.path}: expected the checkpoint that was there at the start, of step "
            f"{entry.step}, got another; its run goes on: repeat the command, or give one of "
            "checkpoints/step_*"
        )
    try:
        encoder = SampleEncoder(saved.model.layout, saved.codecs, device)
        for codec in saved.codecs.values():
            check_codec(codec, entry.world)
    except ValueError as error:
        raise ValueError(f"{entry.path}: {error}") from None
    return saved, encoder


def check_codec(codec: Codec, world: ToyConfig) -> None:
    """ValueError unless a codec's samples are as large as the world's."""
    sizes = {
        "image_size": (world.height, world.width),
        "frames": world.frames,
        "sample_rate": world.sample_rate,
        "samples": world.samples,
        "audio_channels": 1,
    }
    for name, expected in sizes.items():
        if (got := getattr(codec, name, expected)) != expected:
            raise ValueError(
                f"codec.{codec.modality}: expected {name} {expected}, as the toy world renders, "
                f"got {got} from {codec.kind}; train with codec.{codec.modality}.{name} or "
                "toy.world changed to match"
            )
