"""A specification for a data set that has none: guessed from names, shapes and evidence.

It needs nothing but records. What is a guess is said in the file, entry by entry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robotics.data.rlds.raw import RawEpisode
from robotics.data.rlds.schema import Leaf
from robotics.data.rlds.spec import load_spec
from robotics.inspection import gripper, motion
from robotics.inspection.draft import Proposal, turn
from robotics.inspection.scan import Track, stored_parts

IMAGE_MARKS = (b"\xff\xd8\xff", b"\x89PNG")
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
    proposal = Proposal({})
    _guess_rate(proposal, samples)
    _guess_cameras(proposal, samples, stored)
    _guess_instruction(proposal, samples, stored)
    _guess_action(proposal, samples, stored)
    _guess_proprio(proposal, samples, stored)
    _guess_rotations(proposal, samples)
    _guess_grippers(proposal, samples)
    _guess_rest(proposal, stored)
    load_spec(proposal.content)
    return proposal


def _steps(stored: Mapping[str, Leaf], numbers: bool) -> list[str]:
    return [
        key
        for key, leaf in stored.items()
        if key.startswith("steps/") and (leaf.kind != "bytes_list") == numbers
    ]


def _path(key: str, first: int | None = None, last: int | None = None) -> str:
    """A key as specifications write it."""
    text = key.removeprefix("steps/") if key.startswith("steps/") else "/" + key
    if first is None:
        return text
    return f"{text}[{first}]" if last is None else f"{text}[{first}:{last}]"


def _rows(samples: Sequence[RawEpisode], key: str) -> np.ndarray:
    parts = [raw.numbers[key] for raw in samples if key in raw.numbers]
    return np.concatenate(parts) if parts else np.zeros((0, 1))


def _guess_rate(proposal: Proposal, samples: Sequence[RawEpisode]) -> None:
    for raw in samples:
        for key, values in raw.numbers.items():
            if key.startswith("steps/") and "timestamp" in key and len(values) > 2:
                interval = float(np.median(np.diff(values[:, 0])))
                if 1e-3 < interval < 10:
                    rate = round(1 / interval, 2)
                    proposal.set("control_hz", rate, f"from {key}, taken as seconds")
                    return
    proposal.set("control_hz", FALLBACK_HZ, "NOT IN THE DATA: state your robot's actions a second")


def _guess_cameras(
    proposal: Proposal, samples: Sequence[RawEpisode], stored: Mapping[str, Leaf]
) -> None:
    keys = [
        key
        for key in _steps(stored, numbers=False)
        if any(raw.texts.get(key, [b""])[0].startswith(IMAGE_MARKS) for raw in samples)
    ]
    keys = [key for key in keys if "depth" not in key.lower()]
    if not keys:
        raise ValueError(
            "expected encoded images (JPEG or PNG) among the steps' features, got none; images "
            "stored as arrays must be encoded first."
        )
    keys.sort(key=lambda key: (bool(WRIST.search(key.lower())), not key.endswith("image")))
    cameras = {re.sub(r"\W+", "_", key.rsplit("/", 1)[-1]): _path(key) for key in keys}
    proposal.set("cameras", cameras, "the first is read; order them, or name one with camera:")


def _guess_instruction(
    proposal: Proposal, samples: Sequence[RawEpisode], stored: Mapping[str, Leaf]
) -> None:
    def score(key: str) -> tuple[int, bool]:
        name = key.rsplit("/", 1)[-1].lower()
        rank = next((i for i, word in enumerate(TEXT_NAMES) if word in name), len(TEXT_NAMES))
        return rank, not key.startswith("steps/")

    keys = []
    for key, leaf in stored.items():
        values = [value for raw in samples for value in raw.texts.get(key, [])[:1]]
        image = any(value.startswith(IMAGE_MARKS) for value in values)
        if leaf.kind == "bytes_list" and values and not image:
            keys.append(key)
    if not keys:
        raise ValueError("expected a text among the features, got none; instructions are needed.")
    best = min(keys, key=score)
    proposal.set("instruction", _path(best), "by its name" if len(keys) > 1 else "the only text")
    texts = [value for raw in samples for value in raw.texts.get(best, [])[:1]]
    if any(not value.strip() for value in texts):
        row = {"path": _path(best), "drop": [""]}
        proposal.set("filters", [row], "some episodes carry no instruction")


def _guess_action(
    proposal: Proposal, samples: Sequence[RawEpisode], stored: Mapping[str, Leaf]
) -> None:
    keys = [key for key in _steps(stored, numbers=True) if re.search("action|command", key.lower())]
    widths = {key: stored[key].width or 0 for key in keys}
    whole = [key for key in keys if widths[key] >= 4 and not re.search("joint", key.lower())]
    named = _named(keys, widths)
    if "position" in named and named["position"] not in whole:
        for part, key in named.items():
            proposal.set(f"action.{part}", _path(key), "by its name and width")
        if "rotation" in named and widths[named["rotation"]] == 4:
            proposal.set("action.rotation_kind", "quaternion_xyzw", "four values")
        return
    if not whole:
        raise ValueError(
            f"expected an action of at least three values among the features, got {keys or 'none'}."
        )
    key = min(whole, key=lambda key: (widths[key] > 10, key.count("/"), len(key)))
    width, note = widths[key], f"the order in which {widths[key]} values usually come"
    proposal.set("action.position", _path(key, 0, 3), note)
    values = _rows(samples, key)
    quaternion = width >= 7 and _is_quaternion(values[:, 3:7])
    turn = 4 if quaternion else 3 if width >= 6 else 0
    if turn:
        proposal.set("action.rotation", _path(key, 3, 3 + turn), note)
    if quaternion:
        proposal.set("action.rotation_kind", "quaternion_xyzw", "length 1 in every step")
    if width > 3 + turn:
        proposal.set("action.gripper", _path(key, 3 + turn), note)
    last = values[:, -1]
    if width == 3 + turn + 2 and set(np.unique(last)) <= {0.0, 1.0}:
        proposal.set("action.terminate", _path(key, width - 1), "the last value is 0 or 1")


def _named(keys: Sequence[str], widths: Mapping[str, int]) -> dict[str, str]:
    """Parts that are features of their own, by name and width."""
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


def _guess_proprio(
    proposal: Proposal, samples: Sequence[RawEpisode], stored: Mapping[str, Leaf]
) -> None:
    action_keys = {proposal.content["action"]["position"].partition("[")[0]}
    keys = [
        key
        for key in _steps(stored, numbers=True)
        if _path(key) not in action_keys and not re.search("action|command", key.lower())
    ]
    found = _search_position(proposal, samples, keys, stored)
    if found is None:
        proposal.notes["proprio"] = (
            "no stored values move as the actions command: proprioception reads as zeros"
        )
        return
    key, first, kind, explained = found
    note = f"moves as the action commands: {explained:.0%} explained"
    proposal.set("proprio.position", _path(key, first, first + 3), note)
    if kind == "absolute":
        proposal.set("action.kind", "absolute", f"targets explain {explained:.0%} of the motion")
    else:
        proposal.set("action.kind", "delta", f"changes explain {explained:.0%} of the motion")
    width, values = stored[key].width or 0, _rows(samples, key)
    rest = first + 3
    named = _named(keys, {key: stored[key].width or 0 for key in keys})
    if width >= rest + 4 and _is_quaternion(values[:, rest : rest + 4]):
        proposal.set("proprio.rotation", _path(key, rest, rest + 4), "length 1 in every step")
        proposal.set("proprio.rotation_kind", "quaternion_xyzw", "the usual order")
        rest += 4
    elif width >= rest + 3:
        proposal.set("proprio.rotation", _path(key, rest, rest + 3), "behind the position")
        rest += 3
    elif "rotation" in named:
        proposal.set("proprio.rotation", _path(named["rotation"]), "by its name and width")
        if stored[named["rotation"]].width == 4:
            proposal.set("proprio.rotation_kind", "quaternion_xyzw", "the usual order")
    elif kind == "absolute":
        proposal.content["action"].pop("rotation", None)
        proposal.notes["action.rotation"] = "left out: no measured rotation to subtract"
    if "gripper" in named:
        proposal.set("proprio.gripper", _path(named["gripper"]), "by its name and width")
    elif width > rest and "gripper" in proposal.content["action"]:
        proposal.set("proprio.gripper", _path(key, width - 1), "the last value")


def _search_position(
    proposal: Proposal,
    samples: Sequence[RawEpisode],
    keys: Sequence[str],
    stored: Mapping[str, Leaf],
) -> tuple[str, int, str, float] | None:
    """Which three neighbouring values move as the action commands: key, first value, kind of
    action, share explained; None when none does."""
    best: tuple[str, int, str, float] | None = None
    for key in keys:
        width = stored[key].width or 0
        for first in range(min(width, SCAN_WIDTH) - 2):
            entries = {"action": {"position": proposal.content["action"]["position"]}}
            entries["proprio"] = {"position": _path(key, first, first + 3)}
            evidence = motion.translation(
                _tracks(proposal, samples, entries), _spec(proposal, entries)
            )
            if evidence is None:
                continue
            fit = evidence.fits[0]
            better = best is None or fit.explained > best[3]
            if better and fit.explained > motion.EXPLAINS and fit.gain > 0:
                best = key, first, fit.convention.kind, fit.explained
    return best


def _spec(proposal: Proposal, groups: Mapping[str, Any]) -> Any:
    head = {key: proposal.content[key] for key in ("control_hz", "cameras", "instruction")}
    return load_spec(head | dict(groups))


def _tracks(
    proposal: Proposal, samples: Sequence[RawEpisode], groups: Mapping[str, Any]
) -> list[Track]:
    spec = _spec(proposal, groups)
    tracks = []
    for number, raw in enumerate(samples):
        parts = stored_parts(raw.numbers, spec)
        if parts and all(np.isfinite(values).all() for values in parts.values()):
            tracks.append(Track(str(number), raw.steps, parts))
    return tracks


def _groups(proposal: Proposal) -> dict[str, Any]:
    return {
        name: proposal.content[name] for name in ("action", "proprio") if name in proposal.content
    }


def _guess_rotations(proposal: Proposal, samples: Sequence[RawEpisode]) -> None:
    for group in ("action", "proprio"):
        entries = proposal.content.get(group, {})
        if "rotation" in entries and "rotation_kind" not in entries:
            note = "the usual one; the data do not tell"
            proposal.set(f"{group}.rotation_kind", "euler_xyz", note)
    groups = _groups(proposal)
    evidence = motion.rotation(_tracks(proposal, samples, groups), _spec(proposal, groups))
    if evidence is None:
        return
    found = motion.verdicts(evidence)
    kinds = ("euler_xyz", "axis_angle", "quaternion_xyzw", "quaternion_wxyz")
    for row in found:
        for (group, name), value in motion.spec_entries([row]).items():
            if name == "rotation_kind" and value in kinds:
                proposal.set(f"{group}.{name}", value, row.numbers)
        place = "action" if "commanded" in row.question else "proprio"
        if row.answer == motion.AGREES and "kind of" in row.question:
            proposal.notes[f"{place}.rotation_kind"] = row.numbers


def _guess_grippers(proposal: Proposal, samples: Sequence[RawEpisode]) -> None:
    groups = _groups(proposal)
    tracks = _tracks(proposal, samples, groups)
    for group in groups:
        place = f"{group}.gripper"
        values = [track.parts[place] for track in tracks if place in track.parts]
        if not values:
            continue
        low, high = _range(np.concatenate(values))
        proposal.set(f"{place}_range", [low, high], "the values that occur")
        first = np.mean([rows[0, 0] > (low + high) / 2 for rows in values])
        name = proposal.content[group]["gripper"].lower()
        closes = "positive" if first <= 0.5 else "negative"
        note = "most episodes begin at the other end, where grippers are open"
        if re.search("clos", name):
            closes, note = "positive", "by its name"
        elif re.search("open|width|aperture", name):
            closes, note = "negative", "by its name"
        proposal.set(f"{place}_closes", closes, note)
    groups = _groups(proposal)
    grip = gripper.evidence(_tracks(proposal, samples, groups), _spec(proposal, groups))
    if grip is None or not grip.correlations:
        return
    row = gripper.verdict(grip)
    if row.answer == motion.CONTRADICTS:
        part = "proprio" if proposal.notes["action.gripper_closes"] == "by its name" else "action"
        turn(proposal, part, "to fit the other one: " + row.numbers)
    elif row.answer == motion.AGREES:
        proposal.notes["action.gripper_closes"] += "; fits the measured gripper"


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    for bounds in ((0.0, 1.0), (-1.0, 1.0)):
        slack = 0.1 * (bounds[1] - bounds[0])
        if bounds[0] - slack <= low and bounds[1] - 3 * slack <= high <= bounds[1] + slack:
            return bounds
    return (round(low, 4), round(high, 4)) if high > low + 1e-3 else (0.0, 1.0)


def _guess_rest(proposal: Proposal, stored: Mapping[str, Leaf]) -> None:
    for name in ("reward", "is_terminal"):
        leaf = stored.get(f"steps/{name}")
        proposal.set(name, name if leaf is not None and leaf.width == 1 else None)
    flags = [
        key
        for key, leaf in stored.items()
        if not key.startswith("steps/") and key.endswith("success") and leaf.kind == "int64_list"
    ]
    flags = [key for key in flags if "already" not in key]
    proposal.set("success", _path(flags[0]) if flags else None, "by its name" if flags else "")
