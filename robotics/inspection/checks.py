"""From counts and evidence to findings, each with a remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np

from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot
from robotics.inspection import cards, gripper, motion, values
from robotics.inspection.examination import Examination
from robotics.inspection.findings import Finding, listed
from robotics.inspection.proposal import stamped_rate
from robotics.inspection.scan import Frames, Scan, Track

MANY = 0.3
"""Share of steps or episodes above which a habit of the data is a warning."""
SHORT = 3
"""Steps below which an episode holds no motion."""
SHOWN = 12
"""Faults listed one by one."""
LONG_TEXT = 48
"""Bytes of an instruction above which its length is said."""

Findings = Iterator[Finding]
_error, _warning, _info = (partial(Finding, severity) for severity in ("error", "warning", "info"))


def all_findings(examined: Examination) -> list[Finding]:
    """Everything worth reporting, in the order of the checks."""
    result, robot = examined.result, examined.robot
    return [
        *damage(result, robot),
        *cards.contradictions(examined.verdicts),
        *map(cards.asked, examined.questions),
        *motions(examined),
        *grippers(examined),
        *values.findings(result, robot),
        *instructions(result, robot),
        *cameras(result, robot),
        *ends(result, robot),
        *rate(result, examined),
        *modes(examined),
    ]


# ---------------------------------------------------------------- records


def damage(result: Scan, robot: Robot) -> Findings:
    """Records that cannot be trained on, and columns that are not as stated."""
    copy = "Copy or generate the file again, or train with on_error=skip, which leaves them out."
    for fault in result.faults.found[:SHOWN]:
        lost = f" ({fault.episodes} episodes)" if fault.episodes != 1 else ""
        yield _error("records", fault.reason + lost, copy, "records.damaged", "damaged records",
                     "Training stops there.", "on_error=skip", weight=9.0)  # fmt: skip
    if (more := len(result.faults.found) - SHOWN) > 0:
        yield _error("records", f"{more} more damaged records", copy, "records.damaged")
    if not result.episodes:
        text = f"none of {result.sampled} records became an episode"
        yield _error("records", text, "Copy the data set again.", "records.none", weight=10.0)
    for problem, count in result.problems.most_common(SHOWN):
        yield _warning("records", f"{count} records: {problem}", "Fix the data set's description.",
                       "records.column")  # fmt: skip
    used = {wanted.key for _, wanted in robot.columns()}
    for key, episodes in result.not_finite.items():
        name = key.removeprefix("steps/")
        text = f"{name} has NaN or infinity in episodes {listed(episodes)}"
        if key in used:
            yield _error("records", text, "Repair or leave out these episodes.", "records.nan",
                         f"NaN in {name}", "Training refuses such an episode.", "on_error=skip",
                         tuple(episodes), weight=8.0)  # fmt: skip
        else:
            yield _info("records", text + ", which is not read", code="records.nan_unused")
    for key, episodes in result.not_utf8.items():
        text = f"{key.removeprefix('steps/')} is not UTF-8 in episodes {listed(episodes)}"
        if key in {column(path).key for path in robot.instruction.paths}:
            yield _error("instructions", text, "Store instructions as UTF-8.", "instructions.utf8",
                         "instructions that are not UTF-8", "Training refuses them.",
                         "on_error=skip", tuple(episodes), weight=7.0)  # fmt: skip
    if result.empty:
        text = f"{len(result.empty)} episodes have no steps: {listed(result.empty)}"
        yield _warning("records", text, "They are counted and skipped.", "episodes.empty",
                       "episodes without steps", "Nothing is learned of them.", "",
                       tuple(result.empty))  # fmt: skip


# ---------------------------------------------------------------- motion and gripper


def motions(examined: Examination) -> Findings:
    """What the fits say beyond the stated conventions."""
    for evidence in examined.motions:
        place, best = f"action.{evidence.part}", evidence.best
        if not evidence.decided and not evidence.by_axis:
            if any(row.topic == place and row.code == "axes" for row in examined.verdicts):
                continue
            text = (
                f"no reading explains the measured motion of {place} (the best, {best.reading}: "
                f"{best.explained:.0%} of {best.moved:.2g} a step)"
            )
            remedy = "Check that the table names commanded and measured values of the same arm."
            yield _warning(place, text, remedy, "motion.unexplained",
                           f"{place} does not move what it should")  # fmt: skip
    moving = {part.kind for part in examined.robot.action} & {"position", "rotation", "joints"}
    if moving and not examined.motions:
        text = "too few measured values to compare the commanded motion with"
        yield _info("motion", text, "State the measured pose or joints.", "motion.unmeasured")
    if (late := examined.robot.steps.lag) and not examined.stated:
        steps = f"{abs(late)} step{'s' * (abs(late) > 1)}"
        text = f"every motion is over before its command: the draft shifts actions by {steps}"
        yield _warning("steps", text, "Check it in a few episodes.", "steps.lag",
                       f"actions are recorded {steps} {'late' if late > 0 else 'early'}",
                       cards.WHY["lag"], f"steps: {{lag: {late}}}", weight=4.0)  # fmt: skip
    for row in examined.verdicts:
        if row.code == "lead":
            text = f"the motion follows its command late: {row.numbers}"
            remedy = (
                "Usual for a robot that is slow to react. If the actions are recorded early "
                "instead, state steps: {lag: -1}."
            )
            lag = min(motion_.best.lag for motion_ in examined.motions if motion.late(motion_, 0))
            yield _warning("steps", text, remedy, "steps.lead",
                           f"the robot moves {lag} step{'s' * (lag > 1)} after its command",
                           "At most a delay that the policy learns with the rest.",
                           f"steps: {{lag: {-lag}}}")  # fmt: skip


def grippers(examined: Examination) -> Findings:
    """Both senses, timing and copies."""
    for grip in examined.grips:
        place = f"action.{grip.part}"
        inverted = any(row.topic == place and row.code == "gripper.sense"
                       and row.answer == "contradicts" for row in examined.verdicts)  # fmt: skip
        if examined.stated and not inverted and (grip.begin_closed or 0.0) >= gripper.BEGINS:
            part = next(row for row in examined.robot.action if row.name == grip.part)
            entries = [
                (f"{group}.{row.name}.{key}", gripper._plain(value))  # pyright: ignore
                for group, row in (("action", part), ("state", examined.robot.commanded(part)))
                if row is not None
                for key, value in (("open", row.closed), ("closed", row.open))
            ]
            text = (
                f"{grip.begin_closed:.0%} of the episodes begin with a closed gripper, as the "
                "table reads it"
            )
            remedy = "Unusual: open and closed may be exchanged in both. Look at the first frames."
            yield _warning(place, text, remedy, "gripper.both",
                           f"open and closed of {grip.part} may be exchanged, in action and state",
                           "The same on this robot; a simulator, another robot or Bridge's rule "
                           "would read it the other way.", cards.lines(entries),
                           weight=3.0)  # fmt: skip
        lag, alike = grip.best
        if abs(alike) < gripper.CLEAR or inverted:
            continue
        if lag < 0:
            text = (
                f"the gripper's command follows the measured gripper by {-lag} steps "
                f"(correlation {alike:+.2f})"
            )
            late = any(
                row.code == "lag" and row.answer == "contradicts" for row in examined.verdicts
            )
            if not late:
                yield _warning(place, text, "Recorded late: shift it when the data are converted.",
                               "gripper.late",
                               f"{place} comes {-lag} steps after the gripper has moved",
                               "The policy would learn to close after the gripper has closed.",
                               weight=2.0)  # fmt: skip
        elif grip.equal > 0.98 and grip.steps:
            text = f"command and measurement are the same in {grip.equal:.0%} of the steps"
            yield _info(place, text, "A copy of the measurement: it cannot lead.", "gripper.equal")
        else:
            text = f"the command leads the measured gripper by {lag} steps ({alike:+.2f})"
            yield _info(place, text, code="gripper.leads")


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


# ---------------------------------------------------------------- ends and rate


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


def rate(result: Scan, examined: Examination) -> Findings:
    """The stated rate against the format's own or time stamps."""
    stated = examined.robot.rate
    known = examined.source.rate
    found = ("the data set", known) if known else stamped_rate(result.tracks[:5])
    if found is None:
        text = f"{stated:g} steps a second; no time stamps to check it"
        if examined.stated:
            yield _info("rate", text + " by the table", code="rate.unchecked")
        else:
            yield _warning("rate", f"assumed: {text}", "RLDS holds no rate. State your robot's: "
                           "rate: 15", "rate.assumed", "the rate is not in the data: "
                           f"{stated:g} Hz assumed", "Chunks and velocities are counted in it.",
                           "rate: 15")  # fmt: skip
        return
    text = f"{found[0]}: {found[1]:.3g} steps a second, the table: {stated:g}"
    if abs(np.log(found[1] / stated)) > 0.1:
        yield _error("rate", text, "Correct rate.", "rate.wrong", f"the rate is {found[1]:.3g} Hz, "
                     f"not {stated:g}", "The robot would move faster or slower than it learned.",
                     f"rate: {found[1]:.3g}")  # fmt: skip
    else:
        yield _info("rate", text, code="rate.fits")


def modes(examined: Examination) -> Findings:
    """What can be trained where there is no action."""
    if not examined.robot.action:
        text = "no action among the features: the video mode alone trains"
        yield _info("action", text, "Name one under action: where there is one.", "action.none",
                    "video without actions")  # fmt: skip
