"""Videos with sound: a ball that bounces and a drumstick that taps, heard at each contact."""

from __future__ import annotations

import numpy as np

from selfflow_wm.data.toy.canvas import Canvas, Color, backdrop
from selfflow_wm.data.toy.config import (
    INK,
    MATERIALS,
    PALETTE,
    Draw,
    ToyConfig,
    is_held_out,
)
from selfflow_wm.data.toy.sounds import render
from selfflow_wm.data.toy.truth import ContactTruth, Sample

SURFACES = {"wood": (150, 112, 78), "metal": (150, 158, 170), "drum": (196, 184, 160)}
"""RGB of what is struck."""

_MARGIN = 2.3
"""Frames from a clip's ends to the nearest contact: a contact needs flight on both sides."""

_FLIGHT = (4.3, 7.0)
"""Shortest and longest flight between contacts, in frames."""

_WORDS = ("never", "once", "twice", "three times", "four times")


def bounce(seed: int, config: ToyConfig) -> Sample:
    """A ball bounces on a floor while it drifts sideways; each bounce loses a little height."""
    return _clip("bounce", seed, config)


def tap(seed: int, config: ToyConfig) -> Sample:
    """A drumstick taps in a free rhythm; before a longer pause it rises higher."""
    return _clip("tap", seed, config)


def contact_times(draw: Draw, config: ToyConfig, even: bool) -> np.ndarray:
    """Contacts in seconds; the first and last lie outside the clip and only shape its ends.

    even: flights shrink by one factor, as of a ball; otherwise each has its own length.
    """
    low, high = _FLIGHT
    end, last = config.frames - 1, config.frames - 1 - _MARGIN
    flight = draw.uniform(*((5.2, high) if even else (low, high)))
    keep = draw.uniform(0.88, 1.0) if even else 1.0
    first = draw.uniform(_MARGIN, max(_MARGIN, min(last, 0.95 * high)))
    contacts = [first - max(first, min(high, flight / keep)), first]
    while contacts[-1] <= last:
        flight = max(low, flight * keep) if even else draw.uniform(low, high)
        following = contacts[-1] + flight
        if last < following < end:  # too late to be told, too early to lie outside
            reach = contacts[-1] + high
            following = draw.uniform(end, reach) if reach > end else last
        contacts.append(following)
    return np.array(contacts) / config.fps


def heights(seconds: np.ndarray, contacts: np.ndarray, gravity: float) -> np.ndarray:
    """Height above the floor at each time: g/2 (t - a)(b - t) between contacts a and b."""
    after = np.searchsorted(contacts, seconds, side="right").clip(1, len(contacts) - 1)
    a, b = contacts[after - 1], contacts[after]
    return (gravity / 2 * (seconds - a) * (b - seconds)).clip(0, None)


def _clip(kind: str, seed: int, config: ToyConfig) -> Sample:
    draw, unit = Draw(kind, seed), min(config.height, config.width)
    color, material = draw.pair(len(PALETTE), len(MATERIALS))
    share = draw.uniform()
    radius = (0.075 + 0.05 * share) * unit
    pitch = (620 - 330 * share) * (1.5 if material == 1 else 0.6 if material == 2 else 1.0)
    floor = config.height - draw.uniform(0.12, 0.2) * unit
    contacts = contact_times(draw, config, even=kind == "bounce")
    # The longest flight just fits between floor and top.
    room = floor - 2 * radius - 0.06 * unit
    gravity = 8 * draw.uniform(0.85, 1.0) * room / (_FLIGHT[1] / config.fps) ** 2
    y = floor - radius - heights(np.arange(config.frames) / config.fps, contacts, gravity)
    x = _drift(draw, config, radius) if kind == "bounce" else _still(draw, config)
    background, scale = backdrop(draw, config.height, config.width)
    name, rgb = list(PALETTE)[color], PALETTE[list(PALETTE)[color]]
    stuff, times = MATERIALS[material], contacts[1:-1]
    video = []
    for center in zip(x, y, strict=True):
        canvas = Canvas(background, scale)
        (_bounce_scene if kind == "bounce" else _tap_scene)(
            canvas, center, radius, floor, rgb, SURFACES[stuff], config
        )
        video.append(canvas.finish())
    loudness = [draw.uniform(0.6, 0.9) for _ in times]
    audio = render(draw, stuff, times, [pitch] * len(times), loudness, config)
    truth = ContactTruth(
        name, stuff, times, pitch, radius, np.stack([x, y], -1),
        draw.split == "test" and is_held_out(color, material),
    )  # fmt: skip
    caption = _caption(kind, name, stuff, len(times))
    return Sample(kind, seed, caption, truth, video=np.stack(video), audio=audio)


def _drift(draw: Draw, config: ToyConfig, radius: float) -> np.ndarray:
    way = draw.uniform(0.1, 0.55) * config.width * draw.choose((-1, 1))
    middle = config.width / 2 + draw.uniform(-0.15, 0.15) * config.width
    x = middle + np.linspace(-way / 2, way / 2, config.frames)
    return x.clip(radius + 1, config.width - radius - 1)


def _still(draw: Draw, config: ToyConfig) -> np.ndarray:
    return np.full(config.frames, config.width * draw.uniform(0.4, 0.55))


def _caption(kind: str, name: str, stuff: str, count: int) -> str:
    often = _WORDS[count] if count < len(_WORDS) else f"{count} times"
    if kind == "bounce":
        caption = f"a {name} ball bounces {often} on {'drum skin' if stuff == 'drum' else stuff}"
    else:
        caption = f"a {name} stick taps {'a drum' if stuff == 'drum' else stuff} {often}"
    return caption.replace("a orange", "an orange")


def _darker(color: Color) -> Color:
    red, green, blue = (int(0.78 * value) for value in color)
    return red, green, blue


def _bounce_scene(
    canvas: Canvas, center: tuple, radius: float, floor: float, rgb: tuple, surface: tuple,
    config: ToyConfig,
) -> None:  # fmt: skip
    canvas.box(0, floor, config.width, config.height, surface)
    dark = _darker(surface)
    edge = 0.02 * config.height
    canvas.box(0, floor + edge, config.width, floor + 2 * edge, dark)
    canvas.disc(center, radius, rgb)


def _tap_scene(
    canvas: Canvas, center: tuple, radius: float, floor: float, rgb: tuple, surface: tuple,
    config: ToyConfig,
) -> None:  # fmt: skip
    unit = min(config.height, config.width)
    half = 0.24 * unit
    dark = _darker(surface)
    canvas.box(center[0] - half, floor, center[0] + half, config.height, surface)
    canvas.box(center[0] - half, floor + 0.03 * unit, center[0] + half, floor + 0.05 * unit, dark)
    hand = (config.width + 0.1 * unit, 0.62 * center[1] + 0.1 * config.height)
    canvas.line(hand, center, 0.05 * unit, INK)
    canvas.disc(center, radius, rgb)
