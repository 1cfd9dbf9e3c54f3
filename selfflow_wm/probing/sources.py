"""Where a probe's models and labelled samples come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from selfflow_wm.checkpoints import find_checkpoint, fingerprint
from selfflow_wm.layout import NULL_BYTE, Batch
from selfflow_wm.model import Backbone, SiT
from selfflow_wm.probing.features import Labelled
from selfflow_wm.training import checkpoint, model_files


def load_model(path: Path) -> Backbone | SiT:
    """The frozen network of a checkpoint, float32, in evaluation mode, on the CPU; ValueError when
    something is missing or does not fit. path: as of `checkpoints.find_checkpoint`."""
    return model_files.load_model(find_checkpoint(path), robot=None).model.requires_grad_(False)


def codec_tensor(digest: str) -> torch.Tensor:
    """The hash of a codec (hex) as a uint8 tensor, for a file of labelled latents."""
    return torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8)


def check_codec(path: Path, data: LabelledLatents) -> None:
    """ValueError when a checkpoint's codec is not the one that made the latents: its network was
    trained on other values. Where either is unknown, nothing is checked."""
    if data.codec is None:
        return
    found = model_files.codec_hash(path, data.modality)
    if found is not None and found != data.codec:
        raise ValueError(
            f"{path}: expected a checkpoint with the codec of {data.modality} {data.codec[:12]}, "
            f"which made the latents, got one with {found[:12]}; probe it with latents of its own "
            "(python -m selfflow_wm.evaluate labelled) in another --out"
        )


class LabelledLatents:
    """A safetensors file of labelled latents as batches, again and again in the same order.

    The file holds `latents` (N, tokens, C), floating point, as the checkpoint's codec makes
    them, `labels` (N,), integers of any values, and may hold `codec` (`codec_tensor`). Rows
    should not repeat: the probe splits them at random. The captions of its batches are
    placeholders, to be replaced by the null caption of whatever model sees them (`extract` with
    captions=False).

    Args:
        path: the file.
        modality: which modality of the layout the latents are.
        batch_size: rows per batch; no result depends on it but for rounding.
        limit: keep the first `limit` rows only.

    ValueError when the file is missing, broken, or holds something else.
    """

    def __init__(
        self, path: Path | str, modality: str, batch_size: int = 64, limit: int | None = None
    ) -> None:
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: expected a safetensors file of latents, got nothing there")
        tensors = checkpoint.load_tensors(path)
        if missing := {"latents", "labels"} - set(tensors):
            raise ValueError(
                f"{path}: expected the tensors latents and labels, {sorted(missing)} missing; it "
                f"holds {sorted(tensors)[:8]}"
            )
        latents, labels = tensors["latents"], tensors["labels"]
        if latents.ndim != 3 or not latents.is_floating_point():
            raise ValueError(
                f"{path}: expected floating-point latents (N, tokens, C), got {latents.dtype} "
                f"{tuple(latents.shape)}"
            )
        integer = not (labels.is_floating_point() or labels.is_complex())
        if labels.shape != latents.shape[:1] or labels.dtype == torch.bool or not integer:
            raise ValueError(
                f"{path}: expected integer labels ({len(latents)},), got {labels.dtype} "
                f"{tuple(labels.shape)}"
            )
        self.latents, self.labels = latents[:limit], labels[:limit].long()
        if not self.latents.isfinite().all():
            raise ValueError(f"{path}: expected finite latents, got nan or inf")
        if batch_size < 1 or (limit is not None and limit < 1):
            raise ValueError(f"expected batch_size and limit >= 1, got {batch_size} and {limit}")
        self.modality, self.batch_size = modality, batch_size
        self.codec = bytes(tensors["codec"].tolist()).hex() if "codec" in tensors else None
        self.sha256 = fingerprint(path)

    def __len__(self) -> int:
        return len(self.latents)

    def __iter__(self) -> Iterator[Labelled]:
        for start in range(0, len(self), self.batch_size):
            latents = self.latents[start : start + self.batch_size].float()
            yield self._batch(latents), self.labels[start : start + self.batch_size]

    def _batch(self, latents: torch.Tensor) -> Batch:
        return Batch(
            latents={self.modality: latents},
            valid={self.modality: torch.ones(latents.shape[:2], dtype=torch.bool)},
            text_ids=torch.full((len(latents), 1), NULL_BYTE),
            text_mask=torch.ones(len(latents), 1, dtype=torch.bool),
        )
