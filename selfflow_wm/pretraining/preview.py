"""Pictures of what a model makes, written while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from selfflow_wm.data import MODES, Sample, SampleEncoder, Source
from selfflow_wm.defaults import PREVIEW_STEPS, TOY_SHIFT
from selfflow_wm.files import atomic_file
from selfflow_wm.flow.sampler import sample
from selfflow_wm.strips import media, stacked, text

COUNTS = {"image": 8, "video": 2, "audio": 2, "video_audio": 2}
"""Samples of each mode."""

Arrays = Mapping[str, np.ndarray]


class Preview:
    """Writes `directory/step_*.png`: of each mode held-out samples above what the model makes of
    their captions (and condition pictures); clips as frames, sounds as waveforms.

    The same samples and noise at every step, so that the pictures of a run compare.

    Args:
        held_out: by mode, what to take captions from; read at once, so that what cannot be read is
            not found out in the middle of a run.
        steps, shift: of the sampler's time grid.
    """

    def __init__(
        self,
        encoder: SampleEncoder,
        held_out: Mapping[str, Source],
        directory: Path,
        *,
        steps: int = PREVIEW_STEPS,
        shift: float = TOY_SHIFT,
        seed: int = 0,
    ) -> None:
        self.encoder, self.directory = encoder, directory
        self.steps, self.shift, self.seed = steps, shift, seed
        self.samples = {
            mode: [source[number] for number in range(min(COUNTS[mode], len(source)))]
            for mode, source in held_out.items()
        }

    def __call__(self, ema: Any, step: int) -> None:
        """Make and write the picture of `step`."""
        blocks = [
            draw_mode(mode, samples, self._make(ema, mode, samples))
            for mode, samples in self.samples.items()
        ]
        sheet = stacked(blocks)
        self.directory.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.directory / f"step_{step:08d}.png") as temporary:
            sheet.save(temporary, format="PNG")

    def _make(self, ema: Any, mode: str, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        batch = self.encoder(samples, MODES[mode])
        device = batch.text_ids.device
        latents = sample(
            ema,
            self.encoder.layout,
            {name: batch.latents[name] for name in batch.given},
            batch.generated,
            batch.text_ids,
            batch.text_mask,
            steps=self.steps,
            shift=self.shift,
            generator=torch.Generator(device).manual_seed(self.seed),
        )
        return self.encoder.decode({k: v.nan_to_num() for k, v in latents.items()})


def draw_mode(mode: str, samples: Sequence[Sample], made: Arrays) -> Image.Image:
    """The samples' own media above the made ones, one pair of rows for all pictures, one for each
    clip and sound, under its caption."""
    if mode == "image":
        pairs = [
            ("", {"image": np.stack([one["image"] for one in samples])}, {"image": made["image"]})
        ]
    else:
        pairs = [
            (one["caption"], {name: _mono(one, name) for name in made},
             {name: made[name][number] for name in made})
            for number, one in enumerate(samples)
        ]  # fmt: skip
    rows = []
    for caption, true, generated in pairs:
        rows.append(text(f"{mode.replace('_', ' ')}   {caption}"))
        rows += media("held out", true) + media("generated", generated)
    return stacked(rows)


def _mono(one: Sample, name: str) -> np.ndarray:
    value = np.asarray(one[name])
    return value.mean(0) if name == "audio" and value.ndim > 1 else value
