"""A `WorldModel`'s parts in a checkpoint: the section `robot` of its config.json.

`robots` (by name: `RobotModel.to_dict`), modes and condition_level; the codecs are those of the
rows "video/CAMERA", the rest is as in any checkpoint, see `selfflow_wm.checkpoints`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robotics.embodiment.normalize import Normalizer
from robotics.model.modes import KINDS, VIDEO, kind_of, row
from robotics.model.robot_model import RobotModel, VideoCodec, statistics_hash
from selfflow_wm.checkpoints import check_statistics_hash, find_checkpoint, read_config
from selfflow_wm.cli import compute_device
from selfflow_wm.codec import Codec, PairedCodec, ResidualCodec
from selfflow_wm.training.model_files import SavedModel, load_model


def robot_section(
    robots: Mapping[str, RobotModel], modes: Sequence[str], condition_level: float
) -> dict[str, Any]:
    """The section as it is saved, JSON-able."""
    return {
        "robots": {name: robot.to_dict() for name, robot in robots.items()},
        "modes": list(modes),
        "condition_level": condition_level,
    }


def codec_rows(robots: Mapping[str, RobotModel]) -> dict[str, Codec]:
    """The codecs as they are saved: by the row of the video that each is of."""
    several = len(robots) > 1
    return {
        row(VIDEO, camera, name if several else None): codec
        for name, robot in robots.items()
        for camera, codec in robot.codecs.items()
    }


def load_parts(name: Path | str, embodiment: str | None, device: str) -> dict[str, Any]:
    """The arguments of a `WorldModel` out of the checkpoint that `name` means
    (`selfflow_wm.checkpoints.find_checkpoint`), weights in float32, in evaluation mode.

    ValueError (expected, got, remedy) for a missing file, another schema, weights or codec arrays
    that do not fit the configuration, or no robot of the embodiment `embodiment` in it.
    """
    path = find_checkpoint(name)
    section = read_config(path, robot=True)["robot"]
    _check_embodiment(path, section, embodiment)
    saved = load_model(path, compute_device(device), robot=True)
    return {
        "backbone": saved.model.requires_grad_(False),
        "robots": _robots(path, section, saved),
        "backbone_config": saved.arguments,
        "config": saved.training,
        "modes": section["modes"],
        "condition_level": section["condition_level"],
    }


def _check_embodiment(path: Path, section: Mapping[str, Any], wanted: str | None) -> None:
    found = [_embodiment(one["table"]) for one in section["robots"].values()]
    if wanted is not None and wanted not in found:
        known = ", ".join(repr(one) for one in found)
        raise ValueError(
            f"{path}: expected a model for the embodiment {wanted!r}, got one for {known}; its "
            f"actions would be misread. Choose a checkpoint of {wanted!r}, or fine-tune this one "
            "on data of that robot"
        )


def _embodiment(table: Mapping[str, Any] | str) -> str:
    """Of a table's content, or of the name of a shipped one of an earlier schema."""
    return table if isinstance(table, str) else table.get("embodiment") or table["name"]


def _robots(path: Path, section: Mapping[str, Any], saved: SavedModel) -> dict[str, RobotModel]:
    found, several = {}, len(section["robots"]) > 1
    for name, content in section["robots"].items():
        codecs = {
            camera: _codec(path, saved, row(VIDEO, camera, name if several else None))
            for camera in content["image_sizes"]
        }
        try:
            robot = RobotModel.from_dict(content, codecs, section["modes"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None
        stored = {key: Normalizer.from_dict(one) for key, one in content["statistics"].items()}
        got = statistics_hash(robot.robot.embodiment, stored)
        check_statistics_hash(path, content["statistics_hash"], got)
        found[name] = robot
    names = saved.model.layout.names
    if unknown := sorted({kind_of(one) for one in names} - set(KINDS)):
        raise ValueError(
            f"{path}: expected rows of {', '.join(KINDS)}, got {', '.join(unknown)}; use the "
            "version of this package that wrote it"
        )
    return found


def _codec(path: Path, saved: SavedModel, name: str) -> VideoCodec:
    codec = saved.codecs.get(name)
    if not isinstance(codec, ResidualCodec | PairedCodec):
        raise ValueError(
            f"{path}: expected a codec of frames and the video after them for {name}, got "
            f"{codec.kind if codec else 'none'}; copy the whole checkpoint directory"
        )
    return codec
