"""What an examination of a data set found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robotics.data.rlds.raw import RawFormat
from robotics.data.rlds.spec import DatasetSpec
from robotics.inspection import gripper, motion
from robotics.inspection.findings import Finding
from robotics.inspection.scan import TRACK_STEPS, Scan


@dataclass(frozen=True)
class Examination:
    """All that is known of a data set."""

    directory: str | Path
    split: str
    data: RawFormat
    spec: DatasetSpec
    origin: str
    """Where the specification comes from, for people."""
    result: Scan
    motions: list[motion.Motion]
    grip: gripper.Grip | None
    verdicts: list[motion.Verdict]
    findings: list[Finding]
    """Worst first."""
    proposed: str
    """Text of proposed.yaml."""

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
