"""Which columns are the action and the state, and which parts they have: from names, values, and
from which measured values move as the commands say.

That state and action agree proves nothing about what they are: both may be the same joints. Six
values without a name are a tool's pose only where their turns add up as rotations do and not value
by value, where an angle wraps, or where names say so; else the question is left open.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from robotics.data.rlds.raw import RawSource
from robotics.inspection import arms, evidence, motion, naming, turns
from robotics.inspection.choices import (
    Choice,
    Role,
    guessed_mode,
    named_mode,
    part_of,
    split_arm,
)
from robotics.inspection.fits import EXPLAINS
from robotics.inspection.pieces import LIKELY, OPEN, Piece, by_key
from robotics.inspection.scan import Track

SUBSETS = 6
"""Thirds of the episodes that are tried."""


@dataclass(frozen=True)
class Look:
    """What names, values and motion say of a data set's columns, without any table."""

    pieces: dict[str, list[Piece]]
    """Flattened key -> pieces, of every column of steps."""
    state: list[Piece]
    """Of them, what is measured."""
    choices: list[Choice]
    """Ways to take the action."""


def look(tracks: Sequence[Track], source: RawSource) -> Look:
    """Look at every column of steps."""
    first = tracks[0].numbers if tracks else {}
    widths = {key: rows.shape[1] for key, rows in first.items() if key.startswith("steps/")}
    found = by_key(tracks, widths, source.names)
    state = measured(found)
    ways = alternatives(found)
    choices = [choose(tracks, name, rows, state) for name, rows in ways]
    return Look(found, state, choices)


