"""What a draft asks: things that the data do not decide, each with its answers as lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.inspection import naming
from robotics.inspection.choices import Choice, Role
from robotics.inspection.draft import Question
from robotics.inspection.pieces import OPEN, Piece
from robotics.inspection.scan import Track
from robotics.inspection.structure import Look


def which(choices: Sequence[Choice]) -> Question:
    """Which of several columns is the action."""
    lines = []
    for choice in choices:
        kinds = ", ".join(
            f"{role.mode} {'six values' if role.kind == 'arm' else role.kind}".strip()
            for role in choice.roles
        )
        lines.append(f"{choice.name}: {kinds}; explains {choice.explained:.0%} of the motion")
    text = (
        f"{len(choices)} columns could be the action; the draft takes {choices[0].name}. Which one "
        "does your robot execute?"
    )
    why = "A policy returns the column that it was trained on."
    return Question("action", text, tuple(lines), why, "action")


def still(look: Look, roles: Sequence[Role]) -> list[Question]:
    """Whether commands that never change are all that there is."""
    still = [
        piece for key, rows in look.pieces.items() if naming.is_command(key)
        for piece in rows if piece.kind == "dead"
    ]  # fmt: skip
    if not still:
        return []
    paths = ", ".join(piece.path for piece in still)
    what = "the gripper alone" if roles else "no action"
    text = (
        f"{paths} never changes, so the draft has {what}. Where is what your robot executes? "
        f"Every step holds {still[0].why.removeprefix('constant ')}."
    )
    lines = (
        "action: {joints: {path: COLUMN, kind: joints, mode: absolute}}",
        "this draft: "
        + ("the gripper alone acts" if roles else "action: null, videos alone train"),
    )
    why = "A policy would never move the arm."
    return [Question("action", text, lines, why, "action")]


def copied(tracks: Sequence[Track], robot: Robot) -> list[Question]:
    """Whether commands that are the measured values of the same step are commands at all."""
    pairs = [
        (part, state) for part in robot.action
        if part.kind != "gripper" and (state := robot.commanded(part)) is not None
    ]  # fmt: skip
    if not pairs or not all(_copy(tracks, part, state) for part, state in pairs):
        return []
    paths = ", ".join(part.path for part, _ in pairs)
    states = ", ".join(state.path for _, state in pairs)
    text = (
        f"{paths} is a copy of the state: at every step it holds what {states} measures at the "
        "same step. Where is what your robot executes? The draft takes the state of the next step."
    )
    lines = (
        "action: {NAME: {path: COLUMN}}: the column that was sent to the robot",
        "steps: {lag: 1}: the next measured state as the action",
        "action: null: videos alone train",
    )
    why = "A policy would learn to stay where it is."
    return [Question("copy", text, lines, why, "action")]


def _copy(tracks: Sequence[Track], part: Part, state: Part) -> bool:
    """Whether a part moves and has the same recorded values as a measured one in every step."""
    moves = False
    for track in tracks:
        one, other = track.values(part.path), track.values(state.path)
        if one is None or other is None or one.shape != other.shape:
            return False
        spread = np.ptp(other, axis=0)
        if not (np.abs(one - other) <= 1e-5 * spread.max(initial=0) + 1e-9).all():
            return False
        moves |= bool((spread > 1e-6).any())
    return moves


def open_parts(best: Choice, roles: dict[str, Role]) -> list[Question]:
    found = []
    for name, role in roles.items():
        piece = role.piece
        if role.kind in ("joints", "arm") and piece.sure == OPEN and piece.size == 6:
            found.append(_arm_question(name, role))
        elif role.kind in ("joints", "position", "other") and piece.sure == OPEN:
            if role.kind == "position" and role.explained > 0.4 and piece.size == 3 \
                    and any(other.kind == "rotation" for other in best.roles):  # fmt: skip
                continue
            text = (
                f"action.{name}, {piece.path}: {piece.size} values without a name that tells; the "
                f"draft reads them as {role.kind}. Are they joints or something else?"
            )
            lines = tuple(
                f"action: {{{name}: {{kind: {kind}}}}}, and state: alike"
                for kind in ("joints", "position" if piece.size in (2, 3) else "other", "base")
            )
            if piece.size == 4:
                lines = (lines[0], f"action: {{{name}: null, {_planar(role)}}}, and state: alike",
                         *lines[1:])  # fmt: skip
                text = text.replace("joints or something else", "joints, a position and its yaw, "
                                    "or something else")  # fmt: skip
            found.append(
                Question("kind", text, lines, "Units, and the pose's axes.", f"action.{name}")
            )
    if "mode" in best.questions:
        for name, role in roles.items():
            if role.of is None and role.kind not in ("gripper",):
                text = (
                    f"action.{name}, {role.piece.path}: no measured values move as it says; the "
                    f"draft reads {role.mode}. Are these targets, changes or velocities?"
                )
                lines = tuple(
                    f"action: {{{name}: {{mode: {mode}}}}}"
                    for mode in ("absolute", "delta", "velocity")
                )
                why = "Targets are turned into changes from the measured state; changes are not."
                found.append(Question("mode", text, lines, why, f"action.{name}"))
    return found


def _planar(role: Role) -> str:
    """Four values as a position and the turn about z."""
    piece = role.piece
    key, middle = piece.key.removeprefix("steps/"), piece.first + 3
    return (
        f'position: {{path: "{key}[{piece.first}:{middle}]", kind: position, mode: {role.mode}}}, '
        f'rotation: {{path: "{key}[{middle}]", kind: rotation, form: euler_z, mode: {role.mode}}}'
    )


def disguised(name: str, piece: Piece, mode: str, why: str) -> Question:
    """Whether values that names call joints are a pose of the tool."""
    key, first = piece.key.removeprefix("steps/"), piece.first
    form = "quaternion_xyzw" if piece.size == 7 else "euler_xyz"
    text = (
        f"action.{name}, {piece.path}: named as joints, but what it moves is like a pose of the "
        f"tool: {why}. Joints, or a position and a rotation?"
    )
    lines = (
        f'joints: {{path: "{piece.path}", kind: joints, mode: {mode}}}',
        f'position: {{path: "{key}[{first}:{first + 3}]", kind: position, mode: {mode}}}, '
        f'rotation: {{path: "{key}[{first + 3}:{piece.last}]", kind: rotation, form: {form}, '
        f"mode: {mode}}}, and state: alike",
    )
    return Question("arm", text, lines, "Rotations add up as rotations, joints one by one.",
                    f"action.{name}")  # fmt: skip


def _arm_question(name: str, role: Role) -> Question:
    piece = role.piece
    end = piece.first + 3
    key = piece.key.removeprefix("steps/")
    text = (
        f"action.{name}, {piece.path}: six joints, or a position and three angles of the tool? "
        f"{piece.why}; the draft reads joints. Which is it?"
    )
    lines = (
        f"joints: {{path: \"{piece.path}\", kind: joints, mode: {role.mode}}}",
        f"position: {{path: \"{key}[{piece.first}:{end}]\", kind: position, mode: {role.mode}}}, "
        f"rotation: {{path: \"{key}[{end}:{piece.last}]\", kind: rotation, form: euler_xyz, "
        f"mode: {role.mode}}}",
    )  # fmt: skip
    why = "Angles of a tool add up as rotations, joints one by one."
    return Question("arm", text, lines, why, f"action.{name}")
