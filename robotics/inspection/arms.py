"""Six commanded values without a name: joints, or a position and three angles of the tool?

A pose only where their turns add up as rotations do and not value by value, where a rotation vector
turns into its opposite, or where names of what they move say so; else the question is left open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robotics.embodiment.columns import column
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.inspection import asking, evidence, motion, pieces, turns
from robotics.inspection.choices import (
    TURN,
    Choice,
    Role,
    guessed_mode,
    named_mode,
    part_of,
    split_arm,
)
from robotics.inspection.draft import Question
from robotics.inspection.fits import AGREES, CONTRADICTS, EXPLAINS, answer
from robotics.inspection.pieces import CERTAIN, LIKELY, OPEN, Piece
from robotics.inspection.scan import Track
from robotics.inspection.verdicts import REACH


def arm(tracks: Sequence[Track], piece: Piece, state: list[Piece], choice: Choice) -> list[Role]:
    pose = _as_pose(tracks, piece, state)
    joints = _as_joints(tracks, piece, state)
    if pose is not None and (joints is None or _prefers_pose(pose, joints)):
        return pose[:2]
    if joints is not None:
        if joints.piece.sure == OPEN:
            choice.questions.append("arm")
        return [replace(joints, mode=named_mode(piece, joints.mode))]
    choice.questions += ["arm", "mode"]
    return [Role(replace(piece, kind="joints"), named_mode(piece, guessed_mode(tracks, piece)))]


def _prefers_pose(pose: list[Role], joints: Role) -> bool:
    """Whether a proven pose is also the better explanation, or the joints are unproven."""
    if pose[0].piece.sure == CERTAIN and joints.piece.sure == CERTAIN:
        return min(role.explained for role in pose[:2]) > joints.explained + 0.05
    return pose[0].piece.sure == CERTAIN


def _as_joints(tracks: Sequence[Track], piece: Piece, state: list[Piece]) -> Role | None:
    best: Role | None = None
    for row in state:
        if row.kind not in ("joints", "arm"):
            continue
        sure = row.sure if row.kind == "joints" else OPEN
        cut = replace(row, last=row.first + piece.size, kind="joints")
        if row.size < piece.size or (row.kind == "arm" and row.size != piece.size):
            continue
        taken = replace(piece, kind="joints", sure=sure, why=f"moves {cut.path} value by value")
        evidence = motion.components(
            tracks, part_of(taken, "command", "delta"), part_of(cut, "measured")
        )
        if evidence is None or evidence.best.explained < EXPLAINS:
            continue
        role = Role(taken, evidence.best.reading.mode, Role(cut), evidence.best.explained)
        better = best is None or role.explained > best.explained + 1e-3
        best = role if better else best
    return best


def _as_pose(tracks: Sequence[Track], piece: Piece, state: list[Piece]) -> list[Role] | None:
    """Six commanded values as a position and a rotation; None where nothing moves like that."""
    found: list[Role] | None = None
    for where, turn in _poses(state):
        move, rotate = split_arm(piece, f"moves {where.path}", LIKELY)
        shift = _shift(tracks, move, where, turn)
        turned = turns.rotation(
            tracks, _angles(tracks, rotate, "delta"), _angles(tracks, turn, None)
        )
        if shift is None or shift.best.explained < EXPLAINS or turned is None:
            continue
        sure, why = _proof(tracks, where, turn, turned)
        rows = [
            Role(replace(move, sure=sure, why=why), named_mode(piece, shift.best.reading.mode),
                 Role(replace(where, sure=sure, why=why)), shift.best.explained),
            Role(replace(rotate, sure=sure, why=why), named_mode(piece, turned.best.reading.mode),
                 Role(replace(turn, sure=sure, why=why)), turned.best.explained),
        ]  # fmt: skip
        better = found is None or rows[0].explained > found[0].explained + 1e-3
        if better and sure != OPEN:
            found = rows
    return found


def disguised(tracks: Sequence[Track], robot: Robot) -> list[Question]:
    """Joints by their names that are like a pose: three values within an arm's reach, and a
    quaternion of length 1 or three angles that add up as a rotation's do."""
    found = []
    for part in robot.action:
        state = robot.commanded(part)
        if part.kind != "joints" or state is None or state.width not in (6, 7):
            continue
        piece, row = _piece(part), _piece(state)
        rows = [values for track in tracks if (values := track.values(state.path)) is not None]
        values = np.concatenate(rows) if rows else np.zeros((0, state.width))
        values = values[np.isfinite(values).all(1)]
        if not len(values) or np.quantile(np.linalg.norm(values[:, :3], axis=1), 0.99) > REACH:
            continue
        if state.width == 7 and pieces.rotation_form(values, 3, 7):
            why = "three values within an arm's reach and four of length 1 in every step"
        elif (state.width, part.width) == (6, 6) and (
            pose := _as_pose(tracks, piece, [replace(row, kind="arm", sure=OPEN)])
        ):
            why = pose[0].piece.why
        else:
            continue
        found.append(asking.disguised(part.name, piece, str(part.mode), why))
    return found