def robust(tracks: Sequence[Track], source: RawSource) -> Look:
    """A look at all episodes or, where no measured value moves as it is commanded, at the third of
    them that explains most: a few episodes of another convention must not hide that of the rest."""
    best = look(tracks, source)
    if not _unexplained(best) or len(tracks) < 2 * SUBSETS:
        return best
    rng = np.random.default_rng(0)
    for _ in range(SUBSETS):
        order = rng.permutation(len(tracks))[: max(3, len(tracks) // 3)]
        other = look([tracks[number] for number in sorted(order)], source)
        best = max(best, other, key=lambda row: (-_unexplained(row), _explained(row)))
    return best


def _unexplained(found: Look) -> int:
    """Commanded parts that move nothing, of the choice that has fewest."""
    return min((choice.questions.count("mode") for choice in found.choices), default=0)


def _explained(found: Look) -> float:
    return max((choice.explained for choice in found.choices), default=0.0)


# ---------------------------------------------------------------- which columns


def alternatives(found: dict[str, list[Piece]]) -> list[tuple[str, list[Piece]]]:
    """Ways to take the action: name and pieces, of columns that are commanded by their names."""
    columns = {
        key: [piece for piece in rows if piece.kind not in ("unused", "dead", "terminate")]
        for key, rows in found.items()
        if naming.is_command(key)
    }
    columns = {key: rows for key, rows in columns.items() if rows}
    whole, single, grippers, bases = {}, {}, {}, {}
    for key, rows in columns.items():
        kinds = {piece.kind for piece in rows}
        if kinds <= {"gripper"}:
            grippers[key] = rows
        elif kinds <= {"base"}:
            bases[key] = rows
        elif kinds <= {"position"} or kinds <= {"rotation"}:
            single[key] = rows
        elif kinds <= {"other"}:
            continue
        else:
            whole[key] = rows
    ways = [([key], rows) for key, rows in whole.items()]
    if single:
        halves = sorted(itertools.chain(*single.values()), key=lambda piece: piece.kind)
        ways.insert(0, (list(single), halves))
    if not ways and (grippers or bases):
        ways = [([], [])]
    named = []
    for keys, rows in ways:
        rows, keys = list(rows), list(keys)
        for extra, kind in ((grippers, "gripper"), (bases, "base")):
            if extra and not any(piece.kind == kind for piece in rows):
                key = _nearest(extra, keys)
                rows += extra[key]
                keys.append(key)
        named.append((" + ".join(key.removeprefix("steps/") for key in keys), rows))
    return named


def _nearest(keys: Iterable[str], others: Sequence[str]) -> str:
    """The key in the same folder as the others, else the first."""
    folders = {key.rpartition("/")[0] for key in others}
    return min(keys, key=lambda key: (key.rpartition("/")[0] not in folders, len(key)))


def measured(found: dict[str, list[Piece]]) -> list[Piece]:
    """Pieces of what is measured."""
    kinds = ("position", "rotation", "joints", "gripper", "base", "arm", "other")
    rows = [
        piece
        for key, row in found.items()
        if not naming.is_command(key)
        for piece in row
        if piece.kind in kinds
    ]
    # Columns of the state proper before derived ones, names that tell more before shorter ones.
    return sorted(rows, key=lambda piece: piece.sure == OPEN)


# ---------------------------------------------------------------- what commands what


def choose(tracks: Sequence[Track], name: str, pieces: list[Piece], state: list[Piece]) -> Choice:
    """Decide what each commanded piece is and which measured one it moves."""
    choice = Choice(name)
    free = list(state)
    for piece in pieces:
        if piece.kind == "gripper":
            continue  # after the arms, so that the nearest can be taken
        for role in _roles(tracks, piece, free, choice):
            choice.roles.append(role)
            if role.of is not None:
                # A pose that came out of six unnamed values replaces them.
                free = _taken(free, role.of.piece)
    _grippers(tracks, [piece for piece in pieces if piece.kind == "gripper"], state, choice)
    order = {(piece.key, piece.first): number for number, piece in enumerate(pieces)}
    choice.roles.sort(
        key=lambda role: order.get((role.piece.key, role.piece.first), _before(order, role.piece))
    )
    return choice


def _taken(free: list[Piece], piece: Piece) -> list[Piece]:
    """What is measured, with one piece known: the other half of six values is known with it."""
    found = []
    for row in free:
        if not _overlaps(row, piece):
            found.append(row)
        elif row.kind == "arm" and row.size != piece.size:
            halves = split_arm(row, piece.why, piece.sure)
            found += [half for half in halves if not _overlaps(half, piece)]
    # Last: of two that move alike, such as two arms, the one that nothing commands yet is taken.
    return [*found, piece]


def _before(order: dict[tuple[str, int], int], piece: Piece) -> float:
    """Place of the second half of a divided piece."""
    return max(
        (number + 0.5 for (key, first), number in order.items()
         if key == piece.key and first <= piece.first), default=0.0,
    )  # fmt: skip


def _overlaps(one: Piece, other: Piece) -> bool:
    if one.key != other.key or "homogeneous" in (one.form + other.form):
        return one == other  # a pose as one matrix has its position among the rotation's values
    return one.first < other.last and other.first < one.last


def _roles(tracks: Sequence[Track], piece: Piece, state: list[Piece], choice: Choice) -> list[Role]:
    if piece.kind == "arm":
        return arms.arm(tracks, piece, state, choice)
    if piece.kind == "rotation":
        return [_rotation(tracks, piece, state, choice)]
    return [_single(tracks, piece, state, choice)]


def _single(tracks: Sequence[Track], piece: Piece, state: list[Piece], choice: Choice) -> Role:
    """A position, joints, a base or another vector."""
    best: Role | None = None
    for row in state:
        row = _as(row, piece)
        if row is None:
            continue
        evidence = _compared(tracks, piece, row)
        if evidence is None:
            continue
        fit = evidence.best
        if best is None or fit.explained > best.explained + 1e-3:
            best = Role(piece, fit.reading.mode, Role(row), fit.explained)
    if best is not None and best.explained >= EXPLAINS:
        if best.of is not None and piece.sure == OPEN and best.of.piece.sure != OPEN:
            known = best.of.piece
            why = f"moves {known.path}"
            best = replace(best, piece=replace(piece, kind=known.kind, sure=known.sure, why=why))
        elif piece.kind == "joints" and piece.size >= 5 and piece.sure == OPEN:
            why = f"{piece.size} values that are no pose, and move value by value"
            row = best.of.piece if best.of is not None else piece
            best = Role(replace(piece, sure=LIKELY, why=why), best.mode,
                        Role(replace(row, sure=LIKELY, why=why)), best.explained)  # fmt: skip
        return replace(best, mode=named_mode(piece, best.mode))
    choice.questions.append("mode")
    return Role(piece, named_mode(piece, guessed_mode(tracks, piece)))


def _as(row: Piece, piece: Piece) -> Piece | None:
    """A measured piece as one that this command can move."""
    if row.kind == "arm" and piece.kind == "position" and piece.size == 3:
        return split_arm(row, "moves as the commanded position", LIKELY)[0]
    if row.kind == "arm" and piece.kind == "joints" and piece.size == row.size:
        return replace(row, kind="joints", why="moves as the commanded joints")
    same = row.kind == piece.kind or {row.kind, piece.kind} <= {"position", "other", "base"}
    return row if same and row.size == piece.size else None


def _compared(tracks: Sequence[Track], piece: Piece, row: Piece) -> evidence.Motion | None:
    part = part_of(piece, "command", "delta")
    state = part_of(row, "measured")
    if piece.kind == "position" and piece.size == 3:
        return motion.translation(tracks, replace(part, kind="position"), state, None)
    return motion.components(tracks, part, state)


def _rotation(tracks: Sequence[Track], piece: Piece, state: list[Piece], choice: Choice) -> Role:
    best: Role | None = None
    for row in state:
        if row.kind == "arm":
            row = split_arm(row, "beside the position that is commanded", LIKELY)[1]
        elif row.kind == "position" and row.size == 3 and row.sure == OPEN:
            row = replace(row, kind="rotation", form="euler_xyz")
        elif row.kind != "rotation":
            continue
        evidence = turns.rotation(
            tracks, part_of(piece, "command", "delta"), part_of(row, "measured")
        )
        if evidence is not None and (best is None or evidence.best.explained > best.explained):
            best = Role(piece, evidence.best.reading.mode, Role(row), evidence.best.explained)
    if best is not None and best.explained >= EXPLAINS:
        return replace(best, mode=named_mode(piece, best.mode))
    partner = next((role for role in choice.roles if role.kind == "position"), None)
    row = _beside(partner, state) if partner is not None else None
    mode = partner.mode if partner is not None and partner.of is not None else None
    if mode is None:
        choice.questions.append("mode")
        mode = named_mode(piece, guessed_mode(tracks, piece))
    return Role(piece, mode, None if row is None else Role(row))


def _beside(partner: Role, state: list[Piece]) -> Piece | None:
    """The measured rotation that follows the measured position."""
    if partner.of is None:
        return None
    after = partner.of.piece
    return next(
        (row for row in state
         if row.kind == "rotation" and row.key == after.key and row.first == after.last), None,
    )  # fmt: skip


# ---------------------------------------------------------------- grippers


def _grippers(
    tracks: Sequence[Track], pieces: list[Piece], state: list[Piece], choice: Choice
) -> None:
    free = [row for row in state if row.kind == "gripper"]
    for number, piece in enumerate(pieces):
        scores = [(_together(tracks, piece, row), row) for row in free]
        best = max(scores, key=lambda score: score[0], default=(0.0, None))
        row = best[1]
        if row is not None and best[0] < 0.3 and len(free) > 1:
            row = free[min(number, len(free) - 1)]
        free = [other for other in free if other is not row]
        choice.roles.append(Role(piece, "absolute", None if row is None else Role(row), best[0]))


def _together(tracks: Sequence[Track], piece: Piece, row: Piece) -> float:
    """Largest correlation in size of a command with a measurement some steps later."""
    best = 0.0
    for lag in (0, 1, 2, 4):
        u, g = [], []
        for track in tracks:
            one, other = track.values(piece.path), track.values(row.path)
            if one is None or other is None or len(one) <= lag + 1:
                continue
            u.append(one[: len(one) - lag, 0])
            g.append(other[lag:, 0])
        if u:
            a, b = np.concatenate(u), np.concatenate(g)
            if a.std() > 1e-9 and b.std() > 1e-9 and np.isfinite(a).all() and np.isfinite(b).all():
                best = max(best, abs(float(np.corrcoef(a, b)[0, 1])))
    return best
