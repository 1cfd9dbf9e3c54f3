"""Where things sit in an RLDS dataset and what they mean: a yaml as a checked dataclass.

Files of `configs/robot/` are found by name, anyone's by path; `template.yaml` explains every
entry. `robotics.data.rlds.convert` applies a specification.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from selfflow_wm.plugins import ROBOTS

SPEC_DIR = Path(__file__).resolve().parents[3] / "configs" / "robot"
ACTION_KINDS = ("delta", "absolute")
ROTATION_KINDS = {"euler_xyz": 3, "axis_angle": 3, "quaternion_xyzw": 4, "quaternion_wxyz": 4}
"""Kinds of rotation and how many values each has."""
SENSES = ("positive", "negative")


@dataclass(frozen=True)
class Column:
    """Values of one feature, of every step or (once) of the episode."""

    key: str
    """Flattened key of the record, such as "steps/action" or "aspects/success"."""
    values: slice | None = None
    """Which of a flattened vector's values; all of them without it."""

    @property
    def of_step(self) -> bool:
        """Whether every step has a value."""
        return self.key.startswith("steps/")


def column(path: str) -> Column:
    """Parse "action", "action[0:3]", "action[6]" (of a step) or "/aspects/success" (of an episode).

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(r"(/?)([^/\[\]]+(?:/[^/\[\]]+)*)(?:\[(\d+)(?::(\d+))?\])?", str(path))
    if match is None:
        raise ValueError(
            "expected a path such as observation/image, action[0:3], action[6] or "
            f"/aspects/success, got {path!r}."
        )
    root, name, first, last = match.groups()
    values = None
    if first is not None:
        values = slice(int(first), int(first) + 1 if last is None else int(last))
        if values.stop <= values.start:
            raise ValueError(f"expected a range of at least one value, got {path!r}.")
    return Column(name if root else f"steps/{name}", values)


def _one_of(name: str, value: Any, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {sorted(choices)}, got {value!r}.")


@dataclass(frozen=True)
class Pose:
    """Paths and conventions of a tool's pose (or its change) and the gripper."""

    position: str | None = None
    """Three values, m."""
    rotation: str | None = None
    rotation_kind: str = "euler_xyz"
    """Out of `ROTATION_KINDS`; angles in rad, Euler angles about the fixed x, y, z axes."""
    gripper: str | None = None
    gripper_closes: str = "positive"
    """Whether the larger ("positive") or the smaller value closes."""
    gripper_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _one_of("rotation_kind", self.rotation_kind, ROTATION_KINDS)
        _one_of("gripper_closes", self.gripper_closes, SENSES)
        try:
            low, high = (float(bound) for bound in self.gripper_range)
        except (TypeError, ValueError):
            low, high = 0.0, 0.0
        if not low < high:
            got = f"got {self.gripper_range!r}"
            raise ValueError(f"gripper_range: expected [smallest, largest], {got}.")
        object.__setattr__(self, "gripper_range", (low, high))
        _check_path("position", self.position, 3)
        _check_path("rotation", self.rotation, ROTATION_KINDS[self.rotation_kind])
        _check_path("gripper", self.gripper, 1)


