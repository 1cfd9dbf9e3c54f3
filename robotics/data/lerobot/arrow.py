"""Features of LeRobot data sets as Arrow's types and arrays, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from robotics.data.lerobot.info import Feature

BOOKKEEPING = {
    "timestamp": Feature("timestamp", "float32", (1,)),
    **{
        name: Feature(name, "int64", (1,))
        for name in ("frame_index", "episode_index", "index", "task_index")
    },
}
"""What every data set has beside its features."""


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """meta/tasks.parquet: the tasks are pandas' index, by which lerobot looks them up."""
    described = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            _pandas_column("task_index", "int64", "int64"),
            _pandas_column("task", "unicode", "object"),
        ],
        "pandas_version": "2.2.3",
    }
    numbers = pa.array(range(len(tasks)), pa.int64())
    table = pa.table({"task_index": numbers, "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def schema(features: Mapping[str, Feature]) -> pa.Schema:
    """Of a data file."""
    rows = {**features, **BOOKKEEPING}
    return pa.schema([(name, _type(row)) for name, row in rows.items() if row.dtype != "video"])


def _type(feature: Feature) -> pa.DataType:
    if feature.dtype == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    if feature.dtype == "string":
        return pa.string()
    kind = pa.bool_() if feature.dtype == "bool" else pa.from_numpy_dtype(np.dtype(feature.dtype))
    if feature.shape in ((), (1,)):
        return kind
    if len(feature.shape) == 1:
        return pa.list_(kind, feature.shape[0])
    for _ in feature.shape:
        kind = pa.list_(kind)
    return kind


def array(values: Any, feature: Feature, kind: pa.DataType) -> pa.Array:
    """A column of a data file. values: numbers (T, n), T texts or T encoded pictures."""
    if feature.dtype == "image":
        return pa.array([{"bytes": value, "path": None} for value in values], kind)
    if feature.dtype == "string":
        return pa.array(list(values), kind)
    flat = pa.array(values.reshape(-1))
    if feature.shape in ((), (1,)):
        return flat
    if len(feature.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(flat, feature.shape[0])
    for size in feature.shape[::-1]:
        offsets = np.arange(0, len(flat) + 1, size, dtype=np.int32)
        flat = pa.ListArray.from_arrays(pa.array(offsets), flat)
    return flat


def flat_numbers(column: pa.ChunkedArray) -> np.ndarray:
    """All numbers of a column, one after the other."""

    def parts() -> Iterator[np.ndarray]:
        for chunk in column.chunks:
            array: Any = chunk
            while pa.types.is_nested(array.type):
                array = array.flatten()
            yield array.to_numpy(zero_copy_only=False)

    return np.concatenate(list(parts()))


def to_json(feature: Feature) -> dict[str, Any]:
    """The feature as info.json has it."""
    names = list(feature.names) or None
    return {"dtype": feature.dtype, "shape": list(feature.shape or (1,)), "names": names}


def plain(stats: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics as JSON values."""
    return {
        name: {key: np.asarray(value).tolist() for key, value in row.items()}
        for name, row in stats.items()
    }


def finite(value: Any) -> Any:
    """Statistics of NaN or infinity are left out as 0: JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(row) for key, row in value.items()}
    if isinstance(value, list):
        return [finite(row) for row in value]
    return 0.0 if isinstance(value, float) and not np.isfinite(value) else value


def _pandas_column(name: str, kind: str, dtype: str) -> dict[str, Any]:
    return {
        "name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype,
        "metadata": None,
    }  # fmt: skip
