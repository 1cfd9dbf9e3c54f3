"""An examination in the terminal: one headline, what to do, then the evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from robotics.embodiment.columns import column
from robotics.inspection import contents
from robotics.inspection.examination import Examination

COLOURS = {"error": "bold red", "question": "bold magenta", "warning": "yellow", "info": "dim"}
VERDICTS = {"agrees": "green", "cannot tell": "dim", "contradicts": "bold red"}
SURE = {"certain": "green", "likely": "yellow", "undetermined": "bold magenta", "stated": "dim",
        "contradicted": "bold red"}  # fmt: skip
INSTRUCTIONS = 10
COLUMNS = ("q01", "q99", "mean", "std", "min", "max")


def number(value: float) -> str:
    """Four digits, and no minus in front of a zero."""
    return f"{value + 0.0:.4g}"


def statistics_rows(examined: Examination) -> list[tuple[str, str, list[str]]]:
    """Vector, value and its `COLUMNS`, in m and rad; grippers as recorded."""
    rows = []
    for group in ("state", "action"):
        for part in getattr(examined.robot, group):
            found = [track.values(part.path) for track in examined.result.tracks]
            found = [row for row in found if row is not None and row.shape[1] == part.width]
            if not found:
                continue
            values = np.concatenate(found)
            values = values[np.isfinite(values).all(1)]
            if not len(values):
                continue
            plain = part.kind == "gripper" or (part.form or "").startswith("quaternion")
            values = values if plain else values * part.factor
            ends = np.quantile(values, [0.01, 0.99], axis=0)
            shown = (*ends, values.mean(0), values.std(0), values.min(0), values.max(0))
            for i in range(part.width):
                name = part.names[i] if part.names else f"{i}" if part.width > 1 else ""
                label = f"{part.name}.{name}".rstrip(".")
                rows.append((group, label, [number(float(row[i])) for row in shown]))
    return rows


def schema_rows(examined: Examination) -> list[tuple[str, str, str]]:
    """Key, shape and what the table takes it for."""
    used: dict[str, list[str]] = {}
    cameras = [camera.name for camera in examined.robot.cameras]
    for place, wanted in examined.robot.columns(cameras):
        used.setdefault(wanted.key, []).append(place)
    return [
        (key, shape, ", ".join(used.get(key, []))) for key, shape in examined.source.shapes.items()
    ]


def camera_rows(examined: Examination) -> list[tuple[str, str, str, str]]:
    """Name, path, size and remarks of every camera."""
    named = {column(camera.path).key: camera for camera in examined.robot.cameras}
    read = examined.robot.recorded_cameras()
    rows = []
    for key, seen in examined.result.cameras.items():
        camera = named.get(key)
        sizes = ", ".join(f"{h} x {w}" for h, w in seen.sizes)
        words = []
        if seen.black_episodes:
            words.append(f"black in {len(seen.black_episodes)} of {examined.result.episodes}")
        if camera is None:
            words.append("not named by the table")
        elif camera.name not in read:
            words.append("not used")
        name = "" if camera is None else f"{camera.name} ({camera.view})"
        rows.append((name, key.removeprefix("steps/"), sizes, ", ".join(words)))
    return rows


def facts(examined: Examination) -> list[tuple[str, str]]:
    """The data set in a few lines."""
    result, robot = examined.result, examined.robot
    lengths = sorted(result.lengths) or [0]
    texts = contents.instruction_counts(result, robot)
    empty = sum(count for text, count in texts.items() if not text.strip())
    many = f"{len([text for text in texts if text.strip()])} different, {empty} episodes without"
    if not robot.instruction.paths:
        many = "none"
    return [
        ("read", examined.sample),
        ("table", examined.origin),
        ("episodes", f"{result.episodes} read, {result.faults.episodes} damaged, "
                     f"{len(result.empty)} without steps"),
        ("steps", f"{result.steps}; {lengths[0]} to {lengths[-1]} an episode, "
                  f"median {lengths[len(lengths) // 2]}"),
        ("rate", f"{robot.rate:g} Hz by the table"),
        ("instructions", many),
    ]  # fmt: skip


def print_examination(console: Any, examined: Examination) -> None:
    """The headline, findings with what to do, and the evidence behind them."""
    from rich.markup import escape
    from rich.table import Table

    def show(
        title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], longest: int = -1
    ) -> None:
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0),
                      show_header=any(headings))  # fmt: skip
        for place, heading in enumerate(headings):
            last = place == len(headings) - 1
            # Short columns keep their words whole; the longest one gives way on a narrow terminal.
            short = place == len(headings) - 1 if longest == 0 else place == 0 and not last
            table.add_column(heading, overflow="fold", no_wrap=short)
        for row in rows:
            table.add_row(*row)
        if table.row_count:
            console.print(table)

    colour = {0: "bold green", 1: "bold red", 2: "bold magenta"}[examined.exit_code]
    console.print(f"[{colour}]{escape(examined.headline)}[/]", highlight=False)
    console.print(f"[dim]{escape(str(examined.directory))}, {examined.split}[/]", highlight=False)
    for place, row in enumerate(row for row in examined.findings if row.severity != "info"):
        head = row.title or row.topic
        console.print(f"\n{place + 1}. [{COLOURS[row.severity]}]{row.severity}[/] {escape(head)}",
                      highlight=False)  # fmt: skip
        words = [row.text, row.why]
        if row.episodes:
            words.append("episodes " + ", ".join(map(str, row.episodes[:12])))
        for text in filter(None, words):
            console.print(f"   {escape(text)}", highlight=False)
        if row.severity == "question":
            for line in row.details.get("lines", ()):
                console.print(f"   [cyan]either[/] {escape(line)}", highlight=False)
        elif row.remedy or row.line:
            console.print(f"   [cyan]→[/] {escape(row.remedy)}", highlight=False)
            if row.line:
                console.print(f"     [cyan]{escape(row.line)}[/]", highlight=False)
    dimensions = (
        (escape(row.path), escape(row.what), f"[{SURE.get(row.sure, 'dim')}]{row.sure}[/]",
         escape(row.why)) for row in examined.dimensions
    )  # fmt: skip
    show("\nwhat every value is", ("values", "what", "how sure", "evidence"), dimensions)
    show(
        "\ncameras",
        ("name", "path", "size", ""),
        (tuple(map(escape, row)) for row in camera_rows(examined)),
    )
    verdicts = (
        (f"{row.topic}: {row.question}", escape(row.stated),
         f"[{VERDICTS[row.answer]}]{row.answer}[/]")
        for row in examined.verdicts
    )  # fmt: skip
    show("\nconventions", ("question", "table", "data"), verdicts, longest=0)
    counts = contents.instruction_counts(examined.result, examined.robot)
    commonest = counts.most_common(INSTRUCTIONS)
    texts = ((str(times), escape(text) or "[red](empty)[/]") for text, times in commonest)
    show("\ninstructions (at the first step)", ("episodes", "instruction"), texts)
    rest = ((row.topic, escape(row.text)) for row in examined.findings if row.severity == "info")
    show("\nalso seen", ("", ""), rest)
    show("\nread", ("", ""), ((name, escape(text)) for name, text in facts(examined)))
    console.print(totals(examined), highlight=False)


def totals(examined: Examination) -> str:
    """One line of counts."""
    words = []
    for severity in ("error", "question", "warning"):
        count = examined.count(severity)
        words.append(f"{count} {severity}{'s' * (count != 1)}")
    return ", ".join(words)
