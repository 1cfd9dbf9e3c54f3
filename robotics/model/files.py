"""The checkpoint directory of a `WorldModel`: model.safetensors, config.json, statistics.*"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from robotics.data.statistics import statistics_hash
from robotics.embodiment.normalize import Normalizer
from robotics.embodiment.table import EMBODIMENTS
from robotics.model.world_model import WorldModel
from selfflow_wm.cli import compute_device
from selfflow_wm.codec import PairedCodec, ResidualCodec, codec_from_state
from selfflow_wm.files import newest_checkpoint
from selfflow_wm.layout import Layout
from selfflow_wm.model import Backbone
from selfflow_wm.training import checkpoint

SCHEMA = 1
"""Version of config.json. Raise it when a reader of the old one would misread the new one."""

_KEYS = {
    "schema",
    "embodiment",
    "layout",
    "backbone",
    "video_codec",
    "codec_hash",
    "image_size",
    "video_offsets",
    "modes",
    "condition_level",
    "training",
}


def save(world: WorldModel, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write `path` in one piece, replacing what was there. dtype: float32 or float16 weights."""
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"expected weights in float32 or float16, got {dtype}")
    config = {
        "schema": SCHEMA,
        "embodiment": world.embodiment.name,
        "layout": world.layout.to_dict(),
        "backbone": world.backbone_config,
        "video_codec": world.video_codec.config,
        "codec_hash": world.video_codec.hash(),
        "statistics_hash": statistics_hash(world.embodiment.name, _normalizers(world)),
        "image_size": list(world.image_size),
        "video_offsets": list(world.video_offsets),
        "modes": list(world.modes),
        "condition_level": world.condition_level,
        "training": world.config,
    }
    weights = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in world.backbone.state_dict().items()
    }
    with checkpoint.atomic_directory(path) as temporary:
        checkpoint.save_tensors(temporary / "model.safetensors", weights)
        checkpoint.save_tensors(
            temporary / "statistics.safetensors", world.video_codec.state_dict()
        )
        checkpoint.write_json(
            temporary / "statistics.json",
            {
                "embodiment": world.embodiment.name,
                **{name: value.to_dict() for name, value in _normalizers(world).items()},
            },
        )
        checkpoint.write_json(temporary / "config.json", config)


def _normalizers(world: WorldModel) -> dict[str, Normalizer]:
    return {"action": world.action, "proprio": world.proprio}


def load(path: Path, embodiment: str | None = None, device: str = "cpu") -> WorldModel:
    """The model saved at `path`, or of a run's directory the newest, weights in float32, in
    evaluation mode.

    ValueError (expected, got, remedy) for a missing file, another schema, weights or codec
    arrays that do not fit the configuration, or another embodiment than `embodiment`.
    """
    path = newest_checkpoint(path)
    config = read_config(path)
    if embodiment is not None and config["embodiment"] != embodiment:
        raise ValueError(
            f"{path}: expected a model for the embodiment {embodiment!r}, got one for "
            f"{config['embodiment']!r}; its actions would be misread. Choose a checkpoint of "
            f"{embodiment!r}, or fine-tune this one on data of that robot"
        )
    codec = _read_codec(path, config)
    normalizers = _read_statistics(path / "statistics.json", config)
    layout = Layout.from_dict(config["layout"])
    backbone = Backbone(layout, **config["backbone"])
    checkpoint.load_weights(backbone, path / "model.safetensors")
    return WorldModel(
        backbone.to(compute_device(device)).eval().requires_grad_(False),
        video_codec=codec,
        **normalizers,
        embodiment=EMBODIMENTS[config["embodiment"]],
        backbone_config=config["backbone"],
        video_offsets=config["video_offsets"],
        modes=config["modes"],
        condition_level=config["condition_level"],
        config=config["training"],
    )


def read_codec(path: Path) -> ResidualCodec | PairedCodec:
    """The checked codec of a checkpoint, without its weights; refuses as `load` does."""
    path = newest_checkpoint(Path(path))
    return _read_codec(path, read_config(path))


def _read_codec(path: Path, config: dict[str, Any]) -> ResidualCodec | PairedCodec:
    tensors = checkpoint.load_tensors(path / "statistics.safetensors")
    codec = codec_from_state(config["video_codec"], tensors)
    known = isinstance(codec, ResidualCodec | PairedCodec)
    if not known or codec.hash() != config["codec_hash"]:
        raise ValueError(
            f"{path}: expected the codec {config['codec_hash'][:12]} it was trained with, got "
            f"{codec.hash()[:12]}; statistics.safetensors belongs to another checkpoint"
        )
    return codec


def _read_statistics(file: Path, config: dict[str, Any]) -> dict[str, Normalizer]:
    """The normalisers of action and proprioception, of this checkpoint's robot and no other.

    Checkpoints from before the hash hold neither it nor the robot's name in statistics.json.
    """
    stored = checkpoint.read_json(file)
    if missing := {"action", "proprio"} - set(stored):
        raise ValueError(
            f"{file}: expected statistics of action and proprio, "
            f"{sorted(missing)} missing; copy the whole checkpoint directory"
        )
    robot = stored.get("embodiment", config["embodiment"])
    if robot != config["embodiment"]:
        raise ValueError(
            f"{file}: expected statistics of the embodiment {config['embodiment']!r}, got those of "
            f"{robot!r}; actions would have another scale. Copy the whole checkpoint directory"
        )
    normalizers = {name: Normalizer.from_dict(stored[name]) for name in ("action", "proprio")}
    expected = config.get("statistics_hash")
    if expected is not None and (got := statistics_hash(robot, normalizers)) != expected:
        raise ValueError(
            f"{file}: expected the statistics {expected[:12]} the model was trained with, got "
            f"{got[:12]}; the file is of another checkpoint or was edited. Copy the whole "
            "checkpoint directory"
        )
    return normalizers


def read_config(path: Path) -> dict[str, Any]:
    """The checked config.json of a checkpoint, without touching its weights."""
    path = Path(path)
    config = checkpoint.read_config(path, "model.safetensors, config.json and statistics.*")
    if not isinstance(config, dict) or "kind" in config:
        raise ValueError(
            f"{path}: expected a robot's world model, of robotics.finetune, got a checkpoint of "
            "another sort, as selfflow_wm.pretrain writes; make one of it with "
            f"python -m robotics.finetune init={path}"
        )
    if config.get("schema") != SCHEMA:
        raise ValueError(
            f"{path}: expected checkpoint schema {SCHEMA}, got {config.get('schema')}; use the "
            "version of this package that wrote it, or train again"
        )
    if missing := _KEYS - set(config):
        raise ValueError(f"{path}: config.json lacks {sorted(missing)}; the file was edited?")
    if config["embodiment"] not in EMBODIMENTS:
        raise ValueError(
            f"{path}: expected an embodiment out of {sorted(EMBODIMENTS)}, got "
            f"{config['embodiment']!r}; add its row to robotics.embodiment.table"
        )
    return config
