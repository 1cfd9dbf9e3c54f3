"""What is fitted to the data before training: codecs, normalisers, and the layout they imply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robotics.dataset import WindowDataset
from robotics.embodiment import Embodiment
from robotics.latents import load_codec
from robotics.mixture import MixtureDataset, shuffled
from robotics.normalize import action_normalizer, proprio_normalizer
from robotics.world_model import WorldModel, robot_layout
from selfflow_wm.codec import PatchPCA, ResidualCodec
from selfflow_wm.model import Backbone


def fit_world(
    dataset: WindowDataset | MixtureDataset,
    config: Mapping[str, Any],
    modes: Sequence[str],
    embodiment: Embodiment,
) -> WorldModel:
    """An untrained world model whose codecs and statistics come from `dataset`.

    config: the plain dictionary of configs/finetune.yaml. With `init` set, codecs and weights
    come from that checkpoint (its layout and size must fit) and statistics from the data. With
    `latents` set, the codec is the one that made them.
    """
    if config["init"]:
        return _from_checkpoint(dataset, config, modes, embodiment)
    if config.get("latents"):
        video_codec = _cached_codec(dataset, config)
    else:
        video_codec = fit_codecs(dataset, config["codec"], config["seed"])
    layout = robot_layout(
        video_codec.base,
        video_codec,
        horizon=config["dataset"]["horizon"],
        video_offsets=config["dataset"]["video_offsets"],
        history_offsets=dataset.history_offsets,
        **config["layout"],
    )
    size = dict(config["model"])
    return WorldModel(
        Backbone(layout, **size),
        video_codec=video_codec,
        embodiment=embodiment,
        backbone_config=size,
        video_offsets=config["dataset"]["video_offsets"],
        modes=modes,
        **_normalizers(dataset, config["normalizer"]),
    )


def _from_checkpoint(
    dataset: WindowDataset | MixtureDataset,
    config: Mapping[str, Any],
    modes: Sequence[str],
    embodiment: Embodiment,
) -> WorldModel:
    source = WorldModel.load(Path(config["init"]))
    wanted = {
        "image_size": tuple(config["dataset"]["image_size"]),
        "horizon": config["dataset"]["horizon"],
        "video_offsets": tuple(config["dataset"]["video_offsets"]),
        "history_offsets": dataset.history_offsets,
    }
    got = {key: getattr(source, key) for key in wanted}
    if got != wanted:
        raise ValueError(
            f"init={config['init']}: expected a checkpoint with {wanted}, got {got}; change "
            "dataset.* to match it, or train from scratch with init=null"
        )
    return WorldModel(
        source.backbone.train().requires_grad_(True),
        video_codec=source.video_codec,
        embodiment=embodiment,
        backbone_config=source.backbone_config,
        video_offsets=source.video_offsets,
        modes=modes,
        **_normalizers(dataset, config["normalizer"]),
    )


def _cached_codec(
    dataset: WindowDataset | MixtureDataset, config: Mapping[str, Any]
) -> ResidualCodec:
    """The codec of the cached latents, if it is what the configuration asks for."""
    codec = load_codec(Path(config["latents"]))
    asked = config["codec"]
    wanted = PatchPCA(
        dataset.image_size,
        asked["patch"],
        asked["channels"],
        asked["whitening"],
        asked["per_position"],
    ).config
    wanted = {"frames": len(dataset.video_offsets), **wanted}
    got = {"frames": codec.frames, **codec.base.config}
    if got != wanted:
        raise ValueError(
            f"latents={config['latents']}: expected a codec with {wanted}, got {got}; train with "
            "the words given to python -m robotics.encode, or encode again"
        )
    return codec


def _normalizers(
    dataset: WindowDataset | MixtureDataset, config: Mapping[str, Any]
) -> dict[str, Any]:
    statistics = dataset.statistics()
    return {
        "action": action_normalizer(statistics["action"], **config),
        "proprio": proprio_normalizer(statistics["proprio"], config["kind"]),
    }


def fit_codecs(
    dataset: WindowDataset | MixtureDataset, config: Mapping[str, Any], seed: int
) -> ResidualCodec:
    """Principal components of frames drawn from `dataset`, and the scale of their changes."""
    generator = np.random.default_rng([seed, 2])
    count = min(config["fit_frames"], len(dataset))
    index = np.sort(
        shuffled(dataset, generator)[:count]
        if isinstance(dataset, MixtureDataset)
        else generator.choice(len(dataset), count, replace=False)
    )
    frames = torch.as_tensor(dataset.batch(index, video=False)["image"])
    base = PatchPCA(
        dataset.image_size,
        config["patch"],
        config["channels"],
        config["whitening"],
        config["per_position"],
        config["pack"],
    ).fit(frames, seed=seed)
    index = np.sort(shuffled(dataset, generator)[: config["fit_windows"]])
    windows = dataset.batch(index, video=True)
    whole = np.asarray(windows["video_valid"]).all(1)
    if not whole.any():
        raise ValueError(
            "expected windows with all their future frames, got none; are the episodes shorter "
            "than the last of dataset.video_offsets?"
        )
    video = torch.as_tensor(np.asarray(windows["video"])[whole])
    codec = ResidualCodec(base, frames=video.shape[1])
    return codec.fit(video, torch.as_tensor(np.asarray(windows["image"])[whole]))
