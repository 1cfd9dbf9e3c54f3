"""A robot as a table: what it sees, feels and does, and how its recordings say it.

One yaml of `configs/robot/` (`template.yaml` explains every entry) is one `Robot`. Arrays of an
episode, windows, normalisers, the model's layout, the policy's checks, the server's metadata and
the inspection of a data set follow from it; nothing else knows a vector's width or a part's place.

Recorded vectors are the parts of `state` or of `action` one after the other, as the recording has
them: its units, its rotations, its sense of the gripper. What the model is given of a part is in
the part's `model`; `robotics.embodiment.coding` goes from one to the other and back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robotics.embodiment.columns import Column, column

KINDS = ("position", "rotation", "joints", "gripper", "base", "other")
"""What the values of a part are. position, rotation: of a tool. base: of a mobile base."""
MODES = ("absolute", "delta", "velocity", "pulse")
"""How an action part commands: a target, a change of what `of` names, a change a second, or (of
grippers) +1 close, -1 open, 0 keep."""
FRAMES = ("base", "tool")
UNITS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "rad": 1.0, "deg": 3.141592653589793 / 180, "none": 1.0}
"""Unit -> its value in m or rad."""
VIEWS = ("third_person", "wrist")
NORMALISE = ("quantiles", "standard", "minmax", "none")
_FORMS = {
    "axis_angle": 3, "quaternion_xyzw": 4, "quaternion_wxyz": 4, "rot6d": 6, "matrix": 9,
    "homogeneous": 16, "homogeneous_columns": 16,
}  # fmt: skip
_EULER = re.compile(r"euler_(?=(.)(?!\1)(.)(?!\2)(.))([xyz]{3}|[XYZ]{3})")


def rotation_width(form: str) -> int:
    """Values of a rotation of this form.

    axis_angle (axis times angle), quaternion_xyzw, quaternion_wxyz, rot6d (the first two columns of
    the matrix, Zhou et al. 2019, arXiv 1812.07035), matrix (row by row), or euler_ and an order:
    lower case about fixed axes (euler_xyz is roll, pitch, yaw), upper case about the turned ones;
    euler_z for a tool that turns about one axis alone. Of recorded states alone: homogeneous, the
    rotation in a 4 x 4 matrix of a pose written row by row, and homogeneous_columns, column by
    column.
    """
    if form in _FORMS:
        return _FORMS[form]
    if form in ("euler_x", "euler_y", "euler_z"):
        return 1
    if isinstance(form, str) and _EULER.fullmatch(form):
        return 3
    raise ValueError(
        f"form: expected {', '.join(_FORMS)} or euler_ and an order of axes such as euler_xyz "
        f"(fixed) or euler_ZYX (turned), got {form!r}; write form: euler_xyz"
    )


def _one_of(name: str, value: Any, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}.")


def _meet(a: float | Sequence[float], b: float | Sequence[float]) -> bool:
    """Whether two numbers, or any two of as many, are equal."""
    count = max(len(x) if isinstance(x, Sequence) else 1 for x in (a, b))
    pairs = [x if isinstance(x, Sequence) else [x] * count for x in (a, b)]
    return any(x == y for x, y in zip(*pairs, strict=True))


def _check_path(name: str, path: Any, width: int | None = None) -> None:
    try:
        got = column(path).width
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if got is not None and width is not None and got != width:
        raise ValueError(
            f"{name}: expected {width} value{'s' * (width > 1)}, got {path!r} with {got}; change "
            "the range in brackets."
        )


@dataclass(frozen=True)
class Camera:
    """One camera."""

    name: str
    path: str
    """Of the encoded image (RLDS) or of the video (LeRobot)."""
    view: str = "third_person"
    """Out of `VIEWS`."""
    size: tuple[int, int] | None = None
    """Height and width as recorded; None: whatever the data have."""
    rotate: int = 0
    """Degrees by which a recorded picture is turned before anything else, a multiple of 90."""
    present: str | None = None
    """Path of an episode's flag; where it is false the camera's pictures are masked."""
    use: bool = True
    """False: known, and not used unless `dataset.cameras` names it."""

    def __post_init__(self) -> None:
        _check_path("path", self.path)
        _one_of("view", self.view, VIEWS)
        if self.rotate not in (0, 90, 180, 270):
            raise ValueError(f"rotate: expected 0, 90, 180 or 270 degrees, got {self.rotate!r}.")
        if self.present is not None:
            _check_path("present", self.present, 1)
        if self.size is not None:
            size = tuple(self.size) if isinstance(self.size, Sequence) else ()
            if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
                raise ValueError(f"size: expected [height, width], got {self.size!r}.")
            object.__setattr__(self, "size", size)


@dataclass(frozen=True)
class PartModel:
    """What the model is given of a part; None: the default, see `robotics.embodiment.coding`."""

    mode: str | None = None
    """Of action parts: absolute, delta (from the state at the chunk's start) or velocity."""
    form: str | None = None
    """Of rotations, see `rotation_width`."""
    sign: tuple[float, float, float, float] | None = None
    """Of quaternions xyzw: of q and -q the one whose product with this is positive."""
    binarize: bool = False
    """Of grippers: open or closed and nothing between, by Bridge's rule."""
    normalise: str | None = None
    """Out of `NORMALISE`; default: the run's `normalizer.kind`, "none" for gripper commands."""

    def __post_init__(self) -> None:
        if self.mode is not None:
            _one_of("model.mode", self.mode, ("absolute", "delta", "velocity", "pulse"))
        if self.form is not None and rotation_width(self.form) > 9:
            raise ValueError(
                f"model.form: expected another form, got {self.form}, which only recordings have; "
                "write form: rot6d"
            )
        if self.normalise is not None:
            _one_of("model.normalise", self.normalise, NORMALISE)
        if self.sign is not None:
            sign = tuple(float(value) for value in self.sign)
            if len(sign) != 4 or not any(sign):
                raise ValueError(f"model.sign: expected x, y, z, w, got {list(sign)}.")
            object.__setattr__(self, "sign", sign)


@dataclass(frozen=True)
class Part:
    """Values of a state or an action that belong together."""

    name: str
    path: str
    kind: str
    width: int = 0
    """Number of values; by default that of the path's brackets, or of the kind."""
    form: str | None = None
    """Of rotations, see `rotation_width`."""
    unit: str | None = None
    """Out of `UNITS`; default m or rad by kind."""
    scale: float | tuple[float, ...] = 1.0
    """Value of the recorded 1 in `unit`: 0.05 where 1 means 5 cm; one for all or one each."""
    range: tuple[float, float] | None = None
    """Smallest and largest value as recorded; values far outside are refused."""
    open: float | tuple[float, ...] = 0.0
    closed: float | tuple[float, ...] = 1.0
    """Of grippers: the values when open and when closed, as recorded."""
    continuous: bool = False
    """Of gripper commands: what lies between open and closed is meant (a width), not a transition
    or an uncertain prediction."""
    names: tuple[str, ...] = ()
    """Of the values; default: from the kind."""
    mode: str | None = None
    """Of action parts, out of `MODES`."""
    of: str | None = None
    """Of action parts: the state part it commands; default: the one of the same name, if any."""
    against: str = "measured"
    """Of deltas: whether they change the "measured" or the last "commanded" value."""
    frame: str = "base"
    """Of position and rotation, out of `FRAMES`: the axes that a delta is about."""
    model: PartModel = field(default_factory=PartModel)

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, KINDS)
        _check_path("path", self.path)
        self._check_width()
        if self.unit is None:
            default = {"position": "m", "rotation": "rad", "joints": "rad"}
            object.__setattr__(self, "unit", default.get(self.kind, "none"))
        _one_of("unit", self.unit, UNITS)
        if self.mode is not None:
            _one_of("mode", self.mode, MODES)
        if (self.mode == "pulse" or self.model.mode == "pulse") and self.kind != "gripper":
            raise ValueError(f"mode: expected pulse only of a gripper, got a part of {self.kind}.")
        _one_of("against", self.against, ("measured", "commanded"))
        _one_of("frame", self.frame, FRAMES)
        for name in ("scale", "open", "closed", "range"):
            self._check_numbers(name)
        if self.kind == "rotation" and self.width > 3 and (self.unit, self.scale) != ("rad", 1.0):
            raise ValueError(
                f"unit: expected none and no scale of {self.form}, whose values are no angles, got "
                f"unit {self.unit} and scale {self.scale}; leave them out."
            )
        if self.kind == "position" and self.frame == "tool" and self.width != 3:
            raise ValueError(
                f"frame: expected x, y and z of a position in a tool's axes, got {self.width} "
                "values; write frame: base"
            )
        if self.model.binarize and (self.kind != "gripper" or self.mode is None):
            raise ValueError("model.binarize: expected it of an action's gripper alone.")
        if self.kind == "gripper" and _meet(self.open, self.closed):
            raise ValueError(
                f"open: expected other values than closed, got {self.open} and {self.closed}."
            )
        if _meet(self.scale, 0.0):
            raise ValueError(f"scale: expected the value of a recorded 1, got {self.scale}.")
        if self.kind == "position" and self.unit in ("rad", "deg"):
            raise ValueError(f"unit: expected m, cm or mm of a position, got {self.unit}.")
        if self.kind == "rotation" and self.unit in ("m", "cm", "mm"):
            raise ValueError(f"unit: expected rad or deg of a rotation, got {self.unit}.")
        if self.continuous and self.kind != "gripper":
            raise ValueError(f"continuous: expected it of a gripper, got a part of {self.kind}.")
        if self.model.form is not None and self.kind != "rotation":
            raise ValueError(f"model.form: expected it of a rotation, got a part of {self.kind}.")
        if self.names and len(self.names) != self.width:
            raise ValueError(f"names: expected {self.width}, got {list(self.names)}.")
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))

    def _check_width(self) -> None:
        rotation = rotation_width(self.form or "euler_xyz") if self.kind == "rotation" else None
        if rotation and self.form is None:
            raise ValueError(
                "form: expected the form of the rotation, got none; write form: euler_xyz, "
                "axis_angle, quaternion_xyzw ..."
            )
        if not rotation and self.form is not None:
            raise ValueError(f"form: expected it of a rotation alone, got a part of {self.kind}.")
        stated = column(self.path).width
        default = {"position": 3, "gripper": 1}.get(self.kind)
        width = self.width or rotation or stated or default
        if not width:
            raise ValueError(
                f"{self.path}: expected the number of its values, got none; write brackets such as "
                f"{self.path}[0:7], or width: 7"
            )
        if rotation and width != rotation:
            raise ValueError(
                f"width: expected {rotation} values of {self.form}, got {width}; correct one."
            )
        object.__setattr__(self, "width", int(width))
        _check_path("path", self.path, self.width)

    def _check_numbers(self, name: str) -> None:
        value: Any = getattr(self, name)
        if value is None:
            return
        many = 2 if name == "range" else self.width
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = tuple(float(item) for item in value)
            if len(value) != many:
                raise ValueError(f"{name}: expected {many} numbers, got {list(value)}.")
        elif name == "range":
            raise ValueError(f"range: expected [smallest, largest], got {value!r}.")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name}: expected a number, got {value!r}.")
        else:
            value = float(value)
        if not all(map(math.isfinite, value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{name}: expected finite numbers, got {value}.")
        if name == "range" and not value[0] < value[1]:
            raise ValueError(f"range: expected [smallest, largest], got {list(value)}.")
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Filter:
    """Which episodes to read, by one value; exactly one of keep, drop and contains."""

    path: str
    keep: tuple[Any, ...] | None = None
    drop: tuple[Any, ...] | None = None
    contains: str | None = None
    """A text that the value must contain."""

    def __post_init__(self) -> None:
        _check_path("path", self.path, 1)
        if sum(value is not None for value in (self.keep, self.drop, self.contains)) != 1:
            raise ValueError(
                f"path {self.path}: expected one of keep and drop, lists of values, and contains."
            )
        for name in ("keep", "drop"):
            value = getattr(self, name)
            if isinstance(value, (str, bytes)) or not isinstance(value, (list, tuple, type(None))):
                raise ValueError(f"{name}: expected a list of values, got {value!r}.")
            object.__setattr__(self, name, None if value is None else tuple(value))

    def passes(self, value: Any) -> bool:
        """Whether an episode with this value is read."""
        if self.contains is not None:
            return self.contains in str(value)
        return value in self.keep if self.keep is not None else value not in (self.drop or ())


@dataclass(frozen=True)
class Instruction:
    """Where the instruction is; without paths there is none."""

    paths: tuple[str, ...] = ()
    """Of a step, or of the episode with a leading "/". Of several, one that is not empty is drawn
    for every sample."""
    encoding: str = "utf-8"
    """utf-8, or characters: a vector of code points ended by 0 (language_table)."""

    def __post_init__(self) -> None:
        for path in self.paths:
            _check_path("paths", path, None if self.encoding == "characters" else 1)
        _one_of("encoding", self.encoding, ("utf-8", "characters"))


@dataclass(frozen=True)
class Steps:
    """Which steps of an episode count, and which action belongs to which of them."""

    drop_first: int = 0
    drop_last: int = 0
    lag: int = 0
    """Steps by which actions are recorded late: step t's action stands at step t + lag."""
    relabel: bool = False
    """Replace delta and absolute actions of position, rotation and joints by what was reached: the
    next step's state. The last step is dropped."""

    def __post_init__(self) -> None:
        for name in ("drop_first", "drop_last"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}: expected a number of steps, got {value!r}.")
        if isinstance(self.lag, bool) or not isinstance(self.lag, int):
            raise ValueError(f"lag: expected a number of steps, got {self.lag!r}.")


@dataclass(frozen=True)
class Window:
    """What a sample holds by default; `dataset.horizon` and the like of a run override it."""

    horizon: int = 6
    """Actions of a chunk."""
    video_offsets: tuple[int, ...] = (3, 6)
    """Future frames, in control steps after the current one."""

    def __post_init__(self) -> None:
        for name, value in (("horizon", [self.horizon]), ("video_offsets", self.video_offsets)):
            if not isinstance(value, Sequence) or not all(type(n) is int for n in value):
                got = getattr(self, name)
                raise ValueError(f"{name}: expected whole numbers of steps, got {got!r}.")
        object.__setattr__(self, "video_offsets", tuple(self.video_offsets))
        if self.horizon < 1 or any(offset < 1 for offset in self.video_offsets):
            raise ValueError(
                f"horizon: expected horizon >= 1 and video_offsets >= 1, got {self.horizon} and "
                f"{list(self.video_offsets)}."
            )


@dataclass(frozen=True)
class Robot:
    """The table; see the module docstring.

    Raises:
        ValueError: an entry, or a combination of them, that cannot be.
    """

    name: str
    rate: float
    """Control steps a second."""
    cameras: tuple[Camera, ...]
    state: tuple[Part, ...] = ()
    action: tuple[Part, ...] = ()
    """Empty: video without actions."""
    embodiment: str = ""
    """The robot itself, which several data sets may be of; default: `name`. A checkpoint acts for
    no other."""
    instruction: Instruction = field(default_factory=Instruction)
    terminate: str | None = None
    """Path of a step's value above 0.5 where the sub-task is finished with the step. The model then
    predicts it beside the action."""
    reward: str | None = None
    success: str | None = None
    """Path of a flag of the episode; None: all succeeded."""
    steps: Steps = field(default_factory=Steps)
    filters: tuple[Filter, ...] = ()
    window: Window = field(default_factory=Window)
    keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Protocol -> our name ("cameras.NAME", "state", "state.PART", "instruction", "action") -> its
    key, for servers and clients."""

    def __post_init__(self) -> None:
        if not self.embodiment:
            object.__setattr__(self, "embodiment", self.name)
        number = isinstance(self.rate, int | float) and not isinstance(self.rate, bool)
        if not number or not math.isfinite(self.rate) or self.rate <= 0:
            raise ValueError(f"rate: expected control steps a second, got {self.rate!r}.")
        if not self.cameras:
            raise ValueError("cameras: expected at least one, name: {path: ...}.")
        if any(row.name == "state" for row in self.cameras):
            raise ValueError("cameras: expected another name than state, which observations have.")
        self._check_keys()
        for name in ("reward", "success", "terminate"):
            if (path := getattr(self, name)) is not None:
                _check_path(name, path, 1)
        if self.success is not None and column(self.success).of_step:
            raise ValueError(
                f"success: expected a flag of the episode with a leading '/', got {self.success!r}."
            )
        for part in self.state:
            if part.mode or part.of:
                raise ValueError(
                    f"state.{part.name}: expected no mode and no of; they are actions'."
                )
            if part.model.mode:
                raise ValueError(f"state.{part.name}.model.mode: expected it of actions alone.")
        for part in self.action:
            self._check_action(part)

    def _check_keys(self) -> None:
        known = [f"cameras.{row.name}" for row in self.cameras]
        known += ["state", *(f"state.{row.name}" for row in self.state), "instruction", "action"]
        for protocol, rows in self.keys.items():
            if unknown := sorted(set(rows) - set(known)):
                raise ValueError(
                    f"keys.{protocol}: expected names out of {', '.join(known)}, got "
                    f"{', '.join(unknown)}."
                )

    def _check_action(self, part: Part) -> None:
        place = f"action.{part.name}"
        if part.mode is None:
            raise ValueError(f"{place}.mode: expected one of {', '.join(MODES)}, got none.")
        if str(part.form).startswith("homogeneous"):
            raise ValueError(
                f"{place}.form: expected another form than {part.form} of an action, which would "
                "have to hold the position, too; write form: matrix"
            )
        if part.model.sign is not None:
            raise ValueError(f"{place}.model.sign: expected it of parts of the state alone.")
        named = {row.name: row for row in self.state}
        if part.of is not None and part.of not in named:
            raise ValueError(
                f"{place}.of: expected a part of the state out of "
                f"{', '.join(named) or 'none'}, got {part.of!r}."
            )
        other = named.get(part.of or part.name)
        if other is not None and other.kind != part.kind:
            if part.of is not None:
                raise ValueError(f"{place}.of: expected a part of {part.kind}, got {other.kind}.")
            other = None
        if other is not None and _one_angle(part) and other.form != part.form:
            other = None
        alike = part.kind in ("rotation", "gripper")
        if other is not None and not alike and other.width != part.width:
            raise ValueError(
                f"{place}.of: expected {part.width} values of state.{other.name}, got "
                f"{other.width}; name another part, or rename this one so that it is of none."
            )
        wanted = part.model.mode or part.mode
        if part.kind != "gripper" and wanted != part.mode and other is None:
            raise ValueError(
                f"{place}.model.mode: expected the state that {wanted} is relative to, got none; "
                f"state of: PART with a part out of {', '.join(named) or 'the state'}, or leave "
                "mode as recorded."
            )

    # ------------------------------------------------------------------ looking things up

    def camera(self, name: str) -> Camera:
        """The camera called `name`; ValueError with the known ones."""
        for row in self.cameras:
            if row.name == name:
                return row
        known = ", ".join(row.name for row in self.cameras)
        raise ValueError(f"cameras: expected one of {known} of robot {self.name}, got {name!r}.")

    def used_cameras(self, names: Sequence[str] | None = None) -> tuple[Camera, ...]:
        """The cameras that are used, in the table's order; `names` chooses others."""
        if names is None:
            return tuple(row for row in self.cameras if row.use) or self.cameras[:1]
        wanted = {self.camera(name).name for name in names}
        return tuple(row for row in self.cameras if row.name in wanted)

    def commanded(self, part: Part) -> Part | None:
        """The state part that an action part commands. The angle about one axis that is a target is
        no change of a whole rotation: what else that turns would show in it."""
        for row in self.state:
            if row.name == (part.of or part.name) and row.kind == part.kind:
                return None if _one_angle(part) and row.form != part.form else row
        return None

    @property
    def state_width(self) -> int:
        """Values of a recorded state."""
        return sum(part.width for part in self.state)

    @property
    def action_width(self) -> int:
        """Values of a recorded action."""
        return sum(part.width for part in self.action)

    def slices(self, group: str) -> dict[str, slice]:
        """Where each part of "state" or "action" lies in the recorded vector."""
        found, start = {}, 0
        for part in getattr(self, group):
            found[part.name] = slice(start, start + part.width)
            start += part.width
        return found

    def columns(self, cameras: Sequence[str] | None = None) -> Iterator[tuple[str, Column]]:
        """What is read: place in the table ("cameras.front", "state.gripper", ...) and column."""
        for row in self.used_cameras(cameras):
            yield f"cameras.{row.name}", column(row.path)
            if row.present is not None:
                yield f"cameras.{row.name}.present", column(row.present)
        for group in ("state", "action"):
            for part in getattr(self, group):
                yield f"{group}.{part.name}", column(part.path)
        for number, path in enumerate(self.instruction.paths):
            yield f"instruction[{number}]", column(path)
        for name in ("terminate", "reward", "success"):
            if (path := getattr(self, name)) is not None:
                yield name, column(path)
        for number, row in enumerate(self.filters):
            yield f"filters[{number}]", column(row.path)

    # ------------------------------------------------------------------ as content

    def to_dict(self) -> dict[str, Any]:
        """The table as the content of a yaml, JSON values, which
        `robotics.embodiment.tables.load_robot` reads back; entries at their defaults are left out.
        """
        found: dict[str, Any] = {"name": self.name, "embodiment": self.embodiment}
        found["rate"] = float(self.rate)
        for group in ("cameras", "state", "action"):
            rows = {row.name: _changed(row, ("name",)) for row in getattr(self, group)}
            if rows:
                found[group] = rows
        if self.instruction.paths:
            paths = list(self.instruction.paths)
            found["instruction"] = {"paths": paths, "encoding": self.instruction.encoding}
        for name in ("terminate", "reward", "success"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        for name in ("steps", "window"):
            if row := _changed(getattr(self, name)):
                found[name] = row
        if self.filters:
            found["filters"] = [_changed(row) for row in self.filters]
        if self.keys:
            found["keys"] = {protocol: dict(rows) for protocol, rows in self.keys.items()}
        return json.loads(json.dumps(found))

    def fingerprint(self, cameras: Sequence[str] | None = None) -> str:
        """Identifies the recorded arrays that are read: paths, filters, cameras; neither names nor
        what the values mean."""
        content = {place: str(found) for place, found in self.columns(cameras)}
        content["filters"] = str([_changed(row) for row in self.filters])
        content["instruction"] = str(self.instruction)
        widths = [part.width for part in (*self.state, *self.action)]
        rotated = [row.rotate for row in self.used_cameras(cameras)]
        text = json.dumps([content, widths, rotated], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _one_angle(part: Part) -> bool:
    """Whether an action part is a rotation's target about one axis alone."""
    return part.kind == "rotation" and part.width == 1 and part.mode == "absolute"


def _changed(row: Any, without: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults; nested ones alike."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(row):
        value = getattr(row, item.name)
        if item.name in without:
            continue
        if dataclasses.is_dataclass(value):
            if inner := _changed(value):
                found[item.name] = inner
        elif item.default is dataclasses.MISSING or value != item.default:
            found[item.name] = list(value) if isinstance(value, tuple) else value
    return found
