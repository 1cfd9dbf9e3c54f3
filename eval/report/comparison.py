"""A comparison for people: tables in the terminal and one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from eval.report.run import milliseconds, percent, render
from eval.results.comparison import compare
from eval.results.records import write_json
from eval.results.runs import load_runs
from selfflow_wm.files import write_file
from selfflow_wm.pages import embedded

_LEFT, _WIDTH, _ROW = 260, 400, 26
"""Of the forest plot: where its axis begins, its length, the height of a row; pixels."""


def compare_runs(
    paths: Sequence[Path],
    out: Path,
    *,
    metric: str = "success",
    tasks: Sequence[str] | None = None,
    allowed: Collection[str] = (),
    policies: Sequence[str] = (),
    seed: int = 0,
    videos: int = 0,
) -> None:
    """Compare finished runs: print tables, write `compare.json` and `compare.html` into `out`.

    Args:
        paths: `--out` directories of `python -m eval.simpler`.
        out: made if missing.
        metric, tasks, allowed, policies, seed: see `eval.results.comparison.compare`.
        videos: starts on which two runs disagree to show side by side, per pair of runs.
    """
    from rich.console import Console

    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a directory, got the file {out}; choose another")
    found = compare(load_runs(paths), metric, tasks, allowed, policies, seed)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "compare.json", found)
    page = write_comparison_page(out, found, videos)
    print_comparison(Console(), found, videos)
    print(f"numbers: {out / 'compare.json'}\npage: {page}")


def points(value: float | None) -> str:
    """`+7.5`: a difference in percentage points."""
    return "–" if value is None else f"{100 * value:+.1f}"


def bounds(interval: dict[str, Any] | None) -> str:
    """`−4.0 to +19.0`, in percentage points."""
    return "–" if interval is None else f"{points(interval['low'])} to {points(interval['high'])}"


def p_value(value: float | None) -> str:
    """`0.146`, or `<0.001`."""
    if value is None:
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def share(row: dict[str, Any]) -> str:
    """A rate with its interval, with counts where it has them."""
    if "count" in row:
        return percent(row)
    return f"{100 * row['rate']:.1f}% [{100 * row['low']:.0f}–{100 * row['high']:.0f}]"


def rate(value: float | None) -> str:
    """`47.5%`."""
    return "–" if value is None else f"{100 * value:.1f}%"


def number(value: int | None) -> str:
    """`1,184`; a dash where no number of episodes would do."""
    return "–" if value is None else f"{value:,}"


def rates_table(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of the rates side by side: a task or a mean, and one cell a run."""
    runs = found["runs"]
    rows = [(task, [share(run["tasks"][task]["rate"]) for run in runs]) for task in found["tasks"]]
    for key in dict.fromkeys(key for run in runs for key in run["means"]):
        means = [run["means"].get(key) for run in runs]
        names = {mean["name"] for mean in means if mean}
        name = names.pop() if len(names) == 1 else {"micro": "all episodes pooled"}.get(key, key)
        rows.append((name, [share(mean) if mean else "–" for mean in means]))
    return rows


