"""Steps from what a recording has to what the model gets, each with its inverse.

`forward(values, context)` and `inverse(values, context)` take and return float64 (..., H, n): the
values of one part in H steps one after the other. What a step needs beyond them is in the
`Context`. `robotics.embodiment.coding` composes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from robotics.embodiment.rotation import (
    as_quaternion,
    canonical_quaternion,
    compose,
    continuous_angles,
    continuous_signs,
    from_quaternion,
    inverse,
    turned,
)


@dataclass
class Context:
    """What surrounds a chunk; rotations as quaternions xyzw, everything in SI units."""

    start: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Measured at the chunk's start: state part -> (..., 1, n); grippers as closedness 0..1."""
    path: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Orientation of the tool before each of the chunk's actions as they were recorded: state part
    of the rotation -> (..., H, 4)."""
    previous: np.ndarray | None = None
    """Of a gripper, what the action executed last commanded: closedness -1..1, (..., 1, n)."""
    angles: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)
    """Of rotations measured as angles at the chunk's start, as they were measured: state part and
    form -> (..., 1, n) rad."""


class Transform(Protocol):
    """One step and its inverse."""

    def forward(self, values: np.ndarray, context: Context) -> np.ndarray: ...

    def inverse(self, values: np.ndarray, context: Context) -> np.ndarray: ...


@dataclass(frozen=True)
class Affine:
    """(values - offset) * factor: units, scales, a gripper's sense and range, seconds to steps."""

    factor: np.ndarray | float = 1.0
    offset: np.ndarray | float = 0.0

    def forward(self, values: np.ndarray, context: Context) -> np.ndarray:
        return (values - self.offset) * self.factor

    def inverse(self, values: np.ndarray, context: Context) -> np.ndarray:
        return values / self.factor + self.offset


@dataclass(frozen=True)
class Form:
    """A rotation from one form to another."""

    source: str
    target: str
    near: str | None = None
    """State part that decides between q and -q where the inverse ends in a quaternion, and between
    angles that are the same rotation if it is measured in the same form. Angles about one axis are
    a joint's, which has to turn the way there; of more, they stay within half a turn unless what is
    measured does not."""
    limits: tuple[float, float] | None = None
    """Smallest and largest angle of the source, rad."""

    def forward(self, values: np.ndarray, context: Context) -> np.ndarray:
        return from_quaternion(as_quaternion(values, self.source), self.target)

    def inverse(self, values: np.ndarray, context: Context) -> np.ndarray:
        quaternion = as_quaternion(values, self.target)
        if self.source.startswith("quaternion"):
            before = context.start.get(self.near or "")
            if before is None:
                before = np.broadcast_to([0.0, 0.0, 0.0, 1.0], quaternion[..., :1, :].shape)
            quaternion = continuous_signs(quaternion, before[..., 0, :])
        values = from_quaternion(quaternion, self.source)
        measured = context.angles.get((self.near or "", self.source))
        if measured is not None:
            before = measured[..., 0, :]
            chosen = continuous_angles(values, self.source, before, self.limits)
            beyond = np.any(np.abs(before) > np.pi + 1e-3, axis=-1, keepdims=True)[..., None]
            free = self.limits is not None or values.shape[-1] == 1
            values = np.where(free | beyond, chosen, values)
        return values


@dataclass(frozen=True)
class Sign:
    """Of q and -q, quaternions of a form, the one on one side of a plane through zero."""

    form: str
    half_space: Sequence[float]

    def forward(self, values: np.ndarray, context: Context) -> np.ndarray:
        last = self.form == "quaternion_xyzw"
        ordered = values if last else np.roll(values, -1, axis=-1)
        signed = canonical_quaternion(ordered, self.half_space).astype(np.float64)
        return signed if last else np.roll(signed, 1, axis=-1)

    def inverse(self, values: np.ndarray, context: Context) -> np.ndarray:
        return values


@dataclass(frozen=True)
class Continuous:
    """Of q and -q, quaternions of a form, the one nearer to the step before; at a chunk's first
    step w is positive."""

    form: str

    def forward(self, values: np.ndarray, context: Context) -> np.ndarray:
        return continuous_signs(values, np.eye(4)[3 if self.form == "quaternion_xyzw" else 0])

    def inverse(self, values: np.ndarray, context: Context) -> np.ndarray:
        return values


# ---------------------------------------------------------------- changes and targets


@dataclass(frozen=True)
class Vectors:
    """Changes of values that add up; with `turn`, seen in the axes of a tool."""

    of: str
    """State part that is changed."""
    turn: str | None = None
    """State part of the tool's rotation, whose axes the change is in; None: the base's."""

    def between(self, start: np.ndarray, end: np.ndarray, axes: np.ndarray | None) -> np.ndarray:
        """The change that leads from start to end."""
        return end - start if axes is None else turned(end - start, inverse(axes))

    def summed(self, start: np.ndarray, changes: np.ndarray, axes: np.ndarray | None) -> np.ndarray:
        """Where the changes (..., H, n), one after the other, lead from start (..., 1, n)."""
        steps = changes if axes is None else turned(changes, axes)
        return start + np.cumsum(steps, axis=-2)


