"""Paths of recorded values: "observation/image", "action[0:3]", "/episode_metadata/has_image_1"."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """Values of one feature, of every step or (once) of the episode."""

    key: str
    """Flattened key of the record, such as "steps/action" or "aspects/success"."""
    values: slice | None = None
    """Which of a flattened vector's values; all of them without it."""

    @property
    def of_step(self) -> bool:
        """Whether every step has a value."""
        return self.key.startswith("steps/")

    @property
    def name(self) -> str:
        """The key as the data set's own description has it."""
        return self.key.removeprefix("steps/")

    @property
    def width(self) -> int | None:
        """Number of values that the brackets take; None: all there are."""
        if self.values is None:
            return None
        return len(range(self.values.start, self.values.stop, self.values.step or 1))


def column(path: str) -> Column:
    """Parse "action", "action[0:3]", "action[3:12:4]" (every fourth), "action[6]" (of a step) or
    "/aspects/success" (of an episode).

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(
        r"(/?)([^/\[\]]+(?:/[^/\[\]]+)*)(?:\[(\d+)(?::(\d+)(?::(\d+))?)?\])?", str(path)
    )
    if match is None:
        raise ValueError(
            "expected a path such as observation/image, action[0:3], action[6] or "
            f"/aspects/success, got {path!r}."
        )
    root, name, first, last, step = match.groups()
    values = None
    if first is not None:
        stop = int(first) + 1 if last is None else int(last)
        values = slice(int(first), stop, None if step is None else int(step))
        if values.stop <= values.start or values.step == 0:
            raise ValueError(f"expected a range of at least one value, got {path!r}.")
    return Column(name if root else f"steps/{name}", values)
