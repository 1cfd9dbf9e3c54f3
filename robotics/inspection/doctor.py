"""The whole examination of a data set, and its files."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.rlds.faults import Faults
from robotics.data.rlds.raw import RawSource
from robotics.data.rlds.schema import Leaf
from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import TABLES, load_robot, shipped
from robotics.inspection import arms, asking, checks, contents, proposal, roles, structure, verdicts
from robotics.inspection.draft import Draft, Question, as_yaml
from robotics.inspection.examination import Examination
from robotics.inspection.findings import Finding
from robotics.inspection.fits import AGREES, CONTRADICTS, UNCLEAR, Verdict
from robotics.inspection.groups import Place
from robotics.inspection.players import Shown
from robotics.inspection.scan import Scan, Track, preview, sample_places, scan
from robotics.inspection.sources import open_source
from robotics.inspection.survey import Survey, joined, odd
from selfflow_wm.files import write_file, write_json
from selfflow_wm.progress import Progress

NOT_TRIED = ("template", "embedded", "google_robot", "widowx")
"""Shipped tables whose features are another's, or nobody's."""
KNOWN_AS = {"rt1": "fractal", "rt1_base": "fractal"}
"""Table -> what its data set is called."""
ROUNDS = 4
"""A correction may show what was hidden behind it: degrees in the state hide the action's."""


@dataclass(frozen=True)
class _Chosen:
    """The table an examination starts with."""

    draft: Draft
    origin: str
    stated: bool
    questions: tuple[Question, ...] = ()


def examine(
    directory: str | Path | RawSource,
    split: str = "train",
    spec: str | None = None,
    episodes: int = 300,
    progress: Progress | None = None,
) -> Examination:
    """Read a sample of a split and say what is in it.

    Args:
        directory: TFDS or LeRobot data set, or one that is open.
        split: split or slice of it.
        spec: name or path of a robot's table; None tries the shipped ones and then drafts one.
        episodes: most that are read, 0 for all.
        progress: bar to advance, its total set to the number of episodes to read.

    Raises:
        ValueError: no such data set or split, or a table that does not fit it.
    """
    source = open_source(directory, split) if isinstance(directory, str | Path) else directory
    faults = Faults("skip")
    places = sample_places(source, episodes, faults)
    seen = preview(source, places)
    look = structure.robust(seen, source)
    chosen = _choose(source, seen, look, spec)
    draft = chosen.draft.copy()
    survey = Survey(draft.robot(), Place(str(source.directory), split.partition("[")[0], spec))
    result = scan(source, places, faults, progress, survey.visit)
    single = survey.findings()
    # What is odd about some episodes must not spoil the fit of all.
    different = odd(single, len(result.tracks))
    tracks = [track for track in result.tracks if track.number not in different] or seen
    found, motions, grips = verdicts.verify(tracks, draft.robot())
    found += roles.verdicts(look, draft.robot(), found)
    first, robot = found, draft.robot()
    for _ in range(ROUNDS):
        before = draft.copy()
        if not draft.apply(found):
            break
        try:
            again, *_ = verdicts.verify(tracks, draft.robot())
        except ValueError:  # the corrections do not go together
            draft = before
            break
        new = [row for row in again if row.entries]
        first += [row for row in new if not _known(row, first)]
        found = new
    if not chosen.stated:
        roles.per_second(draft)
        roles.settle(verdicts.verify(tracks, draft.robot())[0], draft)
        robot = draft.robot()
        first, motions, grips = verdicts.verify(tracks, robot)
        first += roles.verdicts(look, robot)
        draft.questions += [*_questions(first), *arms.disguised(tracks, robot)]
        draft.questions += asking.copied(tracks, robot)
    draft.questions += list(chosen.questions)
    survey, single = _with_corrections(survey, single, chosen, draft, first, result)
    examination = Examination(
        source, robot, chosen.origin, chosen.stated, result, motions, grips, first,
        roles.dimensions(look, robot, first, draft), draft.questions, [], "",
    )  # fmt: skip
    findings = joined(checks.all_findings(examination), single)
    watched = survey.watch(findings)
    shown = Shown(
        watched, survey.typical([row.number for row in watched]),
        {place.number: place for place in places}, survey.marks(findings),
    )  # fmt: skip
    heading = (
        f"How to read {source.directory} ({source.split}), proposed by "
        f"python -m robotics.inspect from "
        f"{result.sampled} of {result.total} episodes,\nbeginning with: {chosen.origin}.\n"
        "configs/robot/template.yaml explains every entry."
    )
    return replace(
        examination, findings=findings, proposed=as_yaml(draft, heading), extra={"shown": shown}
    )


