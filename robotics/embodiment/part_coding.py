"""How each part goes from the recording to the model: which transforms, one after the other.

`robotics.embodiment.coding` says what follows from a table and runs them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from robotics.embodiment.parts import Part, rotation_width
from robotics.embodiment.robot import Robot
from robotics.embodiment.transforms import (
    Affine,
    Continuous,
    Form,
    FromStart,
    Held,
    Reversed,
    Sign,
    Summed,
    Transform,
    Turns,
    Vectors,
)

QUATERNION = "quaternion_xyzw"
_RELATIVE = ("position", "rotation", "joints")
"""Kinds whose absolute targets become changes from the measured state by default."""


@dataclass(frozen=True)
class Coding:
    """A part's way to the model."""

    steps: tuple[Transform, ...]
    mode: str | None = None
    """How the model's values of an action command, out of `robotics.embodiment.parts.MODES`."""
    form: str | None = None
    """Of a rotation, the model's."""
    relative: bool = False
    """Whether values depend on the state at the chunk's start or on other actions of the chunk."""


def state_coding(part: Part) -> Coding:
    """Of a part of the state."""
    if part.kind != "rotation":
        return Coding(tuple(measured_steps(part)))
    form = part.model.form or "rot6d"
    steps = unit_steps(part)
    if form != part.form:
        steps.append(Form(str(part.form), form))
    if part.model.sign is not None:
        if not form.startswith("quaternion"):
            raise ValueError(
                f"state.{part.name}.model.sign: expected it of a quaternion, got form {form}; "
                "write form: quaternion_xyzw beside it, or leave it out."
            )
        steps.append(Sign(form, part.model.sign))
    elif form.startswith("quaternion") and not unsigned(part):
        steps.append(Sign(form, (0.0, 0.0, 0.0, 1.0)))
    return Coding(tuple(steps), form=form)


def measured_steps(part: Part) -> list[Transform]:
    """A state part in SI units: closedness 0..1 of grippers, quaternions xyzw of rotations where
    a chunk starts."""
    if part.kind == "gripper":
        opened, closed = (np.asarray(ends, np.float64) for ends in (part.open, part.closed))
        return [] if _told(part, 0.0) else [Affine(1.0 / (closed - opened), opened)]
    if part.kind == "rotation":
        return [*unit_steps(part), Form(str(part.form), QUATERNION)]
    return unit_steps(part)


def angle_steps(part: Part) -> list[Transform] | None:
    """A state's rotation in rad where it is measured as angles; None where it is not."""
    if part.kind != "rotation" or rotation_width(str(part.form)) > 3:
        return None
    return unit_steps(part)


def angle_limits(part: Part) -> tuple[float, float] | None:
    """The range of a rotation that is recorded as angles, in rad."""
    if part.range is None or rotation_width(str(part.form)) > 3:
        return None
    ends = np.asarray(part.range)[:, None] * part.factor
    return float(ends.min()), float(ends.max())


def action_coding(robot: Robot, part: Part) -> Coding:
    """Of a part of the action.

    Raises:
        ValueError: a mode or form that the model cannot be given.
    """
    commanded = robot.commanded(part)
    if part.kind == "gripper":
        return _gripper_steps(part, commanded)
    recorded = str(part.mode)
    default = recorded
    if recorded == "absolute" and part.kind in _RELATIVE and commanded is not None:
        default = "delta"
    mode = part.model.mode or default
    if part.kind == "rotation":
        coding = _rotation_steps(robot, part, commanded, mode)
        if str(coding.form).startswith("quaternion"):
            coding = replace(coding, steps=(*coding.steps, Continuous(str(coding.form))))
        return coding
    steps = unit_steps(part)
    if mode == recorded:
        return Coding(tuple(steps), mode)
    if {mode, recorded} == {"delta", "velocity"}:
        return Coding((*steps, _rate(robot, recorded)), mode)
    assert commanded is not None  # the table refuses what is relative to nothing
    group = Vectors(commanded.name, tool_rotation(robot, part, commanded))
    steps += _between_modes(robot, recorded, mode, group)
    return Coding(tuple(steps), mode, relative=True)


