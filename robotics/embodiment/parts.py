"""Parts of a robot's state and action: what their values are, and how a recording says them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robotics.embodiment.columns import column
from robotics.embodiment.entries import check_path, one_of

KINDS = ("position", "rotation", "joints", "gripper", "base", "other")
"""What the values of a part are. position, rotation: of a tool. base: of a mobile base."""
MODES = ("absolute", "delta", "velocity", "pulse")
"""How an action part commands: a target, a change of what `of` names, a change a second, or (of
grippers) +1 close, -1 open, 0 keep."""
FRAMES = ("base", "tool")
UNITS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "rad": 1.0, "deg": 3.141592653589793 / 180, "none": 1.0}
"""Unit -> its value in m or rad."""
NORMALISERS = ("quantiles", "standard", "minmax")
NORMALISE = (*NORMALISERS, "none")
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
            one_of("model.mode", self.mode, ("absolute", "delta", "velocity", "pulse"))
        if self.form is not None and rotation_width(self.form) > 9:
            raise ValueError(
                f"model.form: expected another form, got {self.form}, which only recordings have; "
                "write form: rot6d"
            )
        if self.normalise is not None:
            one_of("model.normalise", self.normalise, NORMALISE)
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
        one_of("kind", self.kind, KINDS)
        check_path("path", self.path)
        self._check_width()
        if self.unit is None:
            default = {"position": "m", "rotation": "rad", "joints": "rad"}
            object.__setattr__(self, "unit", default.get(self.kind, "none"))
        one_of("unit", self.unit, UNITS)
        if self.mode is not None:
            one_of("mode", self.mode, MODES)
        if (self.mode == "pulse" or self.model.mode == "pulse") and self.kind != "gripper":
            raise ValueError(f"mode: expected pulse only of a gripper, got a part of {self.kind}.")
        one_of("against", self.against, ("measured", "commanded"))
        one_of("frame", self.frame, FRAMES)
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
        if self.continuous and self.kind != "gripper":
            raise ValueError(f"continuous: expected it of a gripper, got a part of {self.kind}.")
        if self.model.form is not None and self.kind != "rotation":
            raise ValueError(f"model.form: expected it of a rotation, got a part of {self.kind}.")
        self._check_units()
        if self.names and len(self.names) != self.width:
            raise ValueError(f"names: expected {self.width}, got {list(self.names)}.")
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))

    def _check_units(self) -> None:
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

    @property
    def factor(self) -> np.ndarray:
        """What a recorded 1 is in m or rad, () or (width,) float64; `scale` alone of parts
        without a unit, and 1 of rotations whose values are no angles."""
        return np.asarray(self.scale, np.float64) * UNITS[str(self.unit)]

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
        check_path("path", self.path, self.width)

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


def _meet(a: float | Sequence[float], b: float | Sequence[float]) -> bool:
    """Whether two numbers, or any two of as many, are equal."""
    count = max(len(x) if isinstance(x, Sequence) else 1 for x in (a, b))
    pairs = [x if isinstance(x, Sequence) else [x] * count for x in (a, b)]
    return any(x == y for x, y in zip(*pairs, strict=True))
