"""A contact sheet of the toy world: signs, strips of frames, waveforms under what is heard."""

from __future__ import annotations

from PIL import Image

from selfflow_wm.data.toy.config import KINDS
from selfflow_wm.data.toy.truth import Sample
from selfflow_wm.data.toy.world import ToyWorld
from selfflow_wm.strips import columns, media, pictures, stacked, text

_SIGN, _ACROSS = 196, 4
"""Pixels of a sign, and signs in a row."""


def contact_sheet(
    world: ToyWorld, split: str = "train", start: int = 0, rows: int = 3
) -> Image.Image:
    """`rows` rows of signs, then as many samples of every other kind, each above its caption.

    Strips show eight frames at most. Red marks are the true times of contacts and onsets.
    """
    config = world.config
    parts = [
        text(
            f"toy world, {split} split: {config.height}x{config.width}, {config.frames} frames at "
            f"{config.fps:g}/s, {config.sample_rate} Hz; red: true contacts and onsets"
        )
    ]

    def samples(kind: str, count: int) -> list[Sample]:
        return [world.sample(kind, world.seed(split, start + n)) for n in range(count)]

    signs = samples("sign", _ACROSS * rows)
    for first in range(0, len(signs), _ACROSS):
        some = signs[first : first + _ACROSS]
        parts.append(pictures("sign", [one.image for one in some if one.image is not None], _SIGN))
        halves = [one.caption.partition("says ") for one in some]
        parts.append(columns([begin for begin, _, _ in halves], _SIGN))
        parts.append(columns([says + rest for _, says, rest in halves], _SIGN))
    for kind in KINDS[1:]:
        for one in samples(kind, rows):
            shown = {"video": one.video, "audio": one.audio}
            there = {name: value for name, value in shown.items() if value is not None}
            parts += media(kind, there, getattr(one.truth, "times", ()), config.sample_rate)
            parts.append(text(one.caption))
    return stacked(parts)
