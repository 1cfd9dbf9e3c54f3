"""A robot's table in the making: its entries, how sure each is, and its file."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from robotics.inspection.fits import Verdict
from robotics.inspection.pieces import CERTAIN, OPEN


@dataclass(frozen=True)
class Question:
    """Something that the data do not decide."""

    code: str
    """Such as "action" or "form"."""
    text: str
    """For people, ending in a question mark."""
    lines: tuple[str, ...]
    """The answers to choose from, each a line of the table."""
    why: str = ""
    """What a wrong answer does."""
    place: str = ""
    """The entry it is about, such as "action.rotation"."""


@dataclass
class Draft:
    """A table, where each entry comes from, and what is left open."""

    content: dict[str, Any]
    notes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Entry such as "action.position" -> how sure, and why."""
    questions: list[Question] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)
    """Columns that the table does not name -> what they hold."""

    def set(self, entry: str, value: Any) -> None:
        """State an entry: "action.position.scale"."""
        target = self.content
        *groups, last = entry.split(".")
        for group in groups:
            if not isinstance(target.get(group), dict):
                target[group] = {}
            target = target[group]
        target[last] = value

    def apply(self, verdicts: Iterable[Verdict]) -> int:
        """Correct what the data contradict; returns how many entries changed."""
        changed = 0
        for row in verdicts:
            for entry, value in row.entries:
                self.set(entry, value)
                place = entry.rpartition(".")[0]
                self.notes[entry] = (CERTAIN, row.numbers)
                self.notes.setdefault(place, (CERTAIN, row.numbers))
                changed += 1
        return changed

    def copy(self) -> Draft:
        """One that can be changed without this one."""
        return copy.deepcopy(self)

    def robot(self, name: str = "proposed") -> Robot:
        """As a table; ValueError where it cannot be one."""
        content = copy.deepcopy(self.content)
        return load_robot(content if "extends" in content else {"name": name} | content)


def as_yaml(draft: Draft, heading: str) -> str:
    """The file: one line a camera and a part, the evidence of each above it."""
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    for question in draft.questions:
        lines += ["#", f"# OPEN: {question.text}"]
        lines += [f"#   {line}" for line in question.lines]
    for key, value in draft.content.items():
        grouped = key in ("cameras", "state", "action") and isinstance(value, Mapping)
        lines += [""] if grouped else []
        lines += _note(draft, key, "")
        if not grouped or not value:
            lines.append(f"{key}: {flow(value)}")
            continue
        lines.append(f"{key}:")
        for name, row in value.items():
            lines += _note(draft, f"{key}.{name}", "  ")
            for entry in row if isinstance(row, Mapping) else ():
                lines += _note(draft, f"{key}.{name}.{entry}", "  ", f"{entry}: ")
            lines.append(f"  {name}: {flow(row)}")
    if draft.unused:
        lines += ["", "# Not read:"]
        lines += [f"#   {key}: {words}" for key, words in draft.unused.items()]
    return "\n".join(lines) + "\n"


def _note(draft: Draft, entry: str, indent: str, prefix: str = "") -> list[str]:
    if entry not in draft.notes:
        return []
    sure, why = draft.notes[entry]
    mark = "" if sure == CERTAIN else "UNDETERMINED, " if sure == OPEN else f"{sure}: "
    return [f"{indent}# {prefix}{mark}{why}"] if why else []


def flow(value: Any) -> str:
    """A value on one line, as yaml."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, float) and value == int(value) and abs(value) < 1e6:
        return str(int(value))
    if isinstance(value, str):
        plain = value.replace("_", "").replace("/", "").replace(".", "")
        simple = plain.isalnum() and not value[0].isdigit() and value not in ("null", "true", "false", "yes", "no", "on", "off")  # fmt: skip  # noqa: E501
        return value if simple else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