def _piece(part: Part) -> Piece:
    """A part of a table as a piece of its column."""
    place = column(part.path)
    first = 0 if place.values is None else place.values.start
    last = first + part.width
    width = last if place.values is None else last + 1  # brackets as in the table
    return Piece(place.key, first, last, width, "joints")


def _angles(tracks: Sequence[Track], piece: Piece, mode: str | None) -> Part:
    """A rotation as a part, in degrees where its angles go beyond a turn."""
    part = part_of(replace(piece, kind="rotation"), "rotation", mode)
    rows = [row for track in tracks if (row := track.values(piece.path)) is not None]
    largest = max((float(np.nanmax(np.abs(row), initial=0)) for row in rows), default=0.0)
    return replace(part, unit="deg") if piece.size == 3 and largest > TURN else part


def _shift(
    tracks: Sequence[Track], move: Piece, where: Piece, turn: Piece
) -> evidence.Motion | None:
    """How a commanded position moves the measured one, in the frame that explains more; of the
    tool's frame in any order of the quaternion."""
    rows = [
        motion.translation(
            tracks, part_of(move, "command", "delta"), part_of(where, "measured"),
            part_of(replace(turn, form=form), "turn"),
        )
        for form in turns.forms(turn.size, few=True) or [turn.form]
    ]  # fmt: skip
    return max((row for row in rows if row), key=lambda row: row.best.explained, default=None)


def _poses(state: list[Piece]) -> list[tuple[Piece, Piece]]:
    """Measured positions with the rotation behind each."""
    rows = [split_arm(row, row.why, OPEN) for row in state if row.kind == "arm"]
    for place in state:
        if place.kind == "position" and place.size == 3:
            rows += [
                (place, turn)
                for turn in state
                if turn.kind == "rotation"
                and (turn.key != place.key or turn.first == place.last or turn.size == 16)
            ]
    return rows


def _proof(
    tracks: Sequence[Track], where: Piece, turn: Piece, turned: evidence.Motion
) -> tuple[str, str]:
    """How sure it is that these measured values are a pose, and why."""
    if turn.kind == "rotation" and turn.sure == CERTAIN and where.sure == CERTAIN:
        return CERTAIN, turn.why
    if why := flips(tracks, turn):
        return CERTAIN, why
    group = [fit for fit in turned.fits if fit.reading.measured != turns.COMPONENTS]
    single = [fit for fit in turned.fits if fit.reading.measured == turns.COMPONENTS]
    if not group or not single or turned.best.reading.mode == "absolute":
        return OPEN, "targets and measurements agree whether they are joints or a pose"
    one, other = (max(fits, key=lambda fit: fit.explained) for fits in (group, single))
    numbers = (
        f"as rotations the commands explain {one.explained:.1%} of the turns, value by value "
        f"{other.explained:.1%}"
    )
    says = answer(one, other)
    if says == AGREES:
        return CERTAIN, "its turns add up as rotations: " + numbers
    return OPEN, ("it moves value by value: " if says == CONTRADICTS else "") + numbers


def flips(tracks: Sequence[Track], turn: Piece) -> str:
    """Why three values are an axis times an angle: at pi it turns into its opposite, which joints
    and other angles never do; "" where it does not."""
    count, longest = 0, 0.0
    for track in tracks:
        rows = track.values(turn.path)
        if rows is None or len(rows) < 2:
            continue
        sizes = np.linalg.norm(rows, axis=1)
        longest = max(longest, float(sizes.max()))
        against = (rows[1:] * rows[:-1]).sum(1) < -0.9 * sizes[1:] * sizes[:-1]
        count += int((against & (sizes[1:] > 2.6) & (sizes[:-1] > 2.6)).sum())
    if count and longest < np.pi + 0.01:
        return f"a rotation vector that turns into its opposite at pi, {count} times"
    return ""
