"""A table for a data set that has none: from names, shapes and evidence.

It needs nothing but episodes as they are stored. What it cannot tell, it asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from robotics.data.rlds.raw import RawSource
from robotics.inspection import grip_ends, naming, pieces, structure
from robotics.inspection.choices import Choice, Role
from robotics.inspection.draft import Draft, Question
from robotics.inspection.pieces import CERTAIN, LIKELY, OPEN, Piece
from robotics.inspection.scan import Track
from robotics.inspection.structure import Look

WRIST = re.compile(r"wrist|hand|gripper|eye_in")
NO_PICTURE = re.compile(r"depth|mask|segment|goal")
TEXTS = ("natural_language_instruction", "language_instruction", "instruction", "task", "language",
         "prompt", "command", "text", "goal")  # fmt: skip
FALLBACK_RATE = 10.0


def propose(tracks: Sequence[Track], source: RawSource, look: Look) -> Draft:
    """A draft that `load_robot` takes.

    Raises:
        ValueError: no cameras among the features.
    """
    draft = Draft({"name": re.sub(r"\W+", "_", source.name) or "proposed"})
    rate(draft, tracks, source)
    cameras(draft, tracks)
    instruction(draft, tracks, source)
    parts(draft, tracks, look)
    rest(draft, look.pieces, source)
    return draft


def rate(draft: Draft, tracks: Sequence[Track], source: RawSource) -> None:
    """Steps a second, and the window that follows from it."""
    value, sure, why = FALLBACK_RATE, OPEN, "NOT IN THE DATA: state your robot's steps a second"
    if source.rate:
        value, sure, why = float(source.rate), CERTAIN, "as the data set states it"
    elif found := stamped_rate(tracks):
        value, sure, why = found[1], LIKELY, f"from {found[0]}"
    draft.set("rate", round(value, 2))
    draft.notes["rate"] = (sure, why)
    longest = int(np.median([track.steps for track in tracks])) if tracks else 12
    second = max(1, round(value))
    horizon = int(np.clip(min(2 * second, longest // 2), 2, 50))
    offsets = sorted({max(1, min(second, longest // 4)), max(2, min(2 * second, longest // 2))})
    draft.set("window", {"horizon": horizon, "video_offsets": offsets})


def stamped_rate(tracks: Sequence[Track]) -> tuple[str, float] | None:
    """Column of time stamps and the steps a second they give, taken as seconds or a thousandth, a
    millionth or a billionth of one."""
    for track in tracks:
        for key, values in track.numbers.items():
            if not naming.TIME.search(key.lower()) or len(values) < 4:
                continue
            interval = float(np.median(np.diff(values[:, 0])))
            if interval <= 0:
                continue
            for power in (0, 3, 6, 9):
                hertz = 10**power / interval
                if 0.5 < hertz < 400:
                    return key.removeprefix("steps/"), hertz
    return None


# ---------------------------------------------------------------- pictures and texts


def cameras(draft: Draft, tracks: Sequence[Track]) -> None:
    """Every camera, those that show nothing marked as not used."""
    keys = list(dict.fromkeys(key for track in tracks for key in track.pictures))
    keys = [key for key in keys if not NO_PICTURE.search(key.lower())]
    if not keys:
        raise ValueError(
            "expected encoded images (JPEG or PNG) among the features of steps, got none; encode "
            "images that are stored as arrays when the data are converted."
        )
    keys.sort(key=lambda key: (bool(WRIST.search(key.lower())), not key.endswith("image"), key))
    for key in keys:
        name = re.sub(r"\W+", "_", re.split(r"[/.]", key)[-1]) or "camera"
        seen = [track.pictures[key] for track in tracks if key in track.pictures]
        row: dict[str, Any] = {"path": key.removeprefix("steps/")}
        sizes = {shown.size for shown in seen}
        if len(sizes) == 1:
            row["size"] = list(sizes.pop())
        if WRIST.search(key.lower()):
            row["view"] = "wrist"
        black = np.array([bool(shown.black.all()) for shown in seen])
        flag = present_flag(tracks, key)
        if flag is not None and black.any():
            row["present"] = "/" + flag
        why = f"black in {black.sum()} of {len(black)} episodes"
        if black.all():
            row["use"] = False
            row.pop("present", None)
            why = "black in every episode: not used"
        if black.any():
            draft.notes[f"cameras.{name}"] = (CERTAIN, why)
        draft.set(f"cameras.{name}", row)


def present_flag(tracks: Sequence[Track], camera: str) -> str | None:
    """The episode's flag that is false exactly where this camera is black."""
    having = [track for track in tracks if camera in track.pictures]
    shown = [not bool(track.pictures[camera].black.all()) for track in having]
    name = re.split(r"[/.]", camera)[-1]
    found = []
    for key in having[0].numbers if having else ():
        if key.startswith("steps/"):
            continue
        values = [track.numbers[key] for track in having if key in track.numbers]
        flags = [bool(row.flat[0]) for row in values if row.shape == (1, 1)]
        if len(flags) == len(shown) and flags == shown and set(flags) != {True}:
            found += [key] if len(set(flags)) == 2 or name in key else []
    return min(found, key=lambda key: (name not in key, len(key)), default=None)


