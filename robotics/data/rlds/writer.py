"""Writing TFDS datasets in RT-1's format, without TensorFlow in the process."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robotics.data.episodes import Episode
from robotics.data.rlds import tfrecord
from robotics.data.rlds.schema import (
    DATASET_NAME,
    DATASET_VERSION,
    encode_episode,
    load_tfds,
    rt1_features,
)
from selfflow_wm.files import atomic_open, locked, write_file

STAGED = (".tfrecord", ".discarded.json")
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclass(frozen=True)
class RecordLayout:
    """What the records of a data set hold, and how it is called."""

    features: Callable[[], Any] = rt1_features
    """Gives the `tfds.features.FeaturesDict`."""
    name: str = DATASET_NAME
    version: str = DATASET_VERSION
    description: str = "Demonstrations in RT-1's format; see collection-<split>.json."
    in_order: bool = False
    """Whether episodes lie in the order of their keys, which are then of one length."""


class EpisodeWriter:
    """Collects episodes into a TFDS dataset; safe against crashes, several processes at once.

    `write` puts each episode into a separate file under `.staging/`, visible only when complete.
    `finalize` packs the staged episodes into shards and writes the metadata. Shards are immutable:
    a later finalize adds shards and renames the old ones (their names hold the total). At every
    moment a newly opened reader finds either the old dataset or the new one, and after a crash
    finalize continues where it stopped.

    Beside TFDS's files lies `collection-<split>.json`: provenance, and per episode key its shard,
    number of steps and whatever else `write` was given.

    Args:
        directory: dataset directory, made if missing; reopening it continues.
        split: split to write.
        shard_episodes: most episodes of a shard.
        provenance: JSON values that hold for all episodes (simulator, embodiment, perturbation...).
            Writers of one directory must agree on it.
        layout: what records hold; RT-1's features by default.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        split: str = "train",
        *,
        shard_episodes: int = 64,
        provenance: Mapping[str, Any] | None = None,
        layout: RecordLayout | None = None,
    ) -> None:
        if shard_episodes < 1 or not re.fullmatch(r"[a-z0-9_]+", split):
            raise ValueError(
                "expected shard_episodes >= 1 and a split of lower-case letters, digits or _, "
                f"got {shard_episodes} and {split!r}."
            )
        self.directory = Path(directory)
        self.split = split
        self.shard_episodes = shard_episodes
        self.layout = layout or RecordLayout()
        self._staging = self.directory / ".staging" / split
        self._staging.mkdir(parents=True, exist_ok=True)
        self._lock = self.directory / ".staging" / "lock"
        self._collection_path = self.directory / f"collection-{split}.json"
        info = self.directory / "dataset_info.json"
        rows = json.loads(info.read_text()).get("splits", []) if info.exists() else []
        if not self._collection_path.exists() and split in {row["name"] for row in rows}:
            raise ValueError(
                f"expected a new directory or one this writer made, got {directory} with a split "
                f"{split!r} of other origin; write into another directory."
            )
        if provenance is not None:
            with locked(self._lock):
                self._agree(json.loads(json.dumps(provenance)))

    def done(self) -> set[str]:
        """Keys that need no further work: written (staged or packed) or discarded."""
        collection = self._collection()
        staged = (path for end in STAGED for path in self._staging.glob(f"*{end}"))
        names = {path.name.partition(".")[0] for path in staged}
        return names | set(collection["episodes"]) | set(collection["discarded"])

    def __contains__(self, key: str | int) -> bool:
        name, collection = _checked_key(key), self._collection()
        return (
            any((self._staging / f"{name}{end}").exists() for end in STAGED)
            or name in collection["episodes"]
            or name in collection["discarded"]
        )

    def write(self, key: str | int, episode: Episode, **metadata: Any) -> None:
        """Stage one episode; once this returns it survives a crash.

        Args:
            key: unique name of the episode, such as its seed (letters, digits, `_`, `-`).
            episode: what to write; images must be JPEGs of 256 x 320.
            metadata: JSON values kept in `collection-<split>.json` (seed, task, ...).
        """
        success = bool(episode.success)
        record = encode_episode(episode)
        self.write_record(key, record, **metadata, steps=len(episode), success=success)

    def write_record(self, key: str | int, record: bytes, *, steps: int, **metadata: Any) -> None:
        """Stage one serialised record of the layout's features, as `write` does."""
        name = self._new_key(key)
        row = {**metadata, "steps": steps}
        write_file(self._staging / f"{name}.json", json.dumps(row))
        # The record comes last: its presence is what makes the episode count.
        write_file(self._staging / f"{name}.tfrecord", tfrecord.frame(record))

    def discard(self, key: str | int, **metadata: Any) -> None:
        """Record that an episode was tried and not kept (say, the expert failed)."""
        path = self._staging / f"{self._new_key(key)}.discarded.json"
        write_file(path, json.dumps(metadata))

    def copy_from(self, other: EpisodeWriter, keys: Collection[str]) -> None:
        """Stage what another writer has packed or discarded under these keys, byte for byte."""
        collection, wanted = other._collection(), set(keys)
        total = len(collection["shards"])
        for number, shard in enumerate(collection["shards"]):
            path = other._shard(number, total)
            for name, span in zip(shard["keys"], tfrecord.index_records(path), strict=True):
                if name in wanted:
                    row = collection["episodes"][name]
                    record = tfrecord.frame(tfrecord.read_record(path, span, 0))
                    write_file(self._staging / f"{name}.json", json.dumps(row))
                    write_file(self._staging / f"{name}.tfrecord", record)
        for name in wanted & set(collection["discarded"]):
            self.discard(name, **collection["discarded"][name])

    def finalize(self) -> None:
        """Pack everything staged into the dataset; one process at a time, others may still write.

        Episodes are ordered by a hash of their key, so the outcome does not depend on how many
        processes collected them, and slices such as "train[:90%]" mix tasks and seeds; or by their
        keys, where the layout says so.
        """
        with locked(self._lock):
            collection = self._collection()
            staged = sorted(self._staging.glob("*.tfrecord"), key=self._place_of)
            fresh = [path for path in staged if path.stem not in collection["episodes"]]
            discarded = sorted(self._staging.glob("*.discarded.json"))
            old = len(collection["shards"])
            if fresh:
                collection["shards"] += self._pack(fresh, old)
            if not collection["shards"]:
                raise ValueError(f"expected at least one episode in {self.directory}, got none.")
            for path in fresh:
                row = json.loads(path.with_suffix(".json").read_text())
                collection["episodes"][path.stem] = row
            for path in discarded:
                name = path.name.removesuffix(".discarded.json")
                collection["discarded"][name] = json.loads(path.read_text())
            # The commit: from here on the staged copies are surplus.
            self._save_collection(collection)
            self._write_metadata(collection)
            self._clean(len(collection["shards"]), [*staged, *discarded])

    def _place_of(self, path: Path) -> str:
        return path.stem if self.layout.in_order else _rank(path.stem)

    def _pack(self, staged: list[Path], old: int) -> list[dict[str, Any]]:
        """Link the old shards to their new names and write the new ones."""
        groups = [
            staged[first : first + self.shard_episodes]
            for first in range(0, len(staged), self.shard_episodes)
        ]
        total = old + len(groups)
        for shard in range(old):
            target = self._shard(shard, total)
            target.unlink(missing_ok=True)
            try:
                os.link(self._shard(shard, old), target)
            except OSError:  # a file system without hard links
                shutil.copyfile(self._shard(shard, old), target)
        rows = []
        for shard, group in enumerate(groups, start=old):
            size = 0
            with atomic_open(self._shard(shard, total)) as file:
                for path in group:
                    spans = tfrecord.index_records(path)
                    if len(spans) != 1:
                        raise ValueError(f"{path}: expected one record, got {len(spans)}.")
                    record = tfrecord.read_record(path, spans[0], 0)
                    size += len(record)
                    file.write(tfrecord.frame(record))
            rows.append({"keys": [path.stem for path in group], "bytes": size})
        return rows

    def _write_metadata(self, collection: dict[str, Any]) -> None:
        load_tfds()
        from google.protobuf import json_format
        from tensorflow_datasets.core.proto import dataset_info_pb2

        path = self.directory / "dataset_info.json"
        info = dataset_info_pb2.DatasetInfo()  # pyright: ignore
        if path.exists():
            json_format.Parse(path.read_text(), info)
        info.name, info.version = self.layout.name, self.layout.version
        info.file_format, info.description = "tfrecord", self.layout.description
        others = [row for row in info.splits if row.name != self.split]
        del info.splits[:]
        info.splits.extend(others)
        info.splits.add(
            name=self.split,
            shard_lengths=[len(shard["keys"]) for shard in collection["shards"]],
            num_bytes=sum(shard["bytes"] for shard in collection["shards"]),
            filepath_template=_TEMPLATE,
        )
        features = json.dumps(self.layout.features().to_json(), indent=4, sort_keys=True)
        write_file(self.directory / "features.json", features)
        # Last: without it there is no dataset.
        write_file(path, json_format.MessageToJson(info, sort_keys=True))

    def _clean(self, total: int, staged: list[Path]) -> None:
        keep = {self._shard(shard, total).name for shard in range(total)}
        for path in self.directory.glob(f"*{self.layout.name}-{self.split}.tfrecord-*"):
            if path.name not in keep:
                path.unlink()
        for path in staged:
            path.unlink()
            if path.suffix == ".tfrecord":
                path.with_suffix(".json").unlink(missing_ok=True)
                for leftover in self._staging.glob(f".{path.stem}.*"):
                    leftover.unlink()  # of an earlier attempt that was killed

    def _shard(self, shard: int, total: int) -> Path:
        name = f"{self.layout.name}-{self.split}.tfrecord-{shard:05d}-of-{total:05d}"
        return self.directory / name

    def _collection(self) -> dict[str, Any]:
        if self._collection_path.exists():
            return json.loads(self._collection_path.read_text())
        return {"provenance": None, "shards": [], "episodes": {}, "discarded": {}}

    def _save_collection(self, collection: dict[str, Any]) -> None:
        collection["counts"] = {
            "episodes": len(collection["episodes"]),
            "steps": sum(row["steps"] for row in collection["episodes"].values()),
            "discarded": len(collection["discarded"]),
        }
        text = json.dumps(collection, indent=1, sort_keys=True)
        write_file(self._collection_path, text)

    def _agree(self, provenance: Any) -> None:
        collection = self._collection()
        if collection["provenance"] is None:
            self._save_collection({**collection, "provenance": provenance})
        elif collection["provenance"] != provenance:
            raise ValueError(
                f"expected the provenance of {self.directory}, "
                f"{collection['provenance']}, got {provenance}; write into another directory."
            )

    def _new_key(self, key: str | int) -> str:
        name = _checked_key(key)
        if name in self:
            raise ValueError(
                f"expected a new episode key, got {name!r} which {self.directory} already has; "
                "skip keys that are `in` the writer."
            )
        return name


def _checked_key(key: str | int) -> str:
    name = str(key)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"expected a key of letters, digits, '_', '-', got {name!r}.")
    return name


def _rank(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
