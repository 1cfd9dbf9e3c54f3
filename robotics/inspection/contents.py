"""Findings about what episodes hold beside numbers: instructions, pictures, and how they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np

from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot
from robotics.inspection.findings import Finding, listed
from robotics.inspection.scan import Frames, Scan, Track

MANY = 0.3
"""Share of steps or episodes above which a habit of the data is a warning."""
SHORT = 3
"""Steps below which an episode holds no motion."""
LONG_TEXT = 48
"""Bytes of an instruction above which its length is said."""

Findings = Iterator[Finding]
_warning, _info = (partial(Finding, severity) for severity in ("warning", "info"))


# ---------------------------------------------------------------- instructions


def instruction_counts(result: Scan, robot: Robot) -> Counter[str]:
    """First instruction of every episode -> episodes."""
    paths = robot.instruction.paths
    if robot.instruction.encoding == "characters":
        return Counter()
    return Counter(track.instruction(paths) for track in result.tracks)


def instructions(result: Scan, robot: Robot) -> Findings:
    """Empty, long, changing and nearly equal instructions."""
    paths = robot.instruction.paths
    if not paths:
        yield _info("instructions", "the table names no instruction", "Episodes have none: the "
                    "policy is not told what to do.", "instructions.none")  # fmt: skip
        return
    if robot.instruction.encoding == "characters":
        return
    counts = instruction_counts(result, robot)
    empty = [track.number for track in result.tracks if not track.instruction(paths).strip()]
    if empty:
        text = f"{len(empty)} of {len(result.tracks)} episodes have no instruction: {listed(empty)}"
        drop = f'filters: [{{path: {paths[0]}, drop: [""]}}]'
        remedy = "They train as episodes without one, or are left out by a filter."
        yield _warning("instructions", text, remedy, "instructions.empty",
                       f"{len(empty)} episodes without an instruction",
                       "The policy would learn to act without being told.", drop,
                       tuple(empty))  # fmt: skip
    plain = Counter(" ".join(text.lower().rstrip(".").split()) for text in counts)
    if twins := sum(count - 1 for text, count in plain.items() if text):
        text = f"{twins} instructions differ from another only in case, spaces or a full stop"
        yield _info("instructions", text, "Write each in one way.", "instructions.twins")
    keys = [column(path).key for path in paths]
    changing = [
        track.number for track in result.tracks
        if any(len(set(track.texts.get(key, ()))) > 1 for key in keys)
    ]  # fmt: skip
    if changing:
        text = f"the instruction changes within {len(changing)} episodes"
        yield _info("instructions", text, "Chunks of actions end there.", "instructions.changing",
                    episodes=tuple(changing))  # fmt: skip
    if len([text for text in counts if text]) == 1 and result.episodes > 1:
        yield _info(
            "instructions", "all episodes have the same instruction", code="instructions.one"
        )
    yield from _long(result.tracks, keys)


def _long(tracks: list[Track], keys: list[str]) -> Findings:
    sizes = {
        track.number: max((len(text.encode()) for key in keys for text in track.texts.get(key, ())),
                          default=0)
        for track in tracks
    }  # fmt: skip
    longest = max(sizes.values(), default=0)
    if longest > LONG_TEXT:
        which = sorted((n for n in sizes if sizes[n] > LONG_TEXT), key=lambda n: -sizes[n])
        text = f"the longest instruction has {longest} bytes, in episode {which[0]}"
        yield _info("instructions", text, "A model's longest text follows from the data; a text "
                    "that is longer than a trained model's is cut off and counted.",
                    "instructions.long", episodes=tuple(which))  # fmt: skip


# ---------------------------------------------------------------- cameras


def cameras(result: Scan, robot: Robot) -> Findings:
    """Every camera: sizes, black and constant pictures, copies."""
    used = {column(camera.path).key: camera for camera in robot.cameras}
    for key, seen in result.cameras.items():
        name = key.removeprefix("steps/")
        camera = used.get(key)
        chosen = camera is not None and camera.name in robot.recorded_cameras()
        if camera is None:
            text = f"{name} is a camera that the table does not name"
            yield _info("cameras", text, f"cameras: {{NAME: {{path: {name}}}}} adds it.",
                        "cameras.unread")  # fmt: skip
        if len(seen.sizes) > 1:
            sizes = ", ".join(f"{h} x {w}: {n} episodes" for (h, w), n in seen.sizes.most_common(5))
            yield _warning("cameras", f"{name} has pictures of several sizes: {sizes}",
                           "They are resized to one.", "cameras.sizes")  # fmt: skip
        elif camera is not None and camera.size and seen.sizes and camera.size not in seen.sizes:
            (size,) = seen.sizes
            text = f"{name} has pictures of {size[0]} x {size[1]}, the table says {camera.size}"
            yield _warning("cameras", text, "Correct size.", "cameras.size",
                           line=f"cameras: {{{camera.name}: {{size: {list(size)}}}}}")  # fmt: skip
        flagged = camera is not None and camera.present is not None
        yield from _black(name, seen, result.episodes, chosen, flagged)
    still = _still(result)
    for key, episodes in still.items():
        if len(episodes) > MANY * max(len(result.tracks), 1) and key in used:
            name = key.removeprefix("steps/")
            text = f"{name} shows the same picture from first to last in {len(episodes)} episodes"
            yield _warning("cameras", text, "A camera that froze, or the wrong column.",
                           "cameras.constant", episodes=tuple(episodes))  # fmt: skip


def _black(name: str, seen: Frames, episodes: int, chosen: bool, flagged: bool) -> Findings:
    whole = seen.black_episodes
    if seen.black and len(whole) == episodes:
        text = f"{name} is black in every episode"
        build = _warning if chosen else _info
        yield build("cameras", text, "Leave the camera out: use: false.", "cameras.black",
                    f"{name} is black", "The model would spend part of its input on nothing.",
                    episodes=tuple(whole))  # fmt: skip
    elif whole:
        text = f"{name} is black in {len(whole)} of {episodes} episodes: {listed(whole)}"
        words = "masked there by its flag" if flagged else "no flag of the episode says so"
        build = _info if flagged or not chosen else _warning
        yield build("cameras", f"{text}; {words}", "" if flagged else "Name a flag as present:, or "
                    "leave the camera or these episodes out.", "cameras.black",
                    f"{name} is black in some episodes", "The model would take black for a view.",
                    episodes=tuple(whole))  # fmt: skip
    flat = seen.flat - seen.black
    if flat > 0.01 * seen.seen:
        text = f"{flat} of {seen.seen} pictures of {name} show a single colour"
        yield _warning("cameras", text, "Is the right camera named?", "cameras.flat")


def _still(result: Scan) -> dict[str, list[int]]:
    """Camera -> episodes in which nothing but black moves: every picture is the first one."""
    found: dict[str, list[int]] = {}
    for track in result.tracks:
        for key, seen in track.pictures.items():
            copies = len(seen.digests) > 3 and (seen.digests == seen.digests[0]).all()
            if copies and not seen.black.all():
                found.setdefault(key, []).append(track.number)
    return found


# ---------------------------------------------------------------- ends of episodes


def ends(result: Scan, robot: Robot) -> Findings:
    """Very short episodes, ends of tasks, first and last steps."""
    short = [track.number for track in result.tracks if track.steps < SHORT]
    if short:
        text = f"{len(short)} episodes have fewer than {SHORT} steps: {listed(short)}"
        yield _warning("ends", text, "Cut off while recording?", "episodes.short",
                       "very short episodes", "", "", tuple(short))  # fmt: skip
    yield from _terminate(result, robot)
    yield from _zero_ends(result, robot)
    wrong = [track.number for track in result.tracks if not _flags_fit(track)]
    if wrong:
        text = f"is_first or is_last marks another step in {len(wrong)} episodes: {listed(wrong)}"
        yield _warning("ends", text, "Episodes cut or joined?", "ends.flags", episodes=tuple(wrong))
    if robot.success is not None:
        rows = [track.values(robot.success) for track in result.tracks]
        failed = [
            track.number for track, row in zip(result.tracks, rows, strict=True)
            if row is not None and row.size and row.flat[0] < 0.5
        ]  # fmt: skip
        if failed:
            text = f"{len(failed)} of {len(rows)} episodes failed"
            yield _info("ends", text, "A filter leaves them out.", "ends.failed",
                        line=f"filters: [{{path: {robot.success}, keep: [true]}}]",
                        episodes=tuple(failed))  # fmt: skip


def _terminate(result: Scan, robot: Robot) -> Findings:
    if robot.terminate is None:
        return
    rows = {
        track.number: row[:, 0] > 0.5
        for track in result.tracks
        if (row := track.values(robot.terminate)) is not None
    }
    never = [number for number, row in rows.items() if not row.any()]
    if never:
        text = f"{robot.terminate} is never set in {len(never)} of {len(rows)} episodes"
        yield _warning("ends", text, "A policy does not learn to stop there.", "ends.never",
                       episodes=tuple(never))  # fmt: skip
    early = [n for n, row in rows.items() if (row[:-1] & ~row[1:]).any()]
    if early and len(early) > MANY * len(rows):
        text = f"{robot.terminate} is set before the end in {len(early)} of {len(rows)} episodes"
        yield _info("ends", text, "It should mark the end of a sub-task.", "ends.early")


def _zero_ends(result: Scan, robot: Robot) -> Findings:
    """Actions of the first or last step that are all zero, in most episodes and there alone."""
    parts = [part for part in robot.action if part.mode in ("delta", "velocity")]
    parts = [part for part in parts if part.kind != "gripper"]
    first, last, inside, count = 0, 0, 0.0, 0
    for track in result.tracks:
        rows = [row for part in parts if (row := track.values(part.path)) is not None]
        if not rows or track.steps < SHORT:
            continue
        zero = np.all(np.abs(np.concatenate(rows, axis=1)) < 1e-9, axis=1)
        first, last, count = first + bool(zero[0]), last + bool(zero[-1]), count + 1
        inside += float(zero[1:-1].mean())
    if not count or inside / count > 0.1:
        return
    for where, number, dropped in (
        ("first", first, robot.steps.drop_first), ("last", last, robot.steps.drop_last),
    ):  # fmt: skip
        if number > 0.8 * count and count > 1 and not dropped:
            text = f"the action of the {where} step is zero in {number} of {count} episodes"
            yield _warning("ends", text, f"Padding: drop the {where} step.", f"ends.zero_{where}",
                           f"the {where} action is padding", "The policy would learn to wait.",
                           f"steps: {{drop_{where}: 1}}")  # fmt: skip


def _flags_fit(track: Track) -> bool:
    expected = np.arange(track.steps)
    for name, at in (("steps/is_first", 0), ("steps/is_last", track.steps - 1)):
        flags = track.numbers.get(name)
        if flags is not None and not np.array_equal(flags[:, 0] > 0.5, expected == at):
            return False
    return True
