"""RLDS to LeRobot's format v3, column by column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.images import decode_image
from robotics.data.lerobot.draft import ACTION, STATE
from robotics.data.lerobot.info import BOOKKEEPING, Feature, is_bookkeeping
from robotics.data.lerobot.mapping import (
    FROM_LEROBOT,
    FROM_RLDS,
    TABLE,
    is_instruction,
    lerobot_name,
    mapped_table,
    to_text,
    write_table,
)
from robotics.data.lerobot.writer import LeRobotWriter
from robotics.data.rlds.convert import check_features, parse_example
from robotics.data.rlds.reader import container, index_shard, record_features, split_shards
from robotics.data.rlds.schema import Described, described_features, stored_features
from robotics.embodiment.columns import column
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from selfflow_wm.files import locked, read_json, write_json
from selfflow_wm.progress import Progress

RESERVED = (*BOOKKEEPING, "task")


@dataclass(frozen=True)
class Mapped:
    """One RLDS feature, and what becomes of it."""

    key: str
    described: Described
    name: str
    """LeRobot's feature, or the column of meta/episodes."""

    @property
    def of_step(self) -> bool:
        """Whether every step has a value."""
        return self.key.startswith("steps/")


@dataclass(frozen=True)
class Source:
    """An RLDS data set, and how it becomes a LeRobot one."""

    directory: Path
    rows: tuple[Mapped, ...]
    left_out: tuple[str, ...]
    """Keys whose number of values varies, which LeRobot cannot hold."""
    robot: Robot | None
    """Its table; None: it has none, and fps are given."""
    fps: float
    before: Mapping[str, Any]
    """LeRobot's description, where the data set once was one."""
    features: Any


def rlds_to_lerobot(
    source: Path,
    target: Path,
    *,
    split: str = "train",
    spec: str | None = None,
    fps: float | None = None,
    videos: bool = False,
    codec: str = "av1",
) -> int:
    """Write a split's episodes, in their order, to the new directory `target`; their number.

    Every feature is kept: numbers bit for bit in their type, texts, and pictures of every camera
    at their size, as they are encoded or as videos. Where a table says what they are made of,
    LeRobot's `observation.state` and `action` are added. `robot.yaml` is the table for the result.

    Args:
        source: RLDS data set.
        target: new; an interrupted conversion goes on.
        split: split or slice.
        spec: the robot's table, for the rate and where the instruction is.
        fps: steps a second, instead of the table's.
        videos: pictures as video instead of encoded pictures.
        codec: of videos, "av1" or "h264".

    Raises:
        ValueError: neither a table that fits nor fps, or features that LeRobot cannot hold.
    """
    plan = plan_conversion(source, spec, fps)
    records = _records(source, split)
    first = next(_parsed(records), None)
    if first is None:
        raise ValueError(f"expected episodes with steps in {split!r} of {source}, got none")
    features = _features(plan, first, videos)
    provenance = {"rlds": str(source), "split": split, "table": spec}
    with locked(target.with_name(f".{target.name}.lock")):
        writer = LeRobotWriter(
            target, features, plan.fps,
            robot_type=plan.before.get("robot_type") or (plan.robot.name if plan.robot else ""),
            codec=codec, provenance=provenance,
        )  # fmt: skip
        try:
            _write(plan, writer, records)
        except BaseException:
            writer.abort()
            raise
        count = writer.finish(lambda directory: _write_notes(plan, directory, split))
    target.with_name(f".{target.name}.lock").unlink(missing_ok=True)
    return count


def plan_conversion(source: Path, spec: str | None, fps: float | None) -> Source:
    """What becomes of every feature of an RLDS data set."""
    features = record_features(source)
    stored = stored_features(features)
    before = read_json(source / FROM_LEROBOT) if (source / FROM_LEROBOT).is_file() else {}
    known = {key: name for name, key in before.get("keys", {}).items()}
    rows, left_out = [], []
    for key, described in described_features(features).items():
        if known and key.startswith("steps/") and key not in known:
            continue  # what the conversion from LeRobot added
        if None in described.shape and described.kind != "image":
            left_out.append(key)
            continue
        name = known.get(key) or _name(key, described)
        if name not in BOOKKEEPING or not known:
            rows.append(Mapped(key, described, name))
    robot = None
    if spec is not None or fps is None:
        robot = _table(source, spec, stored, before)
    if fps is None:
        fps = before.get("fps") or (robot.rate if robot else None)
    assert fps is not None
    return Source(
        source, tuple(rows), tuple(left_out), robot, float(fps), before, features
    )  # fmt: skip


