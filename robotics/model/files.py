"""A `WorldModel`'s parts in a checkpoint: the section `robot` of its config.json.

embodiment (name), statistics (normalisers of action and proprio) and their hash, video_offsets,
modes and condition_level; the rest is as in any checkpoint, see `selfflow_wm.checkpoints`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robotics.embodiment.normalize import Normalizer
from robotics.embodiment.table import EMBODIMENTS
from selfflow_wm.checkpoints import find_checkpoint, read_config
from selfflow_wm.cli import compute_device
from selfflow_wm.codec import PairedCodec, ResidualCodec
from selfflow_wm.training.model_files import load_model

_NORMALIZERS = ("action", "proprio")


def robot_section(
    embodiment: str, normalizers: Mapping[str, Normalizer], **others: Any
) -> dict[str, Any]:
    """The section as it is saved, JSON-able. normalizers: "action" and "proprio"."""
    return {
        "embodiment": embodiment,
        "statistics": {name: normalizers[name].to_dict() for name in _NORMALIZERS},
        "statistics_hash": statistics_hash(embodiment, normalizers),
        **others,
    }


def statistics_hash(embodiment: str, normalizers: Mapping[str, Normalizer]) -> str:
    """sha256 (hex) of a robot's name and its normalisers."""
    values = {name: normalizer.to_dict() for name, normalizer in normalizers.items()}
    text = json.dumps({"embodiment": embodiment, **values}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load_parts(name: Path | str, embodiment: str | None, device: str) -> dict[str, Any]:
    """The arguments of a `WorldModel` out of the checkpoint that `name` means
    (`selfflow_wm.checkpoints.find_checkpoint`), weights in float32, in evaluation mode.

    ValueError (expected, got, remedy) for a missing file, another schema, weights or codec arrays
    that do not fit the configuration, or another embodiment than `embodiment`.
    """
    path = find_checkpoint(name)
    robot = read_config(path, robot=True)["robot"]
    if robot["embodiment"] not in EMBODIMENTS:
        raise ValueError(
            f"{path}: expected an embodiment out of {sorted(EMBODIMENTS)}, got "
            f"{robot['embodiment']!r}; add its row to robotics.embodiment.table"
        )
    if embodiment is not None and robot["embodiment"] != embodiment:
        raise ValueError(
            f"{path}: expected a model for the embodiment {embodiment!r}, got one for "
            f"{robot['embodiment']!r}; its actions would be misread. Choose a checkpoint of "
            f"{embodiment!r}, or fine-tune this one on data of that robot"
        )
    normalizers = _normalizers(path, robot)
    saved = load_model(path, compute_device(device), robot=True)
    codec = saved.codecs.get("video")
    if not isinstance(codec, ResidualCodec | PairedCodec):
        raise ValueError(
            f"{path}: expected a codec of frames and the video after them, got "
            f"{codec.kind if codec else 'none'}; copy the whole checkpoint directory"
        )
    return {
        "backbone": saved.model.requires_grad_(False),
        "backbone_config": saved.arguments,
        "video_codec": codec,
        "embodiment": EMBODIMENTS[robot["embodiment"]],
        "config": saved.training,
        **normalizers,
        **{name: robot[name] for name in ("video_offsets", "modes", "condition_level")},
    }


def _normalizers(path: Path, robot: Mapping[str, Any]) -> dict[str, Normalizer]:
    """The normalisers of action and proprioception, of this checkpoint's robot and no other."""
    stored = robot["statistics"]
    if missing := sorted(set(_NORMALIZERS) - set(stored)):
        raise ValueError(
            f"{path}: expected statistics of action and proprio, {missing} missing; copy the whole "
            "checkpoint directory"
        )
    normalizers = {name: Normalizer.from_dict(stored[name]) for name in _NORMALIZERS}
    expected = robot["statistics_hash"]  # None in the oldest checkpoints
    got = statistics_hash(robot["embodiment"], normalizers)
    if expected not in (None, got):
        raise ValueError(
            f"{path}: expected the statistics {expected[:12]} the model was trained with, got "
            f"{got[:12]}; the file is of another checkpoint or was edited. Copy the whole "
            "checkpoint directory"
        )
    return normalizers
