"""What an examination of a data set found."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from robotics.data.rlds.raw import RawSource
from robotics.embodiment.robot import Robot
from robotics.inspection.draft import Question
from robotics.inspection.evidence import Motion
from robotics.inspection.findings import Finding
from robotics.inspection.fits import Verdict
from robotics.inspection.gripper import Grip
from robotics.inspection.scan import TRACK_STEPS, Scan


@dataclass(frozen=True)
class Dimension:
    """Values of a column, what they are, and how sure that is."""

    path: str
    """As a table writes it."""
    what: str
    """Such as "action.rotation: delta, euler_xyz, rad, base frame"."""
    sure: str
    """certain, likely, undetermined, or stated (by the table, and the data cannot tell)."""
    why: str


@dataclass(frozen=True)
class Examination:
    """All that is known of a data set."""

    source: RawSource
    robot: Robot
    """The table: as given, as recognised, or as drafted."""
    origin: str
    """Where the table comes from, for people."""
    stated: bool
    """Whether a person or a shipped table states it, rather than a draft."""
    result: Scan
    motions: list[Motion]
    grips: list[Grip]
    verdicts: list[Verdict]
    dimensions: list[Dimension]
    questions: list[Question]
    findings: list[Finding]
    """Worst first."""
    proposed: str
    """Text of proposed.yaml."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What other examinations add, by name."""

    @property
    def directory(self) -> str | os.PathLike[str]:
        """Of the data set."""
        return self.source.directory

    @property
    def split(self) -> str:
        """Split or slice of it."""
        return self.source.split

    @property
    def sample(self) -> str:
        """What was read, for people."""
        read = self.result
        words = f"{read.sampled} of {read.total} episodes"
        if read.sampled < read.total - read.faults.episodes:
            words += " (drawn with a fixed seed: the same in every run)"
        if read.tracked >= TRACK_STEPS:
            words += f"; evidence and plots from the first {read.tracked} steps of them"
        return words

    def count(self, severity: str) -> int:
        """Findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 nothing wrong, 1 errors, 2 undetermined."""
        return 1 if self.count("error") else 2 if self.count("question") else 0

    @property
    def headline(self) -> str:
        """One line: what is wrong, what is open, or that all is well."""
        errors, questions = self.count("error"), self.count("question")
        if errors:
            more = f", and {errors - 1} more" if errors > 1 else ""
            return f"WRONG: {self.findings[0].headline}{more}."
        if questions:
            first = next(row for row in self.findings if row.severity == "question")
            more = f" (and {questions - 1} more)" if questions > 1 else ""
            return f"UNDETERMINED, your answer is needed: {first.headline}{more}"
        warnings = self.count("warning")
        words = "nothing wrong" if not warnings else f"nothing wrong, {warnings} to look at"
        agreed = sum(row.answer == "agrees" for row in self.verdicts)
        return f"OK: {words}; {agreed} conventions tested and agreed."
