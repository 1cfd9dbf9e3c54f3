"""Every episode by itself: one pass that keeps a few kB of each, and what differs between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robotics.data.parts import Recording, recording, speeds
from robotics.data.rlds.raw import RawEpisode, RawPlace
from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot
from robotics.inspection import (
    duplicates,
    grips,
    levels,
    per_episode,
    pictures,
    readings,
    times,
    watch,
)
from robotics.inspection.findings import Finding, worst_first
from robotics.inspection.groups import Origin, Place
from robotics.inspection.scan import Pictures, Track

CAUSES = {
    "episodes.mode": ("episodes.unit", "episodes.scale", "episodes.unexplained"),
    "episodes.unit": ("episodes.scale", "episodes.convention", "episodes.unexplained"),
    "episodes.quaternion": ("episodes.convention", "episodes.sign", "episodes.unexplained"),
    "episodes.reversed": ("episodes.sign", "episodes.late", "episodes.early", "gripper.late"),
    "episodes.order": ("episodes.unexplained", "episodes.dropped", "gripper.late"),
    "episodes.late": ("gripper.late",),
    "episodes.early": ("gripper.late",),
    "episodes.stuck": ("episodes.dropped",),
    "episodes.dead": ("episodes.unexplained",),
    "episodes.copies.exact": ("episodes.copies.near", "episodes.copies.partial"),
    "episodes.idle": ("cameras.frozen",),
    "records.nan": ("episodes.unexplained",),
}
"""Code of a finding -> what follows from it in the same episodes, and is not said again."""


class Survey:
    """Collects episodes by `add`; `finish` compares them.

    Args:
        robot: the table that recordings were made with.
        place: the data set, for the commands that findings name.
    """

    def __init__(self, robot: Robot, place: Place) -> None:
        self.robot, self.place = robot, place
        self.origins: list[Origin] = []
        self._pairs = readings.pairs(robot)
        self._motions: dict[str, dict[int, readings.Motion]] = {
            pair.places[1]: {} for pair in self._pairs
        }
        self._grips: dict[str, dict[int, grips.Grip]] = {}
        self._levels: dict[int, Mapping[str, levels.Level]] = {}
        self._looks: dict[int, Mapping[str, pictures.Look]] = {}
        self._times: dict[int, times.Times] = {}
        self._prints: dict[int, duplicates.Print] = {}
        self.features: dict[int, Mapping[str, float]] = {}

    def visit(self, place: RawPlace, raw: RawEpisode, track: Track) -> None:
        """Take in one episode of a scan."""
        shard = Path(str(place.path)).name
        episode = recording(raw, self.robot, f"{self.place.split}:{place.number}", shard)
        keys = {row.name: column(row.path).key for row in self.robot.cameras}
        seen = {n: track.pictures[key] for n, key in keys.items() if key in track.pictures}
        self.add(episode, seen)

    def again(self, robot: Robot, tracks: Sequence[Track]) -> Survey:
        """The same episodes, read with a corrected table."""
        found = Survey(robot, self.place)
        for track in tracks:
            texts = {key: [row.encode() for row in rows] for key, rows in track.texts.items()}
            raw = RawEpisode(track.steps, track.numbers, texts, [])
            shard = track.name.rpartition(", record ")[0]
            found.visit(RawPlace(track.number, shard, 0, None), raw, track)
        return found

    def add(self, recording: Recording, seen: Mapping[str, Pictures]) -> None:
        """Take in one episode; seen: its pictures, by camera."""
        number = int(recording.name.rpartition(":")[2])
        moved = self._moved(recording)
        looks = {
            name: pictures.look(seen[name], moved)
            for name in recording.cameras
            if name in seen and len(seen[name].digests)
        }
        timing = times.fit(recording, self.robot, self._pairs)
        self.origins.append(Origin(number, recording.shard, recording.facts))
        self._looks[number], self._times[number] = looks, timing
        self._levels[number] = levels.fit(recording, self.robot)
        self._prints[number] = duplicates.fit(recording, looks)
        self.features[number] = watch.fit(recording, self.robot, timing, looks)
        for pair in self._pairs:
            motion = readings.fit(recording, pair)
            if motion is not None:
                self._motions[pair.places[1]][number] = motion
        for action, state in grips.pairs(self.robot):
            grip = grips.fit(recording, action, state)
            if grip is not None:
                self._grips.setdefault(f"action.{action.name}", {})[number] = grip

    def _moved(self, recording: Recording) -> np.ndarray | None:
        """(T - 1,) motion of each step in usual steps of the episode, of what moves most."""
        rows = []
        for sizes in speeds(recording.parts, self.robot).values():
            usual = float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 0.0
            if usual > 1e-9:
                rows.append(sizes / usual)
        return np.max(rows, axis=0) if rows else None

    def findings(self) -> list[Finding]:
        """What differs between episodes, worst first."""
        robot, origins, place = self.robot, self.origins, self.place
        total = len(origins)
        if total < 2:
            return []
        verdicts = self._verdicts()
        found = [
            *per_episode.findings(verdicts, total, origins, place),
            *levels.findings(self._levels, robot, total, origins, place),
            *times.findings(self._times, robot.rate, total, origins, place),
            *pictures.findings(self._looks, robot, total, origins, place),
            *duplicates.findings(self._prints, total, origins, place),
        ]
        for action, state in grips.pairs(robot):
            rows = self._grips.get(f"action.{action.name}", {})
            found += grips.findings(action, state, rows, total, origins, place)
        return worst_first(_causes(found))

    def marks(self, findings: Sequence[Finding]) -> dict[int, list[tuple[int, int]]]:
        """Episode -> stretches of steps (first, one past the last) that findings are about."""
        found: dict[int, list[tuple[int, int]]] = {}
        for row in findings:
            for number in row.episodes:
                rows: list[tuple[int, int]] = []
                timing = self._times.get(number)
                if timing is not None and row.code == "episodes.dropped":
                    rows = [(step, step + 1) for step in timing.jumps]
                elif timing is not None and row.code == "episodes.stuck":
                    rows = timing.stuck
                elif timing is not None and row.code == "episodes.idle":
                    rows = [timing.longest_idle]
                elif row.code == "cameras.frozen":
                    rows = row.details["steps"].get(str(number), [])
                found.setdefault(number, []).extend(rows)
        return found

    def watch(self, findings: list[Finding]) -> list[watch.Watched]:
        """The episodes to watch, worst first; findings: all that name episodes."""
        residuals: dict[int, float] = {}
        for verdict in self._verdicts():
            if verdict.base is not None:
                left = np.log(np.maximum(1 - verdict.explained, 1e-4))
                for number, value in zip(verdict.numbers.tolist(), left.tolist(), strict=True):
                    residuals[number] = max(value, residuals.get(number, -np.inf))
        return watch.ranked(self.features, residuals, findings)

    def typical(self, without: list[int]) -> list[int]:
        """Episodes that are like most, the most usual first."""
        return watch.typical(self.features, without)

    def _verdicts(self) -> list[per_episode.Verdict]:
        return [per_episode.judge(name, rows) for name, rows in self._motions.items()]


def _causes(found: list[Finding]) -> list[Finding]:
    """Without what another finding causes in the same episodes."""
    kept = []
    for row in found:
        causes = [other for other in found if row.code in CAUSES.get(other.code, ())]
        if not any(set(row.episodes) <= set(other.episodes) for other in causes):
            kept.append(row)
    return kept


SAME = {
    "records.nan": ("records.nan",),
    "cameras.black": ("cameras.black",),
    "cameras.blackout": ("cameras.flat",),
    "cameras.frozen": ("cameras.constant",),
    "ends.flags": ("ends.flags", "ends.never"),
    "gripper.both": ("gripper.both",),
    "gripper.inverted": ("gripper.inverted",),
}
"""Code of a finding with its episodes -> codes of pooled ones that say the same of the whole."""


def joined(pooled: Sequence[Finding], single: Sequence[Finding]) -> list[Finding]:
    """Findings of the whole set and of single episodes, what both say once, worst first."""
    codes = {row.code for row in pooled}
    said = {code for row in single for code in SAME.get(row.code, ())}
    kept = [row for row in pooled if row.code not in said]
    kept += [row for row in single if row.code != "instructions.empty" or row.code not in codes]
    return worst_first(kept)


def odd(findings: Sequence[Finding], total: int) -> set[int]:
    """Episodes whose conventions differ from most others': they do not belong into a common fit."""
    different = {
        number
        for row in findings
        if row.severity == "error" and row.code.startswith(("episodes.", "gripper."))
        for number in row.episodes
    }
    return different if len(different) <= 0.5 * total else set()
