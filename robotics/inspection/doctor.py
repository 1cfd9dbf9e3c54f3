"""The whole examination of a data set, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robotics.data.rlds.convert import check_features
from robotics.data.rlds.faults import Faults
from robotics.data.rlds.raw import RawFormat, raw_format
from robotics.data.rlds.schema import Leaf
from robotics.data.rlds.spec import DatasetSpec, load_spec
from robotics.inspection import checks, gripper, motion, proposal
from robotics.inspection.draft import Proposal, as_yaml, corrected
from robotics.inspection.examination import Examination
from robotics.inspection.findings import Finding, worst_first
from robotics.inspection.scan import preview, sample_places, scan
from selfflow_wm.files import write_file, write_json
from selfflow_wm.progress import Progress

KNOWN = ("rt1", "bridge")
"""Shipped specifications that are tried, in this order, before one is guessed."""


def examine(
    directory: str | Path,
    split: str = "train",
    spec: str | None = None,
    episodes: int = 300,
    progress: Progress | None = None,
) -> Examination:
    """Read a sample of a split and say what is in it.

    Args:
        directory: TFDS data set directory.
        split: split or slice of it.
        spec: name or path of a specification; None tries the shipped ones and then guesses.
        episodes: most that are read, 0 for all.
        progress: bar to advance, its total set to the number of episodes to read.

    Raises:
        ValueError: no such data set or split, or a specification that does not fit it.
    """
    data = raw_format(directory, split)
    faults = Faults("skip")
    places, total = sample_places(data, episodes, faults)
    chosen, origin, draft = _choose(directory, data, places, spec)
    result = scan(data, places, total, chosen, faults, progress)
    compared = (motion.translation(result.tracks, chosen), motion.rotation(result.tracks, chosen))
    motions = [row for row in compared if row is not None]
    verdicts = [row for one in motions for row in motion.verdicts(one)]
    grip = gripper.evidence(result.tracks, chosen)
    if grip is not None:
        verdicts.append(gripper.verdict(grip))
    findings = checks.all_findings(result, chosen, motions, grip, verdicts)
    if draft is None:
        base = spec if spec is None or not Path(spec).is_file() else str(Path(spec).resolve())
        content = {"extends": base or chosen.name}
        draft = corrected(chosen.name, content, verdicts, grip)
    else:
        findings.append(_guessed(draft))
        draft = corrected(chosen.name, draft.content, verdicts, grip).over(draft)
    heading = (
        f"How to read {directory} ({split}), proposed by python -m robotics.inspect from "
        f"{result.sampled} of {total} episodes,\nbeginning with: {origin}.\n"
        "configs/robot/template.yaml explains every entry."
    )
    text = as_yaml(draft, heading)
    return Examination(
        directory, split, data, chosen, origin, result, motions, grip, verdicts,
        worst_first(findings), text,
    )  # fmt: skip


def _choose(
    directory: str | Path, data: RawFormat, places: list[Any], spec: str | None
) -> tuple[DatasetSpec, str, Proposal | None]:
    if spec is not None:
        given = load_spec(spec)
        check_features(given, data.stored, str(directory))
        return given, f"the specification {spec}", None
    for name in KNOWN:
        if _fits(name, data.stored):
            words = f"the shipped specification {name}, whose features the data set has"
            return load_spec(name), words, None
    draft = proposal.guess(preview(data, places), data.stored)
    return load_spec(draft.content), "guesses from names, shapes and values", draft


def _fits(name: str, stored: Mapping[str, Leaf]) -> bool:
    try:
        check_features(load_spec(name), stored, name)
    except ValueError:
        return False
    return True


def _guessed(draft: Proposal) -> Finding:
    notes = [f"{name}: {note}" for name, note in draft.notes.items() if note]
    text = "no specification fits, so one was guessed. " + "; ".join(notes) + "."
    remedy = "Read proposed.yaml, correct it, and run this again with --spec proposed.yaml."
    return Finding("warning", "specification", text, remedy)


def write(examined: Examination, out: Path) -> None:
    """Write index.html, proposed.yaml and inspection.json into `out`."""
    from robotics.inspection.page import render

    write_file(out / "index.html", render(examined))
    write_file(out / "proposed.yaml", examined.proposed)
    write_json(out / "inspection.json", summary(examined))


def summary(examined: Examination) -> dict[str, Any]:
    """The numbers as JSON values."""
    result = examined.result
    statistics = {
        name: values.result().to_dict()
        for name, values in result.statistics.items()
        if values.count
    }
    return {
        "directory": str(examined.directory),
        "split": examined.split,
        "specification": examined.origin,
        "episodes": {"split": result.total, "sampled": result.sampled, "read": result.episodes},
        "steps": result.steps,
        "findings": [finding.to_dict() for finding in examined.findings],
        "verdicts": [vars(verdict) for verdict in examined.verdicts],
        "faults": [vars(fault) for fault in result.faults.found],
        "instructions": dict(result.texts.episodes.most_common()),
        "statistics": statistics,
        "no_ops": result.still,
    }
