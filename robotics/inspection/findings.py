"""What was found in a data set: how bad it is, and how to fix it."""

from __future__ import annotations

from dataclasses import dataclass

SEVERITIES = ("error", "warning", "info")
"""Worst first. An error: training on it gives a wrong or no policy."""


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing about a data set."""

    severity: str
    topic: str
    """Such as "gripper" or "instructions"."""
    text: str
    """What was seen, with its numbers."""
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"expected a severity out of {SEVERITIES}, got {self.severity!r}.")


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Errors, then warnings, then the rest; each in the order found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def count(findings: list[Finding], severity: str) -> int:
    """Findings of one severity."""
    return sum(finding.severity == severity for finding in findings)
