"""What is fitted to the data before training: codecs, normalisers, and the layout they imply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robotics.data.batches import Dataset
from robotics.data.cache.latents import load_codec
from robotics.data.mixture import DatasetMixture, shuffled
from robotics.embodiment.normalize import action_normalizer, proprio_normalizer
from robotics.embodiment.table import Embodiment
from robotics.model.layout import robot_layout
from robotics.model.modes import ACTION, MODES, VIDEO
from robotics.model.world_model import WorldModel
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


def fit_world(
    dataset: Dataset, config: Mapping[str, Any], modes: Sequence[str], embodiment: Embodiment
) -> WorldModel:
    """An untrained world model whose codecs and statistics come from `dataset`.

    config: the plain dictionary of configs/finetune.yaml; its `init` is for
    `robotics.training.warm_start`. With `latents` set, the codec is the one that made them.
    """
    if config.get("latents"):
        codec: ResidualCodec | PairedCodec = cached_codec(dataset, config)
    else:
        codec = fit_codecs(dataset, config["codec"], config["seed"])
    return assemble(dataset, config, modes, embodiment, codec)


def assemble(
    dataset: Dataset,
    config: Mapping[str, Any],
    modes: Sequence[str],
    embodiment: Embodiment,
    codec: ResidualCodec | PairedCodec,
) -> WorldModel:
    """An untrained world model with this codec and the statistics of `dataset`."""
    size = dict(config["model"])
    layout = layout_of(config, codec.base, codec, modes, dataset.history_offsets)
    return WorldModel(
        Backbone(layout, **size),
        video_codec=codec,
        embodiment=embodiment,
        backbone_config=size,
        video_offsets=config["dataset"]["video_offsets"],
        modes=modes,
        **_normalizers(dataset, config["normalizer"]),
    )


def layout_of(
    config: Mapping[str, Any],
    image_codec: Any,
    video_codec: Any,
    modes: Sequence[str],
    history_offsets: Sequence[int],
) -> Layout:
    """The table of modalities of a configuration and its codecs, see `robot_layout`.

    ValueError for future frames later than the actions in a mode that is given one of them.
    """
    horizon, offsets = config["dataset"]["horizon"], config["dataset"]["video_offsets"]
    for name in modes:
        if max(offsets, default=0) > horizon and {ACTION, VIDEO} & set(MODES[name].given):
            raise ValueError(
                f"modes.{name}: expected dataset.video_offsets within the chunk of {horizon} "
                f"actions, got frames up to {max(offsets)}; what leads to them is not in the "
                f"window. Leave the mode out with modes.{name}=null or ~modes.{name}"
            )
    return robot_layout(
        image_codec,
        video_codec,
        horizon=horizon,
        video_offsets=offsets,
        history_offsets=history_offsets,
        **config["layout"],
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


def fit_codecs(
    dataset: Dataset,
    config: Mapping[str, Any],
    seed: int,
    taken: Mapping[str, Codec] | None = None,
) -> ResidualCodec | PairedCodec:
    """The codecs of the current and of the future frames, fitted where they need it.

    config: see `unfitted_codecs`. taken: "image" or "video" -> a codec that is already fitted.
    """
    codecs = unfitted_codecs(config, dataset.image_size, len(dataset.video_offsets))
    ready = dict(taken or {})
    generator = np.random.default_rng([seed, 2])
    count = min(config["fit_frames"], len(dataset))
    index = np.sort(
        shuffled(dataset, generator)[:count]
        if isinstance(dataset, DatasetMixture)
        else generator.choice(len(dataset), count, replace=False)
    )
    image: Any = ready.get("image", codecs["image"])
    if "image" not in ready and isinstance(image, PatchPCA | TAEFlux2):
        frames = torch.as_tensor(dataset.batch(index, video=False)["image"])
        image.fit(frames, seed=seed) if isinstance(image, PatchPCA) else image.fit(frames)
    index = np.sort(shuffled(dataset, generator)[: config["fit_windows"]])
    video: Any = ready.get("video", codecs["video"])
    if "video" not in ready and isinstance(video, ResidualCodec):
        clips, current = _whole_windows(dataset, index)
        video = ResidualCodec(image, frames=clips.shape[1]).fit(clips, current)
    elif "video" not in ready and isinstance(video, PatchVideo):
        video.fit(_whole_windows(dataset, index)[0], seed=seed)
    return video if isinstance(video, ResidualCodec) else PairedCodec(image, video)


def _whole_windows(dataset: Dataset, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Future (n, F, H, W, 3) and current frames (n, H, W, 3) of the windows that have them all."""
    windows = dataset.batch(index, video=True)
    whole = np.asarray(windows["video_valid"]).all(1)
    if not whole.any():
        raise ValueError(
            "expected windows with all their future frames, got none; are the episodes shorter "
            "than the last of dataset.video_offsets?"
        )
    clips, current = (np.asarray(windows[name])[whole] for name in ("video", "image"))
    return torch.as_tensor(clips), torch.as_tensor(current)


def cached_codec(dataset: Dataset, config: Mapping[str, Any]) -> ResidualCodec:
    """The codec of the cached latents, if it is what the configuration asks for."""
    check_cacheable(config)
    codec = load_codec(Path(config["latents"]))
    asked = unfitted_codecs(config["codec"], dataset.image_size, len(dataset.video_offsets))
    wanted, got = asked["video"].config, codec.config
    if got != wanted:
        raise ValueError(
            f"latents={config['latents']}: expected a codec with {wanted}, got {got}; train with "
            "the overrides given to python -m robotics.encode, or encode again"
        )
    return codec


def check_cacheable(config: Mapping[str, Any]) -> None:
    """ValueError for `latents` with codecs whose latents cannot be cached."""
    if config.get("latents") and "video" in config["codec"]:
        raise ValueError(
            f"latents={config['latents']}: expected the codec of single frames that latents are "
            "written with (codec=patch_pca), got one of clips; train from the pixels, with "
            "latents=null"
        )


def _normalizers(dataset: Dataset, config: Mapping[str, Any]) -> dict[str, Any]:
    statistics = dataset.statistics()
    return {
        "action": action_normalizer(statistics["action"], **config),
        "proprio": proprio_normalizer(statistics["proprio"], config["kind"]),
    }
