"""The report of a comparison: tables in the terminal and one self-contained HTML page."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from eval.report.run import milliseconds, percent, render
from eval.results.comparison import compare
from eval.results.records import write_json
from eval.results.runs import load_runs
from selfflow_wm.files import check_out, write_file
from selfflow_wm.pages import embedded
from selfflow_wm.panels import panel_grid, to_png


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
        out: created if missing.
        metric, tasks, allowed, policies, seed: see `eval.results.comparison.compare`.
        videos: most starts on which two runs disagree to show side by side, per pair of runs.
    """
    from rich.console import Console

    check_out(out)
    found = compare(load_runs(paths), metric, tasks, allowed, policies, seed)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "compare.json", found)
    page = write_comparison_page(out, found, videos)
    print_comparison(Console(soft_wrap=True), found, videos)
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
    """A rate with its interval, and with counts if it has them."""
    if "count" in row:
        return percent(row)
    return f"{100 * row['rate']:.1f}% [{100 * row['low']:.0f}–{100 * row['high']:.0f}]"


def rate(value: float | None) -> str:
    """`47.5%`."""
    return "–" if value is None else f"{100 * value:.1f}%"


def number(value: int | None) -> str:
    """`1,184`; a dash if no number of episodes suffices."""
    return "–" if value is None else f"{value:,}"


