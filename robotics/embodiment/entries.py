"""Checks of the entries of a robot's table."""

from __future__ import annotations

from typing import Any

from robotics.embodiment.columns import column


def one_of(name: str, value: Any, choices: Any) -> None:
    """ValueError, with the entry's name, for a value that is not among `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}.")


def check_path(name: str, path: Any, width: int | None = None) -> None:
    """ValueError, with the entry's name, for what is no path (`column`), or one whose brackets take
    another number of values than `width`."""
    try:
        got = column(path).width
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if got is not None and width is not None and got != width:
        raise ValueError(
            f"{name}: expected {width} value{'s' * (width > 1)}, got {path!r} with {got}; change "
            "the range in brackets."
        )
