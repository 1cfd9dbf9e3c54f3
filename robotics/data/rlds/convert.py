"""Records of any RLDS data set as episodes, by a robot's table.

The table says where things are; their values stay as recorded. What they mean to a model is
`robotics.embodiment.coding`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from robotics.data.episodes import Episode
from robotics.data.rlds.schema import Leaf, load_tfds, rt1_stored
from robotics.embodiment.columns import Column, column
from robotics.embodiment.limits import check_values
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import shipped


def check_features(
    robot: Robot, stored: Mapping[str, Leaf], where: str, cameras: Sequence[str] | None = None
) -> None:
    """Check a robot's table against a data set's features.

    Raises:
        ValueError: a path that is not there (with the nearest that are), or stored as another kind.
    """
    characters = robot.instruction.encoding == "characters"
    for place, wanted in robot.columns(cameras):
        if wanted.key not in stored:
            names = difflib.get_close_matches(wanted.key, stored, n=3, cutoff=0.3)
            raise ValueError(
                f"{where}: expected {wanted.key!r} for {place} of robot {robot.name}, got no such "
                f"feature; the nearest are {names or sorted(stored)[:8]}. Name the data set's own "
                "table with spec=, see configs/robot/template.yaml."
            )
        leaf, group = stored[wanted.key], place.partition(".")[0]
        text = group == "cameras" or (group.startswith("instruction") and not characters)
        text &= not place.endswith(".present")
        if not group.startswith("filters") and (leaf.kind == "bytes_list") != text:
            raise ValueError(
                f"{where}: expected {wanted.key!r} for {place} of robot {robot.name} as "
                f"{'bytes' if text else 'numbers'}, got {leaf.kind}."
            )
        if wanted.values is None or leaf.width is None:
            continue
        least = range(leaf.width + wanted.values.stop)[wanted.values][-1] + 1
        if least > leaf.width:
            raise ValueError(
                f"{where}: expected {wanted.key!r} of at least {least} values for "
                f"{place} of robot {robot.name}, got {leaf.width}."
            )


def decode_episode(
    record: bytes,
    where: str = "record",
    robot: Robot | None = None,
    stored: Mapping[str, Leaf] | None = None,
    cameras: Sequence[str] | None = None,
) -> Episode:
    """One record as an episode.

    Parses the `Example` directly and takes only the columns that are wanted: decoding all of RT-1's
    features costs several times as much, and images are wanted encoded.

    Args:
        record: serialised `tf.train.Example`.
        where: file and record, for the messages.
        robot: what is where; RT-1's by default.
        stored: how features are stored; RT-1's by default.
        cameras: names of those to read; default: those the table uses.

    Raises:
        NoSteps: the episode is empty.
        ValueError: no `Example`, a column absent, of another kind or size, text that is not UTF-8,
            values far outside their range, NaN or infinity.
    """
    robot = robot or shipped()
    stored = rt1_stored() if stored is None else stored
    columns = RecordColumns(record, where, stored, robot, cameras)
    return convert(columns, robot, cameras)


class NoSteps(ValueError):
    """An episode without steps, which some data sets have."""


class Columns(Protocol):
    """One episode's values by `Column`, whatever it is stored in."""

    where: str
    """File and episode, for the messages."""
    steps: int

    def images(self, place: Column) -> Sequence[bytes]:
        """JPEG or PNG of every step."""
        ...

    def array(self, place: Column, width: int | None) -> np.ndarray:
        """(steps, width) numbers; width None: all there are."""
        ...

    def texts(self, place: Column) -> list[str]:
        """A text of every step."""
        ...

    def one(self, place: Column) -> Any:
        """The single value of an episode's feature."""
        ...

    def first(self, place: Column) -> Any:
        """A value to filter by: of the episode, or of its first step."""
        ...


def selected(values: np.ndarray, place: Column, width: int | None) -> np.ndarray:
    """The values (steps, width) that a column names of a feature's; ValueError where it names
    another number."""
    values = values if place.values is None else values[:, place.values]
    if width is not None and values.shape[1] != width:
        raise ValueError(
            f"expected {width} values of {place.key!r} a step, got {values.shape[1]}; take them "
            f"with brackets in the table, [0:{width}]."
        )
    return values


def kept(columns: Columns, robot: Robot) -> bool:
    """Whether the table's filters keep this episode."""
    return all(row.passes(columns.first(column(row.path))) for row in robot.filters)


def parse_example(record: bytes, where: str) -> Any:
    """A serialised `tf.train.Example` as its message; ValueError when it is none."""
    load_tfds()
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        return tf_example_pb2.Example.FromString(record)  # pyright: ignore
    except DecodeError as error:
        raise ValueError(f"{where}: expected a tf.train.Example, got {error}.") from error


