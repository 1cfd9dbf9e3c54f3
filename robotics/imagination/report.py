"""The scores of `robotics.imagine` as tables: on the terminal and as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfflow_wm.pages import render

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
    """(metric, region, prediction, value) lines."""
    video = report.get("video", {})
    for camera, scores in video.items():
        seen = f"{camera}, " if len(video) > 1 else ""
        for region in ("all", "moving windows", "moving patches"):
            for metric, values in scores.get(region, {}).items():
                for name, value in values.items():
                    yield metric, f"{seen}{region}", name, show(value)
    for name, values in report.get("action", {}).items():
        for metric, value in values.items():
            metric_name = "action MSE" if metric == "MSE" else "share of the mean's MSE"
            yield metric_name, "motions, normalised", name, show(value)


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
    table = Table("metric", "region", "prediction", "mean [95% interval over episodes]")
    for line in lines:
        table.add_row(*line)
    Console(width=110).print(table)


def write_html(path: Path, report: dict[str, Any]) -> None:
    """One page with the table, the strips and the videos; it links to files beside it."""
    template = Path(__file__).with_name("report.html.j2")
    page = render(template, report=report, rows=list(rows(report)), legend=LEGEND)
    path.write_text(page)
