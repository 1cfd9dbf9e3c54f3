"""Which cameras of a robot a run reads, and the size of their frames: its section `dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from robotics.embodiment.recording import Camera
from robotics.embodiment.robot import Robot

SIDE = 16
"""Sides of frames are multiples of it where nothing states them: pixels of the codecs' tokens."""
PIXELS = 128 * 160
"""Of a frame, where nothing states its size or `dataset.pixels`."""
_KEYS = ("size", "history")


def camera_names(settings: Mapping[str, Any], robot: Robot) -> tuple[str, ...]:
    """The cameras that `dataset.cameras` names, all that the table uses without it, in the table's
    order. ValueError for unknown ones."""
    stated = _stated(settings, robot)
    return tuple(row.name for row in robot.used_cameras(list(stated) if stated else None))


def camera_sizes(settings: Mapping[str, Any], robot: Robot) -> dict[str, tuple[int, int]]:
    """Camera -> (H, W) of its frames, in the table's order.

    That is `dataset.cameras.NAME.size`, else `dataset.image_size`, else the recorded size of the
    table in about `dataset.pixels` pixels, its proportions kept as far as multiples of `SIDE`
    allow.
    """
    stated, default = _stated(settings, robot), settings["image_size"]
    pixels = settings.get("pixels") or PIXELS
    found = {}
    for name in camera_names(settings, robot):
        size = (stated.get(name) or {}).get("size") or default
        found[name] = _checked(name, size or default_size(robot.camera(name), pixels))
    return found


def default_size(camera: Camera, pixels: float = PIXELS) -> tuple[int, int]:
    """(H, W) of a camera's frames of about so many pixels, where nothing states it."""
    height, width = camera.size or (4, 5)
    scale = (pixels / (height * width)) ** 0.5 / SIDE
    return SIDE * max(1, round(height * scale)), SIDE * max(1, round(width * scale))


def _stated(settings: Mapping[str, Any], robot: Robot) -> dict[str, Mapping[str, Any] | None]:
    """`dataset.cameras`, null, names or settings by name, as settings by name."""
    given = settings.get("cameras")
    if given is None:
        return {}
    rows: dict[str, Any] = dict(given) if isinstance(given, Mapping) else dict.fromkeys(given)
    known = [row.name for row in robot.cameras]
    for name, row in rows.items():
        if name not in known:
            near = (get_close_matches(str(name), known, 1) or known)[0]
            raise ValueError(
                f"dataset.cameras: expected some of {', '.join(known)} of robot {robot.name}, got "
                f"{name!r}; write dataset.cameras=[{near}]"
            )
        if row is not None and (not isinstance(row, Mapping) or set(row) - set(_KEYS)):
            raise ValueError(
                f"dataset.cameras.{name}: expected {' and '.join(_KEYS)}, got {row!r}; write "
                f"'dataset.cameras={{{name}: {{size: [128, 160], history: 0}}}}'"
            )
    return rows


def _checked(name: str, size: Sequence[Any]) -> tuple[int, int]:
    sides = [int(side) for side in size]
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(
            f"dataset.cameras.{name}: expected a size [height, width], got {list(size)}; write "
            "dataset.image_size=[128,160]"
        )
    return sides[0], sides[1]
