"""What a piece of the action or the state turned out to be, and which piece commands which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from robotics.embodiment.parts import Part
from robotics.inspection import naming
from robotics.inspection.pieces import Piece
from robotics.inspection.scan import Track

TURN = 2 * np.pi * 1.05
"""rad: angles that go beyond this are degrees."""


@dataclass(frozen=True)
class Role:
    """A piece of the action or the state, and what was decided about it."""

    piece: Piece
    mode: str = ""
    """Of commands: delta, absolute, velocity."""
    of: Role | None = None
    """The measured piece it commands."""
    explained: float = 0.0
    """Share of that one's motion."""

    @property
    def kind(self) -> str:
        return self.piece.kind


@dataclass
class Choice:
    """One way to take the action, with the state it moves."""

    name: str
    """Its columns, for people."""
    roles: list[Role] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    """Codes of what stayed open: "arm", "mode"."""

    @property
    def explained(self) -> float:
        """Largest share of motion that any of its parts explains."""
        return max((role.explained for role in self.roles), default=0.0)


def part_of(piece: Piece, name: str, mode: str | None = None) -> Part:
    """A piece as a part of a table, its conventions at their defaults."""
    kind = "joints" if piece.kind in ("arm", "dead") else piece.kind
    kind = "other" if kind in ("unused", "terminate") else kind
    form = piece.form if kind == "rotation" else None
    names = piece.names if len(piece.names) == piece.size else ()
    return Part(name, piece.path, kind, piece.size, form=form, mode=mode, names=names)


def split_arm(piece: Piece, why: str, sure: str) -> tuple[Piece, Piece]:
    """Six values as a position and a rotation."""
    middle = piece.first + 3
    return (
        replace(piece, last=middle, kind="position", why=why, sure=sure),
        replace(piece, first=middle, kind="rotation", form="euler_xyz", why=why, sure=sure),
    )


def named_mode(piece: Piece, mode: str) -> str:
    return "velocity" if mode == "delta" and naming.is_velocity(piece.key) else mode


def guessed_mode(tracks: Sequence[Track], piece: Piece) -> str:
    """Targets go on where the last one was, changes do not."""
    steps, spread = [], []
    for track in tracks:
        values = track.values(piece.path)
        if values is not None and len(values) > 2 and np.isfinite(values).all():
            steps.append(np.diff(values, axis=0))
            spread.append(values)
    if not steps:
        return "delta"
    ratio = np.concatenate(steps).std(0) / np.maximum(np.concatenate(spread).std(0), 1e-9)
    return "absolute" if float(np.median(ratio)) < 0.3 else "delta"
