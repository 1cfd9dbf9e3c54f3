"""Is a contact heard when it is seen? Contacts from the video, onsets from the audio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import maximum_filter1d

from selfflow_wm.metrics.colors import COLORS, center, name_pixels, patches

_MATCH = 0.04
"""Seconds within which an onset belongs to a contact once the common offset is taken away."""


@dataclass(frozen=True)
class Sync:
    """How far the sound lags behind the picture."""

    offset_ms: float
    """Median of onset minus contact over the matched; positive when the sound is late, nan
    without a match."""
    matched: int
    contacts: int
    onsets: int


def av_offset(
    video: UInt8[np.ndarray, "T H W 3"],
    audio: Float[np.ndarray, "S"],
    fps: float,
    sample_rate: int,
    largest: float = 0.25,
) -> Sync:
    """The offset in ms that pairs most onsets with contacts, the smallest of equals.

    largest: seconds; offsets beyond it are not considered, as the next contact's sound would be
    taken for this one's.
    """
    contacts = find_contacts(video, fps)
    onsets = find_onsets(audio, sample_rate)
    lags = (onsets[None] - contacts[:, None]).ravel()
    lags = lags[np.abs(lags) <= largest]
    if not len(lags):
        return Sync(float("nan"), 0, len(contacts), len(onsets))
    groups = [lags[np.abs(lags - lag) <= _MATCH / 2] for lag in lags]
    best = max(groups, key=lambda group: (len(group), -abs(float(np.median(group)))))
    return Sync(1000 * float(np.median(best)), len(best), len(contacts), len(onsets))


def find_onsets(
    audio: Float[np.ndarray, "S"], sample_rate: int, rise: float = 6.0, window: float = 0.008
) -> Float[np.ndarray, "n"]:
    """Times in seconds at which the energy of the next `window` seconds most exceeds the last's.

    rise: dB an onset must rise by. Energy below -40 dB of the loudest window counts as silence;
    onsets within 60 ms are one.
    """
    if audio.ndim != 1:
        raise ValueError(f"expected mono audio (S,), got {audio.shape}; mix the channels")
    size = round(window * sample_rate)
    if len(audio) < 2 * size:
        return np.zeros(0)
    total = np.concatenate([[0.0], np.cumsum(np.asarray(audio, dtype=np.float64) ** 2)])
    energy = total[size:] - total[:-size]  # of the window that starts at each sample
    energy = np.concatenate([np.zeros(size), energy])  # silence before the clip
    floor = 1e-4 * energy.max() + 1e-12
    ratio = 10 * np.log10((energy[size:] + floor) / (energy[:-size] + floor))
    peak = ratio == maximum_filter1d(ratio, 2 * round(0.06 * sample_rate) + 1)
    return np.flatnonzero(peak & (ratio >= rise)) / sample_rate


def find_contacts(video: UInt8[np.ndarray, "T H W 3"], fps: float) -> Float[np.ndarray, "n"]:
    """Times in seconds at which the coloured thing turns from falling to rising.

    Flights between contacts are parabolas of one curvature, fitted together to the centroid's
    height; a contact is where two of them meet, to a fraction of a frame.
    """
    height = follow(video)
    frames = np.flatnonzero(np.isfinite(height))
    turns = [
        t for t in range(1, len(height) - 1)
        if height[t] >= height[t - 1] and height[t] > height[t + 1]
        and _prominent(height, t, 0.03 * video.shape[1])
    ]  # fmt: skip
    borders = [-1, *turns, len(height)]
    # The frame of the turn may belong to either flight, so to neither.
    flights = [
        frames[(frames > a) & (frames < b)] for a, b in zip(borders[:-1], borders[1:], strict=True)
    ]
    lines = _parabolas(flights, height)
    contacts = []
    for turn, before, after in zip(turns, lines[:-1], lines[1:], strict=True):
        if before is not None and after is not None and before[1] > after[1]:
            time = (after[0] - before[0]) / (before[1] - after[1])
            if abs(time - turn) <= 1.5:
                contacts.append(time / fps)
    return np.array(contacts)


def follow(video: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "T"]:
    """y of the centroid of the thing that moves, nan where it is not seen.

    It is the colour of the palette that fills the most pixels over the clip.
    """
    named = name_pixels(video)
    counts = [(named == index).sum() for index in range(len(COLORS))]
    color, least = int(np.argmax(counts)), 0.002 * video.shape[1] * video.shape[2]
    found = [patches(frame == color, least) for frame in named]
    return np.array([center(parts[0])[1] if parts else np.nan for parts in found])


def _prominent(height: np.ndarray, turn: int, least: float) -> bool:
    near = height[max(0, turn - 2) : turn + 3]
    return bool(height[turn] - np.nanmin(near) >= least)


def _parabolas(flights: list[np.ndarray], height: np.ndarray) -> list[tuple[float, float] | None]:
    """(constant, slope) of each flight after a common quadratic term is taken away; None for a
    flight of fewer than two frames."""
    used = [n for n, flight in enumerate(flights) if len(flight) >= 2]
    rows = sum(len(flights[n]) for n in used)
    if rows < 2 * len(used) + 1:
        return [None] * len(flights)
    design, target = np.zeros((rows, 2 * len(used) + 1)), np.zeros(rows)
    row = 0
    for k, n in enumerate(used):
        t = flights[n]
        part = slice(row, row + len(t))
        design[part, 2 * k], design[part, 2 * k + 1], design[part, -1] = 1, t, t**2
        target[part] = height[t]
        row += len(t)
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    lines: list[tuple[float, float] | None] = [None] * len(flights)
    for k, n in enumerate(used):
        lines[n] = float(solution[2 * k]), float(solution[2 * k + 1])
    return lines
