"""A contact sheet of the toy world: signs, film strips, waveforms under what is heard."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from selfflow_wm.data.toy.config import PALETTE
from selfflow_wm.data.toy.signs import font_of
from selfflow_wm.data.toy.truth import ContactTruth, Sample, SoundTruth
from selfflow_wm.data.toy.world import ToyWorld

_INK, _QUIET, _PAPER, _RULE = (34, 36, 42), (112, 116, 126), (252, 251, 248), (226, 224, 218)
_MARK = PALETTE["red"]
_GAP, _EDGE, _LINE = 6, 24, 18


def contact_sheet(
    world: ToyWorld, split: str = "train", start: int = 0, rows: int = 3
) -> Image.Image:
    """Signs, then `rows` strips each of shapes, figures, bounces, taps and sounds.

    Strips show nine frames at most. Red marks are the true times of contacts and onsets.
    """
    config = world.config
    shown = np.unique(np.linspace(0, config.frames - 1, min(config.frames, 9)).round().astype(int))
    tile_height = max(64, config.height)
    tile_width = round(tile_height * config.width / config.height)
    size = (int(1.25 * tile_width), int(1.25 * tile_height))
    strip = len(shown) * (size[0] + _GAP) - _GAP
    parts: list[Image.Image] = [
        _heading("toy world", f"{split} split, {config.height}x{config.width}, {config.frames} "
                 f"frames at {config.fps:g}/s, {config.sample_rate} Hz", strip)
    ]  # fmt: skip

    def samples(kind: str, count: int) -> list[Sample]:
        return [world.sample(kind, world.seed(split, start + n)) for n in range(count)]

    across = max(1, (strip + 2 * _GAP) // (2 * size[0] + 2 * _GAP))
    parts += [_heading("signs", "", strip), _signs(samples("sign", across * rows), across, strip)]
    for kind, note in (
        ("shapes", "each keeps its colour and form behind the wall"),
        ("figure", "each keeps its limbs"),
        ("bounce", "a sound at each contact"),
        ("tap", "a sound at each contact"),
    ):
        parts.append(_heading(kind, note, strip))
        parts += [_strip(sample, shown, size, config.sample_rate) for sample in samples(kind, rows)]
    parts.append(_heading("sound", "red: true onsets", strip))
    parts += [_sound(sample, strip, config.sample_rate) for sample in samples("sound", rows)]
    height = sum(part.height for part in parts) + 2 * _EDGE
    sheet = Image.new("RGB", (strip + 2 * _EDGE, height), _PAPER)
    top = _EDGE
    for part in parts:
        sheet.paste(part, (_EDGE, top))
        top += part.height
    return sheet


def _heading(title: str, note: str, width: int) -> Image.Image:
    part = Image.new("RGB", (width, 40), _PAPER)
    paint = ImageDraw.Draw(part)
    paint.text((0, 12), title, _INK, font_of("bold sans", 16))
    indent = paint.textlength(title, font_of("bold sans", 16)) + 12
    paint.text((indent, 15), note, _QUIET, font_of("sans", 12))
    paint.line((0, 36, width, 36), _RULE)
    return part


def _signs(samples: list[Sample], across: int, strip: int) -> Image.Image:
    side = (strip + _GAP) // across - _GAP
    first = samples[0].image
    assert first is not None
    tall = round(side * first.shape[0] / first.shape[1])
    down = -(-len(samples) // across)
    part = Image.new("RGB", (strip, down * (tall + 2 * _LINE + _GAP)), _PAPER)
    paint = ImageDraw.Draw(part)
    for n, sample in enumerate(samples):
        left, top = n % across * (side + _GAP), n // across * (tall + 2 * _LINE + _GAP)
        assert sample.image is not None
        # Nearest: the sheet shows the pixels a model sees.
        picture = Image.fromarray(sample.image).resize((side, tall), Image.Resampling.NEAREST)
        part.paste(picture, (left, top))
        begin, middle, rest = sample.caption.partition(" says ")
        for line, text in enumerate((begin, middle.strip() + " " + rest)):
            paint.text((left, top + tall + 2 + 14 * line), text, _QUIET, font_of("sans", 11))
    return part


def _strip(
    sample: Sample, shown: np.ndarray, size: tuple[int, int], sample_rate: int
) -> Image.Image:
    width, wave = len(shown) * (size[0] + _GAP) - _GAP, 40 if sample.audio is not None else 0
    part = Image.new("RGB", (width, size[1] + _LINE + wave + _GAP), _PAPER)
    assert sample.video is not None
    for column, frame in enumerate(shown):
        picture = Image.fromarray(sample.video[frame]).resize(size, Image.Resampling.BICUBIC)
        part.paste(picture, (column * (size[0] + _GAP), 0))
    if sample.audio is not None:
        assert isinstance(sample.truth, ContactTruth)
        image = waveform(sample.audio, sample.truth.times, width, wave, sample_rate)
        part.paste(image, (0, size[1] + 2))
    paint = ImageDraw.Draw(part)
    paint.text((0, size[1] + wave + 2), sample.caption, _QUIET, font_of("sans", 11))
    return part


def _sound(sample: Sample, width: int, sample_rate: int) -> Image.Image:
    part = Image.new("RGB", (width, 48 + _LINE + _GAP), _PAPER)
    assert isinstance(sample.truth, SoundTruth) and sample.audio is not None
    part.paste(waveform(sample.audio, sample.truth.times, width, 48, sample_rate), (0, 2))
    paint = ImageDraw.Draw(part)
    paint.text((0, 50), sample.caption, _QUIET, font_of("sans", 11))
    return part


def waveform(
    audio: np.ndarray, times: np.ndarray, width: int, height: int, sample_rate: int
) -> Image.Image:
    """Extremes of the samples under each column, a red tick at each true time."""
    part = Image.new("RGB", (width, height), _PAPER)
    paint = ImageDraw.Draw(part)
    middle = height / 2
    edges = np.linspace(0, len(audio), width + 1).round().astype(int)
    for x in range(width):
        first = min(edges[x], len(audio) - 1)
        piece = audio[first : max(first + 1, edges[x + 1])]
        low, high = float(piece.min()), float(piece.max())
        reach = 0.92 * middle
        paint.line((x, middle - reach * high, x, middle - reach * low), (70, 92, 130))
    for time in times:
        x = time * sample_rate / len(audio) * width
        paint.line((x, 0, x, height), _MARK)
    return part
