"""What was found in a data set: how bad it is, which episodes it is in, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

SEVERITIES = ("error", "question", "warning", "info")
"""Worst first. error: training on it gives a wrong or no policy. question: the data do not decide,
and the answer matters; only a person knows it."""


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing about a data set."""

    severity: str
    """Out of `SEVERITIES`."""
    topic: str
    """Such as "gripper" or "instructions"."""
    text: str
    """What was seen, with its numbers."""
    remedy: str = ""
    """What to do, for people."""
    code: str = ""
    """A name that stays, such as "gripper.inverted", for programs."""
    title: str = ""
    """A few words above the text."""
    why: str = ""
    """What it does to a policy."""
    line: str = ""
    """The line that mends it: of a table (yaml), or a command."""
    episodes: tuple[int, ...] = ()
    """Numbers of the episodes it is in, in the order of the split, worst first; empty: all of them,
    or none in particular."""
    weight: float = 0.0
    """Rank among findings of one severity, largest first."""
    details: dict[str, Any] = field(default_factory=dict)
    """Numbers as JSON values."""

    @property
    def headline(self) -> str:
        """The title, or the text where there is none."""
        return self.title or self.text.partition(". ")[0].rstrip(".")

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "episodes": list(self.episodes)}


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then questions, warnings and the rest; the heaviest first, else as found."""
    return sorted(findings, key=lambda row: (SEVERITIES.index(row.severity), -row.weight))


def listed(numbers: Sequence[int], most: int = 8) -> str:
    """Numbers of episodes for people: "3, 5, 8 and 12 more"."""
    words = ", ".join(map(str, numbers[:most]))
    more = len(numbers) - most
    return f"{words} and {more} more" if more > 0 else words