def rates_table(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of the rates side by side: a task or a mean, and one cell per run."""
    runs = found["runs"]
    rows = [(task, [share(run["tasks"][task]["rate"]) for run in runs]) for task in found["tasks"]]
    for key in dict.fromkeys(key for run in runs for key in run["means"]):
        means = [run["means"].get(key) for run in runs]
        names = {mean["name"] for mean in means if mean}
        name = names.pop() if len(names) == 1 else {"micro": "all episodes pooled"}.get(key, key)
        rows.append((name, [share(mean) if mean else "–" for mean in means]))
    return rows


def stages_table(found: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Rows of the stages side by side: task, stage, one cell per run."""
    return [
        (task, stage, [percent(run["tasks"][task]["stages"][stage]) for run in found["runs"]])
        for task in found["tasks"]
        for stage in found["runs"][0]["tasks"][task]["stages"]
        if all(stage in run["tasks"][task]["stages"] for run in found["runs"])
    ]


def latency_table(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of the latencies side by side (median/95th percentile, ms per model call)."""
    rows = [
        (task, [milliseconds(run["tasks"][task]["latency_ms"]) for run in found["runs"]])
        for task in found["tasks"]
    ]
    overall = [milliseconds(run["latency_ms"]) for run in found["runs"]]
    return rows + ([("all tasks", overall)] if len(rows) > 1 else [])


def sentence(scope: dict[str, Any], pair: dict[str, Any]) -> str:
    """The result of a tested scope (a task, or all pairs pooled) in one sentence."""
    if not scope["pairs"]:
        return f"{scope['name']}: no start in common, so the runs can't be compared."
    p = scope["mcnemar_p"] if scope["holm_p"] is None else scope["holm_p"]
    if p < 0.05:
        better = pair["b"] if scope["difference"] > 0 else pair["a"]
        return f"{scope['name']}: {better} is better (p = {p_value(p)})."
    needed = scope["power"]["episodes_observed"]
    words = f"{scope['name']}: no significant difference in these {scope['pairs']} pairs"
    if needed is not None:
        words += (
            f"; {number(needed)} would detect {points(abs(scope['difference']))[1:]} points with "
            "80% power"
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
        console.print(shown, soft_wrap=False)

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
        ["", "pairs here", "detectable", "this difference", "5 points", "10 points"],
        [
            [name, number(scope["pairs"]),
             "–" if power["detectable"] is None else f"{100 * power['detectable']:.1f} points",
             number(power["episodes_observed"]), number(power["episodes_5_points"]),
             number(power["episodes_10_points"])]
            for (name, power), scope in zip(powers, (s for s in scopes if s["power"]), strict=True)
        ],
    )  # fmt: skip
    tested = [scope for scope in scopes if scope["scope"] in ("task", "micro")]
    console.print(sentence(tested[-1], pair), highlight=False, markup=False)  # of the widest scope


def forest_plot(scopes: Sequence[dict[str, Any]]) -> str:
    """The differences with their intervals (Tango's where there is one, else the bootstrap's), in
    percentage points: a PNG as base64. Squares are tasks, diamonds means."""
    rows = [scope for scope in scopes if scope["difference"] is not None]
    figure, (panel,) = panel_grid(1)
    figure.set_size_inches(9, 0.8 + 0.28 * len(rows))
    texts = []
    for place, scope in enumerate(rows):
        difference, interval = scope["difference"], scope["interval"] or scope["bootstrap"]
        if interval:
            ends = [100 * interval["low"], 100 * interval["high"]]
            panel.plot(ends, [place, place], color="#1d2530")
        marker, color = ("s", "#3f6fb5") if scope["scope"] == "task" else ("D", "#22794a")
        panel.plot(100 * difference, place, marker, color=color)
        texts.append(points(difference) + (f" [{bounds(interval)}]" if interval else ""))
    reach = max(map(abs, panel.get_xlim()))
    panel.set_xlim(-reach, reach)
    panel.axvline(0, color="#667080", linestyle="--", zorder=0)
    panel.grid(axis="x")
    panel.set_yticks(range(len(rows)), [scope["name"] for scope in rows])
    panel.invert_yaxis()
    panel.secondary_yaxis("right").set_yticks(range(len(rows)), texts)
    return b64encode(to_png(figure, [panel])).decode()


def curve_plot(curve: dict[str, Any]) -> str:
    """The pooled rate with its 95% interval over training steps: a PNG as base64."""
    rows = [(p["step"], p["pooled"]) for p in curve["points"] if p["pooled"]["rate"] is not None]
    figure, (panel,) = panel_grid(1)
    figure.set_size_inches(8, 3)
    rates = [100 * row["rate"] for _, row in rows]
    below = [100 * (row["rate"] - row["low"]) for _, row in rows]
    above = [100 * (row["high"] - row["rate"]) for _, row in rows]
    steps = [step for step, _ in rows]
    panel.errorbar(steps, rates, [below, above], color="#3f6fb5", ecolor="#1d2530", marker="o")
    panel.set(ylim=(0, 100), xlabel="step", ylabel="rate, %", xticks=steps)
    panel.grid(axis="y")
    return b64encode(to_png(figure, [panel])).decode()


def side_by_side(found: dict[str, Any], pair: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """Starts on which two runs disagree, with the videos there are, complete pairs first."""
    paths = {run["label"]: Path(run["path"]) for run in found["runs"]}
    shown = []
    for row in pair["disagreements"]:
        data = [
            embedded(paths[pair[side]] / row[f"video_{side}"]) if row[f"video_{side}"] else None
            for side in ("a", "b")
        ]
        if any(data):
            shown.append({**row, "data": dict(zip(("a", "b"), data, strict=True))})
    return sorted(shown, key=lambda row: not all(row["data"].values()))[:limit]


def missing_videos(pair: dict[str, Any], limit: int) -> list[str]:
    """How to record the missing videos of the first `limit` starts: a sentence per run."""
    lines = []
    for side in ("a", "b"):
        rows = [row for row in pair["disagreements"][:limit] if not row[f"video_{side}"]]
        if rows:
            numbers = ",".join(str(seed) for seed in sorted({row[f"seed_{side}"] for row in rows}))
            lines.append(
                f"{pair[side]} has no video of some starts on which they disagree: rerun its "
                f"command with its --out and --video-of {numbers}, then this one"
            )
    return lines


def write_comparison_page(out: Path, found: dict[str, Any], videos: int) -> Path:
    """Write the self-contained page `compare.html` into `out`.

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
                "forest": forest_plot(pair["scopes"]),
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
