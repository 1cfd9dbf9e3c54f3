"""Pictures of what a model makes, written while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from selfflow_wm.data import MODES, Sample, SampleEncoder, Source
from selfflow_wm.defaults import PREVIEW_STEPS, TOY_SHIFT
from selfflow_wm.files import atomic_file
from selfflow_wm.flow.sampler import sample
from selfflow_wm.strips import media, stacked, text
from selfflow_wm.videos import write_video

FPS = 8.0
"""Of the clips that are written; what they were recorded at is not known here."""
SIDES = 16
"""A clip's height and width are padded to multiples of this."""
COUNTS = {"image": 8, "video": 2, "audio": 2, "video_audio": 2}
"""Samples of each mode."""

Arrays = Mapping[str, np.ndarray]


class Preview:
    """Writes `directory/step_*.png`: of each mode held-out samples above what the model makes of
    their captions (and condition pictures); clips as frames, sounds as waveforms. And a clip of the
    same rows, `directory/step_*_MODE.mp4`, of each mode with video.

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

    def __call__(self, ema: Any, step: int) -> list[Path]:
        """Make and write the picture and the clips of `step`; where they are."""
        blocks, files = [], [self.directory / f"step_{step:08d}.png"]
        self.directory.mkdir(parents=True, exist_ok=True)
        for mode, samples in self.samples.items():
            made = self._make(ema, mode, samples)
            blocks.append(draw_mode(mode, samples, made))
            if "video" in made:
                files.append(self.directory / f"step_{step:08d}_{mode}.mp4")
                write_video(files[-1], side_by_side(samples, made["video"]), FPS)
        with atomic_file(files[0]) as temporary:
            stacked(blocks).save(temporary, format="PNG")
        return files

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


def side_by_side(samples: Sequence[Sample], made: np.ndarray) -> np.ndarray:
    """uint8 (T, h, w, 3): the samples' own clips from left to right, above those that were made,
    uint8 (n, T, H, W, 3), on black."""
    true = np.stack([np.asarray(one["video"])[: made.shape[1]] for one in samples])
    rows = [rearrange(clips, "n t h w rgb -> t h (n w) rgb") for clips in (true, made)]
    sheet = np.concatenate(rows, axis=1)
    padding = [(0, -size % SIDES) for size in sheet.shape[1:3]]
    return np.pad(sheet, [(0, 0), *padding, (0, 0)])


def _mono(one: Sample, name: str) -> np.ndarray:
    value = np.asarray(one[name])
    return value.mean(0) if name == "audio" and value.ndim > 1 else value
