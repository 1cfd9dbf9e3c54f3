"""Six commanded values without a name: joints, or a position and three angles of the tool?

A pose only where their turns add up as rotations do and not value by value, where a rotation vector
turns into its opposite, or where names of what they move say so; else the question is left open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robotics.embodiment.parts import Part
from robotics.inspection import evidence, motion, turns
from robotics.inspection.choices import (
    TURN,
    Choice,
    Role,
    guessed_mode,
    named_mode,
    part_of,
    split_arm,
)
from robotics.inspection.fits import AGREES, CONTRADICTS, EXPLAINS, answer
from robotics.inspection.pieces import CERTAIN, LIKELY, OPEN, Piece
from robotics.inspection.scan import Track


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
