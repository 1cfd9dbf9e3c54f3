"""The columns of one episode: rows of a parquet file that usually holds several episodes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from robotics.data.lerobot.info import EpisodePlace, Feature, LeRobotInfo, open_parquet, present


class _Rows(NamedTuple):
    """The index of a data file."""

    episode: np.ndarray
    """int64: `episode_index` of every row."""
    groups: np.ndarray
    """int64: first row of every row group, and the number of rows."""


@functools.lru_cache(maxsize=16)
def _rows(path: Path, modified: int) -> _Rows:
    with _damage(path), open_parquet(path) as file:
        if "episode_index" not in file.schema_arrow.names:
            raise ValueError(f"{path}: expected a column episode_index, got none")
        episode = file.read(["episode_index"], use_threads=False).column(0).to_numpy()
        counts = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    return _Rows(episode.reshape(-1), np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))


@functools.lru_cache(maxsize=4)
def _group(path: Path, modified: int, group: int, columns: tuple[str, ...]) -> pa.Table:
    """Kept because a file may have all of its episodes in one group of rows."""
    with _damage(path), open_parquet(path) as file:
        if lacking := sorted(set(columns) - set(file.schema_arrow.names)):
            raise ValueError(
                f"{path}: expected columns {lacking}, which info.json names, got "
                f"{sorted(file.schema_arrow.names)}"
            )
        return file.read_row_group(group, list(columns), use_threads=False)


class _damage:
    """Turns pyarrow's errors into ValueErrors that name the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, (pa.ArrowException, OSError)):
            raise ValueError(
                f"{self.path}: expected readable rows, got {error}; copy the data set again"
            ) from error


def read_columns(
    info: LeRobotInfo, place: EpisodePlace, names: Sequence[str]
) -> dict[str, np.ndarray | list[str] | list[bytes]]:
    """Columns of an episode: numbers (T, width) in their own type, texts, encoded pictures.

    Args:
        info: of the data set.
        place: the episode.
        names: features other than videos.

    Raises:
        ValueError: a file that is missing or damaged, another number of rows than meta/episodes
            states, or values of another number or kind than info.json states.
    """
    where = f"{info.directory}, episode {place.number}"
    table = _table(place, tuple(sorted(set(names))), where)
    return {name: _values(table.column(name), info.features[name], where) for name in names}


def read_picture(info: LeRobotInfo, place: EpisodePlace, name: str, step: int) -> bytes:
    """The encoded picture of one step; ValueError as for `read_columns`."""
    where = f"{info.directory}, episode {place.number}"
    table = _table(place, (name,), where)
    return _pictures(table.column(name).slice(step, 1), info.features[name], where, step)[0]


def _table(place: EpisodePlace, names: tuple[str, ...], where: str) -> pa.Table:
    modified = present(place.data).stat().st_mtime_ns
    first, groups, starts = _span(place.data, modified, place.number, place.length, where)
    tables = [_group(place.data, modified, group, names) for group in groups]
    return pa.concat_tables(tables).slice(first - starts, place.length)


@functools.lru_cache(maxsize=64)
def _span(
    path: Path, modified: int, number: int, length: int, where: str
) -> tuple[int, range, int]:
    """An episode's first row, the groups of rows that it lies in, and the first row of those."""
    rows = _rows(path, modified)
    mine = np.flatnonzero(rows.episode == number)
    if len(mine) != length:
        raise ValueError(
            f"{where}: expected {length} rows by meta/episodes, got {len(mine)} in {path}; copy "
            "the data set again"
        )
    if not len(mine) or mine[-1] - mine[0] != len(mine) - 1:
        raise ValueError(f"{where}: expected its rows one after the other in {path}, got others")
    begin, end = (int(np.searchsorted(rows.groups, row, "right")) - 1 for row in mine[[0, -1]])
    return int(mine[0]), range(begin, end + 1), int(rows.groups[begin])


def _values(column: pa.ChunkedArray, feature: Feature, where: str) -> Any:
    if column.null_count:
        raise ValueError(f"{where}: expected a value of {feature.name} in every row, got none")
    if feature.dtype == "image":
        return _pictures(column, feature, where)
    if feature.dtype == "string":
        return [str(value) for value in column.to_pylist()]
    array: Any = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    while isinstance(array, pa.ExtensionArray) or pa.types.is_nested(array.type):
        array = array.storage if isinstance(array, pa.ExtensionArray) else _flat(array, where)
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == object or values.dtype.kind not in "biuf":
        raise ValueError(f"{where}: expected numbers in {feature.name}, got {array.type}")
    if len(values) != len(column) * feature.width:
        raise ValueError(
            f"{where}: expected {feature.width} values of {feature.name} in each of {len(column)} "
            f"rows, got {len(values)} in all; info.json states the shape {list(feature.shape)}"
        )
    return values.reshape(len(column), feature.width)


def _flat(array: Any, where: str) -> Any:
    if pa.types.is_struct(array.type):
        raise ValueError(f"{where}: expected numbers or lists of numbers, got {array.type}")
    return array.flatten()


def _pictures(column: pa.ChunkedArray, feature: Feature, where: str, first: int = 0) -> list[bytes]:
    """The encoded pictures, which must be embedded. first: row of the first one."""
    found = []
    for step, value in enumerate(column.to_pylist(), start=first):
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes) or not data:
            raise ValueError(
                f"{where}: expected an encoded picture of {feature.name} in row {step}, got "
                f"{type(data).__name__}; embed the images when writing the data set"
            )
        found.append(data)
    return found