def _with_corrections(
    survey: Survey,
    single: list[Finding],
    chosen: _Chosen,
    draft: Draft,
    found: Sequence[Verdict],
    result: Scan,
) -> tuple[Survey, list[Finding]]:
    """What differs between episodes under the corrected table: read with a wrong unit, right
    episodes look odd."""
    if draft.robot() == chosen.draft.robot():
        return survey, single
    if len(result.tracks) == result.episodes:
        survey = survey.again(draft.robot(), result.tracks)
        return survey, survey.findings()
    wrong = {row.topic for row in found if row.answer == CONTRADICTS}
    return survey, [row for row in single if not wrong.intersection(row.details.get("parts", ()))]


def _known(row: Verdict, rows: Sequence[Verdict]) -> bool:
    return any(
        other.topic == row.topic and other.code == row.code and other.answer == CONTRADICTS
        for other in rows
    )


# ---------------------------------------------------------------- which table


def _choose(
    source: RawSource, tracks: Sequence[Track], look: structure.Look, spec: str | None
) -> _Chosen:
    if spec is not None:
        given = load_robot(spec)
        if problems := missing(given, source.stored):
            raise ValueError(f"{source.directory}: {problems[0]}")
        base = str(Path(spec).resolve()) if Path(spec).is_file() else spec
        return _Chosen(Draft({"extends": base}), f"the table {spec}", True)
    fitting = [name for name in shipped_names() if not missing(shipped(name), source.stored)]
    good = [name for name in fitting if _is_it(name, source, tracks, look)]
    good = _without_still(good, tracks)
    if good:
        best = min(good, key=lambda name: (len(name), name))
        questions = (_which(good),) if len(good) > 1 else ()
        words = f"the shipped table {best}, whose features the data set has"
        return _Chosen(Draft({"extends": best}), words, True, questions)
    draft = proposal.propose(tracks, source, look)
    words = "names, shapes and values; no shipped table fits"
    if fitting:
        words = f"names, shapes and values; its features are as in {fitting[0]}, its values not"
    return _Chosen(draft, words, False)


def _without_still(names: Sequence[str], tracks: Sequence[Track]) -> list[str]:
    """Without tables that read more than another one of them, and nothing that moves; and without
    those that leave out what moves and another one reads."""

    def moving(name: str) -> frozenset[str]:
        parts = (*shipped(name).state, *shipped(name).action)
        rows = {part.path: [track.values(part.path) for track in tracks] for part in parts}
        return frozenset(
            path for path, values in rows.items()
            if any(row is not None and np.ptp(row, axis=0).max(initial=0) > 1e-9 for row in values)
        )  # fmt: skip

    moved = {name: moving(name) for name in names}
    size = {name: len(shipped(name).state) + len(shipped(name).action) for name in names}
    return [
        name for name in names
        if not any(
            moved[other] > moved[name] or (moved[other] == moved[name] and size[other] < size[name])
            for other in names
        )
    ]  # fmt: skip


def shipped_names() -> list[str]:
    """Tables that are tried, those that read more columns first."""
    names = [file.stem for file in TABLES.glob("*.yaml") if file.stem not in NOT_TRIED]
    return sorted(names, key=lambda name: (-len(list(shipped(name).columns())), name))


