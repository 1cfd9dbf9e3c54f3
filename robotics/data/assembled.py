"""A split's steps in one piece: as recorded, as the model is given them, and where frames are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robotics.data.recordings import RecordedSteps
from robotics.embodiment.coding import Coder
from robotics.embodiment.limits import check_values
from robotics.embodiment.part_coding import unsigned
from robotics.embodiment.recording import Steps
from robotics.embodiment.robot import Robot
from robotics.embodiment.steps import prepared

BLOCK = 65_536
"""Steps coded at a time."""


@dataclass(frozen=True)
class Assembled:
    """The n steps that count, episode after episode."""

    state: np.ndarray
    """float32 (n, S) as recorded, after the rules of the table's `steps`."""
    action: np.ndarray
    """float32 (n, A)."""
    terminate: np.ndarray
    """bool (n,)."""
    instruction_id: np.ndarray
    """int32 (n, K) into `instructions`."""
    instructions: np.ndarray
    """Distinct instructions, sorted, unicode."""
    present: dict[str, np.ndarray]
    """Camera with a `present` flag -> bool (n,)."""
    lengths: np.ndarray
    """int64 (E,), all above 0: what was left out is not there."""
    recorded: np.ndarray | None
    """int64 (n,) number of each step among all that were recorded; None: all of them count."""


def assembled(robot: Robot, parts: Sequence[RecordedSteps]) -> Assembled:
    """The steps of all parts, with the table's rules for steps applied."""
    instructions, ids = _merged_instructions(parts)
    lengths = np.concatenate([part.lengths for part in parts])
    flags = {
        name: np.repeat(np.concatenate([part.present[name] for part in parts]), lengths)
        for name in parts[0].present
    }
    state, action, terminate = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("state", "action", "terminate")
    )
    for group, values in (("state", state), ("action", action)):
        for part, place in zip(getattr(robot, group), robot.slices(group).values(), strict=True):
            # Another table may have put the arrays into the cache.
            check_values(part, f"{group}.{part.name}", values[:, place], f"robot {robot.name}")
    lengths = lengths[lengths > 0]
    if not _has_rules(robot):
        return Assembled(state, action, terminate, ids, instructions, flags, lengths, None)
    rows, kept = [], []
    begin = 0
    for length in lengths.tolist():
        steps = slice(begin, begin + length)
        keep, *values = prepared(robot, state[steps], action[steps], terminate[steps])
        rows.append(values)
        kept.append(begin + keep)
        begin += length
    state, action, terminate = (np.concatenate(column) for column in zip(*rows, strict=True))
    recorded = np.concatenate(kept)
    lengths = np.array([len(keep) for keep in kept])
    if not len(recorded):
        raise ValueError(
            f"expected episodes longer than steps of robot {robot.name} drops, got none; lower "
            "drop_first, drop_last and lag in its table."
        )
    return Assembled(
        state,
        action,
        terminate,
        ids[recorded],
        instructions,
        {name: values[recorded] for name, values in flags.items()},
        lengths[lengths > 0],
        None if len(recorded) == begin else recorded,
    )


def _has_rules(robot: Robot) -> bool:
    """Whether `prepared` would change anything: it takes its time on each episode."""
    grippers = (part for part in robot.action if part.kind == "gripper")
    carried = any(
        part.model.binarize or (part.mode == "pulse" and part.model.mode == "absolute")
        for part in grippers
    )
    return carried or robot.steps != Steps() or any(unsigned(part) for part in robot.state)


def coded_states(coder: Coder, state: np.ndarray) -> np.ndarray:
    """The model's states, float32 (n, S'), of those recorded (n, S)."""
    out = np.empty((len(state), coder.state_width), np.float32)
    for first in range(0, len(state) if coder.state_width else 0, BLOCK):
        rows = slice(first, first + BLOCK)
        out[rows] = coder.state(state[rows])
    return out


def coded_actions(coder: Coder, steps: Assembled) -> np.ndarray:
    """The model's actions, float32 (n, A'), of every step as the first of its chunk."""
    out = np.empty((len(steps.action), coder.action_width), np.float32)
    for first in range(0, len(out) if coder.action_width else 0, BLOCK):
        rows = slice(first, first + BLOCK)
        chunks = steps.action[rows, None], steps.state[rows], steps.terminate[rows, None]
        out[rows] = coder.chunk(*chunks)[:, 0]
    return out


def _merged_instructions(parts: Sequence[RecordedSteps]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct instructions (sorted) and every step's numbers among them.

    Part by part: a text for every step, padded to the longest, would take gigabytes.
    """
    used = [np.unique(part.instruction_id) for part in parts]
    names = [part.instructions[ids] for part, ids in zip(parts, used, strict=True)]
    merged = np.unique(np.concatenate(names))
    numbers = []
    for part, ids, texts in zip(parts, used, names, strict=True):
        table = np.zeros(len(part.instructions), np.int32)
        table[ids] = np.searchsorted(merged, texts)
        numbers.append(table[part.instruction_id])
    return merged, np.concatenate(numbers)
