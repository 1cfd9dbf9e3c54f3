"""Frozen encoders of the clean input, whose features REPA aligns the student with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from selfflow_wm.devices import to_device
from selfflow_wm.layout import Batch, Layout

Pixels = Callable[[Batch, str], UInt8[Tensor, "B T H W 3"] | None]
"""The frames that a modality's clean latents stand for; None when it is not visual."""


class Encoder(Protocol):
    """Per-token features of clean input. Frozen: it has no gradient and is in no checkpoint."""

    width: int
    """Channels of its features."""

    def __call__(self, layout: Layout, batch: Batch) -> dict[str, Float[Tensor, "B n width"]]:
        """Features of every token of those generated modalities that it can encode."""
        ...

    def bind(self, pixels: Pixels) -> None:
        """Give it the way from latents to frames, before the first call."""
        ...


class RandomProjection:
    """tanh of a fixed random projection of the clean latents: a deterministic stand-in.

    Its features contain what the clean token holds and nothing more, so it separates the effect of
    pulling clean information into an early layer from that of a good encoder's features.

    width: channels of the features. seed: of the projection, one per modality.
    """

    def __init__(self, width: int = 64, seed: int = 0) -> None:
        if width < 1:
            raise ValueError(f"expected width >= 1, got {width}")
        self.width, self.seed = width, seed
        self._weights: dict[tuple[str, int], Tensor] = {}

    def bind(self, pixels: Pixels) -> None:
        """Nothing to do: it reads latents."""

    @torch.no_grad()
    def __call__(self, layout: Layout, batch: Batch) -> dict[str, Tensor]:
        return {
            name: torch.tanh(batch.latents[name].float() @ self._weight(layout, name, batch))
            for name in layout.present(batch.generated)
        }

    def _weight(self, layout: Layout, name: str, batch: Batch) -> Float[Tensor, "C width"]:
        key = (name, layout[name].channels)
        if key not in self._weights:
            # Of the modality's name, so that its features do not depend on the rest of a batch.
            generator = torch.Generator().manual_seed(self.seed + crc32(name.encode()))
            weight = torch.randn(key[1], self.width, generator=generator)
            self._weights[key] = weight / key[1] ** 0.5
        return to_device(self._weights[key], batch.latents[name].device)


class DINOv2:
    """Patch features of a frozen DINOv2 (REPA, arXiv 2410.06940) from weights on disk.

    Every frame is resized so that one 14-pixel patch falls on each token of the modality's
    (H, W) grid; the grid's T must be the number of frames. Modalities that are not visual get no
    features. The frames are the codec's reconstruction of the clean latents.

    path: directory of a DINOv2 model in the format of transformers (config.json and weights);
    nothing is downloaded. width: its hidden size (384 small, 768 base, 1024 large).
    Needs the `repa` extra.
    """

    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, path: Path | str | None, width: int = 768) -> None:
        if path is None or not (Path(path) / "config.json").is_file():
            raise ValueError(
                f"DINOv2: expected the directory of its weights (config.json and "
                f"model.safetensors), got {path}; set objective.encoder.path, or use "
                "objective/encoder=random_projection"
            )
        try:
            from transformers import AutoModel
        except ImportError as error:
            raise ValueError(
                "DINOv2: expected the package transformers, found none; "
                'install it with: pip install "selfflow-wm[repa]"'
            ) from error
        self.model: Any = AutoModel.from_pretrained(str(path), local_files_only=True)
        self.model.eval().requires_grad_(False)
        self.width = width
        if self.model.config.hidden_size != width:
            raise ValueError(
                f"DINOv2: expected hidden size {width}, got {self.model.config.hidden_size} in "
                f"{path}; set objective.encoder.width to it"
            )
        self._pixels: Pixels | None = None

    def bind(self, pixels: Pixels) -> None:
        """`pixels` decodes the clean latents to frames."""
        self._pixels = pixels

    @torch.no_grad()
    def __call__(self, layout: Layout, batch: Batch) -> dict[str, Tensor]:
        if self._pixels is None:
            raise ValueError(
                "DINOv2: expected a way from latents to frames, got none; call bind(pixels)"
            )
        features = {}
        for name in layout.present(batch.generated):
            frames = self._pixels(batch, name)
            if frames is not None:
                features[name] = self._encode(frames, layout[name].grid)
        return features

    def _encode(
        self, frames: UInt8[Tensor, "B T H W 3"], grid: tuple[int, int, int]
    ) -> Float[Tensor, "B n width"]:
        count, height, width = grid
        if frames.shape[1] != count:
            raise ValueError(
                f"DINOv2: expected {count} frames, one per step of the token grid {grid}, got "
                f"{frames.shape[1]}; REPA needs a codec that does not compress time"
            )
        patch = self.model.config.patch_size
        images = rearrange(frames, "b t h w c -> (b t) c h w").float() / 255.0
        images = F.interpolate(
            images,
            size=(height * patch, width * patch),
            mode="bicubic",
            align_corners=False,
            antialias=True,
        )
        mean, std = (
            to_device(torch.tensor(x)[:, None, None], images.device) for x in (self.MEAN, self.STD)
        )
        hidden = self.model.to(images.device)(pixel_values=(images - mean) / std).last_hidden_state
        patches = hidden[:, -height * width :]  # after the class token and any registers
        return rearrange(patches, "(b t) n d -> b (t n) d", t=count)
