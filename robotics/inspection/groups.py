"""Which episodes a finding is in, said as a group where they are one: a shard, a stretch of the
recording, a value of the metadata. And what drifts over the recording."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robotics.inspection.robust import deviations

PURE = 0.9
"""Share of a group that a finding must hold for, and share of the finding that must lie in it."""
MOST_GROUPS = 50
"""Different values of a fact above which it groups nothing."""
DRIFT_EPISODES = 12
"""Episodes below which nothing is said about a drift."""


@dataclass(frozen=True)
class Origin:
    """Where an episode comes from."""

    number: int
    shard: str
    facts: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """The data set, as the commands that mend it name it."""

    directory: str
    split: str = "train"
    spec: str | None = None
    """Table that it is read with, if the user named one."""

    def edit(self, action: str, reads: bool = False) -> str:
        """The command that writes a data set with this change; DST is the user's to name.

        reads: the command must know where things are. A LeRobot data set is converted before.
        """
        directory, spec, first = self.directory, self.spec, ""
        if self._lerobot:
            directory = f"{directory.rstrip('/')}-rlds"
            table = f" --spec {shlex.quote(spec)}" if spec else ""
            spec = f"{directory}/robot.yaml"
            split = f" --split {self.split}" if self.split != "train" else ""
            first = (
                f"python -m robotics.convert lerobot-to-rlds {shlex.quote(self.directory)} "
                f"{shlex.quote(directory)}{split}{table} && "
            )
        table = f" --spec {shlex.quote(spec)}" if reads and spec else ""
        edit = f"python -m robotics.data edit {shlex.quote(directory)} --out DST {action}{table}"
        return first + edit

    @property
    def _lerobot(self) -> bool:
        return (Path(self.directory).expanduser() / "meta" / "info.json").is_file()

    def named(self, numbers: Sequence[int]) -> str:
        """Episodes as `robotics.data edit` takes them; a conversion writes them as "train"."""
        return f"{'train' if self._lerobot else self.split}:{ranges(numbers)}"

    def delete(self, numbers: Sequence[int]) -> str:
        """The command that leaves these episodes out."""
        return self.edit(f"--delete {self.named(numbers)}")

    def keep(self, numbers: Sequence[int]) -> str:
        """The command that keeps these alone."""
        return self.edit(f"--keep {self.named(numbers)}")


def ranges(numbers: Sequence[int]) -> str:
    """Numbers as `robotics.data edit` takes them: "3,17-20"."""
    rows: list[list[int]] = []
    for number in sorted(set(numbers)):
        if rows and number == rows[-1][1] + 1:
            rows[-1][1] = number
        else:
            rows.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in rows)


def common(numbers: Sequence[int], origins: Sequence[Origin]) -> str:
    """What these episodes have in common and the others lack; "" where nothing."""
    found, count = set(numbers), len(origins)
    if len(found) < 2 or len(found) >= count:
        return ""
    for name, group in _groupings(origins):
        inside = len(found & group)
        if inside >= PURE * len(group) and inside >= PURE * len(found) and len(group) < count:
            return f"they are {'all' if group <= found else 'nearly all'} of {name}"
    ordered = [row.number for row in origins if row.number in found]
    sequence = sorted(row.number for row in origins)
    if ordered and len(found) >= 3:
        first, last = sequence.index(min(found)), sequence.index(max(found))
        if last - first + 1 <= len(found) / PURE:
            side = (
                "the end" if last == count - 1 else "the beginning" if first == 0 else "a stretch"
            )
            return f"they are {side} of the recording"
    return ""


def _groupings(origins: Sequence[Origin]) -> list[tuple[str, set[int]]]:
    """Name and episodes of every group that the metadata form, small facts first."""
    tables: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for row in origins:
        if row.shard:
            tables["shard"][row.shard].add(row.number)
        for key, value in row.facts.items():
            if isinstance(value, str):
                for part in _prefixes(value):
                    tables[f"{key} beginning with"][part].add(row.number)
                tables[key][value].add(row.number)
            else:
                tables[key][f"{value:g}"].add(row.number)
    found = []
    for key, groups in tables.items():
        if len(groups) <= MOST_GROUPS:
            found += [(f"{key} {value}", rows) for value, rows in groups.items() if len(rows) > 1]
    return found


def _prefixes(path: str) -> list[str]:
    """Folders of a path, without its last part."""
    parts = re.split(r"(?<=/)", path)[:-1]
    return ["".join(parts[:count]) for count in range(1, min(len(parts), 6) + 1) if parts[:count]]


def drift(numbers: Sequence[int], values: np.ndarray, least: float) -> float | None:
    """How much a value changes from the first to the last episode of the recording where it changes
    steadily, else None.

    Theil and Sen's slope, taken as real where Kendall's tau is 6 standard errors from 0 and the
    change exceeds `least` and twice the spread around the line.
    """
    known = np.isfinite(values)
    x, y = np.asarray(numbers, float)[known], values[known]
    if len(x) < DRIFT_EPISODES or np.ptp(x) == 0:
        return None
    if len(x) > 400:  # pairs grow with the square
        chosen = np.linspace(0, len(x) - 1, 400).round().astype(int)
        order = np.argsort(x)
        x, y = x[order][chosen], y[order][chosen]
    i, j = np.triu_indices(len(x), 1)
    apart = x[j] - x[i]
    slopes = (y[j] - y[i])[apart != 0] / apart[apart != 0]
    slope = float(np.median(slopes))
    tau = float(np.sign(slopes).sum()) / len(i)
    n = len(x)
    error = np.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))
    change = slope * float(np.ptp(x))
    left = y - slope * x
    spread = 1.4826 * float(np.median(np.abs(left - np.median(left))))
    # A step between two groups is no drift: the middle must lie between the ends.
    if abs(tau) < 6 * error or abs(change) < max(least, 2 * spread):
        return None
    if np.abs(deviations(left, floor=abs(change) / 10)).max() > 6:
        return None
    return change
