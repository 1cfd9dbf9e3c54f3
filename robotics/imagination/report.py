"""The scores of `robotics.imagine` as tables: on the terminal and as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

LEGEND = {
    "copy": "the current frame repeated",
    "forward": "imagined from the current frame and the recorded actions",
    "video": "imagined from the current frame alone",
    "codec": "the true frames through the codec: what the model could reach at best",
    "inverse": "inferred from the recorded future frames",
    "policy": "predicted from the current frame alone",
    "joint": "frames and actions imagined together, from the current frame alone",
    "mean": "the mean action of the training data",
}


def rows(report: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(what, where, who, value) lines."""
    video = report.get("video", {})
    for region in ("all", "moving windows", "moving patches"):
        for metric, values in video.get(region, {}).items():
            for name, value in values.items():
                yield metric, region, name, show(value)
    for name, values in report.get("action", {}).items():
        for metric, value in values.items():
            what = "action MSE" if metric == "MSE" else "share of the mean's MSE"
            yield what, "arm, normalised", name, show(value)


def show(value: dict[str, float | None]) -> str:
    """`24.31 [23.90, 24.77]`."""
    if value["mean"] is None:
        return "undefined"
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def print_report(report: dict[str, Any]) -> None:
    """The table, on the terminal."""
    from rich.console import Console
    from rich.table import Table

    lines = list(rows(report))
    if not lines:
        return
    table = Table("what", "where", "who", "mean [95% interval over episodes]")
    for line in lines:
        table.add_row(*line)
    Console(width=110).print(table)


def write_html(path: Path, report: dict[str, Any]) -> None:
    """One page with the table, the strips and the videos; it links to files beside it."""
    cells = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>"
        for line in rows(report)
    )
    legend = "".join(f"<li><b>{escape(k)}</b>: {escape(v)}</li>" for k, v in LEGEND.items())
    counts = report.get("video", {}).get("counts")
    counted = (
        f"{counts['windows']} windows of {counts['episodes']} episodes, {counts['moving']} moving; "
        f"patches of {counts['patch']} by {counts['patch']} pixels."
        if counts
        else ""
    )
    strips = "\n".join(
        f"<h3>{escape(name)}</h3><img src='{escape(name)}'>" for name in report["strips"]
    )
    ahead = "; ".join(
        f"{steps} steps later in episode{'s' * (len(found) > 1)} {', '.join(found)}"
        for steps in dict.fromkeys(report["ahead"].values())
        if (found := [number for number, own in report["ahead"].items() if own == steps])
    )
    videos = "\n".join(
        f"<figure><video src='{escape(name)}' controls loop muted></video>"
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name in report["videos"]
    )
    path.write_text(
        f"""<!doctype html><meta charset="utf-8"><title>Imagined</title>
<style>body{{font:15px system-ui;margin:2em;max-width:80em}}td,th{{padding:.2em 1em;
border-bottom:1px solid #ddd;text-align:left}}img{{max-width:100%}}figure{{display:inline-block}}
</style>
<h1>Imagined and recorded</h1>
<p>{escape(report["checkpoint"])} on {escape(report["data"])}, {report["steps"]} Euler steps.
{escape(counted)} Intervals: 95%, bootstrap over episodes.</p>
<table><tr><th>what<th>where<th>who<th>mean [interval]</tr>
{cells}</table><ul>{legend}</ul>
<p>Strips: the current frame, the true frame some steps later, the imagined one ({escape(ahead)}).
Videos: true left, imagined right.</p>
{strips}
{videos}
"""
    )