@dataclass(frozen=True)
class Turns:
    """Changes of a rotation, quaternions xyzw: about the base's axes or about the tool's own."""

    of: str
    own_axes: bool = False
    turn: None = None

    def between(self, start: np.ndarray, end: np.ndarray, axes: np.ndarray | None) -> np.ndarray:
        if self.own_axes:
            return compose(end, inverse(start))
        return compose(inverse(start), end)

    def summed(self, start: np.ndarray, changes: np.ndarray, axes: np.ndarray | None) -> np.ndarray:
        targets = np.empty(np.broadcast_shapes(start.shape, changes.shape))
        here = start[..., 0, :]
        for step in range(changes.shape[-2]):
            change = changes[..., step, :]
            here = compose(change, here) if self.own_axes else compose(here, change)
            targets[..., step, :] = here
        return targets


@dataclass(frozen=True)
class FromStart:
    """Targets as changes from what was measured at the chunk's start."""

    group: Vectors | Turns

    def forward(self, values: np.ndarray, context: Context) -> np.ndarray:
        return self.group.between(context.start[self.group.of], values, self._axes(context))

    def inverse(self, values: np.ndarray, context: Context) -> np.ndarray:
        start, axes = context.start[self.group.of], self._axes(context)
        # Every step is a change from the start: each alone is a sum of one.
        single = values[..., None, :]
        wide = None if axes is None else axes[..., None, :]
        return self.group.summed(start[..., None, :], single, wide)[..., 0, :]

    def _axes(self, context: Context) -> np.ndarray | None:
        return None if self.group.turn is None else context.start[self.group.turn]


@dataclass(frozen=True)
class Summed:
    """Changes from step to step as targets: from what was measured at the chunk's start, each from
    the target before it."""

    group: Vectors | Turns

    def forward(self, values: np.ndarray, context: Context) -> np.ndarray:
        start = context.start[self.group.of]
        return self.group.summed(start, values, self._axes(context))

    def inverse(self, values: np.ndarray, context: Context) -> np.ndarray:
        start = np.broadcast_to(context.start[self.group.of], values[..., :1, :].shape)
        before = np.concatenate([start, values[..., :-1, :]], axis=-2)
        return self.group.between(before, values, self._axes(context))

    def _axes(self, context: Context) -> np.ndarray | None:
        return None if self.group.turn is None else context.path[self.group.turn]


@dataclass(frozen=True)
class Reversed:
    """Another transform the other way round."""

    of: Transform

    def forward(self, values: np.ndarray, context: Context) -> np.ndarray:
        return self.of.inverse(values, context)

    def inverse(self, values: np.ndarray, context: Context) -> np.ndarray:
        return self.of.forward(values, context)


@dataclass(frozen=True)
class Held:
    """A gripper's pulses (+1 close, -1 open, 0 keep) as the command that holds in every step.

    What holds before the first pulse is known from the action executed last, else from the
    measured closedness, else from the first pulse itself: it changes something. Without any of
    them the gripper is open.
    """

    of: str | None
    """State part of the gripper."""
    pulses: bool = True
    """Whether recordings hold pulses; else commands that hold."""

    def forward(self, values: np.ndarray, context: Context) -> np.ndarray:
        before = self._before(context, values[..., :1, :].shape)
        sign = np.where(np.abs(values) > PULSE_THRESHOLD, np.sign(values), 0.0)
        # The first pulse of each value, where nothing tells what held before it.
        told = np.take_along_axis(sign, np.argmax(sign != 0, axis=-2)[..., None, :], axis=-2)
        path = np.concatenate([np.where(before == 0, -told, before), sign], axis=-2)
        steps = np.arange(path.shape[-2])[:, None]
        last = np.maximum.accumulate(np.where(path != 0, steps, 0), axis=-2)
        held = np.take_along_axis(path, last, axis=-2)[..., 1:, :]
        return np.where(held == 0, -1.0, held)

    def inverse(self, values: np.ndarray, context: Context) -> np.ndarray:
        held = np.where(values >= 0, 1.0, -1.0)
        before = self._before(context, values[..., :1, :].shape)
        if not self.pulses:
            before = np.where(before == 0, held[..., :1, :], before)
        path = np.concatenate([before, held], axis=-2)
        return np.where(path[..., 1:, :] != path[..., :-1, :], held, 0.0)

    def _before(self, context: Context, shape: tuple[int, ...]) -> np.ndarray:
        """-1 open, 1 closed, 0 unknown."""
        found = np.zeros(shape)
        closed = context.start.get(self.of or "")
        if closed is not None:
            if closed.shape[-1] != shape[-1]:  # the fingers of one command
                closed = closed.mean(-1, keepdims=True)
            found = np.broadcast_to(np.where(closed > 0.5, 1.0, -1.0), shape)
        if context.previous is not None:
            told = context.previous
            least = PULSE_THRESHOLD if self.pulses else 0.0
            moved = np.where(np.abs(told) > least, np.sign(told), 0.0)
            found = np.where(moved != 0, moved, found)
        return found


PULSE_THRESHOLD = 0.3
"""Beyond which a pulse moves the gripper; below it keeps its state. The data hold -1, 0 and +1, and
an intermediate command would leave the fingers half open."""