class RecordColumns:
    """The columns of one record, checked against how they should be stored.

    Raises:
        NoSteps: no step's feature has values.
    """

    def __init__(
        self,
        record: bytes,
        where: str,
        stored: Mapping[str, Leaf],
        robot: Robot,
        cameras: Sequence[str] | None = None,
    ) -> None:
        self.where, self.stored, self.robot = where, stored, robot
        self.example = parse_example(record, where)
        self.columns = self.example.features.feature
        of_steps = [key for key in self.columns if key.startswith("steps/")]
        if of_steps and not any(map(self._filled, of_steps)):
            raise NoSteps(f"{where}: expected an episode of at least one step, got none.")
        self.steps = len(self.raw(column(robot.used_cameras(cameras)[0].path).key))
        self._arrays: dict[str, np.ndarray] = {}

    def _filled(self, key: str) -> bool:
        kind = self.columns[key].WhichOneof("kind")
        return kind is not None and len(getattr(self.columns[key], kind).value) > 0

    def raw(self, key: str) -> Any:
        """The stored list of a column."""
        kind = self.stored[key].kind if key in self.stored else None
        # `in` first: indexing a protobuf map would insert the key.
        if key not in self.columns or self.columns[key].WhichOneof("kind") != kind:
            got = self.columns[key].WhichOneof("kind") if key in self.columns else "no such key"
            raise ValueError(
                f"{self.where}: expected {key!r} as {kind}, got {got}; the record must have what "
                f"features.json and the table of robot {self.robot.name} state."
            )
        return getattr(self.columns[key], str(kind)).value

    def images(self, place: Column) -> list[bytes]:
        """The encoded picture of every step."""
        return self._of_steps(place)

    def array(self, place: Column, width: int | None) -> np.ndarray:
        """(steps, width) values of a column, as stored (float64 or int64)."""
        if place.key not in self._arrays:
            self._arrays[place.key] = self._whole(place)
        return selected(self._arrays[place.key], place, width)

    def _whole(self, place: Column) -> np.ndarray:
        values = np.array(self.raw(place.key))
        if not place.of_step:
            values = np.tile(values, self.steps)
        whole = self.stored[place.key].width
        if whole is None:
            whole = values.size // max(self.steps, 1)
        if values.size != self.steps * whole:
            raise ValueError(
                f"{self.where}: expected {whole} values of {place.key!r} for each of {self.steps} "
                f"images, got {values.size} in all."
            )
        return values.reshape(self.steps, whole)

    def texts(self, place: Column) -> list[str]:
        """UTF-8 text of every step."""
        texts = []
        for step, value in enumerate(self._of_steps(place)):
            try:
                texts.append(value.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{self.where}: expected UTF-8 text in {place.key!r}, got {value[:40]!r} at "
                    f"step {step} ({error.reason})."
                ) from error
        return texts

    def _of_steps(self, place: Column) -> list[bytes]:
        values = list(self.raw(place.key))
        values = values if place.of_step else values * self.steps
        if len(values) != self.steps:
            raise ValueError(
                f"{self.where}: expected one value of {place.key!r} for each of {self.steps} "
                f"images, got {len(values)}."
            )
        return values

    def one(self, place: Column) -> Any:
        """The single value of an episode's feature."""
        values = self.raw(place.key)
        if len(values) != 1:
            raise ValueError(
                f"{self.where}: expected one value of {place.key!r}, got {len(values)}."
            )
        return values[0]

    def first(self, place: Column) -> Any:
        """A value to filter by: of the episode, or of its first step."""
        values = self.raw(place.key)
        index = 0 if place.values is None else place.values.start
        if len(values) <= index:
            raise ValueError(f"{self.where}: expected a value of {place.key!r}, got none.")
        value = values[index]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def convert(columns: Columns, robot: Robot, cameras: Sequence[str] | None = None) -> Episode:
    """The episode that `columns` hold; ValueError, naming `where`, for what cannot be one."""
    if columns.steps == 0:
        raise NoSteps(f"{columns.where}: expected an episode of at least one step, got none.")
    try:
        return _convert(columns, robot, cameras)
    except ValueError as error:
        if str(error).startswith(columns.where):
            raise
        raise ValueError(f"{columns.where}: {error}") from error


def _convert(columns: Columns, robot: Robot, cameras: Sequence[str] | None) -> Episode:
    success = robot.success is None or bool(columns.one(column(robot.success)))
    reward = np.zeros(columns.steps)
    if robot.reward is not None:
        reward = columns.array(column(robot.reward), 1)[:, 0]
    elif success:
        reward[-1] = 1.0
    return Episode(
        robot,
        {
            row.name: columns.images(column(row.path))
            for row in robot.used_cameras(cameras)
            if row.present is None or columns.first(column(row.present))
        },
        state=_vector(columns, robot.state, "state"),
        action=_vector(columns, robot.action, "action"),
        instructions=_instructions(columns, robot),
        terminate=_terminate(columns, robot),
        reward=reward,
        success=success,
    )


def _vector(columns: Columns, parts: Sequence[Part], group: str) -> np.ndarray:
    """float32 (T, all the parts' values), each part within its range."""
    found = np.zeros((columns.steps, sum(part.width for part in parts)), np.float32)
    start = 0
    for part in parts:
        values = columns.array(column(part.path), part.width)
        check_values(part, f"{group}.{part.name}", values, columns.where)
        found[:, start : start + part.width] = values
        start += part.width
    return found


def _instructions(columns: Columns, robot: Robot) -> list[tuple[str, ...]]:
    """(T,) one text of every path."""
    rows = []
    for path in robot.instruction.paths:
        if robot.instruction.encoding == "characters":
            rows.append([_characters(row) for row in columns.array(column(path), None)])
        else:
            rows.append(columns.texts(column(path)))
    return list(zip(*rows, strict=True)) if rows else [()] * columns.steps


def _characters(points: np.ndarray) -> str:
    """Code points (n,), ended by a 0, as text."""
    ends = np.flatnonzero(points == 0)
    return "".join(chr(int(point)) for point in points[: ends[0] if len(ends) else None])


def _terminate(columns: Columns, robot: Robot) -> np.ndarray:
    """(T,) bool: the sub-task is finished with the step; without a path, with the last one."""
    if robot.terminate is not None:
        return columns.array(column(robot.terminate), 1)[:, 0] > 0.5
    last = np.zeros(columns.steps, bool)
    last[-1:] = True
    return last
