"""What every value of the recorded vectors is, and whether the table says the same."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robotics.embodiment.columns import column
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.inspection import naming, pieces
from robotics.inspection.draft import Draft
from robotics.inspection.examination import Dimension
from robotics.inspection.fits import AGREES, CONTRADICTS, UNCLEAR, Verdict
from robotics.inspection.pieces import CERTAIN, OPEN, Piece
from robotics.inspection.scan import taken
from robotics.inspection.structure import Look

KINDS = ("position", "rotation", "joints", "gripper", "base")


def _at(look: Look, part: Part) -> list[Piece]:
    """Pieces that share values with a part, what the motion decided first."""
    decided = [
        piece
        for choice in look.choices
        for role in choice.roles
        for piece in (role.piece, *([] if role.of is None else [role.of.piece]))
    ]
    place = column(part.path)
    span = set(taken(place, part.width))
    return [
        piece
        for piece in itertools.chain(decided, *look.pieces.values())
        if piece.key == place.key and span & set(range(piece.first, piece.last, piece.stride))
    ]


def verdicts(look: Look, robot: Robot, tested: Sequence[Verdict] = ()) -> list[Verdict]:
    """Whether parts are of the kind that the table says: joints are no pose.

    tested: what the motion says of the table; where it agrees, a name alone is no contradiction.
    """
    rows = []
    for group in ("state", "action"):
        for part in getattr(robot, group):
            if part.kind in KINDS and (row := _kind(look, group, part)) is not None:
                named = row.answer == CONTRADICTS and row.code == "kind.name"
                if named and not _moves_so(robot, group, part, tested):
                    row = replace(row, code="kind")
                elif named:
                    row = replace(row, answer=UNCLEAR)
                rows.append(row)
    return rows


def _kind(look: Look, group: str, part: Part) -> Verdict | None:
    place = f"{group}.{part.name}"
    question = "what the values are"
    pose = ("position", "rotation")
    for piece in _at(look, part):
        if piece.kind not in KINDS and piece.kind != "arm":
            continue
        sure = piece.sure != OPEN
        unlike = piece.kind != part.kind
        if sure and unlike and "joints" in (piece.kind, part.kind) and piece.sure == CERTAIN:
            says = f"{piece.path}: {piece.kind}; {piece.why}"
            # Nothing but names makes joints of values for certain.
            named = piece.kind == "joints" or piece.why.startswith(pieces.BY_NAME)
            code = "kind.name" if named else "kind"
            return Verdict(place, question, CONTRADICTS, part.kind, piece.kind, says, code)
        if sure and piece.kind == part.kind:
            return Verdict(place, question, AGREES, part.kind, part.kind, piece.why, "kind")
        if not sure and part.kind in (*pose, "joints"):
            return Verdict(place, question, UNCLEAR, part.kind, part.kind, piece.why, "kind")
    return None


def _moves_so(robot: Robot, group: str, part: Part, tested: Sequence[Verdict]) -> bool:
    """Whether the measured motion agrees with a part of the table and nothing contradicts it."""
    commands = [part] if group == "action" else [
        row for row in robot.action if robot.commanded(row) == part
    ]  # fmt: skip
    topics = {f"{group}.{part.name}", *(f"action.{row.name}" for row in commands)}
    rows = [row for row in tested if row.topic in topics]
    agrees = any(row.answer == AGREES and row.code == "mode" for row in rows)
    return agrees and not any(row.answer == CONTRADICTS for row in rows)


def settle(tested: Sequence[Verdict], draft: Draft) -> None:
    """Give commanded turns that are too small to show their form that of the measured rotation, and
    say so: either reads the same."""
    for row in tested:
        group, _, name = row.topic.partition(".")
        if group != "action" or row.code != "form" or row.answer != UNCLEAR or row.matters:
            continue
        measured = (draft.content.get("state") or {}).get(name, {}).get("form")
        if measured in ("euler_xyz", "axis_angle"):
            draft.set(f"{row.topic}.form", measured)
        form = draft.content["action"][name]["form"]
        why = f"{form} or another form: the turns are too small to tell, and read the same"
        draft.notes[f"{row.topic}.form"] = (OPEN, why)


def per_second(draft: Draft) -> None:
    """Call changes whose 1 is the motion of one step at 1 a second what they are: velocities."""
    if draft.notes.get("rate", (OPEN, ""))[0] == OPEN:
        return  # the rate itself is a guess
    rate = draft.content["rate"]
    parts = [row for row in draft.robot().action if row.mode == "delta" and row.kind != "gripper"]
    # All of them: a position normalised by 0.05 m at 20 Hz is one by chance.
    if any(np.any(np.abs(np.ravel(part.scale) * rate - 1) > 0.02) for part in parts):
        return
    why = f"1 is the motion of a step at 1 a second, {rate:g} steps a second"
    for part in parts:
        row = draft.content["action"][part.name]
        row.pop("scale", None)
        row["mode"] = "velocity"
        draft.notes[f"action.{part.name}.mode"] = ("likely", why)
        draft.notes.pop(f"action.{part.name}.scale", None)


# ---------------------------------------------------------------- every value


def dimensions(
    look: Look, robot: Robot, tested: Sequence[Verdict], draft: Draft
) -> list[Dimension]:
    """Every value of every numeric column, and what it is."""
    rows, covered = [], {}
    open_places = {question.place for question in draft.questions}
    for group in ("state", "action"):
        for part in getattr(robot, group):
            place = f"{group}.{part.name}"
            where = column(part.path)
            covered.setdefault(where.key, set()).update(taken(where, part.width))
            rows.append(Dimension(part.path, f"{place}: {describe(part)}", *_sure(
                place, tested, draft, open_places)))  # fmt: skip
    for piece in itertools.chain(*look.pieces.values()):
        left = set(range(piece.first, piece.last, piece.stride)) - covered.get(piece.key, set())
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
        ends = [np.ravel(end).tolist() for end in (part.open, part.closed)]
        ends = [end[0] if len(end) == 1 else end for end in ends]
        words.append(f"open {ends[0]}, closed {ends[1]}")
        words += ["continuous"] if part.continuous else []
    elif part.unit and part.unit != "none":
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
    if (form := draft.notes.get(f"{place}.form")) and form[0] == OPEN:
        return "likely", f"{form[1]}; {why}"
    if sure:
        return sure, why + (f"; agrees: {tests}" if tests else "")
    return ("certain", f"agrees: {tests}") if agreed else ("stated", "the data cannot tell")
