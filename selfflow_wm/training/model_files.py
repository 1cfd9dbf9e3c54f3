"""The checkpoint directory of a bare model: what images from noise need, and nothing else.

DIR/model.safetensors    weights (the EMA's, as a rule)
DIR/config.json          schema, kind of network and its arguments, layout, codec, training
DIR/codec.safetensors    the codec's fitted tensors, if it has one

A model of several modalities has a codec for each: `codecs` in config.json, and
DIR/codec_<modality>.safetensors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from selfflow_wm.codec import Codec, codec_from_state
from selfflow_wm.layout import Layout
from selfflow_wm.model import Backbone, SiT
from selfflow_wm.training import checkpoint

SCHEMA = 1
"""Version of config.json. Raise it when a reader of the old one would misread the new one."""

KINDS: dict[str, type[nn.Module]] = {"backbone": Backbone, "sit": SiT}

_KEYS = {"schema", "kind", "arguments", "layout", "codec", "codec_hash", "training"}


@dataclass
class SavedModel:
    """A model with what its checkpoint says about it."""

    model: Any
    """A `Backbone` or a `SiT`."""
    arguments: dict[str, Any]
    """Keyword arguments that rebuild it, beside its layout."""
    codec: Codec | None = None
    """Between its latents and pictures; None when the latents come from elsewhere."""
    training: dict[str, Any] = field(default_factory=dict)
    """JSON-able: the configuration it was trained with."""
    codecs: dict[str, Codec] = field(default_factory=dict)
    """By modality, of a model of several; `codec` is None then."""

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
    config = {
        "schema": SCHEMA,
        "kind": saved.kind,
        "arguments": dict(saved.arguments),
        "layout": saved.model.layout.to_dict(),
        "codec": saved.codec.config if saved.codec else None,
        "codec_hash": saved.codec.hash() if saved.codec else None,
        "training": saved.training,
    }
    if saved.codecs:
        config["codecs"] = {
            name: {"config": codec.config, "hash": codec.hash()}
            for name, codec in saved.codecs.items()
        }
    weights = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in saved.model.state_dict().items()
    }
    with checkpoint.atomic_directory(Path(path)) as temporary:
        checkpoint.save_tensors(temporary / "model.safetensors", weights)
        if saved.codec:
            checkpoint.save_tensors(temporary / "codec.safetensors", saved.codec.state_dict())
        for name, codec in saved.codecs.items():
            checkpoint.save_tensors(temporary / f"codec_{name}.safetensors", codec.state_dict())
        checkpoint.write_json(temporary / "config.json", config)


def load_model(path: Path | str, device: torch.device | str = "cpu") -> SavedModel:
    """The model saved at `path`, float32, in evaluation mode.

    ValueError (expected, got, remedy) for a missing file, another schema or kind, and weights
    or codec tensors that do not fit the configuration.
    """
    path = Path(path)
    config = read_config(path)
    layout = Layout.from_dict(config["layout"])
    model = KINDS[config["kind"]](layout, **config["arguments"])
    checkpoint.load_weights(model, path / "model.safetensors")
    return SavedModel(
        model.to(device).eval(),
        config["arguments"],
        None
        if config["codec"] is None
        else _load_codec(path / "codec.safetensors", config["codec"], config["codec_hash"]),
        config["training"],
        {
            name: _load_codec(path / f"codec_{name}.safetensors", row["config"], row["hash"])
            for name, row in config.get("codecs", {}).items()
        },
    )


def read_codecs(path: Path | str, names: Collection[str]) -> dict[str, Codec]:
    """Those of `names` among the codecs of a checkpoint of several modalities, without its
    weights; refuses as `load_model` does."""
    path = Path(path)
    return {
        name: _load_codec(path / f"codec_{name}.safetensors", row["config"], row["hash"])
        for name, row in read_config(path).get("codecs", {}).items()
        if name in names
    }


def read_config(path: Path | str) -> dict[str, Any]:
    """The checked config.json of a checkpoint, without touching its weights."""
    path = Path(path)
    config = checkpoint.read_config(path, "model.safetensors and config.json")
    if not isinstance(config, Mapping) or "kind" not in config:
        raise ValueError(
            f"{path}: expected a bare model (config.json with its kind), as selfflow_wm.pretrain "
            "writes, got a checkpoint of another sort; a robot's world model is shown by "
            "python -m robotics.imagine and run by python -m eval.simpler"
        )
    if config.get("schema") != SCHEMA:
        raise ValueError(
            f"{path}: expected checkpoint schema {SCHEMA}, got {config.get('schema')}; use the "
            "version of this package that wrote it, or train again"
        )
    if set(config) - {"codecs"} != _KEYS:
        raise ValueError(
            f"{path}: expected the config.json keys {sorted(_KEYS)}, got {sorted(config)}; the "
            "file was edited?"
        )
    if config["kind"] not in KINDS:
        raise ValueError(
            f"{path}: expected a kind among {sorted(KINDS)}, got {config['kind']!r}; use the "
            "version of this package that wrote it"
        )
    return dict(config)


def _load_codec(file: Path, config: Mapping[str, Any], digest: str) -> Codec:
    codec = codec_from_state(config, checkpoint.load_tensors(file))
    if codec.hash() != digest:
        raise ValueError(
            f"{file}: expected the codec {digest[:12]} it was trained with, got "
            f"{codec.hash()[:12]}; the file belongs to another checkpoint"
        )
    return codec