def _table(
    source: Path, spec: str | None, stored: Mapping[str, Any], before: Mapping[str, Any]
) -> Robot | None:
    near = source / TABLE
    robot = load_robot(spec if spec is not None else near if near.is_file() else None)
    try:
        check_features(robot, stored, str(source), [row.name for row in robot.cameras])
    except ValueError as error:
        if spec is None and before:
            return None
        if spec is None:
            raise ValueError(
                f"{error}\nOr state the rate, which RLDS does not: --fps 10"
            ) from error
        raise
    return robot


def _name(key: str, described: Described) -> str:
    if not key.startswith("steps/"):
        return f"recorded.{key}" if is_bookkeeping(key) else key
    name = lerobot_name(key, described.kind == "image")
    return f"recorded.{name}" if name in RESERVED else name


# ---------------------------------------------------------------- reading


def _records(source: Path, split: str) -> list[tuple[Any, int, Any]]:
    found = []
    for shard in split_shards(source, split):
        spans = index_shard(shard)
        numbers = range(shard.first, shard.first + shard.count)
        found += [(shard.path, number, spans[number]) for number in numbers]
    return found


def _parsed(records: list[tuple[Any, int, Any]]) -> Iterator[tuple[str, Any]]:
    """Place and columns of the records that hold steps."""
    for path, number, span in records:
        where = f"{path}, record {number}"
        columns = parse_example(container(path).read_record(path, span, number), where)
        columns = columns.features.feature
        of_steps = (columns[key] for key in columns if key.startswith("steps/"))
        kinds = ((row, row.WhichOneof("kind")) for row in of_steps)
        if any(kind and len(getattr(row, kind).value) for row, kind in kinds):
            yield where, columns


def _raw(columns: Any, row: Mapped, where: str) -> list[Any]:
    kind = "float_list" if row.described.dtype.startswith("float") else "int64_list"
    kind = kind if row.described.kind == "numbers" else "bytes_list"
    if row.key not in columns or columns[row.key].WhichOneof("kind") not in (kind, None):
        raise ValueError(f"{where}: expected {row.key!r} as {kind}; features.json states it")
    return list(getattr(columns[row.key], kind).value)


def _steps(columns: Any, rows: tuple[Mapped, ...], where: str) -> int:
    counts = {}
    for row in rows:
        if row.of_step:
            counts[row.key] = len(_raw(columns, row, where)) / _width(row.described)
    steps = max(counts.values(), key=list(counts.values()).count)
    for key, count in counts.items():
        if count != steps:
            raise ValueError(f"{where}: expected {steps:g} steps of {key!r}, got {count:g}")
    return int(steps)


def _width(described: Described) -> int:
    if described.kind != "numbers":
        return 1
    return int(np.prod([n or 0 for n in described.shape], dtype=np.int64))


def _value(columns: Any, row: Mapped, steps: int, where: str) -> Any:
    """A step feature's T values, an episode's one."""
    values = _raw(columns, row, where)
    if row.described.kind == "numbers":
        dtype = np.dtype(row.described.dtype)
        array = np.array(values, np.float32 if dtype.kind == "f" else np.int64).astype(dtype)
        if row.of_step:
            return array.reshape(steps, *row.described.shape)
        return array.reshape(-1).tolist() if row.described.shape else array.item()
    if row.described.kind == "image" and row.of_step:
        return values
    texts = [to_text(value) for value in values]
    return texts if row.of_step else texts[0]


# ---------------------------------------------------------------- writing


def _features(plan: Source, first: tuple[str, Any], videos: bool) -> dict[str, Feature]:
    where, columns = first
    found: dict[str, Feature] = {}
    former = plan.before.get("features", {})
    for row in plan.rows:
        if not row.of_step:
            continue
        shape = tuple(n or 0 for n in row.described.shape)
        names = tuple(map(str, (former.get(row.name) or {}).get("names") or ()))
        if row.described.kind == "image":
            image = decode_image(_raw(columns, row, where)[0])
            size = (*image.shape[:2], shape[2] if len(shape) == 3 else 3)
            movable = videos and size[2] == 3 and row.described.dtype == "uint8"
            movable &= not any(n % 2 for n in size[:2])
            kind, names = "video" if movable else "image", ("height", "width", "channels")
            found[row.name] = Feature(row.name, kind, size, names)
        elif row.described.kind == "numbers":
            shape = tuple((former.get(row.name) or {}).get("shape") or shape or (1,))
            found[row.name] = Feature(row.name, row.described.dtype, shape, names)
        else:
            found[row.name] = Feature(row.name, "string", (1,))
    if len(found) != sum(row.of_step for row in plan.rows):
        raise ValueError(f"{plan.directory}: expected different names, got {sorted(found)}")
    for name, parts in _vectors(plan).items():
        names = tuple(name for part in parts for name in _part_names(part))
        found[name] = Feature(name, "float32", (len(names),), names)
    return found


