"""The inputs of sampling: a checkpoint's model, and a decoder of its latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from selfflow_wm.data import JOINT, MODES
from selfflow_wm.interop.official import load_official
from selfflow_wm.sampling.clips import Clips
from selfflow_wm.sampling.decode import CodecDecoder, vae_decoder
from selfflow_wm.training.model_files import SavedModel, load_model


def load_checkpoint(
    path: Path, device: torch.device | str, modality: str | None = None
) -> SavedModel:
    """Load a checkpoint directory or an official file. A model of several modalities needs
    `modality`, the one to make; `codec` is then that one's."""
    if path.is_dir():
        saved = load_model(path, device)
    else:
        saved = SavedModel(load_official(path).to(device), {})
    if modality == JOINT and saved.codecs:
        return saved
    if modality is not None:
        if modality not in saved.model.layout:
            raise ValueError(
                f"--modality: expected one of {saved.model.layout.names}, got {modality!r}"
            )
        saved.codec = saved.codecs.get(modality, saved.codec)
    elif saved.codecs and len(saved.model.layout.names) > 1:
        raise ValueError(
            f"--checkpoint {path}: expected --modality for a model of {saved.model.layout.names}, "
            "got none; say which one to make"
        )
    elif len(saved.model.layout.names) != 1:
        raise ValueError(
            f"--checkpoint {path}: expected a model of images alone, got one of "
            f"{saved.model.layout.names}; it needs given modalities, which this "
            "command does not have"
        )
    return saved


def make_clips(
    saved: SavedModel,
    modality: str | None,
    fps: float | None,
    images: Sequence[Path],
    device: torch.device,
) -> Clips | None:
    """For models of several modalities that are to make video or audio; else None."""
    if saved.codecs and modality in MODES and modality != "image":
        return Clips(saved, modality, fps, images, device)
    if images or fps:
        raise ValueError(
            "--images, --fps: expected --modality video or video_audio of a model of several "
            f"modalities, got --modality {modality}; leave them out"
        )
    return None


def make_decoder(
    saved: SavedModel, modality: str | None, vae: Path | None, device: torch.device
) -> CodecDecoder | None:
    """The decoder of latents to pictures: the checkpoint's codec or `vae`; None without either."""
    layout = saved.model.layout
    image = layout.modalities[0] if modality is None else layout[modality]
    if saved.codec is not None:
        if vae is not None:
            raise ValueError("--vae: expected none for a checkpoint that has a codec; leave it out")
        if saved.codec.modality != "image":
            return None
        return CodecDecoder(saved.codec, image)
    return None if vae is None else vae_decoder(vae, image, device)
