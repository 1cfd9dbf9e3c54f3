"""Saving and loading models with their metadata, in the format of `selfflow_wm.checkpoints`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from selfflow_wm.checkpoints import SCHEMA, current_weight, read_config
from selfflow_wm.codec import Codec, codec_from_state
from selfflow_wm.layout import Layout, only_row
from selfflow_wm.model import Backbone, SiT
from selfflow_wm.training import checkpoint

KINDS: dict[str, type[nn.Module]] = {"backbone": Backbone, "sit": SiT}


@dataclass
class SavedModel:
    """A model with the metadata of its checkpoint."""

    model: Any
    """A `Backbone` or a `SiT`."""
    arguments: dict[str, Any]
    """Keyword arguments that rebuild it, beside its layout."""
    codec: Codec | None = None
    """Of a model of a single modality, between its latents and pictures; None when the latents come
    from elsewhere."""
    training: dict[str, Any] = field(default_factory=dict)
    """JSON-able: the configuration it was trained with."""
    codecs: dict[str, Codec] = field(default_factory=dict)
    """By modality. A world model has one for the video of each camera, which holds that of its
    frames."""
    robot: dict[str, Any] | None = None
    """Of a world model, JSON-able: see `robotics.model.files`."""

    @property
    def kind(self) -> str:
        for kind, network in KINDS.items():
            if type(self.model) is network:
                return kind
        raise ValueError(
            f"expected one of {sorted(KINDS)}, got a {type(self.model).__name__}; add it to KINDS"
        )


def save_model(path: Path | str, saved: SavedModel, dtype: torch.dtype = torch.float32) -> None:
    """Write the directory `path` in one piece, replacing what was there.

    dtype: float32, or float16 to halve the file (loading gives float32 again).
    """
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"expected weights in float32 or float16, got {dtype}")
    codecs = dict(saved.codecs)
    if saved.codec and not codecs:
        codecs[saved.model.layout.modalities[0].name] = saved.codec
    files = _codec_files(codecs)
    config = {
        "schema": SCHEMA,
        "kind": saved.kind,
        "arguments": dict(saved.arguments),
        "layout": saved.model.layout.to_dict(),
        "codecs": {
            name: {"config": codec.config, "hash": codec.hash(), "file": files[name]}
            for name, codec in codecs.items()
        },
        "training": saved.training,
        "robot": saved.robot,
    }
    weights = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in saved.model.state_dict().items()
    }
    with checkpoint.atomic_directory(Path(path)) as temporary:
        checkpoint.save_tensors(temporary / "model.safetensors", weights)
        for name, codec in codecs.items():
            checkpoint.save_tensors(temporary / files[name], codec.state_dict())
        checkpoint.write_json(temporary / "config.json", config)


def _codec_files(names: Collection[str]) -> dict[str, str]:
    """A file for the codec of each modality; names of a world model's rows hold "/" and ":"."""
    files: dict[str, str] = {}
    for name in names:
        stem = f"codec_{re.sub(r'[^0-9A-Za-z_-]', '_', name)}"
        taken = sum(file.startswith(f"{stem}.") for file in files.values())
        files[name] = f"{stem}.{taken}.safetensors" if taken else f"{stem}.safetensors"
    return files


def read_weights(path: Path | str) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint in the precision they are stored in, by today's names."""
    path = Path(path)
    tensors = checkpoint.load_tensors(path / "model.safetensors")
    config = checkpoint.read_json(path / "config.json")
    if not (config.get("robot") or "embodiment" in config):  # names of world models alone changed
        return tensors
    return {current_weight(name, config["schema"]): value for name, value in tensors.items()}


def load_model(
    path: Path | str, device: torch.device | str = "cpu", robot: bool | None = False
) -> SavedModel:
    """The model saved at `path`, float32, in evaluation mode.

    robot: True for a robot's world model, False for any other, None for both.

    ValueError (expected, got, remedy) for a missing file, another schema or kind, and weights
    or codec tensors that do not fit the configuration.
    """
    path = Path(path)
    config = read_config(path, robot)
    layout = Layout.from_dict(config["layout"])
    codecs = {name: _codec(path, name, row) for name, row in config["codecs"].items()}
    try:
        model = KINDS[config["kind"]](layout, **config["arguments"])
    except TypeError as error:
        raise ValueError(
            f"{path / 'config.json'}: expected arguments of a {config['kind']} of this version, "
            f"got others ({error}); use the version that wrote it"
        ) from None
    weights = {name: value.float() for name, value in read_weights(path).items()}
    checkpoint.load_strict(model, weights, path / "model.safetensors")
    return SavedModel(
        model.to(device).eval(),
        config["arguments"],
        next(iter(codecs.values()), None) if len(layout.modalities) == 1 else None,
        config["training"] or {},
        codecs,
        config["robot"],
    )


def read_codecs(path: Path | str, names: Collection[str] | None = None) -> dict[str, Codec]:
    """Those of `names` (all without it) among the codecs of a checkpoint, by modality, without its
    weights; refuses as `load_model` does. A world model's codec of "video/CAMERA" is taken apart
    into those of "image/CAMERA" and "video/CAMERA". A kind such as "image" means its only row."""
    path = Path(path)
    found: dict[str, Codec] = {}
    for name, row in read_config(path)["codecs"].items():
        if "base" in row["config"]:
            codec: Any = _codec(path, name, row)
            found[image_row(name)] = codec.base
            found[name] = getattr(codec, "video", codec)
        elif names is None or name in names:
            found[name] = _codec(path, name, row)
    if names is None:
        return found
    known = {name: only_row(name, found) for name in names}
    return {name: found[row] for name, row in known.items() if row in found}


def image_row(video: str) -> str:
    """The row of the current frame that belongs to a row of the frames after it."""
    robot, colon, row = video.rpartition(":")
    return robot + colon + row.replace("video", "image", 1)


def codec_hash(path: Path | str, modality: str) -> str | None:
    """The hash of a checkpoint's codec of `modality`, None where it has none."""
    rows = read_config(path)["codecs"]
    if any("base" in row["config"] for row in rows.values()):  # hashed together
        found = read_codecs(path, (modality,))
        return found[modality].hash() if modality in found else None
    return rows[modality]["hash"] if modality in rows else None


def _codec(path: Path, name: str, row: Mapping[str, Any]) -> Codec:
    file = path / row.get("file", f"codec_{name}.safetensors")
    codec = codec_from_state(row["config"], checkpoint.load_tensors(file))
    if codec.hash() != row["hash"]:
        raise ValueError(
            f"{file}: expected the codec {row['hash'][:12]} it was trained with, got "
            f"{codec.hash()[:12]}; the file belongs to another checkpoint"
        )
    return codec
