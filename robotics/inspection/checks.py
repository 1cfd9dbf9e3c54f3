"""From what was counted and weighed to findings with a remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from robotics.data.rlds.spec import DatasetSpec
from robotics.inspection import gripper, motion
from robotics.inspection.findings import Finding
from robotics.inspection.scan import PLACES, Scan, stored_parts

MANY = 0.3
"""Share of steps or episodes from which on a habit of the data is a warning."""
FAR = 5.0
"""Outliers lie further than this many widths of [q01, q99] outside of it."""
JUMP = 0.3
"""m: a measured position further than this from the one before is no motion."""
SCALES = (0.5, 2.0)
"""Gains of the measured over the commanded motion that pass as "the same unit"."""
SHOWN = 12
"""Faults spelt out one by one."""
AXES = ("x", "y", "z")


def all_findings(
    result: Scan,
    spec: DatasetSpec,
    motions: Sequence[motion.Motion],
    grip: gripper.Grip | None,
    verdicts: Sequence[motion.Verdict],
) -> list[Finding]:
    """Everything worth saying, in the order of the checks."""
    return [
        *damage(result),
        *conventions(verdicts, motions, grip),
        *vectors(result, spec),
        *instructions(result, spec),
        *frames(result),
        *ends(result, spec),
        *rate(result, spec),
    ]


def damage(result: Scan) -> list[Finding]:
    """Records that cannot be trained on, and columns that are not as stated."""
    found = []
    copy = "Copy or generate the file again, or train with on_error=skip, which leaves them out."
    for fault in result.faults.found[:SHOWN]:
        lost = f" ({fault.episodes} episodes)" if fault.episodes != 1 else ""
        found.append(Finding("error", "records", fault.reason + lost, copy))
    if (more := len(result.faults.found) - SHOWN) > 0:
        found.append(Finding("error", "records", f"{more} more damaged records", copy))
    if not result.episodes:
        text = f"none of {result.sampled} records became an episode"
        if result.faults.filtered:
            text += f"; the filters leave out {result.faults.filtered}"
        found.append(Finding("error", "records", text, "Mend the records or the specification."))
    for problem, count in result.problems.most_common(SHOWN):
        found.append(
            Finding("warning", "records", f"{count} records: {problem}", "Mend features.json.")
        )
    for key, count in result.not_finite.most_common(SHOWN):
        text = f"{key} has NaN or infinity in {count} episodes"
        found.append(
            Finding("warning", "records", text, "Refused where the specification reads it.")
        )
    if result.texts.damaged:
        names = ", ".join(result.texts.damaged[:3])
        text = f"{len(result.texts.damaged)} episodes have text that is not UTF-8: {names}"
        found.append(Finding("error", "instructions", text, "Store instructions as UTF-8."))
    return found


def conventions(
    verdicts: Sequence[motion.Verdict],
    motions: Sequence[motion.Motion],
    grip: gripper.Grip | None,
) -> list[Finding]:
    """What the evidence says of the specification."""
    found = []
    for row in verdicts:
        if row.answer == motion.CONTRADICTS:
            text = (
                f"{row.question}: specified {row.stated}, the data say {row.found}. {row.numbers}."
            )
            remedy = "Use proposed.yaml, in which it is turned."
            if not motion.spec_entries([row]) and row.topic != "gripper":
                remedy = "Turn the actions into the base frame when the data are converted."
            elif row.found.startswith("euler_") and row.found != "euler_xyz":
                remedy = "Convert to roll-pitch-yaw about fixed axes; this order is not read."
            found.append(Finding("error", row.topic, text, remedy))
        else:
            found.append(
                Finding("info", row.topic, f"{row.question}: {row.answer}. {row.numbers}.")
            )
    for evidence in motions:
        found += _motion(evidence)
    if {evidence.name for evidence in motions} < {"translation", "rotation"}:
        text = "too few measured poses to hold the commanded motion against"
        found.append(Finding("info", "motion", text, "State proprio.position and rotation."))
    if grip is not None and grip.begin_closed is not None and grip.begin_closed > 0.8:
        text = f"{grip.begin_closed:.0%} of the episodes begin with a closed gripper"
        remedy = (
            "Unusual: both gripper_closes may be the wrong way round. Look at the first frames."
        )
        found.append(Finding("warning", "gripper", text, remedy))
    return found


def _motion(evidence: motion.Motion) -> list[Finding]:
    found = []
    unit = "m" if evidence.name == "translation" else "rad"
    own, best = evidence.stated, evidence.fits[0]
    matrix = evidence.matrix
    if matrix is not None and evidence.matrix_explains - evidence.gain_explains > 0.2:
        rows = "; ".join(" ".join(f"{value:+.2f}" for value in row) for row in matrix)
        text = (
            f"measured = M commanded explains {evidence.matrix_explains:.0%}, one gain "
            f"only {evidence.gain_explains:.0%}; M = [{rows}]"
        )
        remedy = "Axes, signs or units of commands and poses differ: convert one of them."
        return [Finding("error", "translation", text, remedy)]
    if best.explained < motion.EXPLAINS:
        text = (
            f"no convention explains the measured {evidence.name} (the best, {best.convention}: "
            f"{best.explained:.0%} of {evidence.moved:.2g} {unit} a step)"
        )
        remedy = (
            "Check that the specification names the commanded and the measured pose of one tool."
        )
        return [Finding("warning", evidence.name, text, remedy)]
    if own.explained < motion.EXPLAINS:
        return found  # the verdicts have said it
    if own.lag > 0:
        text = f"the measured {evidence.name} follows its command {own.lag} steps late"
        found.append(
            Finding("info", evidence.name, text, "Actions may be shifted against observations.")
        )
    if not SCALES[0] <= own.gain <= SCALES[1]:
        text = (
            f"a commanded {unit} moves the tool by {own.gain:.3g} {unit} ({own.explained:.0%} of "
            "the motion explained)"
        )
        remedy = f"Scaled or normalised commands? A controller that takes {unit} needs that factor."
        found.append(Finding("warning", evidence.name, text, remedy))
    if evidence.spread:
        text = (
            "roll-pitch-yaw and axis-angle readings of the commands differ by up to "
            f"{1000 * evidence.spread:.2g} mrad (99th percentile)"
        )
        found.append(Finding("info", "rotation", text))
    return found


def vectors(result: Scan, spec: DatasetSpec) -> list[Finding]:
    """Constant dimensions, outliers, values cut off at bounds, quaternions, jumps."""
    found = []
    for place, low, high in _ranges(result, spec):
        constant = np.flatnonzero(high - low <= 1e-9)
        if len(constant):
            names = ", ".join(f"[{i}] = {low[i]:g}" for i in constant)
            text = f"{place}: constant {names}"
            remedy = "Dead sensor or unused axis: nothing can be learned of it; check the path."
            found.append(Finding("warning", "statistics", text, remedy))
    for place in PLACES:
        values = [track.parts[place] for track in result.tracks if place in track.parts]
        if values:
            names = [track.name for track in result.tracks if place in track.parts]
            found += _distribution(place, values, names, spec)
    return found


def _ranges(result: Scan, spec: DatasetSpec) -> list[tuple[str, np.ndarray, np.ndarray]]:
    bounds = stored_parts(result.ranges, spec)
    return [(place, rows[0], rows[1]) for place, rows in bounds.items()]


def _distribution(
    place: str, values: list[np.ndarray], names: list[str], spec: DatasetSpec
) -> list[Finding]:
    found = []
    pose = spec.action if place.startswith("action") else spec.proprio
    quaternion = place.endswith("rotation") and pose.rotation_kind.startswith("quaternion")
    everything = np.concatenate(values)
    if quaternion:
        off = np.abs(np.linalg.norm(everything, axis=1) - 1) > 0.02
        if off.any():
            text = f"{place}: {off.mean():.1%} of the quaternions are not of length 1"
            remedy = "State another rotation_kind or path."
            found.append(Finding("error", "rotation", text, remedy))
        return found
    if place == "proprio.position":
        jumps = [
            (name, int(np.argmax(steps)), float(steps.max()))
            for name, rows in zip(names, values, strict=True)
            if len(rows) > 1
            and (steps := np.linalg.norm(np.diff(rows, axis=0), axis=1)).max() > JUMP
        ]
        if jumps:
            name, step, size = max(jumps, key=lambda row: row[2])
            where = f"{size:.2f} m ({name}, step {step})"
            text = f"{len(jumps)} episodes have jumps of the tool, up to {where}"
            remedy = "Lost tracking, or millimetres: compare with the frames."
            found.append(Finding("warning", "statistics", text, remedy))
    if place.endswith("gripper"):
        return found
    low, high = np.quantile(everything, [0.01, 0.99], axis=0)
    width = np.maximum(high - low, 1e-6)
    outside = (everything < low - FAR * width) | (everything > high + FAR * width)
    for index in np.flatnonzero(outside.any(0)):
        rows = everything[:, index]
        worst = int(np.argmax(np.abs(rows - rows.mean())))
        episode = int(np.searchsorted(np.cumsum([len(v) for v in values]), worst, side="right"))
        text = (
            f"{place}[{index}]: {int(outside[:, index].sum())} values further than {FAR:g} widths "
            f"of [q01, q99] outside of it, worst {rows[worst]:.3g} in {names[episode]}"
        )
        remedy = "They decide normalizer.kind=minmax, and pull means; look at that episode."
        found.append(Finding("warning", "statistics", text, remedy))
    if place.startswith("action"):
        found += _saturated(place, everything)
    return found


def _saturated(place: str, values: np.ndarray) -> list[Finding]:
    low, high = values.min(0), values.max(0)
    moving = high - low > 1e-9
    share = ((values == low) | (values == high)).mean(0)
    distinct = [len(np.unique(column)) for column in values.T]
    cut = [i for i in np.flatnonzero(moving & (share > 0.05)) if distinct[i] > 10]
    if not cut:
        return []
    names = ", ".join(f"[{i}] {share[i]:.0%} at {low[i]:.3g} or {high[i]:.3g}" for i in cut)
    text = f"{place}: many values exactly at the ends of their range: {names}"
    if all(abs(low[i]) == abs(high[i]) == 1.0 for i in cut):
        return [Finding("warning", "statistics", text, "Normalised to [-1, 1], not m or rad?")]
    return [Finding("info", "statistics", text, "Commands limited by the controller.")]


def instructions(result: Scan, spec: DatasetSpec) -> list[Finding]:
    """Empty and nearly equal instructions."""
    found = []
    texts, episodes = result.texts, max(result.episodes, 1)
    if texts.empty:
        text = f"{texts.empty} of {result.episodes} episodes have an empty instruction"
        remedy = (
            "Leave them out: filters: [{path: " + spec.instruction + ', drop: [""]}] in the '
            "specification."
        )
        found.append(Finding("warning", "instructions", text, remedy))
    plain = Counter(" ".join(text.lower().rstrip(".").split()) for text in texts.episodes)
    twins = sum(count - 1 for text, count in plain.items() if text)
    if twins:
        text = f"{twins} instructions differ from another only in case, spaces or a full stop"
        found.append(Finding("info", "instructions", text, "Write each in one way."))
    if texts.changing:
        text = f"the instruction changes within {texts.changing} episodes"
        found.append(Finding("info", "instructions", text, "Chunks of actions end there."))
    if texts.episodes and len(plain) == 1 and episodes > 1:
        found.append(Finding("info", "instructions", "all episodes have one instruction"))
    return found


def frames(result: Scan) -> list[Finding]:
    """Sizes, copies and empty frames."""
    found, seen = [], result.frames
    episodes, steps = max(result.episodes, 1), max(seen.seen, 1)
    if seen.last_repeated:
        share = seen.last_repeated / episodes
        text = (
            f"the last frame is a copy of the one before in {seen.last_repeated} of "
            f"{result.episodes} episodes"
        )
        remedy = "Padding: drop the last step when the data are converted."
        found.append(Finding("warning" if share > 0.05 else "info", "frames", text, remedy))
    others = seen.repeated - seen.last_repeated
    if others > 0.02 * steps:
        text = f"{others} of {seen.seen} frames are copies of the one before ({others / steps:.0%})"
        remedy = "A camera slower than the control rate, or one that froze: subsample the steps."
        found.append(Finding("warning", "frames", text, remedy))
    if seen.flat:
        text = f"{seen.flat} of {seen.seen} frames show a single colour"
        found.append(Finding("warning", "frames", text, "Is the right camera named?"))
    if len(seen.sizes) > 1:
        text = ", ".join(f"{h} x {w}: {n}" for (h, w), n in seen.sizes.most_common(5))
        found.append(Finding("info", "frames", f"frames of several sizes: {text}"))
    return found


def ends(result: Scan, spec: DatasetSpec) -> list[Finding]:
    """Idle steps, ends of episodes and flags."""
    found, count = [], result.ends
    episodes, steps = result.episodes, result.steps
    if not episodes:
        return found
    remedy = 'no_ops="{position: 1e-3, rotation: 5e-3}" starts no training window at them.'
    share = result.still / steps
    found.append(
        Finding(
            "warning" if share > MANY else "info",
            "ends",
            f"{share:.1%} of the steps command nothing (below 1 mm and 5 mrad, gripper as before)",
            remedy if result.still else "",
        )
    )
    if count.never:
        text = f"{count.never} of {episodes} episodes never terminate"
        remedy = "State action.terminate or is_terminal; else a policy does not learn to stop."
        found.append(Finding("warning", "ends", text, remedy))
    source = spec.action.terminate or spec.is_terminal or "the last step, by default"
    text = (
        f"terminate (of {source}) is set at the last step in {count.at_end} of {episodes}, "
        f"at several steps in a row in {count.repeated}, and the same instruction goes on "
        f"behind it in {count.going_on}"
    )
    severity = "warning" if count.going_on > MANY * episodes else "info"
    remedy = "It should mark the end of a sub-task." if severity == "warning" else ""
    found.append(Finding(severity, "ends", text, remedy))
    if count.idle_last:
        text = f"the last step commands no motion in {count.idle_last} of {episodes} episodes"
        found.append(Finding("info", "ends", text, "Usual where it terminates; else padding."))
    if count.wrong_flags:
        text = f"is_first or is_last is not at the first or last step alone in {count.wrong_flags}"
        found.append(Finding("warning", "ends", f"{text} episodes", "Episodes cut or joined?"))
    if spec.success is not None and count.success < episodes:
        text = f"{episodes - count.success} of {episodes} episodes are no success"
        remedy = f"filters: [{{path: {spec.success}, keep: [true]}}] leaves them out."
        found.append(Finding("info", "ends", text, remedy))
    short = sum(length < 3 for length in result.lengths)
    if short:
        text = f"{short} episodes have fewer than 3 steps"
        found.append(Finding("warning", "ends", text, "Cut off while recording?"))
    return found


def rate(result: Scan, spec: DatasetSpec) -> list[Finding]:
    """Time stamps against the stated control rate."""
    for key, values in result.intervals.items():
        interval = float(np.median(values))
        if interval <= 0:
            continue
        hertz = 1 / interval
        # Seconds, or milli-, micro- or nanoseconds: whichever comes nearest.
        hertz = min(
            (hertz * 10**p for p in (0, 3, 6, 9)), key=lambda h: abs(np.log(h / spec.control_hz))
        )
        text = f"{key} says {hertz:.3g} steps a second, the specification {spec.control_hz:g}"
        if abs(np.log(hertz / spec.control_hz)) > 0.1:
            return [Finding("warning", "rate", text, "Correct control_hz.")]
        return [Finding("info", "rate", text)]
    text = f"{spec.control_hz:g} steps a second by the specification; no time stamps to check it"
    return [Finding("info", "rate", text)]
