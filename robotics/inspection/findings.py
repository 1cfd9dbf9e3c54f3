"""What was found in a data set: how bad it is, and how to fix it."""

from __future__ import annotations

from dataclasses import dataclass

SEVERITIES = ("error", "warning", "info")
"""Worst first. An error: training on it gives a wrong or no policy."""


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


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Errors, then warnings, then the rest; each in the order found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