def _is_it(name: str, source: RawSource, tracks: Sequence[Track], look: structure.Look) -> bool:
    """Whether a table whose features fit is this data set's: by name, or because the data agree."""
    title = source.name.lower()
    known = KNOWN_AS.get(name, name)
    if title and (title.startswith(known.split("_")[0]) or known in title):
        return True
    if not _called_alike(shipped(name), source):
        return False
    rows, motions, _ = verdicts.verify(tracks, shipped(name))
    rows += roles.verdicts(look, shipped(name))
    return bool(motions) and not any(row.answer == CONTRADICTS for row in rows)


def _called_alike(robot: Robot, source: RawSource) -> bool:
    """Whether the values that a table names have these names, where the data set names them."""
    for part in (*robot.state, *robot.action):
        place = column(part.path)
        names = source.names.get(place.key, ())
        if part.names and names:
            found = names[place.values] if place.values is not None else names
            if len(found) != part.width or not all(
                wanted.lower() in name.lower()
                for wanted, name in zip(part.names, found, strict=True)
            ):
                return False
    return True


def _which(names: Sequence[str]) -> Question:
    lines = []
    for name in names:
        robot = shipped(name)
        paths = dict.fromkeys(part.path.partition("[")[0] for part in robot.action)
        lines.append(f"spec={name}: the action is {', '.join(paths)}")
    text = (
        f"{len(names)} shipped tables read this data set; which action does your robot execute? "
        f"Taken here: {min(names, key=lambda name: (len(name), name))}."
    )
    return Question("action", text, tuple(lines),
                    "A policy returns the column that it was trained on.", "action")  # fmt: skip


def missing(robot: Robot, stored: Mapping[str, Leaf]) -> list[str]:
    """What a table names and a data set does not have, or has as something else."""
    problems = []
    for place, wanted in robot.columns():
        leaf = stored.get(wanted.key)
        if leaf is None:
            near = difflib.get_close_matches(wanted.key, stored, n=3, cutoff=0.3)
            problems.append(
                f"expected {wanted.key!r} for {place} of the table {robot.name}, got no such "
                f"feature; the nearest are {near or sorted(stored)[:8]}. State its path in the "
                "table, or leave --spec out to have one drafted."
            )
            continue
        text = leaf.kind == "bytes_list"
        named = place.startswith("cameras.") and not place.endswith(".present")
        named |= place.startswith("instruction") and robot.instruction.encoding == "utf-8"
        if not place.startswith("filters") and text != named:
            problems.append(
                f"expected {wanted.key!r} for {place} of the table {robot.name} as "
                f"{'bytes' if named else 'numbers'}, got {leaf.kind}; state another path."
            )
        elif wanted.values is not None and leaf.width and wanted.values.stop > leaf.width:
            problems.append(
                f"expected {wanted.key!r} of at least {wanted.values.stop} values for {place} of "
                f"the table {robot.name}, got {leaf.width}; correct the brackets."
            )
    for group in ("state", "action"):
        for part in getattr(robot, group):
            wanted = column(part.path)
            leaf = stored.get(wanted.key)
            if leaf is not None and wanted.values is None and leaf.width not in (None, part.width):
                problems.append(
                    f"expected {part.width} values of {wanted.key!r} for {group}.{part.name} of "
                    f"the table {robot.name}, got {leaf.width}; write brackets or width."
                )
    return problems


# ---------------------------------------------------------------- what a draft leaves open


def _questions(found: Sequence[Verdict]) -> list[Question]:
    """Conventions that a draft guessed and the data do not decide, where they matter."""
    questions: dict[tuple[str, str], Question] = {}
    decided = {(row.topic.partition(".")[2], row.code) for row in found if row.answer == AGREES}
    for row in found:
        name = row.topic.partition(".")[2]
        code = row.code.removeprefix("state_")
        if (
            code == "gripper.mode"
            and row.answer == UNCLEAR
            and row.numbers.partition(";")[0].count(",") == 2
        ):
            questions.setdefault((name, code), _pulses(row, name))
        if row.answer != UNCLEAR or not row.matters or code not in ("form", "frame", "mode"):
            continue
        if (name, row.code) in decided or (code == "form" and (name, "form") in decided and "quaternion" in row.stated):  # fmt: skip  # noqa: E501
            continue
        turns = code == "form" and any(
            other.answer == AGREES and other.topic == row.topic and "continuity" in other.question
            and other.stated.startswith("euler") for other in found
        )  # fmt: skip
        questions.setdefault((name, code), _asked(row, name, code, turns))
    return list(questions.values())


