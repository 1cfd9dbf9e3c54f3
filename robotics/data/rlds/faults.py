"""Damaged data: stop at the first fault, or leave the episodes out and count them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

POLICIES = ("error", "skip")
SHOWN = 5
"""Faults that a summary spells out."""


@dataclass(frozen=True)
class Fault:
    """Records that cannot be read."""

    path: str
    record: int | None
    """Number in the file; None when it is the file itself."""
    episodes: int
    """Episodes lost."""
    reason: str
    """The message, which names file and record."""


class Faults:
    """Collects what was left out.

    Args:
        on_error: "error" raises at the first fault, "skip" continues without the episode.

    Raises:
        ValueError: another policy.
    """

    def __init__(self, on_error: str = "error") -> None:
        if on_error not in POLICIES:
            raise ValueError(
                f"on_error: expected one of {', '.join(POLICIES)}, got {on_error!r}; write "
                f"on_error={POLICIES[0]}"
            )
        self.on_error = on_error
        self.found: list[Fault] = []
        self.filtered = 0
        """Episodes the table's filters left out; not a fault."""
        self.empty = 0
        """Episodes without steps, which are left out; not a fault."""

    def report(
        self, error: ValueError, path: object, record: int | None, episodes: int = 1
    ) -> None:
        """Raise `error`, or record it (once), by the policy."""
        if self.on_error == "error":
            raise error
        fault = Fault(str(path), record, episodes, str(error))
        if fault not in self.found:
            self.found.append(fault)

    @property
    def episodes(self) -> int:
        """Episodes lost to faults."""
        return sum(fault.episodes for fault in self.found)

    def summary(self) -> str:
        """Counts, files and the first reasons; empty when nothing was left out."""
        lines = []
        if self.found:
            files = Counter(fault.path for fault in self.found)
            lines.append(f"skipped {self.episodes} damaged episodes in {len(files)} files:")
            lines += [f"  {fault.episodes} x {fault.reason}" for fault in self.found[:SHOWN]]
            if len(self.found) > SHOWN:
                lines.append(f"  ... and {len(self.found) - SHOWN} more")
        if self.filtered:
            lines.append(f"left out {self.filtered} episodes by the table's filters")
        if self.empty:
            lines.append(f"left out {self.empty} episodes without steps")
        return "\n".join(lines)
