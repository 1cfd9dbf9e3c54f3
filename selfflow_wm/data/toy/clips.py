"""Silent videos: shapes that pass behind a wall, and figures with limbs."""

from __future__ import annotations

import math

import numpy as np

from selfflow_wm.data.toy.canvas import Canvas, backdrop, paint_shape
from selfflow_wm.data.toy.config import (
    GOLD,
    INK,
    MOTIONS,
    PALETTE,
    SHAPES,
    SLATE,
    Draw,
    ToyConfig,
    is_held_out,
)
from selfflow_wm.data.toy.truth import FigureTruth, Sample, ShapesTruth, Thing

_SKIN = (236, 196, 164)
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")


def shapes(seed: int, config: ToyConfig) -> Sample:
    """One to three shapes in lanes of their own; at least one passes behind a wall."""
    draw = Draw("shapes", seed)
    height, width, frames = config.height, config.width, config.frames
    unit = min(height, width)
    count = 1 + draw.integer(3)
    things, positions = [], np.zeros((frames, count, 2))
    half = draw.uniform(0.145, 0.175) * unit
    middle = draw.uniform(0.45, 0.55) * width
    wall = (middle - half, middle + half)
    pairs = _distinct_pairs(draw, count)
    lane = 0.92 * height / max(count, 2)
    start = (height - count * lane) / 2
    for n, (color, shape) in enumerate(pairs):
        radius = min(draw.uniform(0.085, 0.115) * unit, 0.42 * lane)
        things.append(Thing(list(PALETTE)[color], SHAPES[shape], radius))
        # Room for two frames beside the wall: an object is known by its straight path.
        ends = [draw.uniform(radius + 1, max(radius + 2, wall[0] - radius - 4))]
        ends.append(width - draw.uniform(radius + 1, radius + 4))
        if n and draw.uniform() < 0.3:  # one that hides, or stays beside the wall
            ends[1] = ends[0] + draw.uniform(0.0, 0.3) * unit
        if draw.uniform() < 0.5:
            ends = ends[::-1]
        x = np.linspace(ends[0], ends[1], frames)
        y = start + (n + 0.5) * lane + draw.uniform(-0.5, 0.5) * max(0.0, lane - 2 * radius - 2)
        positions[:, n] = np.stack([x, np.full(frames, y)], -1)
    background, scale = backdrop(draw, height, width)
    brick = 0.09 * unit
    video = []
    for frame in positions:
        canvas = Canvas(background, scale)
        for thing, center in zip(things, frame, strict=True):
            paint_shape(canvas, thing.shape, center, thing.radius, PALETTE[thing.color])
        _wall(canvas, wall, height, brick)
        video.append(canvas.finish())
    truth = ShapesTruth(
        tuple(things), positions, _beside(positions[..., 0], things, wall), wall,
        draw.split == "test" and any(is_held_out(*pair) for pair in pairs),
    )  # fmt: skip
    names = [f"a {thing.color} {thing.shape}" for thing in things]
    named = names[0] if count == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    named = named.replace("a orange", "an orange")
    caption = f"{named} {'moves' if count == 1 else 'move'} past a wall"
    return Sample("shapes", seed, caption, truth, video=np.stack(video))


def _distinct_pairs(draw: Draw, count: int) -> list[tuple[int, int]]:
    """Pairs of colour and shape without a colour twice."""
    pairs: list[tuple[int, int]] = []
    while len(pairs) < count:
        pair = draw.pair(len(PALETTE), len(SHAPES))
        if pair[0] not in [color for color, _ in pairs]:
            pairs.append(pair)
    return pairs


def _wall(canvas: Canvas, wall: tuple[float, float], height: int, brick: float) -> None:
    canvas.box(wall[0], 0, wall[1], height, SLATE)
    joint = (96, 102, 116)
    for row in range(math.ceil(height / brick) + 1):
        canvas.box(wall[0], row * brick, wall[1], row * brick + 0.5, joint)
        for column in range(3):
            x = wall[0] + (column + 0.5 * (row % 2)) * (wall[1] - wall[0]) / 2.5
            if x < wall[1]:
                canvas.box(x, row * brick, min(x + 0.5, wall[1]), (row + 1) * brick, joint)


def _beside(x: np.ndarray, things: list[Thing], wall: tuple[float, float]) -> np.ndarray:
    radius = np.array([thing.radius for thing in things])
    hidden = np.minimum(x + radius, wall[1]) - np.maximum(x - radius, wall[0])
    return 1 - hidden.clip(0, None) / (2 * radius)


