"""Episodes that are in a data set more than once: exactly, in part, or nearly."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robotics.data.parts import Recording
from robotics.inspection.findings import Finding, listed
from robotics.inspection.groups import Origin, Place, common
from robotics.inspection.pictures import Look

SHARED = 0.5
"""Share of the shorter one's steps that two episodes must have in common."""
POINTS = 12
"""Moments of an episode that its signature holds."""
NEAR, NEAR_GREY = 0.05, 1.5
"""Root mean square difference of two signatures, in standard deviations of the set, and mean
difference of their thumbnails, in grey levels, below which two episodes are nearly the same."""
NEIGHBOURS, PROJECTIONS = 40, 3


@dataclass(frozen=True)
class Print:
    """What identifies an episode."""

    rows: np.ndarray
    """uint64 hashes of the steps' numbers, without repetitions."""
    frames: np.ndarray
    """uint64 hashes of one camera's pictures, without repetitions."""
    steps: int
    signature: np.ndarray
    """float32 (POINTS * width): the numbers at moments spread over the episode."""
    grey: np.ndarray
    """uint8: thumbnails of its cameras."""


def fit(recording: Recording, looks: Mapping[str, Look]) -> Print:
    """The fingerprints of one episode."""
    columns = [recording.parts[name] for name in sorted(recording.parts)]
    values = np.concatenate(columns, axis=1) if columns else np.zeros((0, 0))
    rows = np.zeros(0, np.uint64)
    signature = np.zeros(0, np.float32)
    if values.size:
        plain = np.ascontiguousarray(values, np.float32)
        rows = np.unique(np.array([hash(row.tobytes()) & 0xFFFFFFFFFFFFFFFF for row in plain],
                                  np.uint64))  # fmt: skip
        moments = np.linspace(0, len(values) - 1, POINTS).round().astype(int)
        signature = values[moments].astype(np.float32).ravel()
    shown = [look for look in looks.values() if len(look.hashes)]
    frames = shown[0].hashes if shown else np.zeros(0, np.uint64)
    grey = np.concatenate([look.thumbs.ravel() for look in shown] or [np.zeros(0, np.uint8)])
    return Print(rows, frames, recording.steps, signature, grey)


@dataclass(frozen=True)
class Copy:
    """Two episodes that are the same."""

    one: int
    """The earlier."""
    other: int
    how: str


def copies(prints: Mapping[int, Print]) -> list[Copy]:
    """Pairs of copies; of several copies each with the one before."""
    numbers, pictures = _shared(prints, "rows"), _shared(prints, "frames")
    found = []
    for pair in sorted({*numbers, *pictures}):
        one, other = (prints[number] for number in pair)
        of_numbers, of_pictures = numbers.get(pair, 0.0), pictures.get(pair, 0.0)
        if max(of_numbers, of_pictures) < SHARED:
            continue
        if min(of_numbers, of_pictures) > 0.99 and one.steps == other.steps:
            how = "a copy of"
        elif of_numbers < 0.1:
            how = "with the pictures, but not the numbers, of"
        elif of_pictures < 0.1 and len(one.frames) and len(other.frames):
            how = "with the numbers, but not the pictures, of"
        else:
            how = f"with {max(of_numbers, of_pictures):.0%} of the steps of"
        found.append(Copy(*pair, how))
    known = {(row.one, row.other) for row in found}
    found += [row for row in _near(prints) if (row.one, row.other) not in known]
    return found


def _shared(prints: Mapping[int, Print], what: str) -> dict[tuple[int, int], float]:
    """Pairs of episodes -> share of the smaller one's hashes that both have."""
    numbers = sorted(prints)
    rows = [getattr(prints[number], what) for number in numbers]
    if not rows or not sum(map(len, rows)):
        return {}
    hashes = np.concatenate(rows)
    owners = np.repeat(numbers, [len(row) for row in rows])
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    same = hashes[1:] == hashes[:-1]
    pairs = Counter(zip(owners[:-1][same].tolist(), owners[1:][same].tolist(), strict=True))
    sizes = {number: len(row) for number, row in zip(numbers, rows, strict=True)}
    # A rest pose that many episodes share is one row; a copy shares most.
    return {
        pair: count / max(min(sizes[pair[0]], sizes[pair[1]]), 1)
        for pair, count in pairs.items()
        if count >= 3
    }


def _near(prints: Mapping[int, Print]) -> list[Copy]:
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, row in sorted(prints.items()):
        if row.signature.size:
            groups[row.signature.size, row.grey.size].append(number)
    found = []
    for chosen in groups.values():
        if len(chosen) < 3:
            continue
        values = np.stack([prints[number].signature for number in chosen]).astype(np.float32)
        grey = np.stack([prints[number].grey for number in chosen]).astype(np.float32)
        spread = values.std(0)
        moving = spread > 1e-4 * max(float(spread.max()), 1e-9)
        if not moving.any():
            continue
        values = (values[:, moving] - values[:, moving].mean(0)) / spread[moving]
        rng = np.random.default_rng(0)
        pairs: set[tuple[int, int]] = set()
        for _ in range(PROJECTIONS):
            order = np.argsort(values @ rng.normal(size=values.shape[1]).astype(np.float32))
            for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
                i, j = order[:-step], order[step:]
                apart = np.sqrt(((values[i] - values[j]) ** 2).mean(1))
                close = apart < NEAR
                if grey.shape[1]:
                    close &= np.abs(grey[i] - grey[j]).mean(1) < NEAR_GREY
                for a, b in zip(i[close].tolist(), j[close].tolist(), strict=True):
                    pairs.add((min(a, b), max(a, b)))
        found += [Copy(chosen[a], chosen[b], "nearly the same as") for a, b in sorted(pairs)]
    return found


def findings(
    prints: Mapping[int, Print], total: int, origins: Sequence[Origin], where: Place
) -> list[Finding]:
    """Exact copies and near ones, each a finding."""
    kinds: dict[str, list[Copy]] = defaultdict(list)
    for row in copies(prints):
        exact, near = row.how == "a copy of", row.how == "nearly the same as"
        kinds["exact" if exact else "near" if near else "partial"].append(row)
    titles = {"exact": "Copies of other episodes", "near": "Nearly equal episodes",
              "partial": "Episodes that share steps or pictures"}  # fmt: skip
    found = []
    for kind, rows in kinds.items():
        chosen = sorted({row.other for row in rows})
        pairs = ", ".join(f"{row.other} is {row.how} {row.one}" if kind == "exact" or kind == "near"
                          else f"{row.other} {row.how} {row.one}" for row in rows[:6])  # fmt: skip
        more = f" and {len(rows) - 6} more" if len(rows) > 6 else ""
        text = f"episode {pairs}{more}"
        if group := common(chosen, origins):
            text += f"; {group}"
        found.append(Finding(
            "warning", "episodes", f"{text}.", f"Leave {listed(chosen)} out.",
            code=f"episodes.copies.{kind}",
            title=f"{titles[kind]}: {len(chosen)} of {total}",
            why="Copies on both sides of a split make a validation that says nothing.",
            line=where.delete(chosen), episodes=tuple(chosen),
            weight=len(chosen) / max(total, 1),
            details={"pairs": [[row.one, row.other, row.how] for row in rows[:200]]},
        ))  # fmt: skip
    return found
