"""Samples to look at and to listen to: grids, film strips, films with sound, sounds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from selfflow_wm.data import JOINT
from selfflow_wm.data.toy import ToyConfig
from selfflow_wm.data.toy.sheet import waveform
from selfflow_wm.data.toy.signs import font_of
from selfflow_wm.data.toy.truth import Sample
from selfflow_wm.evaluation.generate import Arrays
from selfflow_wm.files import atomic_file
from selfflow_wm.films import write_film

SHOWN = 8
"""Samples of each mode that are kept."""
STRIPS = 3
"""Clips and sounds of each origin that are shown."""
_INK, _QUIET, _PAPER = (34, 36, 42), (112, 116, 126), (255, 255, 255)
_NAME, _GAP, _LINE, _FRAMES, _WAVE = 170, 4, 16, 6, 36

Shown = Mapping[str, Mapping[str, Arrays]]
"""Mode -> origin (a label, or "true") -> the first samples."""


def write_media(
    out: Path, shown: Shown, asked: Mapping[str, Sequence[Sample]], config: ToyConfig
) -> dict[str, dict[str, list[str]]]:
    """pictures/MODE.png, films/*.mp4 and sounds/*.wav under `out`.

    asked: by mode, what the samples were to show. Returns mode -> {"pictures", "films", "sounds"}
    -> paths relative to `out`, films and sounds origin by origin.
    """
    written: dict[str, dict[str, list[str]]] = {}
    for mode, origins in shown.items():
        picture = (
            _grid(origins, asked[mode])
            if mode == "image"
            else _strips(origins, asked[mode], config)
        )
        path = out / "pictures" / f"{mode}.png"
        with atomic_file(path) as temporary:
            picture.save(temporary, format="PNG")
        films, sounds = [], []
        for origin, arrays in origins.items():
            for number in range(min(STRIPS, _count(arrays))):
                name = f"{mode}_{number}_{slug(origin)}"
                if "video" in arrays:
                    films.append(f"films/{name}.mp4")
                    audio = arrays["audio"][number] if mode == JOINT else None
                    scale = max(1, 192 // config.height)
                    write_film(
                        out / films[-1], arrays["video"][number], config.fps, audio,
                        config.sample_rate, scale,
                    )  # fmt: skip
                elif "audio" in arrays:
                    sounds.append(f"sounds/{name}.wav")
                    _write_sound(out / sounds[-1], arrays["audio"][number], config.sample_rate)
        written[mode] = {"pictures": [f"pictures/{mode}.png"], "films": films, "sounds": sounds}
    return written


def slug(text: str) -> str:
    """A label as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def _count(arrays: Arrays) -> int:
    return min((len(value) for value in arrays.values()), default=0)


def _grid(origins: Mapping[str, Arrays], asked: Sequence[Sample]) -> Image.Image:
    """A row of pictures for each origin, under the words they were to say."""
    first = next(iter(origins.values()))["image"]
    count, (height, width) = len(first), (2 * side for side in first.shape[1:3])
    sheet = _paper(_NAME + count * (width + _GAP), _LINE + len(origins) * (height + _GAP))
    paint = ImageDraw.Draw(sheet)
    for column in range(count):
        word = getattr(asked[column].truth, "text", "")
        paint.text((_NAME + column * (width + _GAP), 1), word, _QUIET, font_of("sans", 11))
    for row, (origin, arrays) in enumerate(origins.items()):
        top = _LINE + row * (height + _GAP)
        _name(paint, origin, top + height // 2 - 6)
        for column, image in enumerate(arrays["image"][:count]):
            picture = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (_NAME + column * (width + _GAP), top))
    return sheet


def _strips(
    origins: Mapping[str, Arrays], asked: Sequence[Sample], config: ToyConfig
) -> Image.Image:
    """For each of the first samples its caption, and of each origin frames and waveform."""
    height, width = round(1.5 * config.height), round(1.5 * config.width)
    across = _FRAMES * (width + _GAP) - _GAP
    some = next(iter(origins.values()))
    has_video, has_audio = "video" in some, "audio" in some
    tall = (height + _GAP) * has_video + (_WAVE + _GAP) * has_audio
    count = min(STRIPS, _count(some))
    block = _LINE + len(origins) * tall + 2 * _GAP
    sheet = _paper(_NAME + across, count * block)
    paint = ImageDraw.Draw(sheet)
    for number in range(count):
        top = number * block
        paint.text((_NAME, top + 1), asked[number].caption, _QUIET, font_of("sans", 11))
        for row, (origin, arrays) in enumerate(origins.items()):
            place = top + _LINE + row * tall
            _name(paint, origin, place + tall // 2 - 8)
            if has_video:
                clip = arrays["video"][number]
                shown = np.linspace(0, len(clip) - 1, _FRAMES).round().astype(int)
                for column, frame in enumerate(shown):
                    picture = Image.fromarray(clip[frame]).resize((width, height))
                    sheet.paste(picture, (_NAME + column * (width + _GAP), place))
            if has_audio:
                times = getattr(asked[number].truth, "times", np.zeros(0))
                wave = waveform(arrays["audio"][number], times, across, _WAVE, config.sample_rate)
                sheet.paste(wave, (_NAME, place + (height + _GAP) * has_video))
    return sheet


def _paper(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), _PAPER)


def _name(paint: ImageDraw.ImageDraw, origin: str, top: int) -> None:
    for line, part in enumerate(_wrapped(origin.replace("_", " "), 24)):
        paint.text((2, top + 13 * line), part, _INK, font_of("sans", 11))


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _write_sound(path: Path, audio: np.ndarray, sample_rate: int) -> None:
    from scipy.io import wavfile

    with atomic_file(path) as temporary, temporary.open("wb") as file:
        wavfile.write(file, sample_rate, (audio.clip(-1, 1) * 32767).astype(np.int16))
