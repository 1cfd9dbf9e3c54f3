"""Do things stay what they are? Shapes that pass behind a wall, and the limbs of a figure.

Both read pixels alone, so they judge generated clips too; what the caption promised may be given
as a reference. On true clips of the toy world both errors are 0.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from selfflow_wm.data.toy.canvas import Canvas, paint_shape
from selfflow_wm.data.toy.config import GOLD, INK, PALETTE, SHAPES, SLATE
from selfflow_wm.metrics.colors import COLORS, Patch, center, name_pixels, patches

_CLEAR = 1.5
"""Pixels between a shape and wall or edge for its form to be judged."""

_COVERED = 0.69
"""Share of a pixel on a pale ground that a shape covers when `name_pixels` still names it."""

_GOLD_LIMIT = 48.0
"""Nearer than for other colours: the soft edge of an orange torso comes within 54 of gold."""


@dataclass(frozen=True)
class ObjectPersistence:
    """What became of the shapes of a clip."""

    error: float
    """Share of (object, frame) pairs with an error, in [0, 1]."""
    objects: dict[str, str]
    """Shape by colour, of every object told."""
    errors: list[tuple[int, str, str]] = field(default_factory=list)
    """(frame, colour, what): missing, moved, changed, extra, or absent from the whole clip."""


def object_persistence(
    video: UInt8[np.ndarray, "T H W 3"], expected: dict[str, str] | None = None
) -> ObjectPersistence:
    """Error of the shapes of a clip, which move straight ahead at constant speed.

    A straight path is fitted to where a colour is seen beside the wall. In each frame in which
    the path is clear of wall and edge the object must be there (else `missing`, or `moved` if
    elsewhere) and have its form (else `changed`); a second patch of its colour, or one where
    nothing can be, is `extra`.

    expected: shape by colour. What was promised and never came errs in every frame, and so does
    a colour or form that was not promised.
    """
    frames, height, width = video.shape[:3]
    named = name_pixels(video)
    wall = find_wall(video)
    least = 0.0025 * height * width
    errors: list[tuple[int, str, str]] = []
    objects: dict[str, str] = {}
    for index, color in enumerate(COLORS):
        seen = [patches(frame == index, least) for frame in named]
        if not any(any(_clear(patch, wall, width) for patch in found) for found in seen):
            continue  # nothing, or only slivers beside the wall
        shape, wrong = _follow(seen, wall, width, height)
        objects[color] = shape
        promised = expected is None or expected.get(color) == shape
        if promised:
            errors += [(frame, color, what) for frame, what in sorted(wrong.items())]
        else:
            errors += [(frame, color, "changed") for frame in range(frames)]
    for color in sorted(set(expected or {}) - set(objects)):
        errors += [(frame, color, "absent") for frame in range(frames)]
    count = max(1, len(set(objects) | set(expected or {})))
    return ObjectPersistence(len(errors) / (count * frames), objects, errors)


def find_wall(video: UInt8[np.ndarray, "T H W 3"]) -> tuple[float, float] | None:
    """Left and right edge of the columns that are mostly wall in most frames; None without."""
    share = (name_pixels(video, (SLATE,), 45.0) == 0).mean((0, 1))
    columns = np.flatnonzero(share > 0.5)
    return (float(columns[0]), float(columns[-1] + 1)) if len(columns) else None


def _clear(patch: Patch, wall: tuple[float, float] | None, width: int) -> bool:
    _, left, _, right = patch.bbox
    beside = wall is None or right + _CLEAR <= wall[0] or left - _CLEAR >= wall[1]
    return beside and left > 0 and right < width


def _follow(
    seen: list[list[Patch]], wall: tuple[float, float] | None, width: int, height: int
) -> tuple[str, dict[int, str]]:
    """The shape of one colour's object, and its errors by frame."""
    clear = [[patch for patch in found if _clear(patch, wall, width)] for found in seen]
    whole = [(t, found[0]) for t, found in enumerate(clear) if found]  # the largest
    forms = {t: shape_of(patch) for t, patch in whole}
    shape = Counter(forms.values()).most_common(1)[0][0]
    tolerance = 0.05 * min(height, width)
    times = np.array([t for t, _ in whole])
    spots = np.array([center(patch) for _, patch in whole])
    path = _straight(times, spots, tolerance, len(seen))
    radius = float(np.median([p.image.shape[1] / 2 for _, p in whole]))
    wrong: dict[int, str] = {}
    for t, found in enumerate(seen):
        x = path[t, 0]
        inside = x - radius > _CLEAR and x + radius < width - _CLEAR
        apart = wall is None or x + radius + _CLEAR < wall[0] or x - radius - _CLEAR > wall[1]
        away = [np.hypot(*(center(part) - path[t])) for part in found]
        if inside and apart:
            if not any(distance <= tolerance for distance in away):
                wrong[t] = "moved" if found else "missing"
            elif len(found) > 1:
                wrong[t] = "extra"
            elif t in forms and forms[t] != shape:
                wrong[t] = "changed"
        elif any(distance > tolerance + radius for distance in away):
            wrong[t] = "extra"
    return shape, wrong


