"""Shards as arrays: frames decoded once into a file or found in the shard, the rest small.

Decoding a JPEG costs far more than reading the pixels, and training reads every frame many times;
but decoded frames of a large data set do not fit on a disk. A cache entry belongs to one shard, the
way it is read and one image size (if it holds pixels). It is named by a fingerprint of the shard's
contents, so renamed or newly added shards cost nothing extra, and shared by all processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.cache.entries import (
    PRESENT,
    EntryWriter,
    longer,
    look_at,
    pixels_file,
    places_file,
)
from robotics.data.images import decode_image, resize_image, turn_image
from robotics.data.recordings import Reading, RecordedSteps, Source
from robotics.data.rlds import storage
from robotics.data.rlds.convert import NoSteps
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.frames import PLACE, DecodedFrames, StoredFrames, find_images
from robotics.data.rlds.reader import RecordFormat, ShardSlice, container, index_shard, split_shards
from robotics.data.rlds.storage import RemoteFile
from robotics.data.rlds.tfrecord import RecordSpan
from selfflow_wm.files import locked
from selfflow_wm.progress import Progress

VERSION = 3
"""Raise it when the meaning of a cached array changes."""


def fingerprint(spans: Sequence[RecordSpan]) -> str:
    """Identifies a shard by the lengths and stored checksums of its records."""
    rows = np.array([(span.length, span.checksum) for span in spans], "<u8")
    return hashlib.sha256(rows.tobytes()).hexdigest()[:20]


@dataclass(frozen=True)
class ShardCache:
    """Opens shards as arrays, building what is missing.

    Args:
        format: what the records hold.
        reading: which frames are wanted and how, and where entries lie.
    """

    format: RecordFormat
    reading: Reading

    @property
    def directory(self) -> Path:
        """Where entries lie."""
        return self.reading.cache_dir

    @property
    def faults(self) -> Faults:
        """What to do about damage."""
        return self.reading.faults

    def is_cached(self, shard: ShardSlice) -> bool:
        """Whether `open` would find a finished entry."""
        try:
            spans = index_shard(shard, Faults(), self.directory)
        except ValueError:  # `open` will say so
            return False
        return self._entry(spans).is_dir()

    def entry_name(self, shard: ShardSlice) -> str:
        """Identifies the shard's contents, how they are read and the frames' size."""
        silent = Faults(self.faults.on_error)  # `open` reports and counts
        return self._entry(index_shard(shard, silent, self.directory)).name

    def open(
        self, shard: ShardSlice, on_episode: Callable[[], None] = lambda: None
    ) -> RecordedSteps:
        """The whole shard's steps, building the cache entry if there is none.

        The first process builds; others that ask meanwhile wait for it. An entry appears under its
        name only when complete, so a crash leaves nothing that could be mistaken for one.

        Args:
            shard: any slice of the shard; the whole shard is cached.
            on_episode: called after each episode that was read.
        """
        spans = index_shard(shard, self.faults, self.directory)
        entry = self._entry(spans)
        if not entry.is_dir():
            with locked(entry.with_suffix(".lock")):
                if not entry.is_dir():
                    self._build(entry, shard.path, spans, on_episode)
        return self._load(entry, shard, spans)

    def _entry(self, spans: Sequence[RecordSpan]) -> Path:
        sizes = {f"{height}x{width}" for height, width in self.reading.image_sizes.values()}
        listed = [f"{height}x{width}" for height, width in self.reading.image_sizes.values()]
        frames = "-".join(sizes if len(sizes) == 1 else listed)
        robot = self.format.robot.fingerprint(self.format.cameras)
        parts = [f"v{VERSION}", fingerprint(spans), robot]
        return self.directory / "-".join([*parts, frames if self.reading.decoded else "index"])

    def _build(
        self,
        entry: Path,
        path: Path | RemoteFile,
        spans: Sequence[RecordSpan],
        on_episode: Callable[[], None],
    ) -> None:
        unfinished = entry.with_suffix(".partial")  # only the lock's holder touches it
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        found = Faults(self.faults.on_error)
        with ThreadPoolExecutor(self.reading.threads) as pool, ExitStack() as files:
            writing = EntryWriter(self.format, self.reading, len(spans), unfinished, files)
            for number, span in enumerate(spans):
                try:
                    self._read(path, number, span, pool, writing, found)
                except ValueError as error:
                    found.report(error, path, number)
                    continue
                on_episode()
            writing.close()
        skipped = [(fault.record, fault.reason) for fault in found.found]
        if skipped or found.filtered or found.empty:
            note = {"skipped": skipped, "filtered": found.filtered, "empty": found.empty}
            (unfinished / "left_out.json").write_text(json.dumps(note))
        unfinished.rename(entry)

    def _read(
        self,
        path: Path | RemoteFile,
        number: int,
        span: RecordSpan,
        pool: ThreadPoolExecutor,
        writing: EntryWriter,
        found: Faults,
    ) -> None:
        """Add one episode, unless it is filtered out or empty; every image is decoded, or looked at
        for its header and end."""
        where = f"{path}, record {number}"
        record = container(path).read_record(path, span, number)
        try:
            episode = self.format.parse(record, where)
        except NoSteps:
            found.empty += 1
            return
        if episode is None:
            found.filtered += 1
            return
        frames: dict[str, list[Any]] = {}
        for name, images in episode.cameras.items():
            try:
                if self.reading.decoded:
                    pixels = partial(self._pixels, name)
                    frames[name] = list(pool.map(pixels, images))
                else:
                    look_at(images)
                    frames[name] = [find_images(record, number, images)]
            except ValueError as error:
                camera = f" of camera {name}" if len(self.format.cameras) > 1 else ""
                raise ValueError(f"{where}: undecodable image{camera}: {error}") from error
        writing.add(number, episode, frames)

    def _pixels(self, camera: str, data: bytes) -> bytes:
        image = turn_image(decode_image(data), self.format.robot.camera(camera).rotate)
        return resize_image(image, self.reading.image_sizes[camera]).tobytes()

    def _load(self, entry: Path, shard: ShardSlice, spans: Sequence[RecordSpan]) -> RecordedSteps:
        with np.load(entry / "steps.npz", allow_pickle=False) as arrays:
            steps = {name: arrays[name] for name in arrays.files}
        note = entry / "left_out.json"
        if note.is_file():
            left_out = json.loads(note.read_text())
            self.faults.filtered += left_out["filtered"]
            self.faults.empty += left_out["empty"]
            for number, reason in left_out["skipped"]:
                self.faults.report(ValueError(reason), shard.path, number)
        count, robot = int(steps["lengths"].sum()), self.format.robot
        frames = {
            name: self._frames(entry, name, shard, spans, count) for name in self.format.cameras
        }
        expected = {"state": (count, robot.state_width), "action": (count, robot.action_width)}
        if None in frames.values() or any(
            steps[name].shape != shape for name, shape in expected.items()
        ):
            raise ValueError(
                f"{entry}: expected {count} frames and steps, got other sizes; "
                "delete the directory, it is built again from the data."
            )
        # Episodes after the damage of a shard count as empty ones.
        episodes = max(shard.total, len(spans))
        present = {
            name.removeprefix(PRESENT): longer(steps.pop(name), episodes)
            for name in list(steps)
            if name.startswith(PRESENT)
        }
        lengths = longer(steps.pop("lengths"), episodes)
        return RecordedSteps(frames, **steps, lengths=lengths, present=present)  # pyright: ignore

    def _frames(
        self, entry: Path, camera: str, shard: ShardSlice, spans: Sequence[RecordSpan], count: int
    ) -> DecodedFrames | StoredFrames | None:
        size = self.reading.image_sizes[camera]
        if not self.reading.decoded:
            places = np.load(places_file(entry, camera), mmap_mode="r", allow_pickle=False)
            if len(places) != count or places.dtype != PLACE:
                return None
            turn = self.format.robot.camera(camera).rotate
            return StoredFrames(shard.path, spans, places, size, self.reading.draft, turn)
        path = pixels_file(entry, camera)
        if path.stat().st_size != int(np.prod((count, *size, 3))):
            return None
        return DecodedFrames(path, count, size)


def open_split(
    directory: str | os.PathLike[str], split: str, cache: ShardCache
) -> tuple[list[RecordedSteps], list[Source]]:
    """The steps of a split's shards, cut to its episodes, and where they come from.

    Raises:
        ValueError: no such split, nothing in it, or damage that `cache.faults` does not skip.
    """
    progress = cache.reading.progress
    shards = split_shards(directory, split)
    there = storage.mapped(cache.is_cached, shards, storage.is_url(directory))
    missing = [shard for shard, cached in zip(shards, there, strict=True) if not cached]
    parts, sources = [], []
    total = sum(shard.total for shard in missing)
    with Progress(
        total, description="decoding episodes", unit="episode", quiet=not progress
    ) as bar:
        for shard in shards:
            whole = cache.open(shard, bar.add)
            parts.append(whole.episodes(shard.first, shard.count))
            before = int(whole.lengths[: shard.first].sum())
            sources.append(Source(cache.entry_name(shard), before, len(parts[-1])))
    if not sum(len(part) for part in parts):
        left_out = cache.faults.summary() or _other_slices(directory, split)
        raise ValueError(
            f"expected episodes in {split!r} of {directory}, got none. {left_out}".rstrip()
        )
    if (cache.faults.found or cache.faults.empty) and progress:
        print(cache.faults.summary(), file=sys.stderr)
    return parts, sources


def _other_slices(directory: str | os.PathLike[str], split: str) -> str:
    """What to write where a slice of a small set is empty: the last episode is held out."""
    name = split.partition("[")[0]
    episodes = sum(shard.count for shard in split_shards(directory, name))
    if name == split or episodes < 2:
        return ""
    last = episodes - 1
    return (
        f"{name!r} has {episodes} episodes; write 'dataset.train_split=\"{name}[:{last}]\"' "
        f"'dataset.validation_split=\"{name}[{last}:]\"'"
    )
