"""From counts and evidence to findings, each with a remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from robotics.data.rlds.spec import DatasetSpec
from robotics.inspection import gripper, motion
from robotics.inspection.findings import Finding
from robotics.inspection.scan import PLACES, Scan, stored_parts

MANY = 0.3
"""Share of steps or episodes above which a habit of the data is a warning."""
FAR = 5.0
"""Outliers lie further than this many widths of [q01, q99] outside of it."""
JUMP = 0.3
"""m: a measured position further than this from the previous one is no motion."""
SCALES = (0.5, 2.0)
"""Gains of the measured over the commanded motion that pass as "the same unit"."""
SHOWN = 12
"""Faults listed one by one."""

Findings = Iterator[Finding]
_error, _warning, _info = (partial(Finding, severity) for severity in ("error", "warning", "info"))


def all_findings(
    result: Scan,
    spec: DatasetSpec,
    motions: Sequence[motion.Motion],
    grip: gripper.Grip | None,
    verdicts: Sequence[motion.Verdict],
) -> list[Finding]:
    """Everything worth reporting, in the order of the checks."""
    return [
        *damage(result),
        *conventions(verdicts, motions, grip),
        *vectors(result, spec),
        *instructions(result, spec),
        *frames(result),
        *ends(result, spec),
        rate(result, spec),
    ]


def damage(result: Scan) -> Findings:
    """Records that cannot be trained on, and columns that are not as stated."""
    copy = "Copy or generate the file again, or train with on_error=skip, which leaves them out."
    for fault in result.faults.found[:SHOWN]:
        lost = f" ({fault.episodes} episodes)" if fault.episodes != 1 else ""
        yield _error("records", fault.reason + lost, copy)
    if (more := len(result.faults.found) - SHOWN) > 0:
        yield _error("records", f"{more} more damaged records", copy)
    if not result.episodes:
        text = f"none of {result.sampled} records became an episode"
        if result.faults.filtered:
            text += f"; the filters leave out {result.faults.filtered}"
        yield _error("records", text, "Fix the records or the specification.")
    for problem, count in result.problems.most_common(SHOWN):
        yield _warning("records", f"{count} records: {problem}", "Fix features.json.")
    for key, count in result.not_finite.most_common(SHOWN):
        text = f"{key} has NaN or infinity in {count} episodes"
        yield _warning("records", text, "Refused where the specification reads it.")
    if damaged := result.texts.damaged:
        text = f"{len(damaged)} episodes have text that is not UTF-8: {', '.join(damaged[:3])}"
        yield _error("instructions", text, "Store instructions as UTF-8.")


def conventions(
    verdicts: Sequence[motion.Verdict],
    motions: Sequence[motion.Motion],
    grip: gripper.Grip | None,
) -> Findings:
    """Whether the evidence agrees with the specification."""
    for row in verdicts:
        if row.answer != motion.CONTRADICTS:
            yield _info(row.topic, f"{row.question}: {row.answer}. {row.numbers}.")
            continue
        text = f"{row.question}: specified {row.stated}, the data say {row.found}. {row.numbers}."
        remedy = "Use proposed.yaml, which corrects it."
        if not motion.correction(row) and row.topic != "gripper":
            remedy = "Rotate the actions into the base frame when the data are converted."
        elif row.found.startswith("euler_") and row.found != "euler_xyz":
            remedy = "Convert to roll-pitch-yaw about fixed axes; this order is not read."
        yield _error(row.topic, text, remedy)
    for evidence in motions:
        yield from _motion(evidence)
    if {evidence.name for evidence in motions} < {"translation", "rotation"}:
        text = "too few measured poses to compare the commanded motion with"
        yield _info("motion", text, "State proprio.position and rotation.")
    if grip is not None and grip.begin_closed is not None and grip.begin_closed > 0.8:
        text = f"{grip.begin_closed:.0%} of the episodes begin with a closed gripper"
        remedy = "Unusual: both gripper_closes may be inverted. Look at the first frames."
        yield _warning("gripper", text, remedy)


def _motion(evidence: motion.Motion) -> Findings:
    unit = "m" if evidence.name == "translation" else "rad"
    stated, best = evidence.stated, evidence.fits[0]
    matrix = evidence.matrix
    if matrix is not None and evidence.matrix_explains - evidence.gain_explains > 0.2:
        rows = "; ".join(" ".join(f"{value:+.2f}" for value in row) for row in matrix)
        text = (
            f"measured = M commanded explains {evidence.matrix_explains:.0%}, one gain "
            f"only {evidence.gain_explains:.0%}; M = [{rows}]"
        )
        remedy = "Axes, signs or units of commands and poses differ: convert one of them."
        yield _error("translation", text, remedy)
        return
    if best.explained < motion.EXPLAINS:
        text = (
            f"no convention explains the measured {evidence.name} (the best, {best.convention}: "
            f"{best.explained:.0%} of {evidence.moved:.2g} {unit} a step)"
        )
        remedy = "Check that the specification names commanded and measured pose of the same tool."
        yield _warning(evidence.name, text, remedy)
    if stated.explained < motion.EXPLAINS:
        return  # a verdict reports it
    if stated.lag > 0:
        text = f"the measured {evidence.name} follows its command {stated.lag} steps late"
        yield _info(evidence.name, text, "Actions may be shifted against observations.")
    if not SCALES[0] <= stated.gain <= SCALES[1]:
        text = (
            f"a commanded {unit} moves the tool by {stated.gain:.3g} {unit} "
            f"({stated.explained:.0%} of the motion explained)"
        )
        remedy = f"Scaled or normalised commands? A controller that takes {unit} needs that factor."
        yield _warning(evidence.name, text, remedy)
    if evidence.spread:
        mrad = f"{1000 * evidence.spread:.2g} mrad (99th percentile)"
        text = f"roll-pitch-yaw and axis-angle readings of the commands differ by up to {mrad}"
        yield _info("rotation", text)


def vectors(result: Scan, spec: DatasetSpec) -> Findings:
    """Constant dimensions, outliers, values cut off at bounds, quaternions, jumps."""
    for place, (low, high) in stored_parts(result.ranges, spec).items():
        constant = np.flatnonzero(high - low <= 1e-9)
        if len(constant):
            names = ", ".join(f"[{i}] = {low[i]:g}" for i in constant)
            remedy = "Dead sensor or unused axis: nothing can be learned of it; check the path."
            yield _warning("statistics", f"{place}: constant {names}", remedy)
    for place in PLACES:
        values = {track.name: track.parts[place] for track in result.tracks if place in track.parts}
        if values:
            yield from _distribution(place, list(values.values()), list(values), spec)


def _distribution(
    place: str, values: list[np.ndarray], names: list[str], spec: DatasetSpec
) -> Findings:
    pose = spec.action if place.startswith("action") else spec.proprio
    everything = np.concatenate(values)
    if place.endswith("rotation") and pose.rotation_kind.startswith("quaternion"):
        off = np.abs(np.linalg.norm(everything, axis=1) - 1) > 0.02
        if off.any():
            text = f"{place}: {off.mean():.1%} of the quaternions are not of length 1"
            yield _error("rotation", text, "State another rotation_kind or path.")
        return
    if place == "proprio.position":
        yield from _jumps(values, names)
    if place.endswith("gripper"):
        return
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
        yield _warning("statistics", text, remedy)
    if place.startswith("action"):
        yield from _saturated(place, everything)


def _jumps(values: list[np.ndarray], names: list[str]) -> Findings:
    jumps = []
    for name, rows in zip(names, values, strict=True):
        steps = np.linalg.norm(np.diff(rows, axis=0), axis=1)
        if steps.max(initial=0) > JUMP:
            jumps.append((float(steps.max()), name, int(np.argmax(steps))))
    if jumps:
        size, name, step = max(jumps, key=lambda jump: jump[0])
        where = f"{size:.2f} m ({name}, step {step})"
        text = f"{len(jumps)} episodes have jumps of the tool, up to {where}"
        yield _warning("statistics", text, "Lost tracking, or millimetres: look at the frames.")


def _saturated(place: str, values: np.ndarray) -> Findings:
    low, high = values.min(0), values.max(0)
    moving = high - low > 1e-9
    share = ((values == low) | (values == high)).mean(0)
    distinct = [len(np.unique(column)) for column in values.T]
    cut = [i for i in np.flatnonzero(moving & (share > 0.05)) if distinct[i] > 10]
    if not cut:
        return
    names = ", ".join(f"[{i}] {share[i]:.0%} at {low[i]:.3g} or {high[i]:.3g}" for i in cut)
    text = f"{place}: many values exactly at the ends of their range: {names}"
    if all(abs(low[i]) == abs(high[i]) == 1.0 for i in cut):
        yield _warning("statistics", text, "Normalised to [-1, 1], not m or rad?")
    else:
        yield _info("statistics", text, "Commands limited by the controller.")


def instructions(result: Scan, spec: DatasetSpec) -> Findings:
    """Empty and nearly equal instructions."""
    texts = result.texts
    if texts.empty:
        text = f"{texts.empty} of {result.episodes} episodes have an empty instruction"
        drop = f'filters: [{{path: {spec.instruction}, drop: [""]}}] in the specification.'
        yield _warning("instructions", text, f"Leave them out: {drop}")
    plain = Counter(" ".join(text.lower().rstrip(".").split()) for text in texts.episodes)
    if twins := sum(count - 1 for text, count in plain.items() if text):
        text = f"{twins} instructions differ from another only in case, spaces or a full stop"
        yield _info("instructions", text, "Write each in one way.")
    if texts.changing:
        text = f"the instruction changes within {texts.changing} episodes"
        yield _info("instructions", text, "Chunks of actions end there.")
    if texts.episodes and len(plain) == 1 and result.episodes > 1:
        yield _info("instructions", "all episodes have the same instruction")


def frames(result: Scan) -> Findings:
    """Sizes, copies and empty frames."""
    seen = result.frames
    if seen.last_repeated:
        often = seen.last_repeated > 0.05 * result.episodes
        text = (
            f"the last frame is a copy of the one before in {seen.last_repeated} of "
            f"{result.episodes} episodes"
        )
        remedy = "Padding: drop the last step when the data are converted."
        yield (_warning if often else _info)("frames", text, remedy)
    share = (seen.repeated - seen.last_repeated) / max(seen.seen, 1)
    if share > 0.02:
        text = f"{share:.0%} of {seen.seen} frames are copies of the one before"
        remedy = "A camera slower than the control rate, or one that froze: subsample the steps."
        yield _warning("frames", text, remedy)
    if seen.flat:
        text = f"{seen.flat} of {seen.seen} frames show a single colour"
        yield _warning("frames", text, "Is the right camera named?")
    if len(seen.sizes) > 1:
        sizes = ", ".join(f"{h} x {w}: {n}" for (h, w), n in seen.sizes.most_common(5))
        yield _info("frames", f"frames of several sizes: {sizes}")


def ends(result: Scan, spec: DatasetSpec) -> Findings:
    """Idle steps, ends of episodes and flags."""
    count, episodes, steps = result.ends, result.episodes, result.steps
    if not episodes:
        return
    share = result.still / steps
    text = f"{share:.1%} of the steps command nothing (below 1 mm and 5 mrad, gripper as before)"
    remedy = 'no_ops="{position: 1e-3, rotation: 5e-3}" starts no training window at them.'
    yield (_warning if share > MANY else _info)("ends", text, remedy if result.still else "")
    if count.never:
        text = f"{count.never} of {episodes} episodes never terminate"
        remedy = "State action.terminate or is_terminal; else a policy does not learn to stop."
        yield _warning("ends", text, remedy)
    source = spec.action.terminate or spec.is_terminal or "the last step, by default"
    text = (
        f"terminate (of {source}) is set at the last step in {count.at_end} of {episodes}, "
        f"at several steps in a row in {count.repeated}, and the same instruction continues "
        f"after it in {count.going_on}"
    )
    if count.going_on > MANY * episodes:
        yield _warning("ends", text, "It should mark the end of a sub-task.")
    else:
        yield _info("ends", text)
    if count.idle_last:
        text = f"the last step commands no motion in {count.idle_last} of {episodes} episodes"
        yield _info("ends", text, "Usual where it terminates; else padding.")
    if count.wrong_flags:
        text = f"is_first or is_last marks another step in {count.wrong_flags} episodes"
        yield _warning("ends", text, "Episodes cut or joined?")
    if spec.success is not None and count.success < episodes:
        text = f"{episodes - count.success} of {episodes} episodes failed"
        remedy = f"filters: [{{path: {spec.success}, keep: [true]}}] leaves them out."
        yield _info("ends", text, remedy)
    if short := sum(length < 3 for length in result.lengths):
        text = f"{short} episodes have fewer than 3 steps"
        yield _warning("ends", text, "Cut off while recording?")


def rate(result: Scan, spec: DatasetSpec) -> Finding:
    """Time stamps against the stated control rate."""
    for key, values in result.intervals.items():
        interval = float(np.median(values))
        if interval <= 0:
            continue
        # Seconds, or milli-, micro- or nanoseconds: whichever comes nearest.
        rates = [10**power / interval for power in (0, 3, 6, 9)]
        hertz = min(rates, key=lambda hz: abs(np.log(hz / spec.control_hz)))
        text = f"{key}: {hertz:.3g} steps a second, the specification: {spec.control_hz:g}"
        if abs(np.log(hertz / spec.control_hz)) > 0.1:
            return _warning("rate", text, "Correct control_hz.")
        return _info("rate", text)
    text = f"{spec.control_hz:g} steps a second by the specification; no time stamps to check it"
    return _info("rate", text)
