"""Linear probes of the runs of benchmarks.claims: what their frozen features know, by layer.

The twins of a seed share codecs, so that they are probed with the same latents; the table has means
over seeds. A layer is chosen by one share of the samples and judged by another, as in
`python -m selfflow_wm.probe`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.commands.probe import main as probe
from selfflow_wm.evaluation.checkpoints import find_checkpoints
from selfflow_wm.evaluation.labelled import labelled_latents, modality_of, write_labelled
from selfflow_wm.evaluation.summary import over_seeds
from selfflow_wm.files import write_file
from selfflow_wm.probing.plot import draw
from selfflow_wm.probing.sources import LabelledLatents
from selfflow_wm.tables import print_table, with_interval
from selfflow_wm.training import checkpoint
from selfflow_wm.training.model_files import read_codecs

QUESTIONS = (("sign", "word"), ("figure", "limbs"), ("sound", "contour"))
"""Kind and label, one of each modality: the hardest of its kind."""
LEVELS = (0.0, 0.5)

Runs = Mapping[int, Mapping[str, Path]]
"""Training seed -> arm -> checkpoint."""


def probe_runs(out: Path, runs: Runs, samples: int) -> list[dict[str, Any]]:
    """Probe all arms of all seeds into `out`, or resume; rows of means over seeds. Questions of a
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
        write_file(out / f"{name}.png", draw(over_runs(tables)))
    checkpoint.write_json(out / "probes.json", summary)
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
    words = [word for arm, path in arms.items() for word in ("--checkpoint", f"{arm}={path}")]
    words += ["--data", str(file), "--out", str(out), "--modality", modality]
    if probe([*words, "--levels", ",".join(map(str, LEVELS))]):
        raise ValueError(f"{out}: expected probes, got none; see the error above")
    return checkpoint.read_json(out / "probe.json")["rows"]


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


def over_runs(tables: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of a plot of probes: accuracies are means over seeds, bands from the lowest seed to the
    highest."""
    groups: dict[tuple[str, float, int], list[Mapping[str, Any]]] = {}
    for row in (row for table in tables.values() for row in table):
        groups.setdefault((row["checkpoint"], row["level"], row["layer"]), []).append(row)
    rows = []
    for seeds in groups.values():
        found = [row["accuracy"] for row in seeds]
        mean = {"accuracy": sum(found) / len(found), "low": min(found), "high": max(found)}
        rows.append({**seeds[0], **mean})
    return rows


def show(summary: Sequence[Mapping[str, Any]]) -> None:
    """The table, with Student's intervals over seeds."""
    rows = []
    for row in summary:
        value = with_interval(row, "+.1%" if "minus" in row else ".1%")
        name = f"  minus {row['minus']}" if "minus" in row else row["arm"]
        chance = f"{row['chance']:.1%}" if "chance" in row else ""
        layers = ", ".join(map(str, row.get("layers", ())))
        rows.append((row["question"], f"{row['level']:g}", name, value, chance, layers))
    print_table(("probe", "t", "arm", "accuracy [95% over seeds]", "chance", "layers"), rows)
