"""Recorded states and actions as the model's vectors, and the model's actions back as recorded.

What the model gets of a part, where its `model` entry says nothing else:

- state: position, joints, base and other in SI units; a rotation as rot6d; a gripper as closedness,
  0 open to 1 closed, each of its values.
- action, delta or velocity: SI units; a rotation in its own form, or as axis_angle if that has more
  than three values.
- action, absolute position, rotation or joints: the change from the measured state at the chunk's
  start, a rotation's as axis_angle, about the part's axes; without such a state the target itself,
  a rotation as rot6d.
- action, gripper: closedness, -1 open to +1 closed; a pulse stays one.

`model.mode` chooses another: absolute (of deltas: each from the target before it, the first from
the measured state, whatever they are `against`: what is measured inside the chunk is not known
when it is predicted), delta (of velocities: of one step), velocity. All changes add up as elements
of their group: a tool's rotation turns about the axes of the base or of the tool, and a position
in the axes of the tool follows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from robotics.embodiment.part_coding import (
    QUATERNION,
    Coding,
    action_coding,
    angle_steps,
    gripper_command,
    measured_steps,
    state_coding,
    target_steps,
    unsigned,
)
from robotics.embodiment.parts import Part, rotation_width
from robotics.embodiment.robot import Robot
from robotics.embodiment.rotation import continuous_signs
from robotics.embodiment.transforms import (
    PULSE_THRESHOLD,
    Context,
    Form,
    FromStart,
    Held,
    Reversed,
    Summed,
)

ACTION_FLOOR = 1e-3
"""m or rad: a motion that hardly ever occurs must not have its noise blown up."""
STATE_FLOOR = 1e-2
_AXES = {
    "axis_angle": ("rx", "ry", "rz"),
    "quaternion_xyzw": ("qx", "qy", "qz", "qw"),
    "quaternion_wxyz": ("qw", "qx", "qy", "qz"),
    "euler_xyz": ("roll", "pitch", "yaw"),
    "rot6d": tuple(f"r6d_{n}" for n in range(6)),
    "matrix": tuple(f"m{n}{k}" for n in range(3) for k in range(3)),
}


@dataclass(frozen=True)
class Field:
    """One value of the model's state or action."""

    name: str
    """"position.x", "rotation.r6d_0", "gripper", "left_arm.2", "terminate" ..."""
    kind: str
    """The part's, or "terminate"."""
    normalise: str = "default"
    """A kind of normaliser, "none", or "default": the run's."""
    floor: float = ACTION_FLOOR
    """Smallest half range to divide by, in the value's units."""


@dataclass(frozen=True)
class _Row:
    """A part, and where it lies in the recorded vector and in the model's."""

    part: Part
    recorded: slice
    model: slice
    coding: Coding


