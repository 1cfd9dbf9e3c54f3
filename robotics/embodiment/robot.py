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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robotics.embodiment.columns import Column, column
from robotics.embodiment.entries import check_path
from robotics.embodiment.parts import MODES, Part
from robotics.embodiment.recording import Camera, Filter, Instruction, Steps, Window


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
        own = [row.name for row in self.cameras if row.instead_of is None]
        for row in self.cameras:
            if row.instead_of is not None and row.instead_of not in own:
                raise ValueError(
                    f"cameras.{row.name}.instead_of: expected a camera out of "
                    f"{', '.join(own) or 'those without instead_of'}, got {row.instead_of!r}."
                )
        for name in ("reward", "success", "terminate"):
            if (path := getattr(self, name)) is not None:
                check_path(name, path, 1)
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
            own = tuple(row for row in self.cameras if row.instead_of is None)
            return tuple(row for row in own if row.use) or own[:1]
        wanted = {self.camera(name).name for name in names}
        return tuple(row for row in self.cameras if row.name in wanted)

    def stand_ins(self, camera: str, names: Sequence[str]) -> tuple[str, ...]:
        """The cameras that stand in for `camera`, where `names` are used."""
        return tuple(
            row.name
            for row in self.cameras
            if row.instead_of == camera and row.use and row.name not in names
        )

    def recorded_cameras(self, names: Sequence[str] | None = None) -> tuple[str, ...]:
        """The cameras that are read where `names` are used: these, and those that stand in for
        them. Default as for `used_cameras`."""
        names = [row.name for row in self.used_cameras(names)]
        others = [other for name in names for other in self.stand_ins(name, names)]
        return tuple(row.name for row in self.cameras if row.name in {*names, *others})

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
