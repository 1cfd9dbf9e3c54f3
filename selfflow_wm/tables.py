"""Tables in the terminal, and numbers with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print `rows` under `headings`, in columns as wide as they need to be."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=150).print(table)


def with_interval(row: Mapping[str, Any], form: str, key: str = "value") -> str:
    """`0.5 [0.4, 0.6]` of a row with `key`, `low` and `high`, each formatted by `form`; without
    brackets when it has no bounds."""
    text = f"{row[key]:{form}}"
    if row["low"] is None or row["high"] is None:
        return text
    return f"{text} [{row['low']:{form}}, {row['high']:{form}}]"
