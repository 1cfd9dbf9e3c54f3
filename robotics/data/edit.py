"""A data set without some episodes, merged of several, with other instructions or without idle
ends: always a new one, never in place.

Records that do not change are copied byte for byte. Episodes are named as `robotics.inspect` names
them: a split and the episode's number in it, in the order of the files.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robotics.data.edit_plan import (
    FEATURES,
    INFO,
    Edit,
    Key,
    Plan,
    Row,
    Source,
    check_alike,
    open_source,
    plan,
)
from robotics.data.parts import idle, recording
from robotics.data.rlds import arrayrecord, tfrecord
from robotics.data.rlds.edit import relabelled, trimmed
from robotics.data.rlds.raw import read_raw
from robotics.data.rlds.reader import ShardSlice, container, index_shard
from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import TABLES, load_robot
from selfflow_wm.files import locked, write_json
from selfflow_wm.progress import Progress

EDITS, LOCK = "edits.json", ".lock"


@dataclass
class Counts:
    """What became of the episodes, and of one split's at a time."""

    before: int = 0
    kept: int = 0
    relabelled: list[str] = field(default_factory=list)
    trimmed: dict[str, int] = field(default_factory=dict)
    """Episode -> steps cut off."""
    stale: set[str] = field(default_factory=set)
    """Keys with embeddings of instructions that were changed."""


