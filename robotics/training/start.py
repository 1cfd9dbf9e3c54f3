"""A checkpoint to start from, and which of its codecs a robot's cameras take over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robotics.data.batches import Dataset
from robotics.model.modes import IMAGE, VIDEO, camera_of, kind_of, robot_of, row
from robotics.model.robot_model import RobotModel, VideoCodec
from robotics.model.world_model import WorldModel
from robotics.training.fit import asked_codecs, cached_codecs, check_cacheable, fit_codecs
from selfflow_wm.checkpoints import find_checkpoint, read_config
from selfflow_wm.codec import Codec, PairedCodec, ResidualCodec, codec_from_state
from selfflow_wm.layout import Layout
from selfflow_wm.nesting import flattened
from selfflow_wm.training.model_files import read_codecs

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
    """By row: those of images and video that it has."""
    training: dict[str, Any]
    robots: dict[str, RobotModel]
    """Of a world model, by name."""
    modes: tuple[str, ...]
    """Of a world model: those it was trained in."""

    def robot(self, name: str) -> str:
        """The robot that a row belongs to; "" in a checkpoint without robots."""
        return robot_of(name) or next(iter(self.robots), "")


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
    world = WorldModel.load(path) if config["robot"] else None
    return InitCheckpoint(
        path,
        run,
        "robotics.finetune" if config["robot"] else "selfflow_wm.pretrain",
        Layout.from_dict(config["layout"]),
        config["arguments"],
        {n: c for n, c in read_codecs(path).items() if kind_of(n) in (IMAGE, VIDEO)},
        config["training"] or {},
        world.robots if world else {},
        world.modes if world else (),
    )


def row_beside(name: str, kind: str) -> str:
    """The row of this kind beside a row of image or video."""
    return name if kind_of(name) == kind else row(kind, camera_of(name), robot_of(name))


def codecs_of(
    source: InitCheckpoint, robot: str, dataset: Dataset, config: Mapping[str, Any]
) -> tuple[dict[str, VideoCodec], dict[str, str], dict[str, str]]:
    """A robot's codecs by camera; by row of image or video, where each comes from in words and, of
    those that are the checkpoint's, its row there."""
    check_cacheable(config)
    asked = asked_codecs(dataset, config["codec"])
    ready: dict[str, dict[str, Codec]] = {}
    words: dict[str, str] = {}
    taken: dict[str, str] = {}
    for camera, wanted in asked.items():
        ready[camera], said, rows = _adopted(source, robot, camera, wanted)
        words |= {row(kind, camera): text for kind, text in said.items()}
        taken |= {row(kind, camera): name for kind, name in rows.items()}
    if len(taken) < len(words) and config.get("latents"):
        codecs: dict[str, VideoCodec] = {**cached_codecs(dataset, config)}
        return codecs, dict.fromkeys(words, f"that of latents={config['latents']}"), {}
    codecs = fit_codecs(dataset, config["codec"], config["seed"], ready)
    for camera, codec in codecs.items():
        name = row(IMAGE, camera)
        if name in taken and codec.base.state_dict():
            words[name] += _suits(codec, dataset, camera)
    return codecs, words, taken


def _adopted(
    source: InitCheckpoint, robot: str, camera: str, wanted: Mapping[str, Codec]
) -> tuple[dict[str, Codec], dict[str, str], dict[str, str]]:
    """A camera's codecs that are the checkpoint's, by kind: codec, words on it, its row there. The
    first that fits is taken, those of the same robot and camera before others."""
    codecs: dict[str, Codec] = {}
    words: dict[str, str] = {}
    rows: dict[str, str] = {}

    def nearness(name: str) -> tuple[bool, bool]:
        return source.robot(name) != robot, camera_of(name) != camera

    for kind, codec in wanted.items():
        names = sorted((n for n in source.codecs if kind_of(n) == kind), key=nearness)
        words[kind] = "new: the checkpoint has none"
        for name in names:
            try:
                codecs[kind] = adopt(codec, source.codecs[name])
            except ValueError as error:
                if name == names[0]:
                    words[kind] = f"new: {error}"
                continue
            rows[kind] = name
            same = f", of {name}" if len(names) > 1 else ""
            words[kind] = f"the checkpoint's, {codecs[kind].kind}{same}"
            break
    video = codecs.get(VIDEO)
    if isinstance(video, ResidualCodec):  # it contains the image codec of the same camera
        codecs[IMAGE], rows[IMAGE] = video.base, row_beside(rows[VIDEO], IMAGE)
        words[IMAGE] = words[VIDEO].replace(video.kind, video.base.kind)
    return codecs, words, rows


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
    ours, theirs = (flattened(codec.identity(), ".") for codec in (asked, found))
    # A mean picture is of one frame size.
    placed = any(v is True for n, v in ours.items() if n.endswith("per_position"))
    free = _FREE - {"image_size"} if placed else _FREE
    return [
        f"{name} {ours.get(name)}, the checkpoint's {theirs.get(name)}"
        for name in dict.fromkeys([*ours, *theirs])
        if name.rpartition(".")[2] not in free and ours.get(name) != theirs.get(name)
    ]


def _suits(
    codec: ResidualCodec | PairedCodec, dataset: Dataset, camera: str, count: int = 64
) -> str:
    """How well a codec fitted to other pictures suits these: latents should have mean 0 and
    variance 1, and no model can learn the detail that the codec loses."""
    index = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long().numpy()
    frames = torch.as_tensor(dataset.batch(index, video=False)[f"image/{camera}"])
    latents = codec.base.encode(frames)
    error = (codec.base.decode(latents).float() - frames.float()).square().mean()
    return (
        f"; on these data its latents have mean {float(latents.mean()):.2f} and variance "
        f"{float(latents.var()):.2f}, and it restores pictures at "
        f"{float(10 * torch.log10(255**2 / error.clamp(min=1e-9))):.1f} dB PSNR"
    )
