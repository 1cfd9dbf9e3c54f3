"""Records of any RLDS dataset as episodes in the toolkit's conventions.

A `DatasetSpec` says where things are and what they mean. Values that already are as an `Episode`
has them (all of RT-1's) pass unchanged, bit for bit.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from robotics.data.episodes import Episode
from robotics.data.rlds.schema import Leaf, load_tfds, rt1_stored
from robotics.data.rlds.spec import Column, DatasetSpec, Pose, column, rt1_spec
from robotics.embodiment.rotation import as_quaternion, axis_angle_to_rpy, rpy_between

RANGE_SLACK = 0.5
"""How far gripper values may lie outside their stated range, in widths of it. Real grippers overrun
it a little; more means that the range is wrong."""


def check_features(spec: DatasetSpec, stored: Mapping[str, Leaf], where: str) -> None:
    """Check a specification against a dataset's features.

    Raises:
        ValueError: a path that is not there (with the nearest that are), or stored as another kind.
    """
    for place, wanted in spec.columns().items():
        if wanted.key not in stored:
            names = difflib.get_close_matches(wanted.key, stored, n=3, cutoff=0.3)
            raise ValueError(
                f"{where}: expected {wanted.key!r} for {place} of the specification {spec.name}, "
                f"got no such feature; the nearest are {names or sorted(stored)[:8]}. Name the "
                "data set's specification with spec=, see configs/robot/template.yaml."
            )
        leaf = stored[wanted.key]
        text = leaf.kind == "bytes_list"
        if not place.startswith("filters") and text != (place in ("image", "instruction")):
            raise ValueError(
                f"{where}: expected {wanted.key!r} for {place} of the specification {spec.name} as "
                f"{'numbers' if text else 'bytes'}, got {leaf.kind}."
            )
        if wanted.values is not None and leaf.width is not None and wanted.values.stop > leaf.width:
            raise ValueError(
                f"{where}: expected {wanted.key!r} of at least {wanted.values.stop} values for "
                f"{place} of the specification {spec.name}, got {leaf.width}."
            )


def decode_episode(
    record: bytes,
    where: str = "record",
    spec: DatasetSpec | None = None,
    stored: Mapping[str, Leaf] | None = None,
) -> Episode:
    """One record as an episode.

    Parses the `Example` directly and takes only the columns that are wanted: decoding all of RT-1's
    features costs several times as much, and images are wanted encoded.

    Args:
        record: serialised `tf.train.Example`.
        where: file and record, for the messages.
        spec: what is where; RT-1's by default.
        stored: how features are stored; RT-1's by default.

    Raises:
        ValueError: no `Example`, a column absent, of another kind or size, text that is not UTF-8,
            a gripper far outside its range, NaN or infinity, or no steps.
    """
    spec = spec or rt1_spec()
    return convert(_Columns(record, where, rt1_stored() if stored is None else stored, spec), spec)


def wanted(record: bytes, where: str, spec: DatasetSpec, stored: Mapping[str, Leaf]) -> bool:
    """Whether the specification's filters keep this episode."""
    if not spec.filters:
        return True
    return kept(_Columns(record, where, stored, spec), spec)


class Columns(Protocol):
    """One episode's values by `Column`, whatever it is stored in."""

    where: str
    """File and episode, for the messages."""
    images: list[bytes]
    """JPEG or PNG of every step."""
    steps: int

    def array(self, place: Column, width: int) -> np.ndarray: ...

    def texts(self, place: Column) -> list[str]: ...

    def one(self, place: Column) -> Any: ...

    def first(self, place: Column) -> Any: ...


def selected(values: np.ndarray, place: Column, width: int) -> np.ndarray:
    """The values (steps, width) that a column names of a feature's; ValueError where it names
    another number."""
    values = values if place.values is None else values[:, place.values]
    if values.shape[1] != width:
        raise ValueError(
            f"expected {width} values of {place.key!r} a step, got {values.shape[1]}; take them "
            f"with brackets in the specification, [0:{width}]."
        )
    return values


def kept(columns: Columns, spec: DatasetSpec) -> bool:
    """Whether the specification's filters keep this episode."""
    for row in spec.filters:
        value = columns.first(column(row.path))
        if value not in row.keep if row.keep is not None else value in (row.drop or ()):
            return False
    return True


def parse_example(record: bytes, where: str) -> Any:
    """A serialised `tf.train.Example` as its message; ValueError when it is none."""
    load_tfds()
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        return tf_example_pb2.Example.FromString(record)  # pyright: ignore
    except DecodeError as error:
        raise ValueError(f"{where}: expected a tf.train.Example, got {error}.") from error


class _Columns:
    """The columns of one record, checked against how they should be stored."""

    def __init__(
        self, record: bytes, where: str, stored: Mapping[str, Leaf], spec: DatasetSpec
    ) -> None:
        self.where, self.stored, self.spec = where, stored, spec
        self.example = parse_example(record, where)
        self.columns = self.example.features.feature
        self.images = list(self.raw(column(spec.image).key))
        self.steps = len(self.images)

    def raw(self, key: str) -> Any:
        """The stored list of a column."""
        kind = self.stored[key].kind if key in self.stored else None
        # `in` first: indexing a protobuf map would insert the key.
        if key not in self.columns or self.columns[key].WhichOneof("kind") != kind:
            got = self.columns[key].WhichOneof("kind") if key in self.columns else "no such key"
            raise ValueError(
                f"{self.where}: expected {key!r} as {kind}, got {got}; the record must have what "
                f"features.json and the specification {self.spec.name} state."
            )
        return getattr(self.columns[key], str(kind)).value

    def array(self, place: Column, width: int) -> np.ndarray:
        """(steps, width) values of a column, as stored (float64 or int64)."""
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
        return selected(values.reshape(self.steps, whole), place, width)

    def texts(self, place: Column) -> list[str]:
        """UTF-8 text of every step."""
        values = list(self.raw(place.key))
        values = values if place.of_step else values * self.steps
        texts = []
        for step, value in enumerate(values):
            try:
                texts.append(value.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{self.where}: expected UTF-8 text in {place.key!r}, got {value[:40]!r} at "
                    f"step {step} ({error.reason})."
                ) from error
        return texts

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