def figure(seed: int, config: ToyConfig) -> Sample:
    """A figure of three to seven limbs that walks, waves or jumps."""
    draw = Draw("figure", seed)
    bodies = [(arms, legs) for arms in (2, 4) for legs in (1, 2, 3)]
    color, body = draw.pair(len(PALETTE), len(bodies))
    arms, legs = bodies[body]
    motion = draw.choose(MOTIONS)
    unit = min(config.height, config.width)
    times = np.arange(config.frames) / config.fps
    pulse = draw.uniform(1.0, 1.7)
    phase = draw.uniform(0, 2 * math.pi)
    center = _center(draw, motion, times, pulse, phase, config)
    joints = np.stack(
        [
            _limb(draw, arms, legs, n, motion, 2 * math.pi * pulse * times + phase, unit)
            for n in range(arms + legs)
        ],
        axis=1,
    )
    joints = joints + center[:, None, None]
    background, scale = backdrop(draw, config.height, config.width)
    ground = 0.5 * config.height + 0.42 * unit
    video = []
    for where, limbs in zip(center, joints, strict=True):
        canvas = Canvas(background, scale)
        canvas.box(0, ground, config.width, config.height, (168, 172, 164))
        _paint_figure(canvas, where, limbs, PALETTE[list(PALETTE)[color]], unit)
        video.append(canvas.finish())
    truth = FigureTruth(
        list(PALETTE)[color], motion, arms, legs, joints,
        draw.split == "test" and is_held_out(color, body),
    )  # fmt: skip
    caption = (
        f"a {truth.color} figure with {_NUMBERS[arms]} arms and {_NUMBERS[legs]} "
        f"leg{'s' * (legs > 1)} {motion}"
    ).replace("a orange", "an orange")
    return Sample("figure", seed, caption, truth, video=np.stack(video))


def _center(
    draw: Draw, motion: str, times: np.ndarray, pulse: float, phase: float, config: ToyConfig
) -> np.ndarray:
    """Middle of the torso in each frame, (T, 2)."""
    unit, middle = min(config.height, config.width), config.width / 2
    y = np.full(len(times), 0.5 * config.height)
    x = np.full(len(times), middle + draw.uniform(-0.12, 0.12) * unit)
    if motion == "walks":
        way = draw.uniform(0.2, 0.34) * unit * draw.choose((-1, 1))
        x = middle + np.linspace(-way / 2, way / 2, len(times))
        y = y - 0.012 * unit * np.abs(np.sin(2 * math.pi * pulse * times + phase))
    elif motion == "jumps":
        y = y - 0.10 * unit * np.abs(np.sin(math.pi * pulse * times + phase / 2))
    return np.stack([x, y], -1)


def _limb(
    draw: Draw, arms: int, legs: int, n: int, motion: str, swing: np.ndarray, unit: int
) -> np.ndarray:
    """Root, joint and end of limb n relative to the torso's middle, (T, 3, 2).

    Every limb keeps to a sector of its own, so that in each frame all can be counted. Angles are
    from straight down, positive to the right.
    """
    degree = math.pi / 180
    if n < arms:
        side = 1 if n % 2 else -1
        upper = n // 2 == 0
        root = np.array([side * 0.075, -0.105 if upper else -0.02]) * unit
        length = 0.105 * unit
        if arms == 2:
            rest, reach = (78, 30) if motion != "waves" else (112, 34)
        else:
            rest, reach = (122, 16) if upper else (66, 16)
        if motion == "waves" and n % 2 == 0:
            reach *= 0.25
        shift = 0.0 if motion == "jumps" or side > 0 else math.pi
        bend = 14 if upper else -8
    else:
        k = n - arms
        side = 0 if legs == 1 else (-1, 1, 0)[k] if legs == 3 else (-1, 1)[k]
        root = np.array([side * 0.05, 0.105]) * unit
        length = 0.12 * unit
        rest, reach = (
            (0 if side == 0 else 30 + 12 * (legs == 3)),
            (10 if motion != "waves" else 1.5),
        )
        if side == 0 and legs == 3:
            reach = min(reach, 6)
        side = side or 1
        shift = 0.0 if motion == "jumps" or side > 0 else math.pi
        bend = -10 if rest else 4
    sway = np.sin(swing + shift)
    first = side * (rest + reach * sway) * degree
    second = first + side * bend * (1 + 0.5 * sway) * degree
    direction = lambda angle: np.stack([np.sin(angle), np.cos(angle)], -1)  # noqa: E731
    joint = root + length * direction(first)
    end = joint + length * direction(second)
    return np.stack([np.broadcast_to(root, joint.shape), joint, end], axis=1)


def _paint_figure(
    canvas: Canvas, center: np.ndarray, limbs: np.ndarray, color: tuple[int, int, int], unit: int
) -> None:
    for root, joint, end in limbs:
        canvas.line(root, joint, 0.045 * unit, INK)
        canvas.line(joint, end, 0.045 * unit, INK)
    for _, _, end in limbs:
        canvas.disc(end, 0.038 * unit, GOLD)
    up, down = center + (0, -0.10 * unit), center + (0, 0.09 * unit)
    canvas.line(up, down, 0.17 * unit, color)
    head = center + (0, -0.285 * unit)
    canvas.disc(head, 0.092 * unit, _SKIN)
    for side in (-1, 1):
        canvas.disc(head + (side * 0.035 * unit, -0.01 * unit), 0.014 * unit, INK)
