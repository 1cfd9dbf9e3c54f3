"""Episodes to play: all cameras beside each other, what was commanded and measured under them.

One small mp4 an episode holds both, so they cannot get out of step; a page embeds it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from robotics.data.images import decode_image, resize_image
from robotics.data.parts import recording
from robotics.data.rlds.raw import RawPlace
from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot
from robotics.inspection.examination import Examination
from robotics.inspection.watch import Watched
from selfflow_wm.pages import embedded
from selfflow_wm.strips import font
from selfflow_wm.videos import open_mp4

HEIGHT = 144
"""Pixels of a camera's picture; its width follows."""
TRACE = 80
"""Pixels of the traces of state or action."""
CONTROLS = 40
"""Pixels left free for what a browser lays over a video that stands still."""
LEAST_WIDTH, MOST_WIDTH = 480, 896
MOST_FRAMES = 240
"""Longer episodes are shown faster."""
WATCHED, TYPICAL, CAMERAS = 6, 2, 4
"""Episodes of the watch list and typical ones, and cameras of each, that a page plays."""
BUDGET = 5_000_000
"""Bytes of all videos of a page."""
COLOURS = ("#3f6fb5", "#b3382c", "#22794a", "#b8860b", "#6b3fb5", "#008b8b", "#c2508a", "#5a5f69")
INK, QUIET, PAPER, MARK = "#1d2530", "#8a93a0", "#ffffff", "#fbe3df"


@dataclass(frozen=True)
class Player:
    """A video of an episode, for a page."""

    number: int
    title: str
    reasons: tuple[str, ...]
    """Why to watch it; empty: it is like most."""
    video: str
    """mp4 in base64."""
    width: int
    height: int


@dataclass(frozen=True)
class Shown:
    """Which episodes a page plays."""

    watch: Sequence[Watched]
    typical: Sequence[int]
    places: Mapping[int, RawPlace]
    """Episode -> where it is."""
    marks: Mapping[int, Sequence[tuple[int, int]]]
    """Episode -> stretches of steps to colour."""


Shots = Mapping[str, Callable[[int], np.ndarray]]
"""Camera -> its picture uint8 (H, W, 3) at a step."""


def player(
    number: int,
    title: str,
    reasons: Sequence[str],
    shots: Shots,
    parts: Mapping[str, np.ndarray],
    robot: Robot,
    marks: Sequence[tuple[int, int]] = (),
) -> Player | None:
    """Render one episode; None where it has neither pictures nor values.

    Args:
        number: of the episode.
        title: shown above it.
        reasons: see `Player`.
        shots: pictures, by camera.
        parts: "state.gripper", ... -> (T, width).
        robot: the table, for its rate and the order of cameras and parts.
        marks: stretches of steps (first, one past the last) to colour.
    """
    steps = max((len(values) for values in parts.values()), default=0)
    names = [row.name for row in robot.cameras if row.name in shots]
    if not steps or not (names or parts):
        return None
    shown = np.unique(np.linspace(0, steps - 1, min(steps, MOST_FRAMES)).round().astype(int))
    widths = [_width(shots[name](0)) for name in names]
    scale = min(1.0, MOST_WIDTH / max(sum(widths), 1))
    sizes = [(round(HEIGHT * scale), round(width * scale)) for width in widths]
    width = _sixteen(max(sum(w for _, w in sizes), LEAST_WIDTH))
    top = max((h for h, _ in sizes), default=0)
    traces = [
        _traces({k: v for k, v in parts.items() if k.startswith(group)}, group, steps, width, marks)
        for group in ("state", "action")
        if any(name.startswith(group) for name in parts)
    ]
    height = _sixteen(top + TRACE * len(traces) + CONTROLS)
    below = Image.new("RGB", (width, height - top), PAPER)
    for place, trace in enumerate(traces):
        below.paste(trace, (0, TRACE * place))

    def frames() -> Iterator[np.ndarray]:
        for step in shown.tolist():
            sheet = Image.new("RGB", (width, height), PAPER)
            left = 0
            for name, size in zip(names, sizes, strict=True):
                picture = Image.fromarray(resize_image(shots[name](step), size))
                sheet.paste(picture, (left, 0))
                _label(ImageDraw.Draw(sheet), (left + 3, 1), name, "#ffffff", INK)
                left += size[1]
            sheet.paste(below, (0, top))
            paint = ImageDraw.Draw(sheet)
            x = _across(step, steps, width)
            paint.line((x, top, x, height - CONTROLS), INK, 1)
            _label(paint, (width - 64, top + 1), f"step {step}", QUIET, None)
            yield np.asarray(sheet)

    rate = robot.rate * len(shown) / steps
    return Player(
        number, title, tuple(reasons), _video(frames(), width, height, rate), width, height
    )


