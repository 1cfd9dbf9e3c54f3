"""A specification for a data set that has none: guessed from names, shapes and evidence.

It needs nothing but records. The file marks every entry that is a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robotics.data.rlds.raw import RawEpisode
from robotics.data.rlds.schema import Leaf
from robotics.data.rlds.spec import ROTATION_KINDS, DatasetSpec, load_spec
from robotics.inspection import gripper, motion
from robotics.inspection.draft import Proposal, invert_gripper
from robotics.inspection.scan import Track, stored_parts

IMAGE_MARKS = (b"\xff\xd8\xff", b"\x89PNG")
COMMAND = re.compile("action|command")
WRIST = re.compile(r"wrist|hand|gripper|depth|mask|goal")
TEXT_NAMES = ("natural_language_instruction", "language_instruction", "instruction", "task",
              "language", "prompt", "command", "text", "goal")  # fmt: skip
POSITION_NAMES = r"world_vector|translation|position|xyz|pos\b|cartesian"
ROTATION_NAMES = r"rotation|orientation|rpy|euler|quat|axis_angle|rot"
GRIPPER_NAMES = r"gripper|grasp|finger|closed"
FALLBACK_HZ = 10.0
SCAN_WIDTH = 64
"""Widest vector that is searched for a pose."""


def guess(samples: Sequence[RawEpisode], stored: Mapping[str, Leaf]) -> Proposal:
    """A specification that `load_spec` takes.

    Raises:
        ValueError: no images, no text or no action of at least three values among the features.
    """
    guess = _Guess(samples, stored)
    guess.rate()
    guess.cameras()
    guess.instruction()
    guess.action()
    guess.proprio()
    guess.rotations()
    guess.grippers()
    guess.rest()
    load_spec(guess.content)
    return guess


class _Guess(Proposal):
    """A proposal in the making; each method states some of its entries."""

    def __init__(self, samples: Sequence[RawEpisode], stored: Mapping[str, Leaf]) -> None:
        super().__init__({})
        self.samples, self.stored = samples, stored

    def rate(self) -> None:
        for raw in self.samples:
            for key, values in raw.numbers.items():
                if key.startswith("steps/") and "timestamp" in key and len(values) > 2:
                    interval = float(np.median(np.diff(values[:, 0])))
                    if 1e-3 < interval < 10:
                        rate = round(1 / interval, 2)
                        self.set("control_hz", rate, f"from {key}, taken as seconds")
                        return
        self.set("control_hz", FALLBACK_HZ, "NOT IN THE DATA: state your robot's actions a second")

    def cameras(self) -> None:
        keys = [
            key
            for key in self._steps(numbers=False)
            if any(raw.texts.get(key, [b""])[0].startswith(IMAGE_MARKS) for raw in self.samples)
        ]
        keys = [key for key in keys if "depth" not in key.lower()]
        if not keys:
            raise ValueError(
                "expected encoded images (JPEG or PNG) among the steps' features, got none; images "
                "stored as arrays must be encoded first."
            )
        keys.sort(key=lambda key: (bool(WRIST.search(key.lower())), not key.endswith("image")))
        cameras = {re.sub(r"\W+", "_", key.rsplit("/", 1)[-1]): _path(key) for key in keys}
        self.set("cameras", cameras, "the first is read; order them, or name one with camera:")

    def instruction(self) -> None:
        def score(key: str) -> tuple[int, bool]:
            name = key.rsplit("/", 1)[-1].lower()
            rank = next((i for i, word in enumerate(TEXT_NAMES) if word in name), len(TEXT_NAMES))
            return rank, not key.startswith("steps/")

        keys = []
        for key, leaf in self.stored.items():
            values = [value for raw in self.samples for value in raw.texts.get(key, [])[:1]]
            image = any(value.startswith(IMAGE_MARKS) for value in values)
            if leaf.kind == "bytes_list" and values and not image:
                keys.append(key)
        if not keys:
            raise ValueError("expected a text feature, got none; instructions are needed.")
        best = min(keys, key=score)
        self.set("instruction", _path(best), "by its name" if len(keys) > 1 else "the only text")
        texts = [value for raw in self.samples for value in raw.texts.get(best, [])[:1]]
        if any(not value.strip() for value in texts):
            row = {"path": _path(best), "drop": [""]}
            self.set("filters", [row], "some episodes carry no instruction")

    def action(self) -> None:
        keys = [key for key in self._steps(numbers=True) if COMMAND.search(key.lower())]
        widths = {key: self.stored[key].width or 0 for key in keys}
        whole = [key for key in keys if widths[key] >= 4 and not re.search("joint", key.lower())]
        named = _named(keys, widths)
        if "position" in named and named["position"] not in whole:
            for part, key in named.items():
                self.set(f"action.{part}", _path(key), "by its name and width")
            if "rotation" in named and widths[named["rotation"]] == 4:
                self.set("action.rotation_kind", "quaternion_xyzw", "four values")
            return
        if not whole:
            raise ValueError(f"expected an action of three values or more, got {keys or 'none'}.")
        key = min(whole, key=lambda key: (widths[key] > 10, key.count("/"), len(key)))
        width, note = widths[key], f"the order in which {widths[key]} values usually come"
        self.set("action.position", _path(key, 0, 3), note)
        values = self._rows(key)
        quaternion = width >= 7 and _is_quaternion(values[:, 3:7])
        turn = 4 if quaternion else 3 if width >= 6 else 0
        if turn:
            self.set("action.rotation", _path(key, 3, 3 + turn), note)
        if quaternion:
            self.set("action.rotation_kind", "quaternion_xyzw", "length 1 in every step")
        if width > 3 + turn:
            self.set("action.gripper", _path(key, 3 + turn), note)
        last = values[:, -1]
        if width == 3 + turn + 2 and set(np.unique(last)) <= {0.0, 1.0}:
            self.set("action.terminate", _path(key, width - 1), "the last value is 0 or 1")

    def proprio(self) -> None:
        action_keys = {self.content["action"]["position"].partition("[")[0]}
        keys = [
            key
            for key in self._steps(numbers=True)
            if _path(key) not in action_keys and not COMMAND.search(key.lower())
        ]
        found = self._search_position(keys)
        if found is None:
            self.notes["proprio"] = (
                "no stored values move as the actions command: proprioception reads as zeros"
            )
            return
        key, first, kind, explained = found
        note = f"moves as the action commands: {explained:.0%} explained"
        self.set("proprio.position", _path(key, first, first + 3), note)
        words = {"absolute": "targets", "delta": "changes"}[kind]
        self.set("action.kind", kind, f"{words} explain {explained:.0%} of the motion")
        width, values = self.stored[key].width or 0, self._rows(key)
        rest = first + 3
        named = _named(keys, {key: self.stored[key].width or 0 for key in keys})
        if width >= rest + 4 and _is_quaternion(values[:, rest : rest + 4]):
            self.set("proprio.rotation", _path(key, rest, rest + 4), "length 1 in every step")
            self.set("proprio.rotation_kind", "quaternion_xyzw", "the usual order")
            rest += 4
        elif width >= rest + 3:
            self.set("proprio.rotation", _path(key, rest, rest + 3), "after the position")
            rest += 3
        elif "rotation" in named:
            self.set("proprio.rotation", _path(named["rotation"]), "by its name and width")
            if self.stored[named["rotation"]].width == 4:
                self.set("proprio.rotation_kind", "quaternion_xyzw", "the usual order")
        elif kind == "absolute":
            self.content["action"].pop("rotation", None)
            self.notes["action.rotation"] = "left out: no measured rotation to subtract"
        if "gripper" in named:
            self.set("proprio.gripper", _path(named["gripper"]), "by its name and width")
        elif width > rest and "gripper" in self.content["action"]:
            self.set("proprio.gripper", _path(key, width - 1), "the last value")

    def _search_position(self, keys: Sequence[str]) -> tuple[str, int, str, float] | None:
        """Which three neighbouring values move as the action commands: key, first value, kind of
        action, share explained; None when none does."""
        command = {"position": self.content["action"]["position"]}
        best: tuple[str, int, str, float] | None = None
        for key in keys:
            width = self.stored[key].width or 0
            for first in range(min(width, SCAN_WIDTH) - 2):
                position = {"position": _path(key, first, first + 3)}
                evidence = motion.translation(*self._as_read(action=command, proprio=position))
                if evidence is None:
                    continue
                fit = evidence.fits[0]
                better = best is None or fit.explained > best[3]
                if better and fit.explained > motion.EXPLAINS and fit.gain > 0:
                    best = key, first, fit.convention.kind, fit.explained
        return best

    def rotations(self) -> None:
        for group in ("action", "proprio"):
            entries = self.content.get(group, {})
            if "rotation" in entries and "rotation_kind" not in entries:
                note = "the usual one; the data do not tell"
                self.set(f"{group}.rotation_kind", "euler_xyz", note)
        evidence = motion.rotation(*self._as_read())
        if evidence is None:
            return
        for row in motion.verdicts(evidence):
            if (entry := motion.correction(row)) and entry[2] in ROTATION_KINDS:
                self.set(f"{entry[0]}.rotation_kind", entry[2], row.numbers)
            place = "action" if "commanded" in row.question else "proprio"
            if row.answer == motion.AGREES and "kind of" in row.question:
                self.notes[f"{place}.rotation_kind"] = row.numbers

    def grippers(self) -> None:
        tracks, _ = self._as_read()
        for group in ("action", "proprio"):
            place = f"{group}.gripper"
            values = [track.parts[place] for track in tracks if place in track.parts]
            if not values:
                continue
            low, high = _range(np.concatenate(values))
            self.set(f"{place}_range", [low, high], "the values that occur")
            first = np.mean([rows[0, 0] > (low + high) / 2 for rows in values])
            name = self.content[group]["gripper"].lower()
            closes = "positive" if first <= 0.5 else "negative"
            note = "most episodes begin at the other end, where grippers are open"
            if re.search("clos", name):
                closes, note = "positive", "by its name"
            elif re.search("open|width|aperture", name):
                closes, note = "negative", "by its name"
            self.set(f"{place}_closes", closes, note)
        grip = gripper.evidence(*self._as_read())
        if grip is None or not grip.correlations:
            return
        row = gripper.verdict(grip)
        if row.answer == motion.CONTRADICTS:
            part = "proprio" if self.notes["action.gripper_closes"] == "by its name" else "action"
            invert_gripper(self, part, "to fit the other one: " + row.numbers)
        elif row.answer == motion.AGREES:
            self.notes["action.gripper_closes"] += "; fits the measured gripper"

    def rest(self) -> None:
        for name in ("reward", "is_terminal"):
            leaf = self.stored.get(f"steps/{name}")
            self.set(name, name if leaf is not None and leaf.width == 1 else None)
        flags = [key for key, leaf in self.stored.items() if leaf.kind == "int64_list"]
        flags = [key for key in flags if key.endswith("success") and "already" not in key]
        flag = next((_path(key) for key in flags if not key.startswith("steps/")), None)
        self.set("success", flag, "by its name" if flag else "")

    def _as_read(self, **groups: Any) -> tuple[list[Track], DatasetSpec]:
        """Vectors of the samples as a specification with these groups reads them, and that."""
        content = self.content
        names = ("control_hz", "cameras", "instruction", *(() if groups else ("action", "proprio")))
        spec = load_spec({name: content[name] for name in names if name in content} | groups)
        tracks = []
        for number, raw in enumerate(self.samples):
            parts = stored_parts(raw.numbers, spec)
            if parts and all(np.isfinite(values).all() for values in parts.values()):
                tracks.append(Track(str(number), raw.steps, parts))
        return tracks, spec

    def _steps(self, numbers: bool) -> list[str]:
        return [
            key
            for key, leaf in self.stored.items()
            if key.startswith("steps/") and (leaf.kind != "bytes_list") == numbers
        ]

    def _rows(self, key: str) -> np.ndarray:
        parts = [raw.numbers[key] for raw in self.samples if key in raw.numbers]
        return np.concatenate(parts) if parts else np.zeros((0, 1))


def _path(key: str, first: int | None = None, last: int | None = None) -> str:
    """A key as specifications write it."""
    text = key.removeprefix("steps/") if key.startswith("steps/") else "/" + key
    if first is None:
        return text
    return f"{text}[{first}]" if last is None else f"{text}[{first}:{last}]"


def _named(keys: Sequence[str], widths: Mapping[str, int]) -> dict[str, str]:
    """Parts that are separate features, by name and width."""
    wanted = (("position", POSITION_NAMES, (3,)), ("rotation", ROTATION_NAMES, (3, 4)),
              ("gripper", GRIPPER_NAMES, (1,)))  # fmt: skip
    found: dict[str, str] = {}
    for part, pattern, allowed in wanted:
        for key in keys:
            name = key.rsplit("/", 1)[-1].lower()
            free = part not in found and key not in found.values()
            fits = widths[key] in allowed and re.search(pattern, name)
            if free and fits and "base_displacement" not in name:
                found[part] = key
    return found


def _is_quaternion(values: np.ndarray) -> bool:
    return bool(len(values) and (np.abs(np.linalg.norm(values, axis=1) - 1) < 0.02).all())


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    for bounds in ((0.0, 1.0), (-1.0, 1.0)):
        slack = 0.1 * (bounds[1] - bounds[0])
        if bounds[0] - slack <= low and bounds[1] - 3 * slack <= high <= bounds[1] + slack:
            return bounds
    return (round(low, 4), round(high, 4)) if high > low + 1e-3 else (0.0, 1.0)
