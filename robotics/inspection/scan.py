"""One pass over a sample of a data set's episodes; what stays in memory is bounded.

Nothing here knows a robot's table: columns are kept as they are stored. Episodes are read in a
random order of fixed seed, so the first N are the same in every run, and what is kept of only some
of them is a fair sample.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.images import decode_image, resize_image
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.raw import RawEpisode, RawPlace, RawSource
from robotics.embodiment.columns import Column, column
from selfflow_wm.progress import Progress

SEED = 0
TRACK_STEPS = 200_000
"""Steps whose vectors are kept for evidence and plots (about 100 MB); later ones only count."""
WIDEST = 64
"""Values of the widest vector that is looked into; wider ones are embeddings."""
STRIPS, STRIP_FRAMES, STRIP_HEIGHT = 4, 8, 96
THUMB = 8
"""Height and width of the small grey copy of every frame."""
FLAT = 2.0
"""A frame whose pixels deviate less than this (of 255) shows nothing."""
IMAGE_MARKS = (b"\xff\xd8\xff", b"\x89PNG")


@dataclass(frozen=True)
class Pictures:
    """One camera's frames of one episode."""

    digests: np.ndarray
    """(T,) uint64 of the stored bytes: equal where frames are copies."""
    thumbs: np.ndarray
    """(T, THUMB, THUMB) uint8, grey."""
    flat: np.ndarray
    """(T,) bool: of a single colour."""
    black: np.ndarray
    """(T,) bool: of black."""
    size: tuple[int, int]
    """Height and width of the first frame."""
    depth: bool = False
    """PNG of one channel of 16 bits: distances, not colours."""

    @property
    def copies(self) -> np.ndarray:
        """(T,) bool: exactly the bytes of the frame before."""
        return np.concatenate([[False], self.digests[1:] == self.digests[:-1]])


@dataclass(frozen=True)
class Track:
    """One episode as stored, pictures reduced to `Pictures`."""

    number: int
    """Of the episode, in the order of the split."""
    name: str
    """File and record, for people."""
    steps: int
    numbers: dict[str, np.ndarray]
    """Flattened key -> float64 (T, width), of steps, or (1, width) of the episode."""
    texts: dict[str, tuple[str, ...]]
    """Flattened key -> T texts, of steps, or 1 of the episode."""
    pictures: dict[str, Pictures]
    """Flattened key of a camera -> its frames."""

    def values(self, path: str | Column) -> np.ndarray | None:
        """(T, width) of a path of the table ("action[0:3]"); None where it is absent."""
        wanted = column(path) if isinstance(path, str) else path
        found = self.numbers.get(wanted.key)
        if found is None or wanted.values is None:
            return found
        return found[:, wanted.values] if found.shape[1] >= wanted.values.stop else None

    def instruction(self, paths: Sequence[str]) -> str:
        """The first text of these paths that is not empty, at the first step."""
        for path in paths:
            for text in self.texts.get(column(path).key, ())[:1]:
                if text.strip():
                    return text
        return ""


def taken(place: Column, width: int) -> range:
    """Numbers of the values that a path of the table takes of its column."""
    if place.values is None:
        return range(width)
    return range(place.values.start, place.values.stop, place.values.step or 1)


@dataclass
class Frames:
    """Counts over one camera's frames."""

    seen: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    flat: int = 0
    """Frames of a single colour."""
    black: int = 0
    black_episodes: list[int] = field(default_factory=list)
    """Episodes that are black from the first step to the last."""


