"""Samples to look at and to listen to: grids, strips of frames, videos with sound, sounds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from selfflow_wm.data import JOINT
from selfflow_wm.data.toy import ToyConfig
from selfflow_wm.data.toy.truth import Sample
from selfflow_wm.evaluation.generate import Arrays
from selfflow_wm.files import atomic_file
from selfflow_wm.strips import columns, media, stacked, text
from selfflow_wm.videos import write_sound, write_video

SHOWN = 8
"""Samples of each mode that are kept."""
STRIPS = 3
"""Clips and sounds of each origin that are shown."""

Shown = Mapping[str, Mapping[str, Arrays]]
"""Mode -> origin (a label, or "true") -> the first samples."""


def write_media(
    out: Path, shown: Shown, asked: Mapping[str, Sequence[Sample]], config: ToyConfig
) -> dict[str, dict[str, list[str]]]:
    """pictures/MODE.png, videos/*.mp4 and sounds/*.wav under `out`.

    asked: by mode, what the samples were to show. Returns mode -> {"pictures", "videos", "sounds"}
    -> paths relative to `out`, videos and sounds origin by origin.
    """
    written: dict[str, dict[str, list[str]]] = {}
    for mode, origins in shown.items():
        picture = _sheet(mode, origins, asked[mode], config)
        path = out / "pictures" / f"{mode}.png"
        with atomic_file(path) as temporary:
            picture.save(temporary, format="PNG")
        videos, sounds = [], []
        for origin, arrays in origins.items():
            for number in range(min(STRIPS, _count(arrays))):
                name = f"{mode}_{number}_{slug(origin)}"
                if "video" in arrays:
                    videos.append(f"videos/{name}.mp4")
                    audio = arrays["audio"][number] if mode == JOINT else None
                    scale = max(1, 192 // config.height)
                    write_video(
                        out / videos[-1], arrays["video"][number], config.fps, audio,
                        config.sample_rate, scale,
                    )  # fmt: skip
                elif "audio" in arrays:
                    sounds.append(f"sounds/{name}.wav")
                    write_sound(out / sounds[-1], arrays["audio"][number], config.sample_rate)
        written[mode] = {"pictures": [f"pictures/{mode}.png"], "videos": videos, "sounds": sounds}
    return written


def slug(text: str) -> str:
    """A label as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def _count(arrays: Arrays) -> int:
    return min((len(value) for value in arrays.values()), default=0)


def _sheet(
    mode: str, origins: Mapping[str, Arrays], asked: Sequence[Sample], config: ToyConfig
) -> Image.Image:
    """A row of pictures for each origin under the words they were to say, or for each of the first
    samples its caption, and of each origin frames and waveform."""
    if mode == "image":
        words = columns([getattr(one.truth, "text", "") for one in asked])
        return stacked([words, *(row for n, a in origins.items() for row in media(n, a))])
    rows = []
    for number in range(min(STRIPS, _count(next(iter(origins.values()))))):
        truth = asked[number].truth
        rows.append(text(asked[number].caption))
        for origin, arrays in origins.items():
            sample = {name: value[number] for name, value in arrays.items()}
            rows += media(origin, sample, getattr(truth, "times", ()), config.sample_rate)
    return stacked(rows)
