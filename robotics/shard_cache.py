"""Shards as arrays: decoded, resized frames in a memory map, everything else small.

Decoding a JPEG costs far more than reading the pixels, and training reads every frame many times.
A cache entry belongs to one shard and one image size. It is named by a fingerprint of the
shard's contents, so renamed or newly added shards cost nothing extra, and shared by all processes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robotics.embodiment import ACTION_DIM, PROPRIO_DIM
from robotics.images import decode_image, resize_image
from robotics.rlds.reader import ShardSlice, index_shard, read_episode
from robotics.rlds.tfrecord import RecordSpan

VERSION = 2
"""Raise it when the meaning of a cached array changes."""


@dataclass(frozen=True)
class ShardArrays:
    """All n steps of a shard's E episodes, one after the other."""

    frames: np.ndarray
    """uint8 (n, H, W, 3), a read-only memory map."""
    action: np.ndarray
    """float32 (n, 8)."""
    proprio: np.ndarray
    """float32 (n, 8)."""
    instruction_id: np.ndarray
    """int32 (n,) into `instructions`."""
    instructions: np.ndarray
    """Distinct instructions, unicode."""
    lengths: np.ndarray
    """int64 (E,) steps of the episodes."""


def fingerprint(spans: Sequence[RecordSpan]) -> str:
    """Identifies a shard by the lengths and stored checksums of its records."""
    rows = np.array([(span.length, span.checksum) for span in spans], "<u8")
    return hashlib.sha256(rows.tobytes()).hexdigest()[:20]


def is_cached(shard: ShardSlice, image_size: tuple[int, int], cache_dir: Path) -> bool:
    """Whether `open_shard` would find a finished entry."""
    return _entry(index_shard(shard), image_size, cache_dir).is_dir()


def open_shard(
    shard: ShardSlice,
    image_size: tuple[int, int],
    cache_dir: Path,
    *,
    threads: int = 2,
    on_episode: Callable[[], None] = lambda: None,
) -> ShardArrays:
    """The whole shard's arrays, building the cache entry if there is none.

    The first process builds; others that ask meanwhile wait for it. An entry appears under its
    name only when complete, so a crash leaves nothing that could be mistaken for one.

    Args:
        shard: any slice of the shard; the whole shard is cached.
        image_size: height and width of the frames.
        cache_dir: where entries lie.
        threads: that decode images.
        on_episode: called after each episode that was decoded.
    """
    spans = index_shard(shard)
    entry = _entry(spans, image_size, cache_dir)
    if not entry.is_dir():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with entry.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not entry.is_dir():
                _build(entry, shard.path, spans, image_size, threads, on_episode)
    return _load(entry, image_size)


def _entry(spans: Sequence[RecordSpan], image_size: tuple[int, int], cache_dir: Path) -> Path:
    height, width = image_size
    return cache_dir / f"v{VERSION}-{fingerprint(spans)}-{height}x{width}"


def _build(
    entry: Path,
    path: Path,
    spans: Sequence[RecordSpan],
    image_size: tuple[int, int],
    threads: int,
    on_episode: Callable[[], None],
) -> None:
    partial = entry.with_suffix(".partial")  # only the lock's holder touches it
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    actions, proprios, lengths = [], [], []
    instructions: list[str] = []

    def frame(data: bytes) -> np.ndarray:
        return resize_image(decode_image(data), image_size)

    with (partial / "frames.u8").open("wb") as file, ThreadPoolExecutor(threads) as pool:
        for number, span in enumerate(spans):
            episode = read_episode(path, number, span)
            try:
                for pixels in pool.map(frame, episode.images):
                    file.write(pixels.tobytes())
            except ValueError as error:
                raise ValueError(f"{path}, record {number}: undecodable image: {error}") from error
            actions.append(episode.actions())
            proprios.append(episode.proprio())
            lengths.append(len(episode))
            instructions += episode.instruction
            on_episode()
        file.flush()
        os.fsync(file.fileno())
    names, ids = np.unique(np.array(instructions, dtype=np.str_), return_inverse=True)
    np.savez(
        partial / "steps.npz",
        action=np.concatenate(actions),
        proprio=np.concatenate(proprios),
        instruction_id=ids.reshape(-1).astype(np.int32),
        instructions=names,
        lengths=np.array(lengths, np.int64),
    )
    partial.rename(entry)


def _load(entry: Path, image_size: tuple[int, int]) -> ShardArrays:
    with np.load(entry / "steps.npz", allow_pickle=False) as arrays:
        steps = {name: arrays[name] for name in arrays.files}
    count = int(steps["lengths"].sum())
    path, shape = entry / "frames.u8", (count, *image_size, 3)
    expected = {"action": (count, ACTION_DIM), "proprio": (count, PROPRIO_DIM)}
    if path.stat().st_size != int(np.prod(shape)) or any(
        steps[name].shape != shape for name, shape in expected.items()
    ):
        raise ValueError(
            f"{entry}: expected {count} frames and steps, got other sizes; "
            "delete the directory, it is built again from the data."
        )
    return ShardArrays(frames=np.memmap(path, np.uint8, mode="r", shape=shape), **steps)
