"""One pass over a sample of a data set's episodes; what stays in memory is bounded.

Episodes are read in a random order of fixed seed, so the first N are the same in every run, and
what is kept of only some of them is a fair sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robotics.data.episodes import Episode, no_op_steps, run_ends
from robotics.data.images import decode_image, resize_image
from robotics.data.rlds.convert import decode_episode, wanted
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.raw import RawEpisode, RawFormat, read_raw
from robotics.data.rlds.reader import container, index_shard
from robotics.data.rlds.spec import DatasetSpec, column
from robotics.data.rlds.storage import RemoteFile
from robotics.data.rlds.tfrecord import RecordSpan
from robotics.data.statistics import StreamingStatistics
from selfflow_wm.progress import Progress

SEED = 0
TRACK_STEPS = 200_000
"""Steps whose vectors are kept for evidence and plots (about 40 MB); later ones only count."""
MOST_TEXTS = 10_000
"""Different instructions that are counted one by one."""
STRIPS, STRIP_FRAMES, STRIP_HEIGHT = 4, 8, 96
STILL_POSITION, STILL_ROTATION = 1e-3, 5e-3
"""m and rad: a smaller command, with the gripper as before, asks for nothing."""
FLAT = 2.0
"""A frame whose pixels deviate less than this (of 255) shows nothing."""
PLACES = tuple(f"{group}.{name}" for group in ("action", "proprio")
               for name in ("position", "rotation", "gripper"))  # fmt: skip

Place = tuple[Path | RemoteFile, int, RecordSpan]


@dataclass(frozen=True)
class Track:
    """Vectors of one episode, as stored."""

    name: str
    steps: int
    parts: dict[str, np.ndarray]
    """"action.position", ... -> (T, width)."""


@dataclass
class Frames:
    """Counts over the camera's frames."""

    seen: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    repeated: int = 0
    """Frames with exactly the bytes of the one before."""
    last_repeated: int = 0
    """Episodes whose last frame is such a copy."""
    flat: int = 0
    """Frames of a single colour."""


@dataclass
class Texts:
    """Counts over instructions."""

    episodes: Counter[str] = field(default_factory=Counter)
    """Episodes that have the instruction at their first step."""
    empty: int = 0
    """Episodes with an empty instruction at any step."""
    changing: int = 0
    """Episodes whose instruction changes on the way."""
    damaged: list[str] = field(default_factory=list)
    """Episodes with text that is not UTF-8."""


@dataclass
class Ends:
    """Counts over how episodes end."""

    at_end: int = 0
    """Episodes that terminate at the last step."""
    never: int = 0
    repeated: int = 0
    """Episodes that terminate at two steps or more in a row."""
    going_on: int = 0
    """Episodes that continue, under the same instruction, after a step that terminates."""
    idle_last: int = 0
    """Episodes whose last step commands no motion."""
    success: int = 0
    wrong_flags: int = 0
    """Episodes whose is_first or is_last is not at the first or last step alone."""


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
    frames: Frames = field(default_factory=Frames)
    texts: Texts = field(default_factory=Texts)
    ends: Ends = field(default_factory=Ends)
    still: int = 0
    """Steps that command nothing."""
    statistics: dict[str, StreamingStatistics] = field(
        default_factory=lambda: {name: StreamingStatistics(8) for name in ("action", "proprio")}
    )
    """Of the vectors that training sees."""
    ranges: dict[str, np.ndarray] = field(default_factory=dict)
    """Flattened key -> (2, width) smallest and largest value of every number stored."""
    not_finite: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    """Columns that are not as features.json states, of records that train nevertheless."""
    intervals: dict[str, list[float]] = field(default_factory=dict)
    """Flattened key of a time stamp -> median step of each episode, as stored."""
    strips: list[tuple[str, list[np.ndarray]]] = field(default_factory=list)

    @property
    def episodes(self) -> int:
        """Episodes read without a fault."""
        return len(self.lengths)

    @property
    def steps(self) -> int:
        """Their steps."""
        return sum(self.lengths)


def sample_places(data: RawFormat, limit: int, faults: Faults) -> tuple[list[Place], int]:
    """Where the sampled records lie, and how many the split has.

    Args:
        data: the split.
        limit: most records; 0 takes all.
        faults: takes what is wrong with whole files.
    """
    places: list[Place] = []
    for shard in data.shards:
        spans = index_shard(shard, faults)
        last = min(shard.first + shard.count, len(spans))
        places += [(shard.path, number, spans[number]) for number in range(shard.first, last)]
    total = sum(shard.count for shard in data.shards)
    order = np.random.default_rng(SEED).permutation(len(places))
    chosen = order if limit == 0 else order[:limit]
    return [places[i] for i in chosen], total


def preview(data: RawFormat, places: list[Place], limit: int = 60) -> list[RawEpisode]:
    """The first readable ones of the sampled records, without their images."""
    found = []
    for path, number, span in places[:limit]:
        try:
            record = container(path).read_record(path, span, number)
            raw = read_raw(record, f"{path}, record {number}", data.stored)
        except ValueError:
            continue  # the scan reports it
        for values in raw.texts.values():
            values[2:] = [value if len(value) < 1000 else value[:8] for value in values[2:]]
        found.append(raw)
    return found