@dataclass
class Scan:
    """What one pass over the sample found."""

    total: int
    """Episodes of the split, by the metadata."""
    sampled: int
    faults: Faults
    lengths: list[int] = field(default_factory=list)
    """Steps of every episode that could be read."""
    tracks: list[Track] = field(default_factory=list)
    tracked: int = 0
    """Steps of the tracks."""
    cameras: dict[str, Frames] = field(default_factory=dict)
    """Flattened key of a camera -> counts."""
    ranges: dict[str, np.ndarray] = field(default_factory=dict)
    """Flattened key -> (2, width) smallest and largest value of every number stored."""
    not_finite: dict[str, list[int]] = field(default_factory=dict)
    """Flattened key -> episodes with NaN or infinity in it."""
    not_utf8: dict[str, list[int]] = field(default_factory=dict)
    """Flattened key of a text -> episodes where it is not UTF-8."""
    empty: list[int] = field(default_factory=list)
    """Episodes without steps."""
    problems: Counter[str] = field(default_factory=Counter)
    """Columns that are not as the format's own description states."""
    intervals: dict[str, list[float]] = field(default_factory=dict)
    """Flattened key of a time stamp -> median step of each episode, as stored."""
    strips: list[tuple[str, dict[str, list[np.ndarray]]]] = field(default_factory=list)
    """Name of an episode and, by camera, some of its frames."""

    @property
    def episodes(self) -> int:
        """Episodes read without a fault."""
        return len(self.lengths)

    @property
    def steps(self) -> int:
        """Their steps."""
        return sum(self.lengths)


def sample_places(source: RawSource, limit: int, faults: Faults) -> list[RawPlace]:
    """Which episodes are read, in their order; `limit` 0 takes all."""
    places = source.places(faults)
    order = np.random.default_rng(SEED).permutation(len(places))
    return [places[i] for i in (order if limit == 0 else order[:limit])]