def _straight(
    times: Int[np.ndarray, "n"], spots: Float[np.ndarray, "n 2"], tolerance: float, frames: int
) -> Float[np.ndarray, "T 2"]:
    """The straight path most sightings lie on, by trying the line through every pair."""
    every = np.arange(frames)[:, None]
    if len(times) == 1:
        return np.repeat(spots, frames, axis=0)
    best = np.zeros(len(times), dtype=bool)
    for i in range(len(times)):
        for j in range(i + 1, len(times)):
            speed = (spots[j] - spots[i]) / (times[j] - times[i])
            off = spots - (spots[i] + speed * (times[:, None] - times[i]))
            agree = np.hypot(*off.T) <= tolerance
            best = agree if agree.sum() > best.sum() else best
    design = np.stack([np.ones(best.sum()), times[best]], -1)
    start, speed = np.linalg.lstsq(design, spots[best], rcond=None)[0]
    return start + speed * every


def shape_of(patch: Patch) -> str:
    """The one of `SHAPES` that overlaps a whole patch best, by intersection over union."""
    names, models = _models(*patch.image.shape)
    mask = np.pad(patch.image, 1)
    overlap = (models & mask).sum((1, 2)) / (models | mask).sum((1, 2))
    return names[int(overlap.argmax())]


@lru_cache(maxsize=256)
def _models(height: int, width: int) -> tuple[list[str], np.ndarray]:
    """Every shape that may leave a patch of this size, (n, height + 2, width + 2).

    Corners cover their pixels in part, and name_pixels drops those: the shape may be larger than
    its patch, and lie at a fraction of a pixel.
    """
    names, models = [], []
    steps = (-0.33, 0.0, 0.33)
    for shape, grow, dx, dy in product(SHAPES, (0.0, 0.4, 0.8, 1.2), steps, steps):
        canvas = Canvas(np.zeros((4 * height + 8, 4 * width + 8, 3), np.uint8), 4)
        center = (width / 2 + 1 + dx, height / 2 + 1 + dy)
        paint_shape(canvas, shape, center, max(height, width) / 2 + grow, (255, 255, 255))
        names.append(shape)
        models.append(canvas.finish()[..., 0] > 255 * _COVERED)
    return names, np.stack(models)


@dataclass(frozen=True)
class LimbPersistence:
    """Does a figure keep its limbs?"""

    error: float
    """Share of frames whose count differs from the reference, in [0, 1]."""
    counts: list[int]
    """Limbs told in each frame."""
    reference: int
    """The number promised, or else the most frequent count."""
    first: int | None
    """First frame in error."""


def limb_persistence(
    video: UInt8[np.ndarray, "T H W 3"], expected: int | None = None
) -> LimbPersistence:
    """Count the limbs of the figure in each frame: golden ends that a dark limb ties to the torso.

    expected: the promised number; None judges constancy alone.
    """
    counts = [count_limbs(frame) for frame in video]
    reference = expected if expected is not None else Counter(counts).most_common(1)[0][0]
    wrong = [t for t, count in enumerate(counts) if count != reference]
    return LimbPersistence(len(wrong) / len(counts), counts, reference, wrong[0] if wrong else None)


def count_limbs(image: UInt8[np.ndarray, "H W 3"]) -> int:
    """Golden discs that connect to a patch of the palette through dark pixels."""
    height, width = image.shape[:2]
    named = name_pixels(image[None], (*PALETTE.values(), INK), 85.0)[0]
    torso = (named >= 0) & (named < len(PALETTE))
    bodies = patches(torso, 0.01 * height * width)
    if not bodies:
        return 0
    body = np.zeros_like(torso)
    body[bodies[0].slice] = bodies[0].image
    gold = name_pixels(image[None], (GOLD,), _GOLD_LIMIT)[0] == 0
    ends = patches(gold, 0.001 * height * width)
    count = 0
    reach = np.ones((3, 3), np.uint8)
    limb = cv2.dilate((named == len(PALETTE)).astype(np.uint8), reach)
    around = cv2.dilate(body.astype(np.uint8), reach)
    _, parts = cv2.connectedComponents(limb)
    attached = set(np.unique(parts[(around > 0) & (parts > 0)]).tolist())
    for end in ends:
        mask = np.zeros_like(torso)
        mask[end.slice] = end.image
        touched = parts[cv2.dilate(mask.astype(np.uint8), reach) > 0]
        count += bool(attached & set(touched[touched > 0].tolist()))
    return count
