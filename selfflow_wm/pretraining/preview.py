"""Pictures of what a model makes, written while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from selfflow_wm.data import MODES, Sample, SampleEncoder, Source
from selfflow_wm.data.toy.sheet import waveform
from selfflow_wm.data.toy.signs import font_of
from selfflow_wm.defaults import PREVIEW_STEPS, TOY_SHIFT
from selfflow_wm.files import atomic_file
from selfflow_wm.flow.sampler import sample

COUNTS = {"image": 8, "video": 2, "audio": 2, "video_audio": 2}
"""Samples of each mode."""
FRAMES = 8
"""Frames of a clip that are shown."""
_SIDE, _GAP, _LINE, _NAME, _WAVE = 96, 4, 16, 76, 36
_WIDTH = FRAMES * (_SIDE + _GAP)
_INK, _PAPER = (34, 36, 42), (255, 255, 255)

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
        sheet = _stacked(blocks)
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
        pairs = [("", {"image": [one["image"] for one in samples]}, {"image": made["image"]})]
    else:
        pairs = [
            (one["caption"], {name: _own(one, name) for name in made},
             {name: made[name][number] for name in made})
            for number, one in enumerate(samples)
        ]  # fmt: skip
    return _stacked([row for pair in pairs for row in _rows(mode.replace("_", " "), *pair)])


def _stacked(rows: Sequence[Image.Image]) -> Image.Image:
    sheet = _blank(sum(row.height for row in rows))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _blank(height: int) -> Image.Image:
    return Image.new("RGB", (_NAME + _WIDTH, height), _PAPER)


def _own(one: Sample, name: str) -> np.ndarray:
    value = np.asarray(one[name])
    return value.mean(0) if name == "audio" and value.ndim > 1 else value


def _rows(title: str, caption: str, true: Mapping, made: Mapping) -> list[Image.Image]:
    rows = [_text(f"{title}   {caption}")]
    for label, media in (("held out", true), ("generated", made)):
        for name, value in media.items():
            row = _wave(value) if name == "audio" else _pictures(value)
            ImageDraw.Draw(row).text((2, row.height // 2 - 8), label, _INK, font_of("sans", 11))
            rows.append(row)
    return rows


def _text(line: str) -> Image.Image:
    row = _blank(_LINE + _GAP)
    ImageDraw.Draw(row).text((2, _GAP), line, _INK, font_of("sans", 11))
    return row


def _pictures(pictures: Any) -> Image.Image:
    """Up to FRAMES of them, evenly spaced."""
    row = _blank(_SIDE + _GAP)
    shown = np.linspace(0, len(pictures) - 1, min(FRAMES, len(pictures))).round().astype(int)
    for column, number in enumerate(shown):
        picture = Image.fromarray(np.asarray(pictures[number]))
        scale = _SIDE / max(picture.size)
        smooth = Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.NEAREST
        size = [max(1, round(scale * side)) for side in picture.size]
        row.paste(picture.resize(size, smooth), (_NAME + column * (_SIDE + _GAP), 0))
    return row


def _wave(audio: np.ndarray) -> Image.Image:
    row = _blank(_WAVE + _GAP)
    peak = max(1.0, float(np.abs(audio).max(initial=0.0)))
    row.paste(waveform(audio / peak, np.zeros(0), _WIDTH - _GAP, _WAVE, 1), (_NAME, 0))
    return row