def preview(source: RawSource, places: Sequence[RawPlace], limit: int = 60) -> list[Track]:
    """The first readable ones of the sampled episodes, with three of each camera's pictures."""
    found = []
    unused = Scan(0, 0, Faults("skip"), strips=[("", {})] * STRIPS)
    for place in places[:limit]:
        try:
            raw = source.read(place)
            texts = {
                key: [rows[i] for i in sorted({0, len(rows) // 2, len(rows) - 1})]
                if is_picture(rows)
                else rows
                for key, rows in raw.texts.items()
            }
            shown = {key: rows[:1] for key, rows in raw.pictures.items()}
            shorter = RawEpisode(raw.steps, raw.numbers, texts, raw.problems, shown)
            if raw.steps:
                found.append(_track(unused, shorter, place.number, str(place.number)))
        except ValueError:
            continue  # the scan reports it
    return found


class _Decoded(Sequence[Any]):
    """Pictures of a video as pixels: encoding them again would cost more than all the rest."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, step: Any) -> Any:
        return self.rows.decode(step)


def is_picture(rows: Sequence[bytes]) -> bool:
    """Whether these are encoded pictures."""
    return hasattr(rows, "decode") or any(row.startswith(IMAGE_MARKS) for row in rows[:3])


def scan(
    source: RawSource,
    places: Sequence[RawPlace],
    faults: Faults,
    progress: Progress | None = None,
    visit: Callable[[RawPlace, RawEpisode, Track], None] | None = None,
) -> Scan:
    """Read the episodes at `places`; `progress` counts them, `visit` takes each readable one."""
    result = Scan(total=source.total, sampled=len(places), faults=faults)
    progress = progress or Progress(0, quiet=True)
    progress.total = len(places)
    for place in places:
        name = f"{Path(str(place.path)).name}, record {place.record}"
        try:
            raw = source.read(place)
            if raw.steps == 0:
                result.empty.append(place.number)
                continue
            track = _track(result, raw, place.number, name)
        except ValueError as error:
            faults.report(error, place.path, place.record)
        else:
            _note(result, track, raw)
            if visit is not None:
                visit(place, raw, track)
        finally:
            progress.add()
    return result


def _note(result: Scan, track: Track, raw: RawEpisode) -> None:
    result.problems.update(raw.problems)
    result.lengths.append(track.steps)
    for key, values in raw.numbers.items():
        _note_numbers(result, key, values, track.number)
    for key, seen in track.pictures.items():
        count = result.cameras.setdefault(key, Frames())
        count.seen += len(seen.flat)
        count.sizes[seen.size] += 1
        count.flat += int(seen.flat.sum())
        count.black += int(seen.black.sum())
        if seen.black.all():
            count.black_episodes.append(track.number)
    if result.tracked < TRACK_STEPS:
        result.tracks.append(track)
        result.tracked += track.steps


def _note_numbers(result: Scan, key: str, values: np.ndarray, number: int) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        result.not_finite.setdefault(key, []).append(number)
    if not len(values) or not finite.any(0).all():
        return
    low = np.where(finite, values, np.inf).min(0)
    high = np.where(finite, values, -np.inf).max(0)
    known = result.ranges.setdefault(key, np.stack([low, high]))
    known[0], known[1] = np.minimum(known[0], low), np.maximum(known[1], high)
    if "timestamp" in key.lower() and key.startswith("steps/") and len(values) > 2:
        result.intervals.setdefault(key, []).append(float(np.median(np.diff(values[:, 0]))))


def _track(result: Scan, raw: RawEpisode, number: int, name: str) -> Track:
    """What is kept of an episode. Raises ValueError where a picture does not decode."""
    texts: dict[str, tuple[str, ...]] = {}
    pictures: dict[str, Pictures] = {}
    strip: dict[str, list[np.ndarray]] = {}
    known: dict[bytes, str] = {}
    encoded: dict[str, Sequence[Any]] = dict(raw.pictures)
    for key, rows in raw.texts.items():
        if key.startswith("steps/") and is_picture(rows):
            rows = _Decoded(rows) if hasattr(rows, "decode") else rows
            encoded[key] = rows
            continue
        try:
            texts[key] = tuple(known.setdefault(row, row.decode()) for row in rows)
        except UnicodeDecodeError:
            result.not_utf8.setdefault(key, []).append(number)
            texts[key] = tuple(row.decode(errors="replace") for row in rows)
    for key, rows in encoded.items():
        shown: list[np.ndarray] | None = [] if len(result.strips) < STRIPS else None
        pictures[key] = reduced(rows, f"{name}, {key}", shown)
        if shown:
            strip[key] = shown
    if strip:
        result.strips.append((name, strip))
    numbers = {key: rows for key, rows in raw.numbers.items() if rows.shape[1] <= WIDEST}
    return Track(number, name, raw.steps, numbers, texts, pictures)


def reduced(rows: Sequence[Any], where: str, shown: list[np.ndarray] | None = None) -> Pictures:
    """What is kept of one camera's frames, encoded ones or uint8 (H, W, 3).

    shown: takes `STRIP_FRAMES` of them, of `STRIP_HEIGHT`. Raises ValueError, with `where`, for one
    that does not decode.
    """
    wanted = set(np.linspace(0, len(rows) - 1, STRIP_FRAMES).round().astype(int).tolist())
    digests, thumbs, flat, black = [], [], [], []
    size = (0, 0)
    for step, row in enumerate(rows):
        data = row.tobytes() if isinstance(row, np.ndarray) else row
        digest = hashlib.blake2b(data, digest_size=8).digest()
        digests.append(int.from_bytes(digest, "little"))
        if step and digests[-1] == digests[-2] and not (shown is not None and step in wanted):
            for values in (thumbs, flat, black):  # a copy need not be decoded again
                values.append(values[-1])
            continue
        try:
            draft = (32, 32) if step and shown is None else None
            frame = row if isinstance(row, np.ndarray) else decode_image(row, draft)
        except ValueError as error:
            raise ValueError(f"{where}: step {step}: undecodable image: {error}") from error
        size = size if step else (frame.shape[0], frame.shape[1])
        small = resize_image(frame, (THUMB, THUMB)).mean(-1)
        thumbs.append(small.astype(np.uint8))
        deviation = float(frame[::4, ::4].std(axis=(0, 1)).max())
        flat.append(deviation < FLAT)
        black.append(flat[-1] and small.max() < 8)
        if shown is not None and step in wanted:
            width = round(STRIP_HEIGHT * frame.shape[1] / frame.shape[0])
            shown.append(resize_image(frame, (STRIP_HEIGHT, width)))
    return Pictures(
        np.array(digests, np.uint64), np.array(thumbs, np.uint8),
        np.array(flat, bool), np.array(black, bool), size, _depth(rows),
    )  # fmt: skip


def _depth(rows: Sequence[Any]) -> bool:
    """By the header of the first picture: bits of a channel, and 0 for grey."""
    first = rows[0] if len(rows) and isinstance(rows[0], bytes) else b""
    return first.startswith(b"\x89PNG") and first[24:26] == b"\x10\x00"
