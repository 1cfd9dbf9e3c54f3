"""Samples of a checkpoint, and true ones, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from selfflow_wm.data import MODES, SampleEncoder
from selfflow_wm.data.toy.source import as_sample
from selfflow_wm.data.toy.truth import Sample
from selfflow_wm.evaluation.checkpoints import Entry, open_checkpoint
from selfflow_wm.flow.sampler import sample
from selfflow_wm.sampling.conditions import noise_seed
from selfflow_wm.sampling.run import Solve

Arrays = dict[str, np.ndarray]
"""By modality: image uint8 (B, H, W, 3), video uint8 (B, T, H, W, 3), audio float32 (B, S)."""


class Maker:
    """Generates samples from a checkpoint.

    Every sample is a function of its number, the seed and the solver, up to rounding, which
    differs between batch sizes.
    """

    def __init__(self, entry: Entry, solve: Solve, seed: int, device: torch.device) -> None:
        self.saved, self.encoder = open_checkpoint(entry, device)
        self.entry, self.solve, self.seed = entry, solve, seed

    def __call__(self, mode: str, asked: Sequence[Sample], numbers: Sequence[int]) -> Arrays:
        """Samples `numbers` of `mode`, from the captions (and condition pictures) of `asked`."""
        row, model = MODES[mode], self.saved.model
        batch = self.encoder([as_sample(one, self.entry.world) for one in asked], row)
        found = sample(
            model,
            model.layout,
            {name: batch.latents[name] for name in batch.given},
            row.generated,
            batch.text_ids,
            batch.text_mask,
            generator=[torch.Generator().manual_seed(noise_seed(self.seed, n)) for n in numbers],
            **self.solve.options(),
        )
        for name, latents in found.items():
            if not latents.isfinite().all():
                raise ValueError(
                    f"{self.entry.path}: expected finite {name}, got nan or inf among samples "
                    f"{numbers[0]}..{numbers[-1]}; lower --guidance, or take another checkpoint"
                )
        return self.encoder.decode(found)


def true_samples(mode: str, asked: Sequence[Sample]) -> Arrays:
    """The ideal output of `mode`: the renderings themselves."""
    arrays = {}
    for name in MODES[mode].generated:
        values = [getattr(one, name) for one in asked]
        arrays[name] = np.stack(values)
    return arrays


def through_codec(
    encoder: SampleEncoder, mode: str, entry: Entry, asked: Sequence[Sample]
) -> Arrays:
    """The renderings, encoded and decoded: an upper bound for models of these latents."""
    row = MODES[mode]
    batch = encoder([as_sample(one, entry.world) for one in asked], row)
    return encoder.decode({name: batch.latents[name] for name in row.generated})
