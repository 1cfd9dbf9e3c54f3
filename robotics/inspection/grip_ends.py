"""Which values of a gripper are open and closed, for a table that does not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robotics.inspection import naming
from robotics.inspection.choices import Role
from robotics.inspection.draft import Draft, Question
from robotics.inspection.gripper import rounded_range
from robotics.inspection.pieces import CERTAIN, LIKELY, OPEN, Piece
from robotics.inspection.scan import Track

WIDTH = 0.3
"""m: what a gripper in metres opens at most."""
USUAL = 0.6
"""Share of the episodes whose ends are those of all."""
CLEAR = 0.3
"""Correlation above which command and measurement go together."""


def fill(draft: Draft, tracks: Sequence[Track], roles: dict[str, Role]) -> None:
    """State open and closed of every gripper, and ask where nothing tells."""
    for name, role in roles.items():
        if role.kind != "gripper":
            continue
        state = None if role.of is None else role.of.piece
        sense, sure, why = _sense(tracks, role.piece, state)
        same = 1 if state is None else together(tracks, role.piece, state)
        _state(draft, tracks, f"action.{name}", role.piece, sense * (1 if same >= 0 else -1))
        draft.notes[f"action.{name}"] = (sure, why)
        if state is not None:
            _state(draft, tracks, f"state.{name}", state, sense)
            draft.notes[f"state.{name}"] = (sure, why)
        if continuous(tracks, role.piece):
            draft.set(f"action.{name}.continuous", True)
        if sure == OPEN:
            draft.questions.append(_question(name, role.piece, draft))
    for name, row in (draft.content.get("state") or {}).items():
        if row["kind"] == "gripper" and "open" not in row:
            key, _, rest = str(row["path"]).partition("[")
            at = int(rest.partition(":")[0].rstrip("]") or 0)
            piece = Piece(f"steps/{key}", at, at + int(row.get("width", 1)), at + 1, "gripper")
            _state(draft, tracks, f"state.{name}", piece, _sense(tracks, piece, None)[0])


def _values(tracks: Sequence[Track], piece: Piece) -> list[np.ndarray]:
    rows = [track.numbers.get(piece.key) for track in tracks]
    return [
        row[:, piece.first : piece.last]
        for row in rows
        if row is not None and np.isfinite(row).all()
    ]


def _usual(rows: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Without episodes of another range than most have: they are another finding."""
    widths = np.array([np.ptp(row[:, 0]) for row in rows])
    moving = widths[widths > 1e-9]
    if len(moving) < 3:
        return rows
    usual = float(np.median(moving))
    if (moving < 1.3 * usual).mean() < USUAL or widths.max() < 3 * usual:
        return rows
    return [row for row, width in zip(rows, widths, strict=True) if width < 1.3 * usual]


def _state(draft: Draft, tracks: Sequence[Track], place: str, piece: Piece, sense: int) -> None:
    """Write the ends; sense +1: larger (in the first value) is more open."""
    rows = _values(tracks, piece)
    if not rows:
        return
    values = np.concatenate(_usual(rows))
    ends: list[tuple[float, float]] = []
    for column in values.T:
        low, high = (float(end) for end in np.quantile(column, [0.001, 0.999]))
        ends.append(rounded_range(low, high))
    # Two fingers that mirror each other are open at opposite ends.
    turned = [piece.size == 2 and ends[i][1] <= 0 < ends[0][1] for i in range(piece.size)]
    opened = [
        end[1] if (sense > 0) != flip else end[0] for end, flip in zip(ends, turned, strict=True)
    ]
    closed = [
        end[0] if (sense > 0) != flip else end[1] for end, flip in zip(ends, turned, strict=True)
    ]
    one: Any = piece.size == 1
    draft.set(f"{place}.open", opened[0] if one else opened)
    draft.set(f"{place}.closed", closed[0] if one else closed)


