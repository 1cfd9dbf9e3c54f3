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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robotics.data.images import decode_image, resize_image
from robotics.data.rlds import storage
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.frames import PLACE, DecodedFrames, StoredFrames, find_images
from robotics.data.rlds.reader import RecordFormat, ShardSlice, container, index_shard, split_shards
from robotics.data.rlds.spec import rt1_spec
from robotics.data.rlds.storage import RemoteFile
from robotics.data.rlds.tfrecord import RecordSpan
from robotics.embodiment.table import ACTION_DIM, PROPRIO_DIM
from selfflow_wm.files import locked
from selfflow_wm.progress import Progress

VERSION = 2
"""Raise it when the meaning of a cached array changes."""


@dataclass(frozen=True)
class ShardArrays:
    """All n steps of a shard's E episodes, one after the other."""

    frames: DecodedFrames | StoredFrames
    """n frames uint8 (H, W, 3), read or decoded when asked for."""
    action: np.ndarray
    """float32 (n, 8)."""
    proprio: np.ndarray
    """float32 (n, 8)."""
    instruction_id: np.ndarray
    """int32 (n,) into `instructions`."""
    instructions: np.ndarray
    """Distinct instructions, unicode."""
    lengths: np.ndarray
    """int64 (E,) steps of the episodes; 0 for those that were skipped or filtered out."""


def fingerprint(spans: Sequence[RecordSpan]) -> str:
    """Identifies a shard by the lengths and stored checksums of its records."""
    rows = np.array([(span.length, span.checksum) for span in spans], "<u8")
    return hashlib.sha256(rows.tobytes()).hexdigest()[:20]


class ShardSteps(NamedTuple):
    """A run of a dataset's steps in the cache of decoded frames."""

    name: str
    """Of the cache entry of the shard: its contents' fingerprint and the frames' size."""
    first: int
    """Step of the shard that the run begins with."""
    steps: int


