"""Labelled latents of the toy world, for probes (`evaluate labelled`)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from selfflow_wm.cli import run_evaluate
from selfflow_wm.data import JOINT, MODES
from selfflow_wm.data.toy import ToyWorld
from selfflow_wm.data.toy.source import RENDERED, as_sample
from selfflow_wm.evaluation.checkpoints import Entry, open_checkpoint
from selfflow_wm.files import atomic_file
from selfflow_wm.probing.sources import codec_tensor
from selfflow_wm.progress import Progress
from selfflow_wm.training import checkpoint

SPLIT = "validation"
"""No seed of training's; the words and pairs of attributes are training's own."""
BATCH = 50


def modality_of(kind: str) -> str:
    """The modality that shows a kind of the toy world. ValueError for a kind without one of its own
    (contacts are seen and heard together)."""
    for mode, kinds in RENDERED.items():
        if kind in kinds and mode != JOINT:
            return mode
    known = [kind for mode, kinds in RENDERED.items() if mode != JOINT for kind in kinds]
    raise ValueError(f"expected a kind of {known}, got {kind!r}")


def labelled_latents(
    entry: Entry, kind: str, label: str, count: int, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """`latents` (N, tokens, C) float32 and `labels` (N,) int64 of the first `count` renderings, and
    `codec`, see `probing.sources.codec_tensor`.

    Raises:
        ValueError: a kind or label that the toy world lacks, or a modality that the checkpoint
            does.
    """
    modality = modality_of(kind)
    _, encoder = open_checkpoint(entry, device)
    if modality not in encoder.codecs:
        raise ValueError(
            f"{entry.path}: expected a model of {modality}, which shows {kind}, got one of "
            f"{', '.join(encoder.codecs)}; probe another kind"
        )
    world, latents, values = ToyWorld(entry.world), [], []
    with Progress(count, description=f"rendering {kind}", unit="sample") as progress:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            samples = [world.sample(kind, world.seed(SPLIT, number)) for number in numbers]
            known = samples[0].truth.labels
            if label not in known:
                raise ValueError(f"expected a label of {kind} out of {list(known)}, got {label!r}")
            batch = encoder([as_sample(one, entry.world) for one in samples], MODES[modality])
            latents.append(batch.latents[modality].float().cpu())
            values += [sample.truth.labels[label] for sample in samples]
            progress.advance(len(values))
    names = sorted(set(values))
    labels = torch.tensor([names.index(value) for value in values])
    codec = codec_tensor(encoder.codecs[modality].hash())
    return {"latents": torch.cat(latents), "labels": labels, "codec": codec}


def write_labelled(path: Path, tensors: dict[str, Tensor]) -> None:
    """The file, whole or not at all."""
    with atomic_file(path) as temporary:
        checkpoint.save_tensors(temporary, tensors)


if __name__ == "__main__":
    run_evaluate("labelled")