def _pulses(row: Verdict, name: str) -> Question:
    text = (
        f"{row.topic}: is 0 between open and closed, or does it keep what was commanded before? "
        f"No measured gripper tells ({row.numbers}); the draft has {row.stated}."
    )
    lines = tuple(f"action: {{{name}: {{mode: {mode}}}}}" for mode in ("absolute", "pulse"))
    why = "Held commands and switches are different things: the gripper would let go."
    return Question("gripper", text, lines, why, row.topic)


def _asked(row: Verdict, name: str, code: str, euler: bool) -> Question:
    quaternion = "quaternion" in row.stated
    choices = {
        "form": ("quaternion_xyzw", "quaternion_wxyz") if quaternion
        else ("euler_xyz", "euler_zyx", *(() if euler else ("axis_angle",))),
        "frame": ("base", "tool"),
        "mode": ("delta", "absolute"),
    }[code]  # fmt: skip
    what = {
        "form": "which order do its quaternions have"
        if quaternion
        else "which form do its rotations have",
        "frame": "about which axes are its changes",
        "mode": "are its values changes or targets",
    }[code]  # fmt: skip
    groups = ("action", "state") if code == "form" and quaternion else ("action",)
    lines = tuple(
        ", ".join(f"{group}: {{{name}: {{{code}: {choice}}}}}" for group in groups)
        for choice in choices
    )
    why = {
        "form": "Read in another form, targets and measured rotations differ by turns that the "
        "robot never made.",
        "frame": "Changes about other axes move elsewhere as soon as the tool is turned.",
        "mode": "Targets become changes from the measured state; changes do not.",
    }[code]
    text = f"{row.topic}: {what}? The data do not tell ({row.numbers}); the draft has {row.stated}."
    return Question(code, text, lines, why, row.topic)


# ---------------------------------------------------------------- files


def write(examined: Examination, out: Path) -> None:
    """Write index.html, proposed.yaml and inspection.json into `out`."""
    from robotics.inspection.page import render

    write_file(out / "index.html", render(examined))
    write_file(out / "proposed.yaml", examined.proposed)
    write_json(out / "inspection.json", summary(examined))


def summary(examined: Examination) -> dict[str, Any]:
    """The numbers as JSON values."""
    result = examined.result
    verdict = {0: "ok", 1: "wrong", 2: "undetermined"}[examined.exit_code]
    texts = contents.instruction_counts(result, examined.robot)
    shown = examined.extra.get("shown")
    watched = shown.watch if shown else ()
    return {
        "verdict": verdict,
        "headline": examined.headline,
        "directory": str(examined.directory),
        "split": examined.split,
        "table": examined.origin,
        "episodes": {"split": result.total, "sampled": result.sampled, "read": result.episodes},
        "steps": result.steps,
        "findings": [finding.to_dict() for finding in examined.findings],
        "questions": [
            {**vars(question), "lines": list(question.lines)} for question in examined.questions
        ],
        "dimensions": [vars(row) for row in examined.dimensions],
        "verdicts": [
            {**vars(row), "entries": [list(entry) for entry in row.entries]}
            for row in examined.verdicts
        ],
        "cameras": {
            key.removeprefix("steps/"): {
                "sizes": [[*size, count] for size, count in seen.sizes.items()],
                "frames": seen.seen, "black": seen.black, "one_colour": seen.flat,
            }
            for key, seen in result.cameras.items()
        },
        "faults": [vars(fault) for fault in result.faults.found],
        "instructions": dict(texts.most_common()),
        "watch": [
            {"episode": row.number, "score": round(row.score, 1), "reasons": list(row.reasons)}
            for row in watched
        ],
        "proposed": examined.proposed,
    }  # fmt: skip
