"""The network whose features FAD-CLAP is of, from the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from selfflow_wm.codec.weights import in_batches
from selfflow_wm.evaluation import local_models

OPTION = "--features audio=clap"

VALUES = 1 << 22
"""Of spectrograms that the network takes at once."""


class ClapFeatures:
    """Embeddings of sounds by CLAP (Wu et al. 2023) in transformers' format, of length one.

    Sounds longer than the model takes (10 s) are cut to their beginning, where its feature
    extractor would take a random part; shorter ones are repeated, as it does.

    path: a local directory. sample_rate: Hz of the sounds, which has to be the model's (48000).
    Needs the extra `evaluation`.
    """

    def __init__(
        self,
        path: Path | str | None,
        sample_rate: int | None,
        device: torch.device | str = "cpu",
    ) -> None:
        path, _ = local_models.open_directory(OPTION, path, "clap")
        self.prepare = local_models.load_preparation(path, "ClapFeatureExtractor")
        rate = int(self.prepare.sampling_rate)
        if sample_rate != rate:
            got = "no rate" if sample_rate is None else f"{sample_rate} Hz"
            raise ValueError(
                f"{OPTION}: expected sounds at {rate} Hz, got {got}; "
                + (
                    f"give --sample-rate {rate} if that is theirs"
                    if sample_rate is None
                    else f"resample them (ffmpeg -i IN -ar {rate} OUT), nothing is resampled here"
                )
            )
        self.network = local_models.load(
            path, "ClapModel", ("audio_model.", "audio_projection."), device
        )
        self.device = torch.device(device)
        self.longest = int(self.prepare.nb_max_samples)
        seconds = self.longest / rate
        self.name = f"CLAP {local_models.digest(path)}, mono, first {seconds:g} s, length 1"

    def __call__(self, samples: Float[np.ndarray, "B S"]) -> Float[np.ndarray, "B D"]:
        """Of sounds in [-1, 1]."""
        rows = [row[: self.longest].astype(np.float64) for row in samples]
        spectrograms = self.prepare(
            rows, sampling_rate=int(self.prepare.sampling_rate), return_tensors="pt"
        )["input_features"]
        return in_batches(self._extract, spectrograms.float(), VALUES).cpu().numpy()

    def _extract(self, spectrograms: Tensor) -> Float[Tensor, "b D"]:
        # The preparation calls one of a batch of short sounds longer, by chance; none is here.
        longer = torch.zeros(len(spectrograms), 1, dtype=torch.bool, device=self.device)
        found = self.network.get_audio_features(
            input_features=spectrograms.to(self.device), is_longer=longer
        )
        # The embedding itself before transformers 5.
        return found if isinstance(found, Tensor) else found.pooler_output
