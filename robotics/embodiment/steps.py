"""Which of an episode's recorded steps count, and which action belongs to which of them.

Some conventions need the whole episode: a first action that is a filler, actions recorded late,
actions relabelled from what was reached, a gripper whose state is carried or looked up ahead. What
comes out is still in the recording's own units and forms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from robotics.embodiment.part_coding import (
    QUATERNION,
    angle_limits,
    angle_steps,
    gripper_command,
    measured_steps,
    tool_rotation,
    unit_steps,
    unsigned,
)
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.embodiment.rotation import continuous_signs
from robotics.embodiment.transforms import Context, Form, Held, Turns, Vectors

OPEN, CLOSED = 0.95, 0.05
"""Openness above which a gripper command is open and below which it is closed; what lies between is
a transition and counts as what it becomes next (BridgeData V2's rule)."""
_REACHED = ("position", "rotation", "joints")


def prepared(
    robot: Robot, state: ArrayLike, action: ArrayLike, terminate: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One episode's steps as the table's `steps` and the grippers' `model` entries say.

    Steps are dropped at both ends first, then actions are moved by the lag, then the grippers'
    rules are applied (binarize; a pulse that the model gets as absolute becomes the command that
    holds), then actions are relabelled. Where the step that ends the task is cut off, the last one
    that is left ends it.

    Args:
        robot: the table.
        state: (T, S) as recorded.
        action: (T, A) as recorded.
        terminate: (T,) bool.

    Returns:
        The numbers int64 (T',) of the steps kept, in order, and the states float32 (T', S), actions
        float32 (T', A) and flags bool (T',) of those steps. T' may be 0.

    Raises:
        ValueError: nothing can be relabelled, or values that cannot be a rotation.
    """
    state, action = np.asarray(state, np.float32), np.asarray(action, np.float32)
    flags = np.asarray(terminate, bool)
    rules, total = robot.steps, len(flags)
    keep = np.arange(rules.drop_first, max(total - rules.drop_last, rules.drop_first))
    keep = keep[keep < total]
    source = keep + rules.lag
    there = (source >= rules.drop_first) & (source < total - rules.drop_last)
    keep, source = keep[there], source[there]
    action = _grippers(robot, action[source])
    kept_state = _signed(robot, state[keep])
    if rules.relabel and len(keep):
        action = _relabelled(robot, kept_state, action)
        keep, kept_state = keep[:-1], kept_state[:-1]
    ends = flags[keep]
    if len(keep) and flags[keep[-1] :].any():
        ends[-1] = True
    return keep.astype(np.int64), kept_state, action.astype(np.float32), ends


# ---------------------------------------------------------------- grippers


def binarized(openness: ArrayLike) -> np.ndarray:
    """Openness (T, n), 1 open, as 1.0 and 0.0 by Bridge's rule, see `OPEN`. What never becomes
    either, at the end, is what it is nearer to."""
    values = np.asarray(openness, np.float64)
    if len(values) == 0:
        return values
    clear = (values > OPEN) | (values < CLOSED)
    steps = np.arange(len(values))[:, None]
    last = len(values) - 1
    # The next step, this one included, that is clear.
    following = np.where(clear, steps, last)
    following = np.minimum.accumulate(following[::-1], axis=0)[::-1]
    return np.where(np.take_along_axis(values, following, axis=0) > 0.5, 1.0, 0.0)


def _grippers(robot: Robot, action: np.ndarray) -> np.ndarray:
    for part in robot.action:
        if part.kind != "gripper":
            continue
        carried = part.mode == "pulse" and part.model.mode == "absolute"
        if not carried and not part.model.binarize:
            continue
        place, command = robot.slices("action")[part.name], gripper_command(part)
        closed = command.forward(action[:, place].astype(np.float64), Context())
        if carried and len(closed):
            closed = Held(None).forward(closed, Context())
        else:
            closed = 1.0 - 2.0 * binarized((1.0 - closed) / 2.0)
        action = action.copy()
        action[:, place] = command.inverse(closed, Context())
    return action


# ---------------------------------------------------------------- states


def _signed(robot: Robot, state: np.ndarray) -> np.ndarray:
    """Quaternions that the model is given as such, with signs that do not jump; w is positive at
    the first step."""
    for part, place in zip(robot.state, robot.slices("state").values(), strict=True):
        if unsigned(part):
            real = np.eye(4)[3 if part.form == QUATERNION else 0]
            state = state.copy()
            state[:, place] = continuous_signs(state[:, place], real)
    return state


def _relabelled(robot: Robot, state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Actions (T - 1, A) that lead from each state (T, S) to the next."""
    places = robot.slices("state")
    measured, angles = {}, {}
    for part in robot.state:
        values = state[:, places[part.name]].astype(np.float64)
        if part.kind in _REACHED:
            for step in measured_steps(part):
                values = step.forward(values, Context())
        measured[part.name] = values
        if (turns := angle_steps(part)) is not None:
            values = state[:, places[part.name]].astype(np.float64)
            for step in turns:
                values = step.forward(values, Context())
            angles[part.name, str(part.form)] = values
    found, changed = action[:-1].copy(), False
    for part, place in zip(robot.action, robot.slices("action").values(), strict=True):
        commanded = robot.commanded(part)
        if commanded is None or part.kind not in _REACHED or part.mode == "velocity":
            continue
        values = measured[commanded.name]
        reached = values[1:]
        if part.mode == "delta":
            group = _group(robot, part, commanded)
            axes = None if group.turn is None else measured[group.turn][:-1]
            reached = group.between(values[:-1], reached, axes)
        start = Context(
            {commanded.name: measured[commanded.name][:1]},
            angles={key: turns[:1] for key, turns in angles.items()},
        )
        found[:, place] = _as_recorded(part, reached, start, commanded.name)
        changed = True
    if not changed:
        raise ValueError(
            "steps.relabel: expected a position, rotation or joints, delta or absolute, whose "
            "state is measured, got none; write relabel: false, or state of: PART in the action."
        )
    return found


def _group(robot: Robot, part: Part, commanded: Part) -> Vectors | Turns:
    if part.kind == "rotation":
        return Turns(commanded.name, part.frame == "tool")
    return Vectors(commanded.name, tool_rotation(robot, part, commanded))


def _as_recorded(part: Part, values: np.ndarray, context: Context, of: str) -> np.ndarray:
    """Values in SI units, quaternions xyzw of rotations, as the part's recording has them."""
    if part.kind == "rotation":
        near = of if part.mode == "absolute" else None
        values = Form(str(part.form), QUATERNION, near, angle_limits(part)).inverse(values, context)
    for step in reversed(unit_steps(part)):
        values = step.inverse(values, context)
    return values