def _rotation_steps(robot: Robot, part: Part, commanded: Part | None, mode: str) -> Coding:
    recorded, source = str(part.mode), str(part.form)
    steps = unit_steps(part)
    small = source if rotation_width(source) <= 3 else "axis_angle"
    for which, form in (("recorded", source), ("the model's", part.model.form)):
        velocity = recorded if which == "recorded" else mode
        if velocity == "velocity" and form is not None and rotation_width(form) > 3:
            raise ValueError(
                f"action.{part.name}: expected {which} velocity as axis_angle or Euler angles, got "
                f"{form}; a velocity has a value for each axis."
            )
    near = commanded.name if recorded == "absolute" and commanded is not None else None
    if mode == recorded:
        form = part.model.form or ("rot6d" if mode == "absolute" else small)
        if form != source:
            steps.append(Form(source, form, near, angle_limits(part)))
        return Coding(tuple(steps), mode, form)
    if {mode, recorded} == {"delta", "velocity"}:
        form = part.model.form or small
        if recorded == "velocity":
            steps.append(_rate(robot, recorded))
        if form != source:
            steps.append(Form(source, form))
        if recorded == "delta":
            steps.append(_rate(robot, recorded))
        return Coding(tuple(steps), mode, form)
    assert commanded is not None
    change = source if rotation_width(source) == 1 else "axis_angle"
    form = part.model.form or ("rot6d" if mode == "absolute" else change)
    steps = target_steps(robot, part, commanded)
    group = Turns(commanded.name, part.frame == "tool")
    if mode == "delta":
        steps.append(FromStart(group))
    elif mode == "velocity":
        steps.append(Reversed(Summed(group)))
    if form != QUATERNION:
        steps.append(Form(QUATERNION, form))
    if mode == "velocity":
        steps.append(_rate(robot, "delta"))
    return Coding(tuple(steps), mode, form, relative=True)


def target_steps(robot: Robot, part: Part, commanded: Part) -> list[Transform]:
    """A recorded rotation of any mode as the targets, quaternions xyzw."""
    steps = unit_steps(part)
    if part.mode == "velocity":
        steps.append(_rate(robot, "velocity"))
    near = commanded.name if part.mode == "absolute" else None
    steps.append(Form(str(part.form), QUATERNION, near, angle_limits(part)))
    if part.mode != "absolute":
        steps.append(Summed(Turns(commanded.name, part.frame == "tool")))
    return steps


def _between_modes(robot: Robot, recorded: str, mode: str, group: Vectors) -> list[Transform]:
    if recorded == "absolute" and mode == "delta":
        return [FromStart(group)]
    if recorded == "absolute":
        return [Reversed(Summed(group)), _rate(robot, "delta")]
    before = [_rate(robot, "velocity")] if recorded == "velocity" else []
    return [*before, Summed(group)]


def _gripper_steps(part: Part, commanded: Part | None) -> Coding:
    recorded = str(part.mode)
    mode = part.model.mode or recorded
    if recorded in ("delta", "velocity"):
        if mode != recorded:
            raise ValueError(
                f"action.{part.name}.model.mode: expected {recorded}, as recorded, of a gripper, "
                f"got {mode}; leave it out."
            )
        opened, closed = (np.asarray(ends, np.float64) for ends in (part.open, part.closed))
        return Coding((Affine(1.0 / (closed - opened)),), mode, None, False)
    steps: list[Transform] = [] if _told(part, -1.0) else [gripper_command(part)]
    of = None if commanded is None else commanded.name
    if mode == recorded:
        return Coding(tuple(steps), mode)
    if {mode, recorded} != {"absolute", "pulse"}:
        raise ValueError(
            f"action.{part.name}.model.mode: expected absolute or pulse of a gripper, got {mode}."
        )
    held = Held(of, recorded == "pulse")
    steps.append(held if recorded == "pulse" else Reversed(held))
    return Coding(tuple(steps), mode, relative=True)


def gripper_command(part: Part) -> Affine:
    """A gripper's command as closedness: -1 open, +1 closed."""
    opened, closed = (np.asarray(ends, np.float64) for ends in (part.open, part.closed))
    return Affine(2.0 / (closed - opened), (opened + closed) / 2.0)


def _told(part: Part, opened: float) -> bool:
    """Whether a gripper is recorded as the model gets it: values that need not be touched, nor the
    sign of a zero."""
    return bool((np.ravel(part.open) == opened).all() and (np.ravel(part.closed) == 1.0).all())


def unit_steps(part: Part) -> list[Transform]:
    """A part's values in SI units; none where they already are."""
    return [] if (part.factor == 1.0).all() else [Affine(part.factor)]


def unsigned(part: Part) -> bool:
    """Whether the model is given a state's recorded quaternion as such and nothing fixes its sign;
    then it is that of the step before."""
    quaternions = (str(form).startswith("quaternion") for form in (part.form, part.model.form))
    return all(quaternions) and part.model.sign is None


def _rate(robot: Robot, recorded: str) -> Affine:
    """From a step's change to a second's, or back."""
    return Affine(1.0 / robot.rate if recorded == "velocity" else float(robot.rate))


def tool_rotation(robot: Robot, part: Part, commanded: Part) -> str | None:
    """State part of the rotation of the tool in whose axes a position is commanded."""
    if part.kind != "position" or part.frame != "tool":
        return None
    turns = [row for row in robot.state if row.kind == "rotation"]
    named = [row for row in turns if row.name == commanded.name.replace("position", "rotation")]
    if len(turns) == 1 or len(named) == 1:
        return (named or turns)[0].name
    raise ValueError(
        f"action.{part.name}: expected the rotation of its tool among the state's parts, got "
        f"{[row.name for row in turns] or 'none'}; name it as the position, "
        f"{commanded.name.replace('position', '')}rotation, or write frame: base"
    )