def _video(frames: Iterator[np.ndarray], width: int, height: int, rate: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.mp4"
        writer = open_mp4(path, width, height, max(rate, 1.0))
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        return embedded(path) or ""


def _traces(
    parts: Mapping[str, np.ndarray],
    group: str,
    steps: int,
    width: int,
    marks: Sequence[tuple[int, int]],
) -> Image.Image:
    """Every value over the episode, each part scaled by its own range."""
    image = Image.new("RGB", (width, TRACE), PAPER)
    paint = ImageDraw.Draw(image)
    for first, last in marks:
        box = (_across(first, steps, width), 14, _across(last, steps, width) + 1, TRACE - 4)
        paint.rectangle(box, MARK)
    left = 4
    paint.text((left, 1), group, INK, font())
    left += 8 * len(group)
    for number, (name, values) in enumerate(parts.items()):
        colour = COLOURS[number % len(COLOURS)]
        low, high = float(values.min()), float(values.max())
        span = max(high - low, 1e-9)
        for line in values.T:
            points = [
                (_across(step, steps, width), TRACE - 6 - (TRACE - 24) * (value - low) / span)
                for step, value in enumerate(line.tolist())
            ]
            if len(points) > 1:
                paint.line(points, colour, 1)
        label = f"{name.partition('.')[2]} {low:.2g} … {high:.2g}"
        if left + font().getlength(label) < width - 66:
            paint.text((left, 1), label, colour, font())
            left += round(font().getlength(label)) + 14
    return image


def _across(step: int, steps: int, width: int) -> int:
    return round(2 + (width - 5) * step / max(steps - 1, 1))


def _width(picture: np.ndarray) -> int:
    return max(round(HEIGHT * picture.shape[1] / picture.shape[0]), 32)


def _sixteen(pixels: int) -> int:
    return -(-pixels // 16) * 16


def _label(
    paint: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    colour: str,
    shadow: str | None,
) -> None:
    if shadow is not None:
        paint.text((place[0] + 1, place[1] + 1), text, shadow, font())
    paint.text(place, text, colour, font())


def players(examined: Examination) -> list[Player]:
    """The first episodes to watch, and a few that are like most, read again."""
    shown: Shown | None = examined.extra.get("shown")
    if shown is None:
        return []
    return within_budget(_rendered(examined, shown))


def _rendered(examined: Examination, shown: Shown) -> Iterator[Player | None]:
    robot = examined.robot
    rows = [(row.number, row.reasons) for row in _varied(shown.watch)]
    rows += [(number, ()) for number in shown.typical[:TYPICAL]]
    for number, reasons in rows:
        try:
            raw = examined.source.read(shown.places[number])
        except ValueError:
            continue  # a finding says so
        episode = recording(raw, robot, f"{examined.split}:{number}")
        shots: dict[str, Callable[[int], np.ndarray]] = {}
        for camera in robot.cameras:
            key = column(camera.path).key
            found: Any = raw.pictures.get(key) or raw.texts.get(key)
            if found and camera.name in episode.cameras and len(shots) < CAMERAS:
                shots[camera.name] = _shot(found, camera.rotate)
        said = next((text for text in episode.texts if text), "")
        title = f"{number}: {said}" if said else str(number)
        marks = shown.marks.get(number, ())
        yield player(number, title, reasons, shots, episode.parts, robot, marks)


def _varied(watch: Sequence[Watched]) -> list[Watched]:
    """`WATCHED` episodes: the first one of each reason before others of the same."""
    known: set[str] = set()
    new, rest = [], []
    for row in watch:
        (rest if known >= set(row.reasons) else new).append(row)
        known |= set(row.reasons)
    chosen = [*new, *rest][:WATCHED]
    return [row for row in watch if row in chosen]


def _shot(rows: Any, rotate: int) -> Callable[[int], np.ndarray]:
    def shot(step: int) -> np.ndarray:
        row = rows.decode(step) if hasattr(rows, "decode") else rows[step]
        try:
            picture = row if isinstance(row, np.ndarray) else decode_image(row)
        except ValueError:  # a finding says so
            picture = np.zeros((HEIGHT, HEIGHT, 3), np.uint8)
        return np.ascontiguousarray(np.rot90(picture, -rotate // 90))

    return shot


def within_budget(players: Iterator[Player | None], budget: int = BUDGET) -> list[Player]:
    """The first ones whose videos take no more than `budget` bytes together."""
    kept: list[Player] = []
    size = 0
    for row in players:
        if row is None:
            continue
        size += len(row.video)
        if size > budget and kept:
            break
        kept.append(row)
    return kept