@dataclass(frozen=True)
class ShardCache:
    """Opens shards as arrays, building what is missing.

    Args:
        directory: where entries lie.
        format: what the records mean.
        image_size: height and width of the frames.
        decoded: keep decoded frames (H * W * 3 bytes a step), or only where they are.
        draft: where they are decoded when read, decode no more than their size needs.
        threads: that decode images.
        faults: what to do about damage.
    """

    directory: Path
    format: RecordFormat
    image_size: tuple[int, int]
    decoded: bool
    threads: int
    faults: Faults
    draft: bool = False

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

    def open(self, shard: ShardSlice, on_episode: Callable[[], None] = lambda: None) -> ShardArrays:
        """The whole shard's arrays, building the cache entry if there is none.

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
        height, width = self.image_size
        spec = self.format.spec.fingerprint()
        parts = [f"v{VERSION}", fingerprint(spans)]
        if spec != rt1_spec().fingerprint():
            parts.append(spec)
        parts.append(f"{height}x{width}" if self.decoded else "index")
        return self.directory / "-".join(parts)

    def _build(
        self,
        entry: Path,
        path: Path | RemoteFile,
        spans: Sequence[RecordSpan],
        on_episode: Callable[[], None],
    ) -> None:
        partial = entry.with_suffix(".partial")  # only the lock's holder touches it
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        found = Faults(self.faults.on_error)
        columns: dict[str, list[np.ndarray]] = {
            "action": [np.zeros((0, ACTION_DIM), np.float32)],
            "proprio": [np.zeros((0, PROPRIO_DIM), np.float32)],
            "places": [np.zeros(0, PLACE)],
        }
        instructions: list[str] = []
        lengths = np.zeros(len(spans), np.int64)
        with (partial / "frames.u8").open("wb") as file, ThreadPoolExecutor(self.threads) as pool:
            for number, span in enumerate(spans):
                try:
                    row = self._read(path, number, span, pool)
                except ValueError as error:
                    found.report(error, path, number)
                    continue
                on_episode()
                if row is None:
                    found.filtered += 1
                    continue
                file.write(row.pop("frames"))
                instructions += row.pop("instruction")
                lengths[number] = len(row["action"])
                for name, values in row.items():
                    columns[name].append(values)
            file.flush()
            os.fsync(file.fileno())
        if not self.decoded:
            (partial / "frames.u8").unlink()
            np.save(partial / "places.npy", np.concatenate(columns["places"]))
        names, ids = np.unique(np.array(instructions, dtype=np.str_), return_inverse=True)
        np.savez(
            partial / "steps.npz",
            action=np.concatenate(columns["action"]),
            proprio=np.concatenate(columns["proprio"]),
            instruction_id=ids.reshape(-1).astype(np.int32),
            instructions=names,
            lengths=lengths,
        )
        skipped = [(fault.record, fault.reason) for fault in found.found]
        if skipped or found.filtered:
            note = {"skipped": skipped, "filtered": found.filtered}
            (partial / "left_out.json").write_text(json.dumps(note))
        partial.rename(entry)

    def _read(
        self, path: Path | RemoteFile, number: int, span: RecordSpan, pool: ThreadPoolExecutor
    ) -> dict[str, Any] | None:
        """One episode's arrays, None if it is filtered out; every image is decoded or looked at."""
        where = f"{path}, record {number}"
        record = container(path).read_record(path, span, number)
        episode = self.format.parse(record, where)
        if episode is None:
            return None
        row: dict[str, Any] = {
            "action": episode.actions(),
            "proprio": episode.proprio(),
            "instruction": list(episode.instruction),
            "frames": b"",
        }
        try:
            if self.decoded:
                row["frames"] = b"".join(pool.map(self._pixels, episode.images))
            else:
                self._pixels(episode.images[0])
                row["places"] = find_images(record, number, episode.images)
        except ValueError as error:
            raise ValueError(f"{where}: undecodable image: {error}") from error
        return row

    def _pixels(self, data: bytes) -> bytes:
        return resize_image(decode_image(data), self.image_size).tobytes()

    def _load(self, entry: Path, shard: ShardSlice, spans: Sequence[RecordSpan]) -> ShardArrays:
        with np.load(entry / "steps.npz", allow_pickle=False) as arrays:
            steps = {name: arrays[name] for name in arrays.files}
        note = entry / "left_out.json"
        if note.is_file():
            left_out = json.loads(note.read_text())
            self.faults.filtered += left_out["filtered"]
            for number, reason in left_out["skipped"]:
                self.faults.report(ValueError(reason), shard.path, number)
        count = int(steps["lengths"].sum())
        frames = self._frames(entry, shard, spans, count)
        expected = {"action": (count, ACTION_DIM), "proprio": (count, PROPRIO_DIM)}
        if frames is None or any(steps[name].shape != shape for name, shape in expected.items()):
            raise ValueError(
                f"{entry}: expected {count} frames and steps, got other sizes; "
                "delete the directory, it is built again from the data."
            )
        # Episodes after the damage of a shard count as empty ones.
        lengths = np.zeros(max(shard.total, len(spans)), np.int64)
        lengths[: len(steps["lengths"])] = steps["lengths"]
        return ShardArrays(frames=frames, **(steps | {"lengths": lengths}))

    def _frames(
        self, entry: Path, shard: ShardSlice, spans: Sequence[RecordSpan], count: int
    ) -> DecodedFrames | StoredFrames | None:
        if not self.decoded:
            places = np.load(entry / "places.npy", mmap_mode="r", allow_pickle=False)
            if len(places) != count or places.dtype != PLACE:
                return None
            return StoredFrames(shard.path, spans, places, self.image_size, self.draft)
        path = entry / "frames.u8"
        if path.stat().st_size != int(np.prod((count, *self.image_size, 3))):
            return None
        return DecodedFrames(path, count, self.image_size)


def open_split(
    directory: str | os.PathLike[str], split: str, cache: ShardCache, progress: bool
) -> tuple[list[ShardArrays], list[ShardSteps]]:
    """The arrays of a split's shards, cut to its episodes, and where their steps come from.

    progress: show a bar while entries are built, and say what was left out.

    Raises:
        ValueError: no such split, nothing in it, or damage that `cache.faults` does not skip.
    """
    shards = split_shards(directory, split)
    there = storage.mapped(cache.is_cached, shards, storage.is_url(directory))
    missing = [shard for shard, cached in zip(shards, there, strict=True) if not cached]
    parts, sources = [], []
    total = sum(shard.total for shard in missing)
    with Progress(
        total, description="decoding episodes", unit="episode", quiet=not progress
    ) as bar:
        for shard in shards:
            arrays = cache.open(shard, bar.add)
            parts.append(_cut(arrays, shard.first, shard.count))
            before = int(arrays.lengths[: shard.first].sum())
            steps = len(parts[-1].action)
            sources.append(ShardSteps(cache.entry_name(shard), before, steps))
    if not sum(len(part.action) for part in parts):
        left_out = cache.faults.summary() or _other_slices(directory, split)
        raise ValueError(
            f"expected episodes in {split!r} of {directory}, got none. {left_out}".rstrip()
        )
    if cache.faults.found and progress:
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


def _cut(arrays: ShardArrays, first: int, count: int) -> ShardArrays:
    """Episodes first ... first + count of a shard."""
    ends = np.concatenate([[0], np.cumsum(arrays.lengths)])
    steps = slice(int(ends[first]), int(ends[first + count]))
    parts: Any = {
        name: getattr(arrays, name)[steps]
        for name in ("frames", "action", "proprio", "instruction_id")
    }
    return replace(arrays, **parts, lengths=arrays.lengths[first : first + count])