def stages_table(found: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Rows of the stages side by side: task, stage, one cell a run."""
    return [
        (task, stage, [percent(run["tasks"][task]["stages"][stage]) for run in found["runs"]])
        for task in found["tasks"]
        for stage in found["runs"][0]["tasks"][task]["stages"]
        if all(stage in run["tasks"][task]["stages"] for run in found["runs"])
    ]


def latency_table(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of the latencies side by side (median/95th percentile, ms a model call)."""
    rows = [
        (task, [milliseconds(run["tasks"][task]["latency_ms"]) for run in found["runs"]])
        for task in found["tasks"]
    ]
    overall = [milliseconds(run["latency_ms"]) for run in found["runs"]]
    return rows + ([("all tasks", overall)] if len(rows) > 1 else [])


def sentence(scope: dict[str, Any], pair: dict[str, Any]) -> str:
    """What a tested scope (a task, or all pairs pooled) says, in words."""
    if not scope["pairs"]:
        return f"{scope['name']}: no start in common; nothing can be said of the difference."
    p = scope["mcnemar_p"] if scope["holm_p"] is None else scope["holm_p"]
    if p < 0.05:
        better = pair["b"] if scope["difference"] > 0 else pair["a"]
        return f"{scope['name']}: {better} is better (p = {p_value(p)})."
    needed = scope["power"]["episodes_observed"]
    words = f"{scope['name']}: no difference that these {scope['pairs']} pairs could show"
    if needed is not None:
        words += (
            f"; {number(needed)} would tell one of {points(abs(scope['difference']))[1:]} points"
        )
    return words + "."


def print_comparison(console: Any, found: dict[str, Any], videos: int = 0) -> None:
    """The comparison in the terminal; `videos` as for the page."""
    from rich.table import Table

    def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        shown = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
        for place, heading in enumerate(headings):
            shown.add_column(heading, justify="right" if place else "left", overflow="fold")
        for row in rows:
            shown.add_row(*row)
        console.print(shown)

    labels = [run["label"] for run in found["runs"]]
    console.print(f"\n[bold]{found['metric_name']}[/]", highlight=False)
    for run in found["runs"]:
        words = f"{run['label']}: {run['policy']}, {run['simulator']}"
        console.print(
            words + (f", {run['protocol']}" if run["protocol"] else ""),
            highlight=False, markup=False,
        )  # fmt: skip
    for note in found["notes"]:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    table("rates", ["", *labels], [[name, *cells] for name, cells in rates_table(found)])
    for pair in found["pairs"]:
        _print_pair(console, table, pair)
        for line in missing_videos(pair, videos):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    table(
        "stages reached", ["task", "stage", *labels],
        [[task, stage, *cells] for task, stage, cells in stages_table(found)],
    )  # fmt: skip
    latencies = [[name, *cells] for name, cells in latency_table(found)]
    table("ms per model call, p50/p95", ["", *labels], latencies)
    for curve in found["curves"]:
        table(
            f"learning curve: {curve['run'] or curve['training']}",
            ["step", "rate", *curve["points"][0]["tasks"]],
            [
                [f"{point['step']}", percent(point["pooled"]),
                 *(percent(row) for row in point["tasks"].values())]
                for point in curve["points"]
            ],
        )  # fmt: skip
    if found["real"] is not None:
        table(
            "against the real robot", ["task", "policies", "MMRV", "Pearson r"],
            [
                [row["task"], f"{len(row['policies'])}", f"{row['mmrv']:.3f}",
                 "–" if row["pearson"] is None else f"{row['pearson']:.3f}"]
                for row in found["real"]
            ],
        )  # fmt: skip


def _print_pair(console: Any, table: Any, pair: dict[str, Any]) -> None:
    scopes = pair["scopes"]
    table(
        f"{pair['b']} minus {pair['a']}: percentage points on the same starts",
        ["", "points", "95%", "bootstrap", "alone a:b", "p", "Holm"],
        [
            [
                scope["name"], points(scope["difference"]), bounds(scope["interval"]),
                bounds(scope["bootstrap"]),
                f"{scope['only_a']}:{scope['only_b']}" if "only_a" in scope else "",
                p_value(scope["mcnemar_p"]), p_value(scope["holm_p"]),
            ]
            for scope in scopes
        ],
    )  # fmt: skip
    powers = [(scope["name"], scope["power"]) for scope in scopes if scope["power"]]
    table(
        "paired episodes for 80% power at 5%",
        ["", "pairs here", "tell from", "this difference", "5 points", "10 points"],
        [
            [name, number(scope["pairs"]),
             "–" if power["detectable"] is None else f"{100 * power['detectable']:.1f} points",
             number(power["episodes_observed"]), number(power["episodes_5_points"]),
             number(power["episodes_10_points"])]
            for (name, power), scope in zip(powers, (s for s in scopes if s["power"]), strict=True)
        ],
    )  # fmt: skip
    tested = [scope for scope in scopes if scope["scope"] in ("task", "micro")]
    console.print(sentence(tested[-1], pair), highlight=False, markup=False)  # the broadest


def forest(scopes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Geometry of a forest plot of the differences, in pixels; Tango's interval where there is one,
    else the bootstrap's."""
    rows = []
    for scope in scopes:
        interval = scope["interval"] or scope["bootstrap"]
        if scope["difference"] is not None:
            rows.append((scope, interval))
    reach = max(
        [abs(scope["difference"]) for scope, _ in rows]
        + [abs(interval[end]) for _, interval in rows if interval for end in ("low", "high")],
        default=0.1,
    )
    step = next((s for s in (0.05, 0.1, 0.25, 0.5) if reach <= 4 * s), 0.5)
    reach = step * max(1, math.ceil(reach / step - 1e-9))

    def x(value: float) -> float:
        return round(_LEFT + _WIDTH * (value + reach) / (2 * reach), 1)

    marks = range(-round(reach / step), round(reach / step) + 1)
    return {
        "width": _LEFT + _WIDTH + 190,
        "height": _ROW * len(rows) + 30,
        "bottom": _ROW * len(rows),
        "label_x": _LEFT - 10,
        "text_x": _LEFT + _WIDTH + 12,
        "zero": x(0.0),
        "ticks": [{"x": x(mark * step), "text": points(mark * step)} for mark in marks],
        "rows": [
            {
                "name": scope["name"], "y": _ROW * place + _ROW // 2, "x": x(scope["difference"]),
                "low": x(interval["low"]) if interval else None,
                "high": x(interval["high"]) if interval else None,
                "task": scope["scope"] == "task",
                "text": points(scope["difference"])
                + (f" [{bounds(interval)}]" if interval else ""),
            }
            for place, (scope, interval) in enumerate(rows)
        ],
    }  # fmt: skip


def curve_plot(curve: dict[str, Any]) -> dict[str, Any]:
    """Geometry of a learning curve of the pooled rate, in pixels."""
    steps = [point["step"] for point in curve["points"]]
    first, last = min(steps), max(steps)

    def xy(step: int, value: float) -> tuple[float, float]:
        return round(60 + 560 * (step - first) / (last - first), 1), round(190 - 180 * value, 1)

    dots = []
    for point in curve["points"]:
        row = point["pooled"]
        if row["rate"] is not None:
            x, y = xy(point["step"], row["rate"])
            dots.append({
                "x": x, "y": y, "low": xy(0, row["low"])[1], "high": xy(0, row["high"])[1],
                "step": point["step"],
            })  # fmt: skip
    return {"dots": dots, "line": " ".join(f"{dot['x']},{dot['y']}" for dot in dots)}


def side_by_side(found: dict[str, Any], pair: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """Starts on which two runs disagree, with the videos there are, pairs of two first."""
    paths = {run["label"]: Path(run["path"]) for run in found["runs"]}
    shown = []
    for row in pair["disagreements"]:
        data = [
            embedded(paths[pair[side]] / row[f"video_{side}"]) if row[f"video_{side}"] else None
            for side in ("a", "b")
        ]
        if any(data):
            shown.append({**row, "data": dict(zip(("a", "b"), data, strict=True))})
    return sorted(shown, key=lambda row: not all(row["data"].values()))[:most]


def missing_videos(pair: dict[str, Any], most: int) -> list[str]:
    """How to have the videos that are missing: a sentence a run, of at most `most` starts."""
    lines = []
    for side in ("a", "b"):
        rows = [row for row in pair["disagreements"][:most] if not row[f"video_{side}"]]
        if rows:
            numbers = ",".join(str(seed) for seed in sorted({row[f"seed_{side}"] for row in rows}))
            lines.append(
                f"{pair[side]} has no video of some starts on which they disagree: repeat its "
                f"command with its --out and --video-of {numbers}, then this one"
            )
    return lines


def write_comparison_page(out: Path, found: dict[str, Any], videos: int) -> Path:
    """Write `compare.html` into `out`; it needs no other file to be read.

    Args:
        out: an existing directory.
        found: as in `compare.json`.
        videos: starts to show side by side, per pair of runs.
    """
    page = render(
        "comparison.html.j2",
        found=found,
        rates=rates_table(found),
        stages=stages_table(found),
        latencies=latency_table(found),
        pairs=[
            {
                **pair,
                "forest": forest(pair["scopes"]),
                "videos": side_by_side(found, pair, videos),
                "missing": missing_videos(pair, videos),
                "sentences": [
                    sentence(scope, pair)
                    for scope in pair["scopes"]
                    if scope["scope"] in ("task", "micro")
                ],
            }
            for pair in found["pairs"]
        ],
        curves=[{**curve, "plot": curve_plot(curve)} for curve in found["curves"]],
        words={
            "points": points, "bounds": bounds, "p": p_value, "rate": rate, "number": number
        },
    )  # fmt: skip
    path = out / "compare.html"
    write_file(path, page)
    return path