def edit(
    sources: Sequence[str],
    out: Path,
    change: Edit,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> dict[str, Counts]:
    """Write the edited data set to `out`, which appears when it is whole.

    Args:
        sources: directories of TFDS data sets with the same features; several are merged, split by
            split.
        out: new directory. An interrupted call leaves `.NAME.partial` beside it, which the next
            call replaces.
        change: what to change.
        dry_run: read and count, write nothing.
        progress: advanced by one per episode.

    Returns:
        By split, what became of its episodes.

    Raises:
        ValueError: no such data sets or episodes, other features, nothing left of a split, `out` is
            there or inside a source, or a damaged record (whose episode can be deleted).
    """
    opened = [open_source(directory) for directory in sources]
    check_alike(opened)
    if out.exists():
        raise ValueError(f"--out: expected a new directory, got {out}; choose another or delete it")
    inside = [one for one in sources if out.resolve().is_relative_to(Path(one).resolve())]
    if inside:
        raise ValueError(
            f"--out: expected a directory outside of {inside[0]}, got {out}; choose another"
        )
    rows = plan(opened, change)
    robot = _table(opened[0], change)
    counts: dict[str, Counts] = {}
    progress = progress or Progress(0, quiet=True)
    progress.total = sum(len(shard) for shards in rows.values() for _, shard in shards)
    editor = _Editor(opened, change, robot, counts, progress)
    if dry_run:
        for key, shards in rows.items():
            for shard, chosen in shards:
                for _ in editor.records(key, shard, chosen):
                    pass
        return counts
    partial = out.parent / f".{out.name}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    try:
        with locked(partial / LOCK, wait=False):
            _empty(partial)
            _write(partial, opened, rows, editor)
            write_json(partial / EDITS, provenance(opened, change, rows))
            (partial / LOCK).unlink()
            partial.rename(out)
    except BlockingIOError:
        raise ValueError(
            f"--out: expected {out} to be free, got another process that writes it; wait for it"
        ) from None
    return counts


def _table(source: Source, change: Edit) -> Robot | None:
    """The table that the change needs; None where it needs none."""
    reads = bool(change.relabel or change.relabel_text)
    if not reads and change.trim_idle is None:
        return None
    if change.spec is not None:
        robot = load_robot(change.spec)
        if missing := _missing(robot, source, change):
            raise ValueError(
                f"expected features that {change.spec} names, got no {', '.join(missing)} in "
                f"{source.directory}; name the data set's own table with --spec"
            )
        return robot
    for path in sorted(TABLES.glob("*.yaml")):
        if path.stem == "template":
            continue
        robot = load_robot(path.stem)
        fits = all(place.key in source.stored for _, place in robot.columns())
        if fits and not _missing(robot, source, change):
            return robot
    raise ValueError(
        f"expected a shipped table that fits {source.directory}, got none; name yours with --spec "
        f"(python -m robotics.inspect {source.directory} proposes one)"
    )


def _missing(robot: Robot, source: Source, change: Edit) -> list[str]:
    paths = list(robot.instruction.paths)
    if change.trim_idle is not None:
        paths += [part.path for part in (*robot.state, *robot.action)]
    if not robot.instruction.paths and (change.relabel or change.relabel_text):
        return ["instruction"]
    return [path for path in paths if column(path).key not in source.stored]


# ---------------------------------------------------------------- records


class _Editor:
    """Makes the records that are written, and counts."""

    def __init__(
        self,
        sources: Sequence[Source],
        change: Edit,
        robot: Robot | None,
        counts: dict[str, Counts],
        progress: Progress,
    ) -> None:
        self.sources, self.change, self.robot = sources, change, robot
        self.counts, self.progress = counts, progress
        for source in sources:
            for split in source.splits:
                counts.setdefault(split, Counts()).before += source.count(split)

    def records(self, key: Key, shard: ShardSlice, rows: Sequence[Row]) -> Iterator[bytes]:
        """Each episode's record, unchanged or changed."""
        place, split = key
        spans = index_shard(shard)
        read = container(shard.path).read_record
        prefix = f"{place + 1}/" if len(self.sources) > 1 else ""
        for row in rows:
            record = read(shard.path, spans[row.record], row.record)
            where = f"{prefix}{split}:{row.number}"
            self.counts[split].kept += 1
            if self.robot is not None:
                record = self._changed(record, where, row, self.robot, self.counts[split], place)
            self.progress.add()
            yield record

    def _changed(
        self, record: bytes, where: str, row: Row, robot: Robot, count: Counts, place: int
    ) -> bytes:
        stored = self.sources[place].stored
        texts = [(old, new) for old, new in self.change.relabel_text]
        if row.text is not None or texts:
            changed = relabelled(record, where, robot.instruction, stored, row.text, texts)
            if changed != record:
                count.relabelled.append(where)
                count.stale |= {key for key in stored if key.endswith("embedding")}
                record = changed
        if row.trim:
            raw = read_raw(record, where, stored)
            still = idle(recording(raw, robot, where).parts, robot)
            moving = (~still).nonzero()[0]
            if len(moving):
                # The state after the last motion stays: it is what the motion led to.
                first, last = int(moving[0]), min(int(moving[-1]) + 2, raw.steps)
                if (first, last) != (0, raw.steps) and last - first >= 2:
                    record = trimmed(record, where, stored, first, last, robot)
                    count.trimmed[where] = raw.steps - (last - first)
        return record


# ---------------------------------------------------------------- files


def _empty(partial: Path) -> None:
    """Remove what an interrupted call left."""
    for path in partial.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write(partial: Path, sources: Sequence[Source], rows: Plan, editor: _Editor) -> None:
    first = sources[0]
    info: dict[str, Any] = dict(first.info)
    known = {row["name"]: dict(row) for source in sources[::-1] for row in source.info["splits"]}
    splits = []
    for split in dict.fromkeys(split for source in sources for split in source.splits):
        shards = [
            (key, shard, chosen)
            for key, planned in rows.items()
            if key[1] == split
            for shard, chosen in planned
        ]
        sizes = []
        for number, (key, shard, chosen) in enumerate(shards):
            path = partial / _name(sources, key, shard, number, len(shards))
            sizes.append(_write_shard(path, editor.records(key, shard, chosen)))
        splits.append({
            **known[split],
            "shardLengths": [str(len(chosen)) for _, _, chosen in shards],
            "numBytes": str(sum(sizes)),
        })  # fmt: skip
    info["splits"] = splits
    (partial / FEATURES).write_text(first.features)
    write_json(partial / INFO, info)


def _name(sources: Sequence[Source], key: Key, shard: ShardSlice, number: int, total: int) -> str:
    """A shard's file, named after the first source."""
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", shard.path.name)
    mine, first = sources[key[0]].info["name"], sources[0].info["name"]
    if stem.startswith(mine):
        stem = first + stem.removeprefix(mine)
    return f"{stem}-{number:05d}-of-{total:05d}"


def _write_shard(path: Path, records: Iterator[bytes]) -> int:
    """Write one file; returns the bytes of its records."""
    size = 0
    if ".array_record-" in path.name:
        writer = arrayrecord.open_writer(path)
        for record in records:
            writer.write(record)
            size += len(record)
        writer.close()
        return size
    with path.open("wb") as file:
        for record in records:
            file.write(tfrecord.frame(record))
            size += len(record)
    return size


def provenance(sources: Sequence[Source], change: Edit, rows: Plan) -> dict[str, Any]:
    """Where the new data set's episodes come from, and what was done: JSON values.

    `episodes` has, by split and in the new order, [source, first, last] of each run of numbers.
    """
    order: dict[str, list[list[int]]] = {}
    for (place, split), planned in rows.items():
        runs = order.setdefault(split, [])
        for _, chosen in planned:
            for row in chosen:
                if runs and runs[-1][0] == place and runs[-1][2] == row.number - 1:
                    runs[-1][2] = row.number
                else:
                    runs.append([place, row.number, row.number])
    return {
        "command": "python -m robotics.data edit",
        "sources": [_described(source) for source in sources],
        "delete": list(change.delete),
        "keep": list(change.keep),
        "relabel": [list(pair) for pair in change.relabel],
        "relabel_text": [list(pair) for pair in change.relabel_text],
        "trim_idle": None if change.trim_idle is None else list(change.trim_idle),
        "spec": change.spec,
        "episodes": order,
    }


def _described(source: Source) -> dict[str, Any]:
    path = Path(source.directory).expanduser()
    found: dict[str, Any] = {
        "directory": str(path.resolve()),
        "name": source.info.get("name"),
        "version": source.info.get("version"),
        "episodes": {split: source.count(split) for split in source.splits},
    }
    if (path / EDITS).is_file():
        found["edits"] = json.loads((path / EDITS).read_text())
    for collection in sorted(path.glob("collection-*.json")):
        found.setdefault("collections", {})[collection.stem] = json.loads(
            collection.read_text()
        ).get("provenance")
    return found
