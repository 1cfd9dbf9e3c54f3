"""How fast tasks are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def speed(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean number of steps of the episodes of a task that succeeded; none where none did."""
    steps = [record["steps"] for record in records if record["success"]]
    return {"steps to success": sum(steps) / len(steps)} if steps else {}
