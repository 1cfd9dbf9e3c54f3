"""From counts and evidence to findings, each with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot
from robotics.inspection import cards, contents, evidence, gripper, values
from robotics.inspection.examination import Examination
from robotics.inspection.findings import Finding, listed
from robotics.inspection.fits import CONTRADICTS
from robotics.inspection.proposal import stamped_rate
from robotics.inspection.scan import Scan

SHOWN = 12
"""Faults listed one by one."""
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
        *_not_said(examined, values.findings(result, robot)),
        *contents.instructions(result, robot),
        *contents.cameras(result, robot),
        *contents.ends(result, robot),
        *rate(result, examined),
        *modes(examined),
    ]


def _not_said(examined: Examination, found: Findings) -> Findings:
    """Without hints at a factor that the motion has told."""
    wrong = {row.topic for row in examined.verdicts if row.answer == CONTRADICTS}
    for row in found:
        if row.code != "values.normalised" or row.text.partition(":")[0] not in wrong:
            yield row


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
    yield from _missing(result, robot)
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


def _missing(result: Scan, robot: Robot) -> Findings:
    """Columns of the table that some records lack, or hold otherwise than the others."""
    parts = {column(part.path).key for part in (*robot.state, *robot.action)}
    cameras = map(robot.camera, robot.recorded_cameras())
    views = {column(row.path).key for row in cameras if row.present is None}
    for key in sorted(parts | views):
        lacking = tuple(
            track.number for track in result.tracks
            if key not in (track.numbers if key in parts else track.pictures)
        )  # fmt: skip
        if 0 < len(lacking) < len(result.tracks):
            name = key.removeprefix("steps/")
            text = (
                f"{name} is absent, or not as long as the other columns, in episodes "
                f"{listed(lacking)}"
            )
            yield _error("records", text, "Repair or leave out these episodes.", "records.missing",
                         f"{name} is missing in {len(lacking)} episodes",
                         "Training refuses such an episode.", "on_error=skip", lacking,
                         weight=8.0)  # fmt: skip


# ---------------------------------------------------------------- motion and gripper


def motions(examined: Examination) -> Findings:
    """What the fits say beyond the stated conventions."""
    for fits in examined.motions:
        place, best = f"action.{fits.part}", fits.best
        if not fits.decided and not fits.by_axis:
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
    copied = any(row.code == "copy" for row in examined.questions)
    if (late := examined.robot.steps.lag) and not examined.stated and not copied:
        steps = f"{abs(late)} step{'s' * (abs(late) > 1)}"
        text = f"every motion is over before its command: the draft shifts actions by {steps}"
        yield _warning("steps", text, "Check it in a few episodes.", "steps.lag",
                       f"actions are recorded {steps} {'late' if late > 0 else 'early'}",
                       cards.WHY["lag"], f"steps: {{lag: {late}}}", weight=4.0)  # fmt: skip
    for row in examined.verdicts:
        if row.code == "kind.name":
            text = f"the table has {row.stated}, and the motion agrees; the names say {row.found}: "
            yield _warning(row.topic, text + row.numbers, "Nothing to do where the table is right.",
                           "kind.name", f"{row.topic} is not called {row.stated}",
                           cards.WHY["kind"])  # fmt: skip
        if row.code == "lags":
            text = f"parts of one action stand at different steps: {row.numbers}"
            yield _warning("steps", text, "Nothing is shifted. A measured value may be a copy of "
                           "its command.", "steps.lags", "not every part moves at the same step",
                           "At most a delay that the policy learns with the rest.")  # fmt: skip
        if row.code == "lead":
            text = f"the motion follows its command late: {row.numbers}"
            remedy = (
                "Usual for a robot that is slow to react. If the actions are recorded early "
                "instead, state steps: {lag: -1}."
            )
            lag = min(row.best.lag for row in examined.motions if evidence.late(row, 0))
            yield _warning("steps", text, remedy, "steps.lead",
                           f"the robot moves {lag} step{'s' * (lag > 1)} after its command",
                           "At most a delay that the policy learns with the rest.",
                           f"steps: {{lag: {-lag}}}")  # fmt: skip


def begin_closed(examined: Examination) -> Findings:
    """Grippers that usually begin closed: on some robots they do, else both senses are exchanged,
    which no comparison of the two shows."""
    if not examined.stated:
        return
    robot = examined.robot
    wrong = {row.topic for row in examined.verdicts
             if row.code == "gripper.sense" and row.answer == "contradicts"}  # fmt: skip
    doubted = [grip for grip in examined.grips if f"action.{grip.part}" not in wrong
               and (grip.begin_closed or 0.0) >= gripper.BEGINS]  # fmt: skip
    if not doubted:
        return
    parts = [part for part in robot.action if part.name in {grip.part for grip in doubted}]
    rows = [(group, row) for group, found in (
        ("action", parts), ("state", [robot.commanded(part) for part in parts])
    ) for row in found if row is not None]  # fmt: skip
    entries = [
        (f"{group}.{row.name}.{key}", gripper._plain(value))  # pyright: ignore
        for group, row in rows
        for key, value in (("open", row.closed), ("closed", row.open))
    ]
    names = " and ".join(part.name for part in parts)
    verb = "do" if len(parts) > 1 else "does"
    share = min(grip.begin_closed or 0.0 for grip in doubted)
    text = f"{share:.0%} of the episodes begin with a closed gripper, as the table reads it"
    remedy = (
        "Look at the first frames: all is well where your robot rests with closed grippers; "
        "where they show open ones, exchange open and closed."
    )
    title = f"{verb} {names} begin closed? Else open and closed are exchanged, in action and state"
    why = (
        "The same on this robot; a simulator, another robot or Bridge's rule would read it the "
        "other way."
    )
    yield _warning(f"action.{parts[0].name}", text, remedy, "gripper.both", title, why,
                   cards.lines(entries), weight=3.0)  # fmt: skip


def grippers(examined: Examination) -> Findings:
    """Both senses, timing and copies."""
    yield from begin_closed(examined)
    for grip in examined.grips:
        place = f"action.{grip.part}"
        inverted = any(row.topic == place and row.code == "gripper.sense"
                       and row.answer == "contradicts" for row in examined.verdicts)  # fmt: skip
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


# ---------------------------------------------------------------- rate and modes


def rate(result: Scan, examined: Examination) -> Findings:
    """The stated rate against the format's own or time stamps."""
    stated = examined.robot.rate
    known = examined.source.rate
    found = ("the data set", known) if known else stamped_rate(result.tracks[:5])
    if found is None:
        text = f"{stated:g} steps a second; no time stamps to check it"
        if examined.stated:
            yield _info("rate", text + " by the table", code="rate.unchecked")
        elif any(part.mode == "velocity" for part in examined.robot.action):
            lines = ["rate: 10", "rate: 15", "rate: 30"]
            yield Finding("question", "rate", f"No time stamps, and velocities are counted by it: "
                          f"{text}.", "State it in the table and run this again with --spec.",
                          "question.rate", "how many steps a second does your robot take?",
                          "A velocity becomes a motion by the rate: another one moves the robot "
                          "farther, or less.", lines[0], details={"lines": lines})  # fmt: skip
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
