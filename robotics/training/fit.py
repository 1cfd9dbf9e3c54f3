"""What is fitted to the data before training: codecs, normalisers, and the layout they imply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robotics.data.batches import Dataset
from robotics.data.cache.latents import load_codec, read_key
from robotics.data.mixture import DatasetMixture, shuffled
from robotics.data.sources import WINDOW
from robotics.embodiment.coding import Coder
from robotics.embodiment.normalize import Normalizer, Quantiles
from robotics.model.layout import RobotRows, robot_layout
from robotics.model.modes import ACTION, KINDS, MODES, VIDEO, rows_of
from robotics.model.robot_model import GROUPS, RobotModel, VideoCodec, first_values
from robotics.model.world_model import WorldModel
from robotics.training.texts import text_length
from selfflow_wm.codec import (
    Codec,
    PairedCodec,
    PatchPCA,
    PatchVideo,
    ResidualCodec,
    TAEFlux2,
    codec_from_config,
)
from selfflow_wm.layout import Layout
from selfflow_wm.model import Backbone

Codecs = Mapping[str, VideoCodec]
"""By camera."""
Taken = Mapping[str, Mapping[str, Codec]]
"""Camera -> "image" or "video" -> a codec that is already fitted."""


def by_robot(dataset: Dataset) -> dict[str, Dataset]:
    """The windows of each robot by its name, in the order of the data."""
    return {name: dataset.of_robot(name) for name in dataset.robots}


def fit_world(dataset: Dataset, config: Mapping[str, Any], modes: Sequence[str]) -> WorldModel:
    """An untrained world model whose codecs and statistics come from `dataset`.

    config: the plain dictionary of configs/finetune.yaml; its `init` is for
    `robotics.training.warm_start`. With `latents` set, the codec is the one that made them.
    """
    robots = {}
    for name, part in by_robot(dataset).items():
        if config.get("latents"):
            codecs: Codecs = cached_codecs(part, config)
        else:
            codecs = fit_codecs(part, config["codec"], config["seed"])
        robots[name] = robot_model(part, config, modes, codecs)
    return assemble(robots, config, modes, text_length(dataset, config["layout"]["text_length"]))


def robot_model(
    dataset: Dataset, config: Mapping[str, Any], modes: Sequence[str], codecs: Codecs
) -> RobotModel:
    """A robot with these codecs and the statistics of `dataset`, its windows."""
    coder = Coder(dataset.robot, terminate=config["layout"]["terminate"])
    model = RobotModel(
        dataset.robot,
        coder,
        _normalizers(dataset.statistics(), coder, config["normalizer"]),
        codecs,
        dataset.horizon,
        tuple(dataset.video_offsets),
        tuple(dataset.history_offsets),
    )
    return model.trained_in(modes)


def assemble(
    robots: Mapping[str, RobotModel],
    config: Mapping[str, Any],
    modes: Sequence[str],
    text_length: int,
) -> WorldModel:
    """An untrained world model of these robots."""
    rows = rows_of_robots(robots, config)
    return network_of(robots, layout_of(config, rows, modes, text_length), config, modes)


def rows_of_robots(
    robots: Mapping[str, RobotModel], config: Mapping[str, Any]
) -> dict[str, RobotRows]:
    """What the rows of each robot follow from."""
    past = {name: past_frames(window_settings(config, name)) for name in robots}
    return {name: robot.rows(past[name]) for name, robot in robots.items()}


def network_of(
    robots: Mapping[str, RobotModel],
    layout: Layout,
    config: Mapping[str, Any],
    modes: Sequence[str],
) -> WorldModel:
    """An untrained world model of these robots with this layout."""
    size = backbone_arguments(config["model"], layout)
    return WorldModel(Backbone(layout, **size), robots, backbone_config=size, modes=modes)


def backbone_arguments(config: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """`model` of a configuration with the rows of the layout for the kinds in `vector_in`; a robot
    that has no such row goes without."""
    size = dict(config)
    named = size.get("vector_in", ())
    if unknown := sorted(set(named) - {*KINDS, "text"}):
        raise ValueError(
            f"model.vector_in: expected some of {', '.join(KINDS)} and text, got "
            f"{', '.join(unknown)}; write model.vector_in=[state,text]"
        )
    if named:
        rows = [[kind] if kind == "text" else rows_of((kind,), layout.names) for kind in named]
        size["vector_in"] = [name for one in rows for name in one]
    return size


def window_settings(config: Mapping[str, Any], robot: str) -> dict[str, Any]:
    """The section `dataset` as it is for a robot: the first of its sets in a mixture may state
    others."""
    settings, sets = dict(config["dataset"]), config.get("data")
    for entry in sets.values() if isinstance(sets, Mapping) else ():
        table = entry.get("spec")
        if isinstance(table, Mapping) and table["name"] == robot:
            stated = {name: entry[name] for name in WINDOW if entry.get(name) is not None}
            return settings | stated
    return settings


def past_frames(settings: Mapping[str, Any]) -> dict[str, int]:
    """Past frames of the cameras whose `dataset.cameras` states their number."""
    stated = settings.get("cameras")
    rows = stated.items() if isinstance(stated, Mapping) else ()
    counts = {str(name): (row or {}).get("history") for name, row in rows}
    return {name: int(count) for name, count in counts.items() if count is not None}


def layout_of(
    config: Mapping[str, Any],
    robots: Mapping[str, RobotRows],
    modes: Sequence[str],
    text_length: int,
    several: bool | None = None,
) -> Layout:
    """The table of modalities of a configuration and its robots, see `robot_layout`.

    ValueError for future frames later than the actions in a mode that is given one of them.
    """
    for robot in robots.values():
        check_windows(robot, modes)
    settings = dict(config["layout"])
    for name in ("terminate", "text_length"):
        settings.pop(name, None)
    return robot_layout(robots, text_length=text_length, several=several, **settings)


def check_windows(robot: RobotRows, modes: Sequence[str]) -> None:
    """ValueError for future frames later than the actions in a mode that is given one of them."""
    latest = max(robot.video_offsets, default=0)
    for name in modes if robot.action_width else ():
        if latest > robot.horizon and {ACTION, VIDEO} & set(MODES[name].given):
            raise ValueError(
                f"modes.{name}: expected dataset.video_offsets within the chunk of {robot.horizon} "
                f"actions, got frames up to {latest}; what leads to them is not in the "
                f"window. Leave the mode out with modes.{name}=null or ~modes.{name}"
            )


def unfitted_codecs(
    config: Mapping[str, Any], image_size: Sequence[int], frames: int
) -> dict[str, Codec]:
    """The codecs that a configuration asks for, "image" and "video"; not fitted yet.

    config: either the arguments of a `PatchPCA`, future frames being coded relative to the current
    one, or "image" and "video", each the arguments of a codec with its "kind". Sizes are given.
    """
    size = [int(side) for side in image_size]
    if "video" not in config:
        names = ("patch", "channels", "whitening", "per_position", "pack")
        base = PatchPCA(size, **{name: config[name] for name in names})
        return {"image": base, "video": ResidualCodec(base, frames)}
    found: dict[str, Codec] = {}
    for name, sizes in (("image", {}), ("video", {"frames": frames})):
        try:
            found[name] = codec_from_config({**config[name], "image_size": size, **sizes})
        except ValueError as error:
            raise ValueError(f"codec.{name}: {error}") from None
    return found


def asked_codecs(dataset: Dataset, config: Mapping[str, Any]) -> dict[str, dict[str, Codec]]:
    """Camera -> `unfitted_codecs`. Cameras of one size share those that need no fitting."""
    found: dict[str, dict[str, Codec]] = {}
    ready: dict[tuple[int, ...], dict[str, Codec]] = {}
    frames = len(dataset.video_offsets)
    if not frames:
        raise ValueError(
            "dataset.video_offsets: expected at least one future frame, got none; write "
            "dataset.video_offsets=[1], which costs nothing where no mode shows it"
        )
    for camera, size in dataset.image_sizes.items():
        codecs = ready.get(tuple(size)) or unfitted_codecs(config, size, frames)
        if not any(isinstance(codec, _FITTED) for codec in codecs.values()):
            ready[tuple(size)] = codecs
        found[camera] = codecs
    return found


_FITTED = (PatchPCA, TAEFlux2, ResidualCodec, PatchVideo)


def fit_codecs(
    dataset: Dataset, config: Mapping[str, Any], seed: int, taken: Taken | None = None
) -> dict[str, VideoCodec]:
    """The codecs of each camera's current and future frames, fitted where they need it.

    config: see `unfitted_codecs`. taken: what is fitted already.
    """
    asked, ready = asked_codecs(dataset, config), taken or {}
    generator = np.random.default_rng([seed, 2])
    count = min(config["fit_frames"], len(dataset))
    frames_of = np.sort(
        shuffled(dataset, generator)[:count]
        if isinstance(dataset, DatasetMixture)
        else generator.choice(len(dataset), count, replace=False)
    )
    windows_of = np.sort(shuffled(dataset, generator)[: config["fit_windows"]])
    found: dict[str, dict[str, Any]] = {}
    for camera, codecs in asked.items():
        found[camera] = codecs | dict(ready.get(camera, {}))
    fresh = {c: [n for n in codecs if n not in ready.get(c, {})] for c, codecs in asked.items()}
    if any("image" in n and isinstance(asked[c]["image"], PatchPCA | TAEFlux2)
           for c, n in fresh.items()):  # fmt: skip
        frames = dataset.batch(frames_of, video=False)
        for camera, names in fresh.items():
            if "image" in names:
                _fit_image(found[camera]["image"], _there(frames, f"image/{camera}", camera), seed)
    if any("video" in n and isinstance(asked[c]["video"], ResidualCodec | PatchVideo)
           for c, n in fresh.items()):  # fmt: skip
        windows = dataset.batch(windows_of, video=True)
        for camera, names in fresh.items():
            if "video" in names:
                image, video = found[camera]["image"], found[camera]["video"]
                found[camera]["video"] = _fit_video(image, video, windows, camera, seed)
    return {
        camera: c["video"]
        if isinstance(c["video"], ResidualCodec)
        else PairedCodec(c["image"], c["video"])
        for camera, c in found.items()
    }


def _fit_image(codec: Any, frames: torch.Tensor, seed: int) -> None:
    if isinstance(codec, PatchPCA):
        codec.fit(frames, seed=seed)
    elif isinstance(codec, TAEFlux2):
        codec.fit(frames)


def _fit_video(image: Any, video: Any, windows: Mapping[str, Any], camera: str, seed: int) -> Any:
    whole = np.asarray(windows["video_valid"]).all(1)
    whole &= np.asarray(windows.get(f"camera_valid/{camera}", True))
    if not isinstance(video, ResidualCodec | PatchVideo):
        return video
    if not whole.any():
        raise ValueError(
            f"camera {camera}: expected windows with all their future frames, got none; are the "
            "episodes shorter than the last of dataset.video_offsets?"
        )
    clips, current = (
        torch.as_tensor(np.asarray(windows[f"{name}/{camera}"])[whole])
        for name in ("video", "image")
    )
    if isinstance(video, ResidualCodec):
        return ResidualCodec(image, frames=clips.shape[1]).fit(clips, current)
    return video.fit(clips, seed=seed)


def _there(samples: Mapping[str, Any], key: str, camera: str) -> torch.Tensor:
    """The frames of the samples in which the camera is present."""
    frames = np.asarray(samples[key])
    there = samples.get(f"camera_valid/{camera}")
    if there is not None:
        frames = frames[np.asarray(there)]
        if not len(frames):
            raise ValueError(
                f"camera {camera}: expected it in some of the episodes, got none with it; leave it "
                "out of dataset.cameras"
            )
    return torch.as_tensor(frames)


def cached_codecs(dataset: Dataset, config: Mapping[str, Any]) -> dict[str, ResidualCodec]:
    """The codecs of the cached latents by camera, if they are what the configuration asks for."""
    check_cacheable(config)
    directory = Path(config["latents"])
    read_key(directory, dataset.robot.recorded_cameras(tuple(dataset.image_sizes)))
    found = {}
    for camera, asked in asked_codecs(dataset, config["codec"]).items():
        found[camera] = load_codec(directory, camera)
        wanted, got = asked["video"].config, found[camera].config
        if got != wanted:
            raise ValueError(
                f"latents={directory}: expected a codec of camera {camera} with {wanted}, got "
                f"{got}; train with the overrides given to python -m robotics.encode, or encode "
                "again"
            )
    return found


def check_cacheable(config: Mapping[str, Any]) -> None:
    """ValueError for `latents` with codecs whose latents cannot be cached."""
    if config.get("latents") and "video" in config["codec"]:
        raise ValueError(
            f"latents={config['latents']}: expected the codec of single frames that latents are "
            "written with (codec=patch_pca), got one of clips; train from the pixels, with "
            "latents=null"
        )


def _normalizers(
    statistics: Mapping[str, Quantiles], coder: Coder, config: Mapping[str, Any]
) -> dict[str, Normalizer]:
    """Of the state and of actions, where there are any."""
    found = {}
    for group in GROUPS:
        fields = coder.fields(group)
        if not fields:
            continue
        # The data may hold what ends a sub-task, the last value, and the model not.
        values = first_values(statistics[group], len(fields))
        found[group] = Normalizer.of_fields(
            values, fields, config["kind"], config["rotation_floor"]
        )
    return found