def _sense(tracks: Sequence[Track], command: Piece, state: Piece | None) -> tuple[int, str, str]:
    """+1 where larger measured values (commands, where none are measured) are more open."""
    piece = state or command
    shown = piece.key + ".".join(piece.names)
    if said := naming.opens(shown):
        return said, CERTAIN, "by its name"
    rows = _values(tracks, piece)
    values = np.concatenate(rows) if rows else np.zeros((1, 1))
    low, high = float(values.min()), float(values.max())
    if piece.size == 2 and high - low < WIDTH:
        return 1, CERTAIN, "fingers that move apart when they open"
    if state is not None and (said := naming.opens(command.key + ".".join(command.names))):
        same = together(tracks, command, state)
        if abs(same) > CLEAR:
            return said * (1 if same > 0 else -1), CERTAIN, "by the name of its command"
    if low >= 0 and 0.005 < high < WIDTH and state is not None:
        return 1, LIKELY, f"a width, to {high:.3g} m"
    begins = float(np.mean([row[0, 0] > (low + high) / 2 for row in rows])) if rows else 0.5
    text = (
        f"{max(begins, 1 - begins):.0%} of the episodes begin at this end, and grippers begin open"
    )
    if max(begins, 1 - begins) >= 0.8:
        return (1 if begins > 0.5 else -1), LIKELY, text
    return (1 if begins > 0.5 else -1), OPEN, "neither names nor the episodes' beginnings tell"


def together(tracks: Sequence[Track], command: Piece, state: Piece) -> float:
    """Correlation, the largest in size over a few lags, of a command with the measurement."""
    best = 0.0
    for lag in (1, 0, 2, 3):
        u, g = [], []
        for track in tracks:
            one, other = track.numbers.get(command.key), track.numbers.get(state.key)
            if one is None or other is None or len(one) <= lag + 1:
                continue
            u.append(one[: len(one) - lag, command.first])
            g.append(other[lag:, state.first])
        if not u:
            continue
        a, b = np.concatenate(u), np.concatenate(g)
        if np.isfinite(a).all() and np.isfinite(b).all() and a.std() > 1e-9 and b.std() > 1e-9:
            value = float(np.corrcoef(_held(u), b)[0, 1]) if len(np.unique(a)) == 3 \
                else float(np.corrcoef(a, b)[0, 1])  # fmt: skip
            best = value if abs(value) > abs(best) + 0.02 else best
    return best


def _held(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Commands of three levels as the last one that was not the middle."""
    every = np.concatenate(rows)
    middle = float(np.unique(every)[1])
    found = []
    for row in rows:
        moves = row != middle
        last = np.maximum.accumulate(np.where(moves, np.arange(len(row)), -1))
        first = 2 * middle - row[np.argmax(moves)] if moves.any() else row[0]
        found.append(np.where(last >= 0, row[np.maximum(last, 0)], first))
    return np.concatenate(found)


def continuous(tracks: Sequence[Track], piece: Piece) -> bool:
    """Whether commands between the ends are meant."""
    values = np.concatenate(_values(tracks, piece) or [np.zeros((1, 1))])[:, 0]
    low, high = float(values.min()), float(values.max())
    inside = (values > low + 0.15 * (high - low)) & (values < high - 0.15 * (high - low))
    return bool(len(np.unique(values)) > 20 and inside.mean() > 0.15)


def _question(name: str, piece: Piece, draft: Draft) -> Question:
    row = draft.content["action"][name]
    text = f"action.{name}, {piece.path}: which end is open, {row['open']} or {row['closed']}?"
    lines = tuple(
        f"action: {{{name}: {{open: {a}, closed: {b}}}}}"
        for a, b in ((row["open"], row["closed"]), (row["closed"], row["open"]))
    )
    why = "Another robot, a simulator or a rule such as Bridge's would read it the other way."
    return Question("gripper", text, lines, why, f"action.{name}")
