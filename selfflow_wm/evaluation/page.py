"""Results for people: a table in the terminal and one HTML page that needs no other file."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfflow_wm import pages
from selfflow_wm.evaluation.metrics import FRECHET
from selfflow_wm.files import write_file
from selfflow_wm.panels import panel_grid, to_png
from selfflow_wm.tables import print_table

TITLES = {
    "image": "Images: signs with a word",
    "video": "Video: shapes behind a wall, figures with limbs",
    "audio": "Audio: struck sounds",
    "video_audio": "Video with its sound, from a first picture",
}

Row = Mapping[str, Any]


def show(value: Row | None, unit: str, signed: bool = False) -> str:
    """`12.5% [8.1, 18.0]`; a dash where undefined."""
    if value is None or value["value"] is None:
        return "–"
    scale, form = (100, ".1f") if unit == "%" else (1, ".1f" if unit == "ms" else ".3g")
    sign = "+" if signed else ""

    def number(x: float) -> str:
        return f"{scale * x:{sign}{form}}"

    text = number(value["value"]) + ("%" if unit == "%" else f" {unit}" if unit else "")
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} [{number(value['low'])}, {number(value['high'])}]"


def codec_value(row: Row) -> Row | None:
    """Of the renderings through the codecs: the mean where checkpoints have several."""
    values = [value for value in row["codecs"].values() if value and value["value"] is not None]
    if len(values) < 2:
        return values[0] if values else None
    mean = sum(value["value"] for value in values) / len(values)
    return {"value": mean, "low": None, "high": None, "count": values[0]["count"]}


def verdict(row: Row, unit_row: Row) -> str:
    """Class of a difference: better, worse, or nothing where the interval holds 0, or has no width:
    two seeds or a few samples that agree to the last digit say nothing of what others would do."""
    low, high = row["low"], row["high"]
    if row["value"] is None or low is None or low <= 0 <= high or math.isclose(low, high):
        return "soft"
    return "success" if (row["value"] > 0) == unit_row["higher_is_better"] else "failure"


def print_results(results: Row) -> None:
    """The table of values, and the differences, in the terminal."""
    columns = _columns(results)
    table = [
        (
            f"{row['title']} {'↑' if row['higher_is_better'] else '↓'}",
            show(row["true"], row["unit"]),
            show(codec_value(row), row["unit"]),
            *(show(values.get(row["name"]), row["unit"]) for values in columns.values()),
        )
        for row in results["metrics"]
    ]
    print_table(("", "true", "codec", *columns), table)
    print("features: " + "; ".join(f"{k}: {v}" for k, v in _features(results).items()))
    for row in results["metrics"]:
        if row.get("unrelated"):
            value = show(row["unrelated"], row["unit"])
            print(f"chance (true videos, sound of another): {row['title']} {value}")
    rows = {row["name"]: row for row in results["metrics"]}
    if shown := results["arm_differences"] or results["differences"]:
        table = [
            (
                rows[one["metric"]]["title"],
                f"{one['b']} minus {one['a']}",
                show(one, rows[one["metric"]]["unit"], signed=True),
            )
            for one in shown
        ]
        print_table(("difference", "of", ""), table)


def _columns(results: Row) -> dict[str, dict[str, Row]]:
    """Heading -> metric -> value: of the arms where there are seeds, else of the checkpoints."""
    columns: dict[str, dict[str, Row]] = {}
    for one in results["arms"]:
        columns.setdefault(one["name"], {})[one["metric"]] = one
    if not columns:
        for checkpoint in results["checkpoints"]:
            label = checkpoint["label"]
            columns[label] = {
                row["name"]: row["checkpoints"][label]
                for row in results["metrics"]
                if label in row["checkpoints"]
            }
    return columns


def write_page(out: Path, results: Row) -> Path:
    """`out`/results.html."""
    media = {
        mode: {
            "pictures": [pages.embedded(out / name) for name in files["pictures"]],
            "videos": [_named(out, name) for name in files["videos"]],
            "sounds": [_named(out, name) for name in files["sounds"]],
        }
        for mode, files in results["media"].items()
    }
    text = pages.render(
        Path(__file__).with_name("page.html.j2"),
        {"show": show, "signed": lambda value, unit: show(value, unit, signed=True)},
        results=results,
        rows={row["name"]: row for row in results["metrics"]},
        codec_value=codec_value,
        verdict=verdict,
        fewer=fewer,
        features=_features(results),
        **_seeds(results),
        titles=TITLES,
        media=media,
        curve=_curve(results),
    )
    path = out / "results.html"
    write_file(path, text)
    return path


def _seeds(results: Row) -> dict[str, Any]:
    """The columns of the table over seeds: arms and pairs of arms, with all seeds of each."""
    arms: dict[str, set[int]] = {}
    pairs: dict[tuple[str, str], set[int]] = {}
    for one in results["arms"]:
        arms.setdefault(one["name"], set()).update(one["seeds"])
    for one in results["arm_differences"]:
        pairs.setdefault((one["a"], one["b"]), set()).update(one["seeds"])
    return {
        "pairs": list(pairs),
        "arm_seeds": {name: sorted(seeds) for name, seeds in arms.items()},
        "pair_seeds": {pair: sorted(seeds) for pair, seeds in pairs.items()},
    }


def _features(results: Row) -> dict[str, str]:
    """By modality whose features Fréchet distances compare, and in how many directions."""
    found = dict(results["settings"]["features"])
    for row in results["metrics"]:
        if row["name"] in FRECHET and row["true"]:
            found[FRECHET[row["name"]][1]] = row["true"]["features"]
    return found


def fewer(seeds: Sequence[int], every: Sequence[int]) -> str:
    """` (seeds 0, 2)` where a value is of fewer seeds than its column."""
    return "" if list(seeds) == list(every) else f" (seeds {', '.join(map(str, seeds))})"


def _named(out: Path, name: str) -> dict[str, Any]:
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return {"name": stem.replace("_", " "), "data": pages.embedded(out / name)}


def _curve(results: Row) -> str | None:
    """Metrics against step as a PNG in base64; None unless an arm has several steps."""
    lines: dict[tuple[str, int], list[Row]] = {}
    for one in results["checkpoints"]:
        lines.setdefault((one["name"], one["seed"]), []).append(one)
    if max(len(line) for line in lines.values()) < 2:
        return None
    return base64.b64encode(draw_curves(results["metrics"], lines)).decode()


def draw_curves(metrics: Sequence[Row], lines: Mapping[tuple[str, int], Sequence[Row]]) -> bytes:
    """A PNG: a panel for each metric, a line with its band for each run, true values dashed."""
    figure, panels = panel_grid(len(metrics), across=3)
    names = list(dict.fromkeys(name for name, _ in lines))
    for panel, row in zip(panels, metrics, strict=True):
        scale = 100 if row["unit"] == "%" else 1
        for (name, seed), line in lines.items():
            points = sorted(
                (one["step"], row["checkpoints"][one["label"]])
                for one in line
                if row["checkpoints"].get(one["label"], {}).get("value") is not None
            )
            if not points:
                continue
            steps, color = [step for step, _ in points], f"C{names.index(name)}"
            panel.plot(
                steps, [scale * value["value"] for _, value in points], "o-", color=color,
                markersize=3, linewidth=1.2, label=f"{name}, seed {seed}",
            )  # fmt: skip
            if all(value["low"] is not None for _, value in points):
                panel.fill_between(
                    steps, [scale * value["low"] for _, value in points],
                    [scale * value["high"] for _, value in points], color=color, alpha=0.12,
                    linewidth=0,
                )  # fmt: skip
        if row["true"] and row["true"]["value"] is not None:
            panel.axhline(scale * row["true"]["value"], color="gray", linestyle="--", linewidth=0.8)
        panel.set_title(row["title"] + (f", {row['unit']}" if row["unit"] else ""), fontsize=9)
        panel.set_xlabel("step")
        panel.grid(alpha=0.25)
    return to_png(figure, panels)