def instruction(draft: Draft, tracks: Sequence[Track], source: RawSource) -> None:
    """Where the instruction is; several of one name are alternatives."""
    codes = [
        key
        for key, leaf in source.stored.items()
        if leaf.kind == "int64_list" and (leaf.width or 0) >= 32
        and any(word in key.lower() for word in TEXTS)
    ]  # fmt: skip
    if codes:
        paths = [codes[0].removeprefix("steps/")]
        draft.set("instruction", {"paths": paths, "encoding": "characters"})
        draft.notes["instruction"] = (LIKELY, "whole numbers under the name of a text")
        return
    ranks: dict[str, int] = {}
    for key in dict.fromkeys(key for track in tracks for key in track.texts):
        name = re.split(r"[/.]", key)[-1].lower()
        values = [track.texts[key][0] for track in tracks if track.texts.get(key)]
        if any(re.search(r"[/\\]\S+[/\\.]|\.\w{2,4}$", value) for value in values[:20]):
            continue  # a path of a file
        rank = next((i for i, word in enumerate(TEXTS) if word in name), None)
        if rank is not None:
            ranks[key] = rank
    if not ranks:
        draft.set("instruction", None)
        draft.notes["instruction"] = (CERTAIN, "no text of an instruction among the features")
        return
    best = min(ranks, key=lambda key: (ranks[key], not key.startswith("steps/"), len(key)))
    alike = [best, *(key for key in ranks if re.fullmatch(re.escape(best) + r"_?\d+", key))]
    paths = [pieces.path(key, 0, 1, 1) for key in alike]
    draft.set("instruction", paths[0] if len(paths) == 1 else paths)
    if len(paths) > 1:
        draft.notes["instruction"] = (LIKELY, "one that is not empty is drawn for every sample")


# ---------------------------------------------------------------- parts


def parts(draft: Draft, tracks: Sequence[Track], look: Look) -> None:
    """State and action, and what is open about them."""
    state, choices = look.state, list(look.choices)
    if not choices:
        draft.set("state", _rows(_alone(state)))
        draft.set("action", None)
        draft.notes["action"] = (
            CERTAIN,
            "no action among the features: only the video mode trains",
        )
        draft.questions += _still(look, ())
        return
    choices.sort(key=lambda choice: (-_solid(choice), -round(choice.explained, 2)))
    best = choices[0]
    roles = named(best.roles)
    actions = {name: _action(name, role) for name, role in roles.items()}
    states = {name: _state(role.of) for name, role in roles.items() if role.of is not None}
    for name, role in _uncommanded(states, state, best, set(roles)).items():
        states[name] = _state(role)
    order = {(row.key, row.first): number for number, row in enumerate(state)}
    draft.set("state", _sorted(states, order) or None)
    draft.set("action", actions)
    for name, role in roles.items():
        draft.notes[f"action.{name}"] = _because(role)
        if role.of is not None:
            piece = role.of.piece
            draft.notes[f"state.{name}"] = (piece.sure, piece.why)
    if len(choices) > 1:
        draft.questions.append(_which(choices))
    draft.questions += _open(best, roles)
    if all(role.kind == "gripper" for role in best.roles):
        draft.questions += _still(look, best.roles)
    grip_ends.fill(draft, tracks, roles)
    used = {role.piece.key for role in best.roles}
    used |= {role.of.piece.key for role in best.roles if role.of is not None}
    used |= {"steps/" + str(row["path"]).partition("[")[0] for row in states.values()}
    draft.unused = {
        key.removeprefix("steps/"): ", ".join(_words(piece) for piece in rows)
        for key, rows in look.pieces.items()
        if key not in used and naming.kind(key) not in ("flag", "time")
    }


def _still(look: Look, roles: Sequence[Role]) -> list[Question]:
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


def _words(piece: Piece) -> str:
    what = piece.kind if piece.kind not in ("arm", "unused") else "six values" \
        if piece.kind == "arm" else naming.kind(piece.key) or "values"  # fmt: skip
    return f"{what} ({piece.why})" if piece.why else what


def _solid(choice: Choice) -> int:
    """Choices without open questions, and whose motion is explained, come first."""
    kinds = {role.kind for role in choice.roles}
    arm = bool(kinds & {"position", "joints"})
    known = not any(role.piece.sure == OPEN for role in choice.roles)
    absolute = any(role.mode == "absolute" and role.kind == "joints" for role in choice.roles)
    return 4 * arm + 2 * known + (choice.explained > 0.4) + absolute


