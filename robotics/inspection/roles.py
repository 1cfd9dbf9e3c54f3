"""What every value of the recorded vectors is, and whether the table says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robotics.data.rlds.raw import RawSource
from robotics.embodiment.columns import column
from robotics.embodiment.robot import Part, Robot
from robotics.inspection import naming, pieces, structure
from robotics.inspection.draft import Draft
from robotics.inspection.examination import Dimension
from robotics.inspection.fits import AGREES, CONTRADICTS, UNCLEAR, Verdict
from robotics.inspection.pieces import CERTAIN, OPEN, Piece
from robotics.inspection.scan import Track

KINDS = ("position", "rotation", "joints", "gripper", "base")


@dataclass(frozen=True)
class Known:
    """What names, values and motion say of the columns, without any table."""

    pieces: list[Piece]
    """Of every column of steps."""
    decided: list[Piece]
    """Those about which the motion decided something, or left it open."""


def known(tracks: Sequence[Track], source: RawSource) -> Known:
    """Look at every column of steps."""
    first = tracks[0].numbers if tracks else {}
    widths = {key: rows.shape[1] for key, rows in first.items() if key.startswith("steps/")}
    found = pieces.by_key(tracks, widths, source.names)
    state = structure.measured(found)
    decided: list[Piece] = []
    for name, rows in structure.alternatives(found):
        for role in structure.choose(tracks, name, rows, state).roles:
            decided.append(role.piece)
            if role.of is not None:
                decided.append(role.of.piece)
    return Known([piece for rows in found.values() for piece in rows], decided)


def _at(found: Known, part: Part) -> list[Piece]:
    """Pieces that share values with a part, what the motion decided first."""
    place = column(part.path)
    first = place.values.start if place.values else 0
    last = place.values.stop if place.values else first + part.width
    return [
        piece
        for piece in (*found.decided, *found.pieces)
        if piece.key == place.key and piece.first < last and first < piece.last
    ]


def verdicts(found: Known, robot: Robot) -> list[Verdict]:
    """Whether parts are of the kind that the table says: joints are no pose."""
    rows = []
    for group in ("state", "action"):
        for part in getattr(robot, group):
            if part.kind in KINDS and (row := _kind(found, group, part)) is not None:
                rows.append(row)
    return rows


def _kind(found: Known, group: str, part: Part) -> Verdict | None:
    place = f"{group}.{part.name}"
    question = "what the values are"
    pose = ("position", "rotation")
    for piece in _at(found, part):
        if piece.kind not in KINDS and piece.kind != "arm":
            continue
        sure = piece.sure != OPEN
        unlike = piece.kind != part.kind
        if sure and unlike and "joints" in (piece.kind, part.kind) and piece.sure == CERTAIN:
            says = f"{piece.path}: {piece.kind}; {piece.why}"
            return Verdict(place, question, CONTRADICTS, part.kind, piece.kind, says, "kind")
        if sure and piece.kind == part.kind:
            return Verdict(place, question, AGREES, part.kind, part.kind, piece.why, "kind")
        if not sure and part.kind in (*pose, "joints"):
            return Verdict(place, question, UNCLEAR, part.kind, part.kind, piece.why, "kind")
    return None


# ---------------------------------------------------------------- every value


def dimensions(
    found: Known, robot: Robot, tested: Sequence[Verdict], draft: Draft
) -> list[Dimension]:
    """Every value of every numeric column, and what it is."""
    rows, covered = [], {}
    open_places = {question.place for question in draft.questions}
    for group in ("state", "action"):
        for part in getattr(robot, group):
            place = f"{group}.{part.name}"
            where = column(part.path)
            covered.setdefault(where.key, set()).update(
                range(where.values.start, where.values.stop) if where.values else range(part.width)
            )
            rows.append(Dimension(part.path, f"{place}: {describe(part)}", *_sure(
                place, tested, draft, open_places)))  # fmt: skip
    for piece in found.pieces:
        left = set(range(piece.first, piece.last)) - covered.get(piece.key, set())
        if not left or naming.kind(piece.key) in ("flag", "time") or piece.kind == "terminate":
            continue
        path = pieces.path(piece.key, min(left), max(left) + 1, piece.width)
        what = {"arm": "six values, joints or a pose", "unused": naming.kind(piece.key) or "values",
                "dead": "constant"}.get(piece.kind, piece.kind)  # fmt: skip
        rows.append(Dimension(path, f"not read: {what}", piece.sure, piece.why))
    return rows


def describe(part: Part) -> str:
    """A part in words."""
    words = [part.kind if part.kind != "rotation" else f"rotation {part.form}"]
    words += [part.mode] if part.mode else []
    scale = np.ravel(part.scale)
    if part.kind == "gripper":
        words.append(f"open {part.open:g}, closed {part.closed:g}" if part.width == 1
                     else f"open {list(np.ravel(part.open))}, closed {list(np.ravel(part.closed))}")  # fmt: skip
        words += ["continuous"] if part.continuous else []
    elif part.unit != "none":
        one = len(set(scale.tolist())) == 1
        words.append(part.unit if one and scale[0] == 1 else
                     f"1 is {scale[0]:g} {part.unit}" if one else
                     f"1 is {scale.tolist()} {part.unit}")  # fmt: skip
    if part.mode in ("delta", "velocity") and part.kind in ("position", "rotation"):
        words.append(f"{part.frame} frame")
    return ", ".join(word for word in words if word)


def _sure(
    place: str, tested: Sequence[Verdict], draft: Draft, open_places: set[str]
) -> tuple[str, str]:
    rows = [row for row in tested if row.topic == place]
    wrong = [row for row in rows if row.answer == CONTRADICTS]
    agreed = [row.question for row in rows if row.answer == AGREES]
    sure, why = draft.notes.get(place, ("", ""))
    tests = "; ".join(agreed)
    if wrong:
        return "contradicted", "; ".join(f"{row.question}: {row.found}" for row in wrong)
    if place in open_places or sure == OPEN:
        return OPEN, why or "see the questions"
    if sure:
        return sure, why + (f"; agrees: {tests}" if tests else "")
    return ("certain", f"agrees: {tests}") if agreed else ("stated", "the data cannot tell")