class Coder:
    """Vectors as recorded to vectors as the model gets them, and back; see the module docstring.

    All vectors are float32; `recorded(chunk(x, s), s)` is `x` up to rounding, of rotations the same
    rotation. RT-1's values pass unchanged, bit for bit.

    Args:
        robot: the table.
        terminate: whether the model predicts the end of the task where the table has it.

    Raises:
        ValueError: a part that cannot be given to the model as the table says.
    """

    def __init__(self, robot: Robot, *, terminate: bool = True) -> None:
        self.robot = robot
        self.terminate = bool(terminate and robot.terminate and robot.action)
        self._state = _laid_out([(part, state_coding(part)) for part in robot.state])
        self._action = _laid_out([(part, action_coding(robot, part)) for part in robot.action])
        self.state_width = sum(_width(row) for row in self._state)
        self.action_width = sum(_width(row) for row in self._action) + self.terminate
        self.relative = any(row.coding.relative for row in self._action)
        self.state_names = tuple(name for row in self._state for name in _names(row))
        names = [name for row in self._action for name in _names(row)]
        self.action_names = (*names, *["terminate"] * self.terminate)

    # ------------------------------------------------------------------ states

    def state(self, recorded: ArrayLike) -> np.ndarray:
        """States as recorded (..., S) -> float32 (..., S').

        Raises:
            ValueError: another width, NaN or infinity, a rotation that is none.
        """
        values = _vectors(recorded, self.robot.state_width, "state")
        return _joined(values, self._forward(self._state, values, Context()))

    def recorded_state(self, state: ArrayLike) -> np.ndarray:
        """The inverse of `state`: float32 (..., S') -> (..., S)."""
        values = _vectors(state, self.state_width, "state of the model")
        return _joined(values, self._inverse(self._state, values, Context()))

    def continuous(self, recorded: ArrayLike, before: ArrayLike | None = None) -> np.ndarray:
        """The state (S,) with the signs of quaternions that the model is given as such chosen by
        the step before it, as `robotics.embodiment.steps.prepared` has them in whole episodes.

        before: (S,) what this function returned for that step; None at an episode's first: there w
        is positive. Without such quaternions the state is what came in.
        """
        values = _vectors(recorded, self.robot.state_width, "state").astype(np.float32)
        for row in self._state:
            if unsigned(row.part):
                near = np.eye(4)[3 if row.part.form == QUATERNION else 0]
                if before is not None:
                    near = np.asarray(before, np.float64)[row.recorded]
                signed = continuous_signs(values[None, row.recorded], near)[0]
                values[row.recorded] = signed
        return values

    # ------------------------------------------------------------------ actions

    def chunk(
        self, actions: ArrayLike, state: ArrayLike, terminate: ArrayLike | None = None
    ) -> np.ndarray:
        """Chunks of actions as recorded -> float32 (..., H, A').

        Args:
            actions: (..., H, A).
            state: (..., S) as recorded, measured at the chunk's start.
            terminate: (..., H) bool; needed where the model predicts it.
        """
        values = _vectors(actions, self.robot.action_width, "action", least=2)
        context = self._context(values, state)
        coded = self._forward(self._action, values, context)
        if self.terminate:
            if terminate is None:
                raise ValueError(
                    "expected whether each action ends the task, got none; pass terminate of the "
                    "actions' shape, or make the Coder with terminate=False."
                )
            flags = np.broadcast_to(np.asarray(terminate, bool), values.shape[:-1])
            coded.append(np.where(flags, 1.0, -1.0)[..., None])
        return _joined(values, coded)

    def recorded(
        self, chunk: ArrayLike, state: ArrayLike, previous: ArrayLike | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of `chunk`.

        Args:
            chunk: (..., H, A').
            state: (..., S) as recorded, measured at the chunk's start.
            previous: (..., A) as recorded, the action executed last; tells pulses of a gripper
                what command holds. None: the measured gripper does.

        Returns:
            Actions as recorded, float32 (..., H, A), and whether each ends the task, bool (..., H).
        """
        values = _vectors(chunk, self.action_width, "action of the model", least=2)
        ends = np.zeros(values.shape[:-1], bool)
        if self.terminate:
            ends = values[..., -1] > 0
        shape = (*values.shape[:-1], self.robot.action_width)
        found = np.zeros(shape)
        context = self._context(None, state)
        # A position in the axes of a tool needs to know how the actions turn it.
        for row in sorted(self._action, key=lambda row: row.part.kind != "rotation"):
            if row.part.kind != "rotation":
                context.path = context.path or self._path(found, context)
            context.previous = self._before(row, previous)
            found[..., row.recorded] = _back(row, values[..., row.model], context)
        return found.astype(np.float32), ends

    def snapped(self, chunk: ArrayLike) -> np.ndarray:
        """Chunks (..., H, A') of the model with every gripper command that is not `continuous` at
        the nearest command there is: closed or open, and of pulses also keep."""
        values = np.array(_vectors(chunk, self.action_width, "action of the model"), np.float32)
        for row in self._action:
            if row.part.kind != "gripper" or row.part.continuous:
                continue
            command = values[..., row.model].astype(np.float64)
            if row.coding.mode == "pulse":
                moves = np.abs(command) > PULSE_THRESHOLD
                values[..., row.model] = np.where(moves, np.sign(command), 0.0)
            elif row.coding.mode == "absolute":
                values[..., row.model] = np.where(command >= 0, 1.0, -1.0)
        return values

    # ------------------------------------------------------------------ about the vectors

    def fields(self, group: str) -> list[Field]:
        """One per value of the model's "state" or "action"."""
        rows = self._state if group == "state" else self._action
        floor = STATE_FLOOR if group == "state" else ACTION_FLOOR
        found = []
        for row in rows:
            # Commands are -1 to 1 as they are; changes of a gripper are as small as any other.
            command = row.coding.mode in ("absolute", "pulse")
            untouched = group == "action" and row.part.kind == "gripper" and command
            normalise = row.part.model.normalise or ("none" if untouched else "default")
            found += [Field(name, row.part.kind, normalise, floor) for name in _names(row)]
        if group == "action" and self.terminate:
            found.append(Field("terminate", "terminate", "none", floor))
        return found

    def slices(self, group: str) -> dict[str, slice]:
        """Where each part lies in the model's "state" or "action"."""
        rows = self._state if group == "state" else self._action
        return {row.part.name: row.model for row in rows}

    def mode(self, name: str) -> str:
        """How the model's values of an action part command."""
        for row in self._action:
            if row.part.name == name:
                return str(row.coding.mode)
        raise ValueError(f"expected an action out of {list(self.slices('action'))}, got {name!r}.")

    # ------------------------------------------------------------------ inside

    def _forward(
        self, rows: Sequence[_Row], values: np.ndarray, context: Context
    ) -> list[np.ndarray]:
        found = []
        for row in rows:
            part = values[..., row.recorded]
            for step in row.coding.steps:
                part = _tried(step.forward, part, context, row)
            found.append(part)
        return found

    def _inverse(
        self, rows: Sequence[_Row], values: np.ndarray, context: Context
    ) -> list[np.ndarray]:
        return [_back(row, values[..., row.model], context) for row in rows]

    def _context(self, actions: np.ndarray | None, state: ArrayLike) -> Context:
        """What a chunk's parts need to know of the state and of each other."""
        needed = {name for row in self._action for name in _named(row)}
        if not needed or (actions is not None and not self.relative):
            return Context()
        values = _vectors(state, self.robot.state_width, "state")[..., None, :]
        start, angles = {}, {}
        for row in self._state:
            if row.part.name in needed:
                part = values[..., row.recorded]
                if (steps := angle_steps(row.part)) is not None:
                    turns = part
                    for step in steps:
                        turns = _tried(step.forward, turns, Context(), row)
                    angles[row.part.name, str(row.part.form)] = turns
                for step in measured_steps(row.part):
                    part = _tried(step.forward, part, Context(), row)
                start[row.part.name] = part
        context = Context(start, angles=angles)
        if actions is not None:
            context.path = self._path(actions, context)
        return context

    def _path(self, actions: np.ndarray, context: Context) -> Mapping[str, np.ndarray]:
        """Orientation of each tool before each of the recorded actions, (..., H, 4)."""
        found = {}
        horizon = actions.shape[-2]
        for name in {name for row in self._action for name in _axes(row)}:
            start = context.start[name]
            shape = (*actions.shape[:-2], horizon, 4)
            found[name] = np.broadcast_to(start, shape)
            for row in self._action:
                commanded = self.robot.commanded(row.part)
                if row.part.kind != "rotation" or commanded is None or commanded.name != name:
                    continue
                steps = target_steps(self.robot, row.part, commanded)
                target = actions[..., row.recorded]
                for step in steps:
                    target = _tried(step.forward, target, context, row)
                first = np.broadcast_to(start, target[..., :1, :].shape)
                found[name] = np.concatenate([first, target[..., :-1, :]], axis=-2)
        return found

    def _before(self, row: _Row, previous: ArrayLike | None) -> np.ndarray | None:
        if previous is None or row.part.kind != "gripper":
            return None
        values = _vectors(previous, self.robot.action_width, "previous action")
        part = values[..., None, row.recorded]
        return gripper_command(row.part).forward(part, Context())


# ---------------------------------------------------------------- rows


def _laid_out(parts: Sequence[tuple[Part, Coding]]) -> tuple[_Row, ...]:
    rows, recorded, model = [], 0, 0
    for part, coding in parts:
        width = part.width if coding.form is None else rotation_width(coding.form)
        places = slice(recorded, recorded + part.width), slice(model, model + width)
        rows.append(_Row(part, *places, coding))
        recorded, model = recorded + part.width, model + width
    return tuple(rows)


def _width(row: _Row) -> int:
    return row.model.stop - row.model.start


def _names(row: _Row) -> list[str]:
    return _value_names(row.part, row.coding.form, _width(row))


def recorded_names(robot: Robot, group: str) -> list[str]:
    """Of the values of a recorded "state" or "action": "position.x", "rotation.roll", "gripper"."""
    parts = getattr(robot, group)
    return [name for part in parts for name in _value_names(part, part.form, part.width)]


def _value_names(part: Part, form: str | None, width: int) -> list[str]:
    if part.kind == "rotation":
        inner = _AXES.get(str(form)) or tuple(str(form).removeprefix("euler_"))
    elif width == 1:
        return [part.name]
    else:
        default = tuple("xyz")[:width] if part.kind == "position" else range(width)
        inner = part.names or default
    return [f"{part.name}.{name}" for name in inner]


def _named(row: _Row) -> set[str]:
    """The state parts that an action part's values are relative to."""
    found: set[str] = _axes(row)
    for step in row.coding.steps:
        step = step.of if isinstance(step, Reversed) else step
        if isinstance(step, FromStart | Summed):
            found.add(step.group.of)
        elif isinstance(step, Held) and step.of:
            found.add(step.of)
        elif isinstance(step, Form) and step.near:
            found.add(step.near)
    return found


def _axes(row: _Row) -> set[str]:
    """The state's rotation in whose axes an action part is, if it is in a tool's."""
    steps = (step.of if isinstance(step, Reversed) else step for step in row.coding.steps)
    groups = (step.group for step in steps if isinstance(step, FromStart | Summed))
    return {group.turn for group in groups if group.turn is not None}


def _back(row: _Row, values: np.ndarray, context: Context) -> np.ndarray:
    for step in reversed(row.coding.steps):
        values = _tried(step.inverse, values, context, row)
    return values


def _tried(step, values: np.ndarray, context: Context, row: _Row) -> np.ndarray:
    try:
        return step(values, context)
    except ValueError as error:
        group = "state" if row.part.mode is None else "action"
        raise ValueError(f"{group}.{row.part.name}: {error}") from None


def _vectors(values: ArrayLike, width: int, name: str, least: int = 1) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim < least or array.shape[-1] != width or not np.isfinite(array).all():
        shape = "(..., H, " if least == 2 else "(..., "
        raise ValueError(
            f"expected a finite {name} of shape {shape}{width}), got {array.shape} with "
            f"{int((~np.isfinite(array)).sum())} non-finite values; pass the parts of the table "
            "one after the other, in its order."
        )
    return array


def _joined(values: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    if not parts:
        return np.zeros((*values.shape[:-1], 0), np.float32)
    return np.concatenate(parts, axis=-1).astype(np.float32)
