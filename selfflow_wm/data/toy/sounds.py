"""Struck sounds: what wood, metal, a drum and a pipe sound like, and clips of several strikes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from selfflow_wm.data.toy.config import MATERIALS, Draw, ToyConfig
from selfflow_wm.data.toy.truth import Sample, SoundTruth

_PARTIALS = {
    # (ratio to the pitch, amplitude, decay in seconds)
    "wood": ((1.0, 1.0, 0.045), (2.71, 0.45, 0.025), (5.2, 0.2, 0.012)),
    "metal": ((1.0, 0.7, 0.16), (2.76, 0.6, 0.12), (5.40, 0.4, 0.08), (8.93, 0.2, 0.05)),
    "drum": ((1.0, 1.0, 0.10), (1.59, 0.5, 0.07), (2.14, 0.3, 0.05)),
    "pipe": ((1.0, 1.0, 0.13), (2.0, 0.4, 0.11), (3.0, 0.25, 0.09)),
}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
_STRIKE = {"wood": "knock", "metal": "ring", "drum": "drum beat", "pipe": "pipe note"}


def strike(
    draw: Draw, material: str, pitch: float, loudness: float, config: ToyConfig
) -> np.ndarray:
    """One strike, 0.5 s of float64; its first sample is the onset."""
    time = np.arange(config.sample_rate // 2) / config.sample_rate
    # A drum's pitch falls after the stroke.
    turns = time + (0.012 * (1 - np.exp(-time / 0.02)) if material == "drum" else 0)
    sound = np.zeros(len(time))
    for ratio, amplitude, decay in _PARTIALS[material]:
        if ratio * pitch < 0.45 * config.sample_rate:
            sound += amplitude * np.exp(-time / decay) * np.sin(2 * math.pi * ratio * pitch * turns)
    # The blow itself: a few milliseconds of noise make the onset sharp.
    sound += 0.5 * np.exp(-time / 0.004) * draw.noise(len(time))
    return loudness * sound / 1.8


def render(
    draw: Draw,
    material: str,
    times: Sequence[float] | np.ndarray,
    pitches: Sequence[float] | np.ndarray,
    loudness: Sequence[float] | np.ndarray,
    config: ToyConfig,
) -> np.ndarray:
    """All strikes of a clip over a faint noise: (S,) float32 in [-1, 1]."""
    audio = 1e-3 * draw.noise(config.samples)
    for time, pitch, loud in zip(times, pitches, loudness, strict=True):
        first = round(time * config.sample_rate)
        sound = strike(draw, material, pitch, loud, config)[: max(0, config.samples - first)]
        audio[first : first + len(sound)] += sound
    return audio.clip(-1, 1).astype(np.float32)


def sound(seed: int, config: ToyConfig) -> Sample:
    """One to five strikes in an even or swinging rhythm; their pitch rises, falls or stays."""
    draw = Draw("sound", seed)
    material = draw.choose((*MATERIALS, "pipe"))
    length = config.samples / config.sample_rate
    step = draw.uniform(0.15, 0.32)
    count = min(1 + draw.integer(5), max(1, int((length - 0.12) / step)))
    swing = draw.choose((0.0, 0.2)) * step
    start = draw.uniform(0.03, max(0.04, length - 0.1 - (count - 1) * step - swing))
    times = start + step * np.arange(count) + swing * (np.arange(count) % 2)
    contour = draw.choose(("rising", "falling", "level")) if count > 1 else "level"
    ratio = {"rising": 2 ** (1 / 4), "falling": 2 ** (-1 / 4), "level": 1.0}[contour]
    base = draw.uniform(240, 620) * (2.0 if contour == "falling" else 1.0)
    pitches = base * ratio ** np.arange(count)
    loudness = [draw.uniform(0.55, 0.9) for _ in range(count)]
    audio = render(draw, material, times, pitches, loudness, config)
    caption = f"{_NUMBERS[count]} {_STRIKE[material]}{'s' * (count > 1)}"
    caption += f", {contour}" * (count > 1)
    return Sample(
        "sound", seed, caption, SoundTruth(material, times, pitches, contour), audio=audio
    )
