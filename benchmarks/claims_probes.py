"""Linear probes of the runs of benchmarks.claims: what their frozen features know, by layer.

The twins of a seed share codecs, so that they are probed with the same latents; the table has means
over seeds. A layer is chosen by one share of the samples and judged by another, as in
`python -m selfflow_wm.probe`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.checkpoints import fingerprint
from selfflow_wm.evaluation.checkpoints import find_checkpoints
from selfflow_wm.evaluation.labelled import labelled_latents, modality_of, write_labelled
from selfflow_wm.evaluation.summary import over_seeds
from selfflow_wm.files import atomic_file
from selfflow_wm.panels import panel_grid, to_png
from selfflow_wm.probing.classifier import PENALTIES
from selfflow_wm.probing.core import probe_checkpoints
from selfflow_wm.probing.plot import dress
from selfflow_wm.probing.sources import LabelledLatents, check_codec, load_model
from selfflow_wm.probing.table import Table
from selfflow_wm.training import checkpoint
from selfflow_wm.training.model_files import read_codecs

QUESTIONS = (("sign", "word"), ("figure", "limbs"), ("sound", "contour"))
"""Kind and label, one of each modality: the hardest of its kind."""
LEVELS = (0.0, 0.5)

Runs = Mapping[int, Mapping[str, Path]]
"""Training seed -> arm -> checkpoint."""


def probe_runs(out: Path, runs: Runs, samples: int) -> list[dict[str, Any]]:
    """Probe all arms of all seeds, or go on, into `out`; rows of means over seeds. Questions of a
    modality that the models lack are left out.

    Writes out/KIND-LABEL/seed_S/ (probe.json, probe.png), out/KIND-LABEL.png (accuracy by layer,
    means over seeds) and out/probes.json.
    """
    summary = []
    [entry] = find_checkpoints([str(next(iter(next(iter(runs.values())).values())))])
    for kind, label in QUESTIONS:
        if modality_of(kind) not in entry.modes:
            continue
        name = f"{kind}-{label}"
        tables = {
            seed: _table(out / name / f"seed_{seed}", arms, (kind, label), samples)
            for seed, arms in runs.items()
        }
        summary += [{"question": name} | row for row in summarise(tables)]
        with atomic_file(out / f"{name}.png") as temporary:
            temporary.write_bytes(draw(tables))
    with atomic_file(out / "probes.json") as temporary:
        checkpoint.write_json(temporary, summary)
    return summary


def _table(
    out: Path, arms: Mapping[str, Path], question: tuple[str, str], samples: int
) -> list[dict[str, Any]]:
    file, modality = out / "latents.safetensors", modality_of(question[0])
    [entry] = find_checkpoints([str(next(iter(arms.values())))])
    codec = read_codecs(entry.path, [modality])[modality].hash()
    data = LabelledLatents(file, modality) if file.is_file() else None
    if data is None or len(data) != samples or data.codec not in (None, codec):
        write_labelled(file, labelled_latents(entry, *question, samples))
        data = LabelledLatents(file, modality)
    for path in arms.values():
        check_codec(path, data)
    settings = {
        "data_sha256": data.sha256, "limit": None, "modality": modality, "pool": "mean", "seed": 0,
        "penalties": PENALTIES,
    }  # fmt: skip
    table = Table(out, settings)
    probe_checkpoints(
        dict(arms), data, table, load=load_model,
        fingerprint=fingerprint, levels=LEVELS, modality=modality, pool="mean", seed=0,
    )  # fmt: skip
    table.write_plot()
    return table.rows


def summarise(tables: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Of each arm and noise level the best layer's accuracy, mean over seeds with an interval, and
    the differences to every arm before it over the seeds of both.

    tables: by training seed, rows of `probing.core.Row` with `checkpoint`, the arm.
    """
    some = next(iter(tables.values()))
    arms = list(dict.fromkeys(row["checkpoint"] for row in some))
    rows = []
    for level in sorted({row["level"] for row in some}):
        best = {arm: {s: _best(t, arm, level) for s, t in tables.items()} for arm in arms}
        for number, arm in enumerate(arms):
            found = best[arm]
            row = {"level": level, "arm": arm, "chance": max(r["chance"] for r in found.values())}
            row |= over_seeds([r["accuracy"] for r in found.values()])
            rows.append(row | {"layers": [r["layer"] for r in found.values()]})
            for other in arms[:number]:
                steps = [found[s]["accuracy"] - best[other][s]["accuracy"] for s in tables]
                rows.append({"level": level, "arm": arm, "minus": other} | over_seeds(steps))
    return rows


def _best(table: Sequence[Mapping[str, Any]], arm: str, level: float) -> Mapping[str, Any]:
    here = [row for row in table if (row["checkpoint"], row["level"]) == (arm, level)]
    return max(here, key=lambda row: row["choose_accuracy"])


def draw(tables: Mapping[int, Sequence[Mapping[str, Any]]]) -> bytes:
    """A PNG: accuracy by layer, a panel per noise level, a line per arm, a thin one per seed."""
    rows = [dict(row) | {"seed": seed} for seed, table in tables.items() for row in table]
    levels = sorted({row["level"] for row in rows})
    arms = list(dict.fromkeys(row["checkpoint"] for row in rows))
    figure, panels = panel_grid(len(levels), sharey=True)
    for panel, level in zip(panels, levels, strict=True):
        here = [row for row in rows if row["level"] == level]
        layers = sorted({row["layer"] for row in here})
        for color, arm in enumerate(arms):
            lines = [
                [r["accuracy"] for n in layers for r in here
                 if (r["seed"], r["checkpoint"], r["layer"]) == (seed, arm, n)]
                for seed in tables
            ]  # fmt: skip
            for line in lines:
                panel.plot(layers, line, f"C{color}", alpha=0.3, linewidth=0.8)
            mean = [sum(column) / len(lines) for column in zip(*lines, strict=True)]
            panel.plot(layers, mean, f"C{color}o-", label=arm, markersize=3)
        dress(panel, level, here[0]["chance"])
    panels[0].set_ylabel("accuracy")
    return to_png(figure, panels)


def show(summary: Sequence[Mapping[str, Any]]) -> None:
    """The table, with Student's intervals over seeds."""
    from rich.console import Console
    from rich.table import Table as RichTable

    shown = RichTable("probe", "t", "arm", "accuracy [95% over seeds]", "chance", "layers")
    for row in summary:
        sign = "+" if "minus" in row else ""
        value = f"{row['value']:{sign}.1%}"
        if row["low"] is not None:
            value += f" [{row['low']:{sign}.1%}, {row['high']:{sign}.1%}]"
        name = f"  minus {row['minus']}" if "minus" in row else row["arm"]
        chance = f"{row['chance']:.1%}" if "chance" in row else ""
        layers = ", ".join(map(str, row.get("layers", ())))
        shown.add_row(row["question"], f"{row['level']:g}", name, value, chance, layers)
    Console().print(shown)
