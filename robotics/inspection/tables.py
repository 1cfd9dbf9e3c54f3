"""An examination in the terminal."""

from __future__ import annotations

from typing import Any

from robotics.inspection.examination import Examination
from robotics.inspection.findings import count

COLOURS = {"error": "bold red", "warning": "yellow", "info": "dim"}
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

    def table(title: str, *headings: str) -> Any:
        made = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for heading in headings:
            made.add_column(heading, overflow="fold")
        return made

    made = table(f"{examined.directory}, {examined.split}", "", "")
    for name, text in facts(examined):
        made.add_row(name, escape(text))
    console.print(made)
    made = table("\nschema", "key", "stored as", "read as")
    for row in schema_rows(examined):
        made.add_row(*(escape(text) for text in row))
    console.print(made)
    made = table("\ninstructions (at the first step)", "episodes", "instruction")
    for text, number_of in examined.result.texts.episodes.most_common(INSTRUCTIONS):
        made.add_row(str(number_of), escape(text) or "[red](empty)[/]")
    console.print(made)
    made = table("\nvectors as training sees them", "", "", *COLUMNS)
    for vector, name, values in statistics_rows(examined):
        made.add_row(vector, name, *values)
    console.print(made)
    made = table("\nconventions held against what was measured", "question", "specified", "verdict")
    for row in examined.verdicts:
        colour = {"agrees": "green", "cannot tell": "dim"}.get(row.answer, "bold red")
        made.add_row(f"{row.topic}: {row.question}", row.stated, f"[{colour}]{row.answer}[/]")
    console.print(made)
    made = table("\nfindings", "", "", "")
    for finding in examined.findings:
        remedy = f"\n[dim]→ {escape(finding.remedy)}[/]" if finding.remedy else ""
        mark = f"[{COLOURS[finding.severity]}]{finding.severity}[/]"
        made.add_row(mark, finding.topic, escape(finding.text) + remedy)
    console.print(made)
    console.print(totals(examined), highlight=False)


def totals(examined: Examination) -> str:
    """One line of counts."""
    errors, warnings = examined.errors, count(examined.findings, "warning")
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