@dataclass(frozen=True)
class ActionPose(Pose):
    """What an action commands."""

    gripper_range: tuple[float, float] = (-1.0, 1.0)
    kind: str = "delta"
    """Changes of the pose, or absolute targets in the base frame."""
    terminate: str | None = None
    """Above 0.5: the sub-task is finished with this step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("kind", self.kind, ACTION_KINDS)
        _check_path("terminate", self.terminate, 1)
        if self.position is None:
            raise ValueError("position: expected the path of the translation, got none.")


@dataclass(frozen=True)
class Filter:
    """Which episodes to read, by one value; exactly one of `keep` and `drop`."""

    path: str
    keep: tuple[Any, ...] | None = None
    drop: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        _check_path("path", self.path, 1)
        if (self.keep is None) == (self.drop is None):
            raise ValueError(f"{self.path}: expected either keep or drop, a list of values.")
        for name in ("keep", "drop"):
            value = getattr(self, name)
            if isinstance(value, (str, bytes)) or not isinstance(value, (list, tuple, type(None))):
                raise ValueError(f"{name}: expected a list of values, got {value!r}.")
            object.__setattr__(self, name, None if value is None else tuple(value))


def _check_path(name: str, path: str | None, width: int | None) -> None:
    """width: number of values to take, checked where the path has brackets."""
    if path is None:
        return
    try:
        values = column(path).values
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if values is not None and width is not None and values.stop - values.start != width:
        raise ValueError(
            f"{name}: expected {width} value{'s' * (width > 1)}, got {path!r} with "
            f"{values.stop - values.start}; change the range in brackets (or rotation_kind)."
        )


@dataclass(frozen=True)
class DatasetSpec:
    """One dataset's features, for `robotics.data.rlds.convert`; configs/robot/template.yaml.

    Raises:
        ValueError: a path, convention or combination that cannot be read.
    """

    name: str
    control_hz: float
    """Actions a second."""
    cameras: Mapping[str, str]
    """Name -> path of the encoded image."""
    instruction: str
    action: ActionPose
    proprio: Pose = field(default_factory=Pose)
    camera: str | None = None
    """The camera that is read; the first by default."""
    reward: str | None = None
    is_terminal: str | None = None
    success: str | None = None
    filters: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        if not self.control_hz > 0:
            raise ValueError(f"control_hz: expected a positive rate, got {self.control_hz!r}.")
        if not self.cameras:
            raise ValueError("cameras: expected at least one, name: path.")
        for name, path in self.cameras.items():
            _check_path(f"cameras.{name}", path, None)
        if self.camera is not None:
            _one_of("camera", self.camera, self.cameras)
        for name in ("instruction", "reward", "is_terminal", "success"):
            _check_path(name, getattr(self, name), 1)
        if self.success is not None and column(self.success).of_step:
            raise ValueError(
                f"success: expected a flag of the episode with a leading '/', got {self.success!r}."
            )
        lacking = self.proprio.position is None or (
            self.action.rotation is not None and self.proprio.rotation is None
        )
        if self.action.kind == "absolute" and lacking:
            raise ValueError(
                "action.kind: absolute targets become deltas from the measured pose, and proprio "
                "has none; state proprio.position and proprio.rotation."
            )

    @property
    def image(self) -> str:
        """Path of the image that is read."""
        return self.cameras[self.camera or next(iter(self.cameras))]

    def columns(self) -> dict[str, Column]:
        """What is read, by its place in the specification ("action.position", ...)."""
        places = (
            "instruction", "reward", "is_terminal", "success",
            "action.position", "action.rotation", "action.gripper",
            "proprio.position", "proprio.rotation", "proprio.gripper", "action.terminate",
        )  # fmt: skip
        paths = {"image": self.image} | {place: attrgetter(place)(self) for place in places}
        paths |= {f"filters[{number}]": row.path for number, row in enumerate(self.filters)}
        return {name: column(path) for name, path in paths.items() if path is not None}

    def fingerprint(self) -> str:
        """Identifies what is read and how; the same for names and rates that differ."""
        content = dataclasses.asdict(self)
        for name in ("name", "control_hz", "cameras", "camera"):
            del content[name]
        text = json.dumps({**content, "image": self.image}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load_spec(source: str | Path | Mapping[str, Any] | DatasetSpec | None) -> DatasetSpec:
    """A specification by shipped name ("rt1"), by path of a yaml, or from its content.

    None is RT-1's.

    Raises:
        ValueError: no such file, unknown or missing entries, or values that cannot be.
    """
    if isinstance(source, DatasetSpec):
        return source
    name = "given" if isinstance(source, Mapping) else Path(str(source or "rt1")).stem
    content = _resolved(source or "rt1", ())
    try:
        content = _renamed(content, content.pop("renames", None) or {})
        groups: dict[str, Any] = {"name": name} | content
        for key, kind in (("action", ActionPose), ("proprio", Pose)):
            if key in groups:
                groups[key] = _build(kind, groups[key] or {}, f"{key}.")
        rows = groups.get("filters") or []
        groups["filters"] = tuple(
            _build(Filter, row, f"filters[{number}].") for number, row in enumerate(rows)
        )
        if not isinstance(groups.get("cameras", {}), Mapping):
            raise ValueError(f"cameras: expected name: path, got {groups['cameras']!r}.")
        return _build(DatasetSpec, groups, "")
    except ValueError as error:
        raise ValueError(f"data set specification {name}: {error}") from None


@functools.cache
def rt1_spec() -> DatasetSpec:
    """The published RT-1 data."""
    return load_spec("rt1")


def _build(kind: Any, values: Any, place: str) -> Any:
    known = inspect.signature(kind).parameters
    if not isinstance(values, Mapping):
        raise ValueError(f"{place or 'the file'}: expected key: value lines, got {values!r}.")
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(
            f"expected entries out of {sorted(known)}, got unknown "
            f"{', '.join(place + str(key) for key in unknown)}; see template.yaml."
        )
    required = [key for key, item in known.items() if item.default is item.empty]
    if absent := [key for key in required if values.get(key) is None]:
        raise ValueError(f"expected {', '.join(place + key for key in absent)}, got no such entry.")
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}{error}") from None


def _resolved(source: str | Path | Mapping[str, Any], seen: tuple[str, ...]) -> dict[str, Any]:
    """The content with whatever it extends merged in."""
    content = dict(source) if isinstance(source, Mapping) else _load(source)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(source, Mapping) and (near := Path(source).parent / str(base)).is_file():
        base = near
    base = str(base)
    if base in seen:
        raise ValueError(f"expected specifications that extend no circle, got {(*seen, base)}.")
    merged = _resolved(base, (*seen, base))
    for key, value in content.items():
        inside = isinstance(value, Mapping) and key in ("action", "proprio", "renames")
        merged[key] = {**(merged.get(key) or {}), **value} if inside else value
    return merged


def read_yaml(path: Path) -> Any:
    """The content of a yaml file, interpolations resolved; ValueError where it is none."""
    from omegaconf import OmegaConf

    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:  # the yaml parser's errors have no common base
        raise ValueError(f"{path}: expected a yaml, got {error}") from error


def _load(source: str | Path) -> dict[str, Any]:
    path = SPEC_DIR / f"{source}.yaml"
    if not path.is_file():
        path = Path(ROBOTS.load(str(source)) if source in ROBOTS.names() else source)
    if path.parent.name == "dataset_spec" and not path.is_file():  # what configs/robot once was
        path = SPEC_DIR / path.name
    if not path.is_file():
        names = sorted({*(file.stem for file in SPEC_DIR.glob("*.yaml")), *ROBOTS.usable()})
        raise ValueError(
            f"expected one of {names} or the path of a yaml, got {str(source)!r}; "
            f"copy {SPEC_DIR / 'template.yaml'} to start one."
        )
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected key: value lines, got {type(content).__name__}.")
    return content  # pyright: ignore


def _renamed(content: Any, renames: Mapping[str, str]) -> Any:
    """Every path that is renamed, with its brackets kept."""
    if isinstance(content, Mapping):
        return {key: _renamed(value, renames) for key, value in content.items()}
    if isinstance(content, list):
        return [_renamed(value, renames) for value in content]
    if isinstance(content, str):
        path, bracket, rest = content.partition("[")
        return renames.get(path, path) + bracket + rest
    return content
