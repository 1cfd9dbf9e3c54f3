"""What the values of each episode are like: units, the order of a quaternion, dead values.

A unit that differs in command and measurement alike passes every comparison of the two; it shows in
the size of the values against the other episodes'.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robotics.data.parts import Recording
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.inspection.findings import Finding
from robotics.inspection.groups import Origin, Place, common
from robotics.inspection.robust import mode

LARGER = np.log(8.0)
"""Logarithm of the factor from which another size of the values is another unit."""
TURN = 6.5
"""No angle in rad is larger; degrees are."""
TWO_ORDERS = 0.8
"""Share of the episodes whose quaternions must be like the usual ones, or like these in another
order."""
FACTORS = {1000.0: "in mm, not m", 100.0: "in cm, not m", 0.001: "1000 times smaller: km?",
           57.3: "in degrees", 1 / 57.3: "in rad, not degrees"}  # fmt: skip


@dataclass(frozen=True)
class Level:
    """One part in one episode."""

    size: float
    """Length of the vector, its 75% quantile over the steps: one wild value is no unit."""
    largest: float
    """Largest of a step's values, its 90% quantile."""
    profile: np.ndarray
    """(width,) mean of the absolute values."""
    spread: np.ndarray
    """(width,) standard deviations."""
    length: float
    """Of quaternions: how far the worst is from length 1."""


def fit(recording: Recording, robot: Robot) -> dict[str, Level]:
    """The level of each part that the episode has."""
    found = {}
    for group in ("state", "action"):
        for part in getattr(robot, group):
            place = f"{group}.{part.name}"
            values = recording.parts.get(place)
            if values is None or not len(values):
                continue
            lengths = np.linalg.norm(values, axis=1)
            found[place] = Level(
                float(np.quantile(lengths, 0.75)), float(np.quantile(np.abs(values).max(1), 0.9)),
                np.abs(values).mean(0), values.std(0), float(np.abs(lengths - 1).max()),
            )  # fmt: skip
    return found


def findings(
    levels: Mapping[int, Mapping[str, Level]],
    robot: Robot,
    total: int,
    origins: Sequence[Origin],
    where: Place,
) -> list[Finding]:
    """Episodes whose values are of another kind than the others'."""
    odd: dict[tuple[str, str], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for group in ("state", "action"):
        for part in getattr(robot, group):
            place = f"{group}.{part.name}"
            numbers = np.array([n for n, rows in levels.items() if place in rows], int)
            rows = [levels[number][place] for number in numbers]
            if len(rows) < 4:
                continue
            for code, words, flags in _odd(part, rows):
                odd[code, words][place] |= set(numbers[flags].tolist())
    found = []
    for (code, words), places in odd.items():
        chosen = sorted(set().union(*places.values()))
        text = f"{' and '.join(places)}: {words}"
        if group := common(chosen, origins):
            text += f"; {group}"
        dead = code == "episodes.dead"
        severe = len(chosen) > 0.02 * total and not dead
        found.append(Finding(
            "error" if severe else "warning", "episodes", f"{text}.",
            "Convert these episodes as the others are, or leave them out.", code=code,
            title=f"{len(chosen)} of {total} episodes: {words}",
            why="A sensor that says nothing teaches a policy not to look at it." if dead else
                "Two units under one name: they spoil the statistics that all are normalised by.",
            line=where.delete(chosen), episodes=tuple(chosen),
            weight=len(chosen) / max(total, 1) + (0 if dead else 2),
            details={"parts": list(places)},
        ))  # fmt: skip
    return found


def _odd(part: Part, rows: Sequence[Level]) -> list[tuple[str, str, np.ndarray]]:
    found = []
    if part.kind == "rotation" and str(part.form).startswith("quaternion"):
        found += _quaternions(rows)
    elif part.kind in ("rotation", "joints"):
        found += _angles(rows)
    elif part.kind in ("position", "base"):
        found += _sizes(rows)
    if part.kind != "gripper" and part.mode != "pulse":
        found += _dead(rows)
    return found


def _sizes(rows: Sequence[Level]) -> list[tuple[str, str, np.ndarray]]:
    logs = np.log(np.array([row.size if row.size > 1e-9 else np.nan for row in rows]))
    centre, sigma = mode(logs, near=np.log(0.5))
    apart = logs - centre
    with np.errstate(invalid="ignore"):
        flags = np.abs(apart) > max(LARGER, 6 * sigma)
    found = []
    for name, factor in _named(np.exp(apart), flags).items():
        found.append(("episodes.unit", name, factor))
    return found


def _named(factors: np.ndarray, flags: np.ndarray) -> dict[str, np.ndarray]:
    groups: dict[str, np.ndarray] = {}
    for index in np.flatnonzero(flags):
        factor = float(factors[index])
        near = min(FACTORS, key=lambda value: abs(np.log(factor / value)))
        words = f"{'larger' if factor > 1 else 'smaller'} than the others' by a factor of 8 or more"
        if abs(np.log(factor / near)) < 0.8:
            words = FACTORS[near]
        groups.setdefault(words, np.zeros(len(factors), bool))[index] = True
    return groups


def _angles(rows: Sequence[Level]) -> list[tuple[str, str, np.ndarray]]:
    """Angles beyond a turn, or far larger than the others', are degrees."""
    largest = np.array([row.largest for row in rows])
    sizes = np.log(np.maximum(np.array([row.size for row in rows]), 1e-9))
    beyond = largest > TURN
    if not 0 < beyond.sum() < len(rows):
        return []
    usual = float(np.median(sizes[~beyond]))
    flags = beyond & (sizes - usual > LARGER)
    if flags.sum() <= len(rows) / 2:
        return [("episodes.unit", FACTORS[57.3], flags)] if flags.any() else []
    return [("episodes.unit", FACTORS[1 / 57.3], ~beyond)]


def _quaternions(rows: Sequence[Level]) -> list[tuple[str, str, np.ndarray]]:
    found = []
    off = np.array([row.length for row in rows]) > 0.02
    if 0 < off.sum() < len(rows):
        found.append(("episodes.unit", "quaternions that are not of length 1", off))
    profiles = np.stack([row.profile for row in rows])
    # The commonest profile; half of the set may have the other order.
    apart = np.abs(profiles[:, None] - profiles[None, :200]).sum(2)
    alike = (apart < 0.5).sum(1)
    centre = profiles[int(alike.argmax())]
    own = np.abs(profiles - centre).sum(1)
    rolled = np.min(
        [np.abs(np.roll(profiles, shift, axis=1) - centre).sum(1) for shift in (1, -1)], axis=0
    )
    flags = (own > 0.8) & (rolled < 0.4 * own)
    # Where every episode begins with the tool turned another way, some look rolled by chance: only
    # a set of two profiles, one the other rolled, has two orders.
    alike = np.minimum(own, rolled) < 0.5
    if flags.any() and alike.mean() >= TWO_ORDERS:
        words = "quaternions in another order (wxyz against xyzw)"
        found.append(("episodes.quaternion", words, flags))
    return found


def _dead(rows: Sequence[Level]) -> list[tuple[str, str, np.ndarray]]:
    """Values that never change in some episodes and always do in the others."""
    spreads = np.stack([row.spread for row in rows])
    still = spreads <= 1e-9
    found = []
    whole = still.all(1)
    if 0 < whole.sum() <= 0.5 * len(rows):
        found.append(("episodes.dead", "values that never change", whole))
    for axis in range(spreads.shape[1]):
        flags = still[:, axis] & ~whole
        if 0 < flags.sum() <= 0.2 * len(rows):
            found.append(("episodes.dead", f"value {axis} never changes", flags))
    return found