def named(roles: Sequence[Role]) -> dict[str, Role]:
    """Parts by name: position, rotation, joints, gripper; with an arm's name where there are
    several arms."""
    plain = {"position": "position", "rotation": "rotation", "joints": "joints", "arm": "joints",
             "gripper": "gripper", "base": "base"}  # fmt: skip
    kinds = [plain.get(role.kind, "other") for role in roles]
    arms = max((kinds.count(kind) for kind in ("position", "joints", "gripper")), default=1)
    found: dict[str, Role] = {}
    number, seen = 1, set()
    for role, kind in zip(roles, kinds, strict=True):
        name = kind
        if arms > 1 and kind != "base":
            if kind in seen:
                number, seen = number + 1, set()
            seen.add(kind)
            arm = role.piece.arm or f"arm{number}"
            name = f"{arm}_{kind}"
        base, count = name, 2
        while name in found:
            name, count = f"{base}{count}", count + 1
        found[name] = role
    return found


def _action(name: str, role: Role) -> dict[str, Any]:
    row = _state(role)
    row["mode"] = role.mode
    if role.kind == "gripper":
        row["mode"] = "absolute"
    return row


def _state(role: Role) -> dict[str, Any]:
    piece = role.piece
    kind = "joints" if piece.kind == "arm" else piece.kind
    row: dict[str, Any] = {"path": piece.path, "kind": kind}
    default = {"position": 3, "gripper": 1, "rotation": piece.size}.get(kind)
    if "[" not in piece.path and piece.size != default:
        row["width"] = piece.size
    if kind == "rotation":
        row["form"] = piece.form
    if piece.names and kind in ("joints", "base", "other") and len(piece.names) == piece.size:
        row["names"] = list(piece.names)
    return row


def _because(role: Role) -> tuple[str, str]:
    why = role.piece.why
    if role.of is not None and role.explained and role.kind != "gripper":
        why += f"; {role.mode}: explains {role.explained:.0%} of the motion of {role.of.piece.path}"
    return role.piece.sure, why


def _uncommanded(
    states: dict[str, Any], state: list[Piece], best: Choice, commands: set[str]
) -> dict[str, Role]:
    """Measured parts beside the commanded ones that belong to the same robot; none has the name of
    a command that does not move it."""
    taken = [role.of.piece for role in best.roles if role.of is not None]
    found: dict[str, Role] = {}
    kinds = {piece.kind for piece in taken}
    for piece in state:
        if any(structure._overlaps(piece, other) for other in taken):  # pyright: ignore
            continue
        beside = any(piece.key == other.key for other in taken)
        alone = not taken and piece.sure != OPEN
        grip = piece.kind == "gripper" and "gripper" not in kinds
        if piece.kind in ("dead", "other") or not (beside or alone or grip):
            continue
        name = "joints" if piece.kind == "arm" else piece.kind
        name = f"measured_{name}" if name in commands - set(states) else name
        while name in states or name in found:
            name += "_2"
        found[name] = Role(piece)
    return found


def _alone(state: list[Piece]) -> dict[str, Role]:
    return named([Role(piece) for piece in state if piece.kind not in ("dead", "other")])


def _rows(roles: dict[str, Role]) -> dict[str, Any] | None:
    rows = {name: _state(role) for name, role in roles.items()}
    for row in rows.values():
        if row["kind"] == "gripper":
            row |= {"open": 0.0, "closed": 1.0}
    return rows or None


def _sorted(rows: dict[str, Any], order: dict[tuple[str, int], int]) -> dict[str, Any]:
    def place(name: str) -> tuple[str, int]:
        path, _, rest = str(rows[name]["path"]).partition("[")
        return path, int(re.match(r"\d*", rest).group() or 0)  # pyright: ignore

    keys = {key.removeprefix("steps/"): number for (key, _), number in sorted(order.items())}
    return {
        name: rows[name]
        for name in sorted(rows, key=lambda name: (keys.get(place(name)[0], 99), *place(name)))
    }


def _which(choices: Sequence[Choice]) -> Question:
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


def _open(best: Choice, roles: dict[str, Role]) -> list[Question]:
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


def rest(draft: Draft, found: dict[str, list[Piece]], source: RawSource) -> None:
    """End of the task, reward and success."""
    for rows in found.values():
        for piece in rows:
            if piece.kind == "terminate" and draft.content.get("action"):
                first = pieces.path(piece.key, piece.first, piece.first + 1, piece.width)
                draft.set("terminate", first)
    for name in ("reward", "next.reward"):
        leaf = source.stored.get(f"steps/{name}")
        if leaf is not None and leaf.width == 1:
            draft.set("reward", name)
    flags = [key for key, leaf in source.stored.items() if leaf.kind == "int64_list"]
    flags = [key for key in flags if key.endswith("success") and "already" not in key]
    flag = next((key for key in flags if not key.startswith("steps/")), None)
    if flag is not None:
        draft.set("success", "/" + flag)