def scan(
    data: RawFormat,
    places: list[Place],
    total: int,
    spec: DatasetSpec,
    faults: Faults,
    progress: Progress | None = None,
) -> Scan:
    """Read the records at `places`; `progress` counts them."""
    result = Scan(total=total, sampled=len(places), faults=faults)
    progress = progress or Progress(0, quiet=True)
    progress.total = len(places)
    for path, number, span in places:
        where = f"{path}, record {number}"
        try:
            record = container(path).read_record(path, span, number)
            raw = read_raw(record, where, data.stored)
            _note_raw(result, raw, spec, f"{path.name}, record {number}")
            if not wanted(record, where, spec, data.stored):
                faults.filtered += 1
                continue
            episode = decode_episode(record, where, spec, data.stored)
            _note_frames(result, episode, where)
        except ValueError as error:
            faults.report(error, path, number)
        else:
            _note_episode(result, episode, raw, spec)
        finally:
            progress.add()
    return result


def _note_raw(result: Scan, raw: RawEpisode, spec: DatasetSpec, name: str) -> None:
    result.problems.update(raw.problems)
    for key, values in raw.numbers.items():
        finite = np.isfinite(values)
        if not finite.all():
            result.not_finite[key] += 1
        if not len(values) or not finite.any(0).all():
            continue
        low = np.where(finite, values, np.inf).min(0)
        high = np.where(finite, values, -np.inf).max(0)
        known = result.ranges.setdefault(key, np.stack([low, high]))
        known[0], known[1] = np.minimum(known[0], low), np.maximum(known[1], high)
        if "timestamp" in key.lower() and key.startswith("steps/") and len(values) > 2:
            result.intervals.setdefault(key, []).append(float(np.median(np.diff(values[:, 0]))))
    parts = stored_parts(raw.numbers, spec)
    finite = all(np.isfinite(values).all() for values in parts.values())
    if parts and finite and result.tracked < TRACK_STEPS:
        result.tracks.append(Track(name, raw.steps, parts))
        result.tracked += raw.steps
    for value in raw.texts.get(column(spec.instruction).key, []):
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            result.texts.damaged.append(name)
            break


def stored_parts(numbers: Mapping[str, np.ndarray], spec: DatasetSpec) -> dict[str, np.ndarray]:
    """The vectors a specification names, as stored, by place; those of steps only."""
    parts = {}
    for place, wanted_column in spec.columns().items():
        values = numbers.get(wanted_column.key)
        if place in PLACES and wanted_column.of_step and values is not None:
            taken = wanted_column.values
            parts[place] = values if taken is None else values[:, taken]
    return parts


def _note_frames(result: Scan, episode: Episode, where: str) -> None:
    """Decode every frame. Raises ValueError when one does not."""
    count, images = result.frames, episode.images
    shown: set[int] = set()
    if len(result.strips) < STRIPS:
        shown = set(np.linspace(0, len(images) - 1, STRIP_FRAMES).round().astype(int).tolist())
    strip, sizes, flat = [], [], 0
    for step, data in enumerate(images):
        try:
            frame = decode_image(data)
        except ValueError as error:
            raise ValueError(f"{where}: undecodable image: {error}") from error
        sizes.append(frame.shape[:2])
        flat += float(frame[::8, ::8].std()) < FLAT
        if step in shown:
            width = round(STRIP_HEIGHT * frame.shape[1] / frame.shape[0])
            strip.append(resize_image(frame, (STRIP_HEIGHT, width)))
    copies = [one == other for one, other in zip(images[1:], images[:-1], strict=True)]
    count.seen += len(images)
    count.sizes.update(sizes)
    count.flat += flat
    count.repeated += sum(copies)
    count.last_repeated += bool(copies and copies[-1])
    if strip:
        result.strips.append((f"{Path(where).name}: {episode.instruction[0]}", strip))


def _note_episode(result: Scan, episode: Episode, raw: RawEpisode, spec: DatasetSpec) -> None:
    result.lengths.append(len(episode))
    actions = episode.actions()
    result.statistics["action"].update(actions)
    result.statistics["proprio"].update(episode.proprio())
    start = np.zeros(len(episode), np.int64)
    still = no_op_steps(actions, start, STILL_POSITION, STILL_ROTATION)
    result.still += int(still.sum())
    texts, ends = result.texts, result.ends
    first = episode.instruction[0]
    if first in texts.episodes or len(texts.episodes) < MOST_TEXTS:
        texts.episodes[first] += 1
    texts.empty += any(not text.strip() for text in episode.instruction)
    texts.changing += len(set(episode.instruction)) > 1
    terminate = episode.terminate
    ends.at_end += bool(terminate[-1])
    ends.never += not terminate.any()
    ends.repeated += bool((terminate[1:] & terminate[:-1]).any())
    # The end of a sub-task's run of one instruction is where terminating belongs.
    segment_ends = run_ends(np.array(episode.instruction, dtype=object).astype(str))
    early = _continues_after_end(terminate, segment_ends)
    ends.going_on += early
    motion = np.linalg.norm(actions[-1, :3]), np.linalg.norm(actions[-1, 3:6])
    ends.idle_last += bool(motion[0] <= STILL_POSITION and motion[1] <= STILL_ROTATION)
    ends.success += bool(episode.success)
    expected = np.arange(len(episode))
    for name, at in (("steps/is_first", 0), ("steps/is_last", len(episode) - 1)):
        flags = raw.numbers.get(name)
        if flags is not None and not np.array_equal(flags[:, 0] > 0.5, expected == at):
            ends.wrong_flags += 1
            break


def _continues_after_end(terminate: np.ndarray, segment_ends: np.ndarray) -> bool:
    """Whether a step that does not terminate follows one that does, in the same sub-task."""
    inside = np.arange(1, len(terminate)) < segment_ends[:-1]
    return bool((terminate[:-1] & ~terminate[1:] & inside).any())