def _vectors(plan: Source) -> dict[str, Sequence[Part]]:
    """LeRobot's `observation.state` and `action`, which its policies look for, where the data set
    has no features of these names and its table says what they are made of."""
    robot, taken = plan.robot, {row.name for row in plan.rows}
    rows = {} if robot is None else {STATE: robot.state, ACTION: robot.action}
    return {name: parts for name, parts in rows.items() if parts and name not in taken}


def _part_names(part: Part) -> tuple[str, ...]:
    if part.width == 1:
        return (part.name,)
    ends = part.names or tuple(map(str, range(part.width)))
    return tuple(f"{part.name}.{end}" for end in ends)


def _vector(parts: Sequence[Part], values: Mapping[Mapped, Any], steps: int) -> np.ndarray:
    """(steps, all the parts' values), as recorded."""
    by_key = {row.key: value for row, value in values.items()}
    found = []
    for part in parts:
        place = column(part.path)
        rows = np.asarray(by_key[place.key], np.float32)
        rows = (
            rows.reshape(steps, -1) if place.of_step else np.tile(rows.reshape(1, -1), (steps, 1))
        )
        found.append(rows if place.values is None else rows[:, place.values])
    return np.concatenate(found, axis=1)


def _write(plan: Source, writer: LeRobotWriter, records: list[tuple[Any, int, Any]]) -> None:
    done = writer.done
    with Progress(len(records), description="converting episodes", unit="episode") as bar:
        for number, (where, columns) in enumerate(_parsed(records)):
            bar.add()
            if number < done:
                continue
            steps = _steps(columns, plan.rows, where)
            values = {row: _value(columns, row, steps, where) for row in plan.rows}
            rows = {row.name: value for row, value in values.items() if row.of_step}
            for name, parts in _vectors(plan).items():
                rows[name] = _vector(parts, values, steps)
            writer.add(
                rows,
                _tasks(plan, columns, values, steps),
                {row.name: value for row, value in values.items() if not row.of_step},
            )


def _tasks(plan: Source, columns: Any, values: Mapping[Mapped, Any], steps: int) -> list[str]:
    """The instruction of every step, by the table or by the features' names; "" where none is."""
    by_key = {row.key: (row, value) for row, value in values.items()}
    former = plan.before.get("task")
    if former is not None and former in columns:
        return [value.decode() for value in columns[former].bytes_list.value]
    paths = plan.robot.instruction.paths if plan.robot else ()
    keys = [column(path).key for path in paths]
    texts = (key for key, (row, _) in by_key.items() if row.described.kind in ("text", "bytes"))
    keys += sorted(filter(is_instruction, texts), key=_likeliest)
    for key in filter(by_key.__contains__, keys):
        row, value = by_key[key]
        each: Any = value if row.of_step else [value] * steps
        if row.described.kind in ("text", "bytes"):
            if any(text.strip("\0 ") for text in each):
                return list(each)
        elif plan.robot is not None and plan.robot.instruction.encoding == "characters":
            return ["".join(chr(int(point)) for point in np.ravel(row) if point) for row in each]
    return [""] * steps


def _likeliest(key: str) -> tuple[bool, bool, str]:
    """Sorts names of instructions: those of steps first, and those that say so."""
    return not key.startswith("steps/"), "instruction" not in key, key


def _write_notes(plan: Source, directory: Path, split: str) -> None:
    keys = {row.key: row.name for row in plan.rows}
    write_json(
        directory / FROM_RLDS,
        {
            "source": plan.directory.name,
            "split": split,
            "keys": keys,
            "features": plan.features.to_json(),
            "left_out": list(plan.left_out),
        },
    )
    if plan.robot is not None:
        renames = {
            key.removeprefix("steps/") if key.startswith("steps/") else f"/{key}":
            name if key.startswith("steps/") else f"/{name}"
            for key, name in keys.items()
        }  # fmt: skip
        if former := plan.before.get("task"):
            renames[former.removeprefix("steps/")] = "task"
        table = mapped_table(plan.robot, renames, plan.fps)
        write_table(directory, table, "The robot's table for this data set: spec=robot.yaml")
