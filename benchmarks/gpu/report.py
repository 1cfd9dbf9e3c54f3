"""results.json as text: the summary on standard output and report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.files import write_file

STDOUT_LIMIT = 10_500
"""Characters of the summary: a remote call may return no more than the last 12,000."""


def summary(results: Mapping[str, Any], limit: int = STDOUT_LIMIT) -> str:
    """Stages, headline figures and checks, then tables as far as they fit."""
    head = [
        f"{results['command']}, begun {results['began']}, {results['status']} after "
        f"{results.get('seconds', 0):.0f} s",
        "",
        text_table([_stage_row(name, e) for name, e in results["stages"].items()]),
    ]
    if figures := [row for _, row in all_figures(results)]:
        head += ["", text_table(figures)]
    if checks := [
        {"stage": name, **check}
        for name, entry in results["stages"].items()
        for check in entry.get("checks", [])
    ]:
        head += ["", text_table(checks)]
    for name, entry in results["stages"].items():
        for cell, trace in entry.get("failed", {}).items():
            head.append(f"{name}, {cell}: {trace.strip().splitlines()[-1][:200]}")
    text = "\n".join(head)
    for name, entry in results["stages"].items():
        for title, rows in entry.get("tables", {}).items():
            block = f"\n\n{name}: {title}\n{text_table(rows)}"
            if len(text) + len(block) > limit - 60:
                block = f"\n\n{name}: {title}: {len(rows)} rows in report.md"
            if len(text) + len(block) <= limit - 60:
                text += block
    if len(text) > limit:
        text = text[: limit - 40] + "\n... the rest is in report.md"
    return text


def _stage_row(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    why = entry.get("why", "")
    if entry.get("traceback"):
        why = entry["traceback"].strip().splitlines()[-1][:120]
    if unreached := not_reached(entry):
        why = f"not reached: {', '.join(unreached)}"[:160] + (f"; {why}" if why else "")
    return {
        "stage": name,
        "status": entry["status"],
        "s": entry.get("seconds", ""),
        "of s": entry.get("budget_s", ""),
        "parts": f"{len(entry['done'])}/{len(entry['planned'])}" if entry.get("planned") else "",
        "failed": len(entry.get("failed", {})) or "",
        "": why,
    }


def not_reached(entry: Mapping[str, Any]) -> list[str]:
    """Planned cells of a stage that neither finished nor failed."""
    over = {*entry.get("done", []), *entry.get("failed", {})}
    return [name for name in entry.get("planned", []) if name not in over]


def all_figures(results: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every headline figure with its stage."""
    return [
        (
            stage,
            {
                "figure": name,
                "value": f"{_word(figure['value'])} {figure['unit']}".strip(),
                "bar": figure["bar"],
                "": {True: "ok", False: "MISSED", None: ""}[figure["ok"]],
            },
        )
        for stage, entry in results["stages"].items()
        for name, figure in entry.get("figures", {}).items()
    ]


def write_report(path: Path, results: Mapping[str, Any]) -> None:
    """Everything that results.json holds, as Markdown."""
    lines = [
        "# `" + results["command"] + "`",
        "",
        f"Begun {results['began']}; {results['status']}; {results['minutes']:g} minutes allowed.",
        "",
        markdown_table([_stage_row(name, e) for name, e in results["stages"].items()]),
    ]
    if figures := [{"stage": stage, **row} for stage, row in all_figures(results)]:
        lines += ["", markdown_table(figures)]
    for name, entry in results["stages"].items():
        lines += ["", f"## {name}: {entry['question']}", ""]
        lines += [f"- {note}" for note in entry.get("notes", [])]
        if entry.get("checks"):
            lines += ["", markdown_table(entry["checks"])]
        for title, rows in entry.get("tables", {}).items():
            lines += ["", f"### {title}", "", markdown_table(rows)]
        for cell, trace in entry.get("failed", {}).items():
            lines += ["", f"Failed: {cell}", "", "```", trace.rstrip(), "```"]
        for key in ("traceback", "log"):
            if entry.get(key):
                lines += ["", "```", entry[key].rstrip(), "```"]
    write_file(path, "\n".join(lines) + "\n")


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The column names of all rows, in order of first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Aligned columns."""
    names = [n for n in columns(rows) if any(_word(row.get(n, "")) for row in rows)]
    cells = [names, *([_word(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table."""
    names = columns(rows)
    lines = [
        "| " + " | ".join(names) + " |",
        "|" + "|".join("---" for _ in names) + "|",
        *("| " + " | ".join(_escape(row.get(name, "")) for name in names) + " |" for row in rows),
    ]
    return "\n".join(lines)


def _escape(value: Any) -> str:
    return _word(value).replace("|", "\\|").replace("\n", " ")


def _word(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
