"""A specification in the making: its entries, where each comes from, and its file."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robotics.data.rlds.spec import ACTION_KINDS, ROTATION_KINDS, load_spec
from robotics.inspection import gripper, motion


@dataclass
class Proposal:
    """A specification and where each entry comes from."""

    content: dict[str, Any]
    notes: dict[str, str] = field(default_factory=dict)
    """Entry such as "action.position" -> why; for entries that were guessed."""

    def set(self, name: str, value: Any, note: str = "") -> None:
        """State an entry ("action.kind") and, if it is a guess, why."""
        group, _, key = name.rpartition(".")
        target = self.content.setdefault(group, {}) if group else self.content
        target[key] = value
        self.notes[name] = note

    def over(self, draft: Proposal) -> Proposal:
        """This one, with the notes of the draft it corrects where it has none."""
        return Proposal(self.content, draft.notes | self.notes)


def invert_gripper(proposal: Proposal, group: str, note: str) -> None:
    """Invert the sense of a group's gripper."""
    before = proposal.content.setdefault(group, {}).get("gripper_closes", "positive")
    opposite = "negative" if before == "positive" else "positive"
    proposal.set(f"{group}.gripper_closes", opposite, note)


def corrected(
    name: str,
    source: Mapping[str, Any],
    verdicts: Sequence[motion.Verdict],
    grip: gripper.Grip | None,
) -> Proposal:
    """The specification that was used, with the entries that the data contradict corrected.

    Args:
        name: of the specification, for the notes.
        source: its content, such as {"extends": "rt1"}.
        verdicts: of all evidence.
        grip: evidence about the gripper.
    """
    proposal = Proposal(copy.deepcopy(dict(source)))
    for row in verdicts:
        if (entry := motion.correction(row)) and entry[2] in (*ACTION_KINDS, *ROTATION_KINDS):
            note = f"{name} has {row.stated}; {row.numbers}"
            proposal.set(f"{entry[0]}.{entry[1]}", entry[2], note)
        if row.topic == "gripper" and row.answer == motion.CONTRADICTS and grip is not None:
            group = gripper.inverted_part(grip)
            pose = getattr(load_spec(source), group)
            proposal.content.setdefault(group, {})["gripper_closes"] = pose.gripper_closes
            invert_gripper(proposal, group, f"{name} has it the other way; {row.numbers}")
    return proposal


def as_yaml(proposal: Proposal, heading: str) -> str:
    """The file, with a comment above every entry that was guessed."""
    lines = [f"# {line}" for line in heading.splitlines()]

    def write(name: str, key: str, value: Any, indent: str) -> None:
        if note := proposal.notes.get(name):
            lines.append(f"{indent}# guessed: {note}")
        lines.append(f"{indent}{key}: {json.dumps(value)}")

    for key, value in proposal.content.items():
        if isinstance(value, Mapping) and key != "cameras":
            lines.append(f"{key}:")
            for entry, inner in value.items():
                write(f"{key}.{entry}", entry, inner, "  ")
        else:
            write(key, key, value, "")
    written = {f"{k}.{e}" for k, v in proposal.content.items() if isinstance(v, Mapping) for e in v}
    for name, note in proposal.notes.items():
        if note and name not in written and name not in proposal.content:
            lines.append(f"# {name}: {note}")
    return "\n".join(lines) + "\n"
