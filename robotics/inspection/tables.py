"""An examination in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from robotics.inspection.examination import Examination

COLOURS = {"error": "bold red", "question": "bold magenta", "warning": "yellow", "info": "dim"}
VERDICTS = {"agrees": "green", "cannot tell": "dim", "contradicts": "bold red"}
ACTION_NAMES = ("Δx m", "Δy m", "Δz m", "roll", "pitch", "yaw", "gripper", "terminate")
PROPRIO_NAMES = ("x m", "y m", "z m", "qx", "qy", "qz", "qw", "closed")
NAMES = {"action": ACTION_NAMES, "proprio": PROPRIO_NAMES}
INSTRUCTIONS = 10
COLUMNS = ("q01", "q99", "mean", "std", "min", "max")


def number(value: float) -> str:
    """Four digits, and no minus in front of a zero."""
    return f"{value + 0.0:.4g}"


def statistics_rows(examined: Examination) -> list[tuple[str, str, list[str]]]:
    """Vector, dimension and its `COLUMNS`."""
    rows = []
    for vector, values in examined.result.statistics.items():
        if not values.count:
            continue
        found = values.result()
        for index, name in enumerate(NAMES[vector]):
            rows.append((vector, name, [number(getattr(found, key)[index]) for key in COLUMNS]))
    return rows


def schema_rows(examined: Examination) -> list[tuple[str, str, str]]:
    """Key, shape and what the specification takes it for."""
    used: dict[str, list[str]] = {}
    for place, column in examined.spec.columns().items():
        used.setdefault(column.key, []).append(place)
    return [
        (key, shape, ", ".join(used.get(key, []))) for key, shape in examined.data.shapes.items()
    ]


def facts(examined: Examination) -> list[tuple[str, str]]:
    """The data set in a few lines."""
    result = examined.result
    lengths = sorted(result.lengths) or [0]
    texts = result.texts.episodes
    sizes = ", ".join(f"{h} x {w}" for h, w in result.frames.sizes) or "none decoded"
    share = f" ({result.still / result.steps:.1%})" if result.steps else ""
    return [
        ("read", examined.sample),
        ("specification", f"{examined.origin}; {examined.spec.fingerprint()}"),
        ("episodes", f"{result.episodes} read, {result.faults.episodes} damaged, "
                     f"{result.faults.filtered} left out by filters"),
        ("steps", f"{result.steps}; {lengths[0]} to {lengths[-1]} an episode, "
                  f"median {lengths[len(lengths) // 2]}"),
        ("control rate", f"{examined.spec.control_hz:g} Hz by the specification"),
        ("frames", sizes),
        ("instructions", f"{len(texts)} different, {result.texts.empty} episodes with none, "
                         f"{len(result.texts.damaged)} with one that is not UTF-8"),
        ("no-op steps", f"{result.still}{share}"),
    ]  # fmt: skip


def print_examination(console: Any, examined: Examination) -> None:
    """Tables of everything, findings last."""
    from rich.markup import escape
    from rich.table import Table

    def show(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)

    title = f"{examined.directory}, {examined.split}"
    show(title, ("", ""), ((name, escape(text)) for name, text in facts(examined)))
    schema = (map(escape, row) for row in schema_rows(examined))
    show("\nschema", ("key", "stored as", "read as"), map(tuple, schema))
    commonest = examined.result.texts.episodes.most_common(INSTRUCTIONS)
    texts = ((str(times), escape(text) or "[red](empty)[/]") for text, times in commonest)
    show("\ninstructions (at the first step)", ("episodes", "instruction"), texts)
    vectors = ((vector, name, *values) for vector, name, values in statistics_rows(examined))
    show("\nvectors as training sees them", ("", "", *COLUMNS), vectors)
    verdicts = (
        (f"{row.topic}: {row.question}", row.stated, f"[{VERDICTS[row.answer]}]{row.answer}[/]")
        for row in examined.verdicts
    )
    headings = ("question", "specified", "verdict")
    show("\nconventions compared with what was measured", headings, verdicts)
    findings = (
        (
            f"[{COLOURS[row.severity]}]{row.severity}[/]",
            row.topic,
            escape(row.text) + (f"\n[dim]→ {escape(row.remedy)}[/]" if row.remedy else ""),
        )
        for row in examined.findings
    )
    show("\nfindings", ("", "", ""), findings)
    console.print(totals(examined), highlight=False)


def totals(examined: Examination) -> str:
    """One line of counts."""
    errors, warnings = examined.count("error"), examined.count("warning")
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