def convert(columns: Columns, spec: DatasetSpec) -> Episode:
    """The episode that `columns` hold; ValueError, naming `where`, for what cannot be one."""
    try:
        return _convert(columns, spec)
    except ValueError as error:
        if str(error).startswith(columns.where):
            raise
        raise ValueError(f"{columns.where}: {error}") from error


def _convert(columns: Columns, spec: DatasetSpec) -> Episode:
    steps = columns.steps
    success = spec.success is None or bool(columns.one(column(spec.success)))
    position, rotation = _measured(columns, spec.proprio)
    closed = _closedness(columns, spec.proprio, "proprio")
    translation, turn = _commanded(columns, spec, position, rotation)
    opening = _closedness(columns, spec.action, "action")
    if spec.action.gripper is not None:
        # To [-1, 1]; RT-1's range already is that and must not be rounded.
        opening = opening if spec.action.gripper_range == (-1.0, 1.0) else opening * 2 - 1
    reward = np.zeros(steps)
    if spec.reward is not None:
        reward = columns.array(column(spec.reward), 1)[:, 0]
    elif steps and success:
        reward[-1] = 1.0
    return Episode(
        columns.images,
        columns.texts(column(spec.instruction)),
        world_vector=translation,
        rotation_delta=turn,
        gripper=opening,
        terminate=_terminate(columns, spec),
        tool_pose=np.concatenate([position, rotation], axis=1),
        gripper_closed=closed,
        reward=reward,
        success=success,
    )


def _measured(columns: Columns, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Position (T, 3) and quaternion xyzw (T, 4); zeros where nothing was measured."""
    position, quaternion = np.zeros((columns.steps, 3)), np.zeros((columns.steps, 4))
    if pose.position is not None:
        position = columns.array(column(pose.position), 3)
    if pose.rotation is not None:
        width = 4 if pose.rotation_kind.startswith("quaternion") else 3
        values = columns.array(column(pose.rotation), width)
        if pose.rotation_kind == "quaternion_xyzw":
            quaternion = values  # as recorded, whatever its length
        elif pose.rotation_kind == "quaternion_wxyz":
            quaternion = np.roll(values, -1, axis=1)
        else:
            quaternion = as_quaternion(values, pose.rotation_kind)
    return position, quaternion


def _commanded(
    columns: Columns, spec: DatasetSpec, position: np.ndarray, rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Translation (T, 3) and roll-pitch-yaw (T, 3) of the action, both deltas in the base frame."""
    action = spec.action
    translation = columns.array(column(str(action.position)), 3)
    turn = np.zeros((columns.steps, 3))
    if action.kind == "absolute":
        translation = translation - position
    if action.rotation is None:
        return translation, turn
    kind = action.rotation_kind
    values = columns.array(column(action.rotation), 4 if kind.startswith("quaternion") else 3)
    if action.kind == "absolute":
        measured = as_quaternion(rotation, "quaternion_xyzw")
        turn = rpy_between(measured, as_quaternion(values, kind))
    elif kind == "euler_xyz":
        turn = values
    elif kind == "axis_angle":
        turn = axis_angle_to_rpy(values)
    else:
        quaternion = as_quaternion(values, kind)
        turn = rpy_between(np.broadcast_to([0.0, 0.0, 0.0, 1.0], quaternion.shape), quaternion)
    return translation, turn


def _closedness(columns: Columns, pose: Pose, place: str) -> np.ndarray:
    """(T,) gripper: in [0, 1], 1 closed; a range of [-1, 1] that the action has stays."""
    if pose.gripper is None:
        return np.zeros(columns.steps)
    values = columns.array(column(pose.gripper), 1)[:, 0].astype(np.float64)
    low, high = pose.gripper_range
    slack = RANGE_SLACK * (high - low)
    outside = (values < low - slack) | (values > high + slack)
    if outside.any():
        step = int(np.argmax(outside))
        raise ValueError(
            f"{columns.where}: expected {place}.gripper {pose.gripper!r} in [{low:g}, {high:g}], "
            f"got {values[step]:g} at step {step}; state the range in {place}.gripper_range."
        )
    closes = pose.gripper_closes == "positive"
    if place == "action" and (low, high) == (-1.0, 1.0):
        return values if closes else -values
    if (low, high) != (0.0, 1.0):
        values = (values - low) / (high - low)
    return values if closes else 1.0 - values


def _terminate(columns: Columns, spec: DatasetSpec) -> np.ndarray:
    """(T,) bool: the sub-task is finished with the step."""
    path = spec.action.terminate or spec.is_terminal
    if path is not None:
        return columns.array(column(path), 1)[:, 0] > 0.5
    last = np.zeros(columns.steps, bool)
    last[-1:] = True
    return last
