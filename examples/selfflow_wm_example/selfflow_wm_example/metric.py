"""A metric: how fast tasks are solved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def speed(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean number of steps of the successful episodes of a task; empty if none succeeded."""
    steps = [record["steps"] for record in records if record["success"]]
    return {"steps to success": sum(steps) / len(steps)} if steps else {}
