"""Small runs on the toy world, what a trainer holds, and how waiting for a GPU is caught."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from selfflow_wm.training import checkpoint

TOY = (
    "experiment=toy_multimodal",
    "toy.world.height=32",
    "toy.world.width=32",
    "codec.image.patch=8",
    "codec.video.patch=8",
    "toy.world.frames=5",
    "codec.video.channels=64",
    "model.width=24",
    "model.heads=2",
    "model.single=2",
    "fit_samples=8",
    "trainer.validation_batches=1",
    "device=cpu",
    "log.wandb=disabled",
)
"""Overrides that make experiment=toy_multimodal small; modes and sounds are left to add."""

ALL_MODES = (
    "codec.audio.samples=3200",
    *(f"modes.{kind}.batch_size=2" for kind in ("image", "video", "audio", "video_audio")),
)


def everything(trainer) -> dict[str, torch.Tensor]:
    """Copies of all tensors that decide how a training continues."""
    parts = {
        "model": trainer.model.state_dict(),
        "ema": trainer.ema.model.state_dict(),
        "extra": trainer.extra.state_dict(),
        "optimizer": checkpoint.optimizer_tensors(trainer.optimizer),
        "rng": trainer._rng(),
    }
    return {f"{part}/{k}": v.clone() for part, values in parts.items() for k, v in values.items()}


@contextmanager
def no_waiting():
    """Raises where the host waits for the GPU; so does a copy from pageable memory."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
