"""What the evidence says of each convention that a robot's table states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from robotics.embodiment.parts import UNITS, Part
from robotics.embodiment.robot import Robot
from robotics.inspection import gripper
from robotics.inspection.choices import TURN
from robotics.inspection.evidence import Motion, late
from robotics.inspection.fits import (
    AGREES,
    CONTRADICTS,
    UNCLEAR,
    Fit,
    Verdict,
    advantage,
    answer,
)
from robotics.inspection.motion import motions
from robotics.inspection.scan import Track
from robotics.inspection.turns import COMPONENTS, SMALL, rotations

FACTORS = {
    "mm": 1e-3, "cm": 1e-2, "deg": UNITS["deg"],
    "the measured values are in mm": 1e3, "the measured values are in cm": 1e2,
    "the measured values are in degrees": 1 / UNITS["deg"],
}  # fmt: skip
ALIKE, EXACT = 1.25, 0.9
"""Gains up to this factor from 1 are those of a controller; where this share of the motion is
explained, they are not beyond it."""
ALIKE_SHARE = 0.01
"""Share of the motion by which two readings of changes may differ and mean the same."""
LOOSE = 2.5
"""Beyond this factor no controller explains a gain."""
REACH = 1.6
"""m: farther from its base no common arm reaches."""
JOINT_TURN = 10.0
"""rad: joints that go beyond this are degrees."""


def verify(tracks: Sequence[Track], robot: Robot) -> tuple[list[Verdict], list[Motion], list[gripper.Grip]]:  # fmt: skip  # noqa: E501
    """Every stated convention that the data can say something about, and the evidence."""
    found = list(state_verdicts(tracks, robot))
    evidence = motions(tracks, robot)
    for motion in evidence:
        found += of_motion(motion, robot)
    found += timing(evidence, robot)
    grips = gripper.evidence(tracks, robot)
    for grip in grips:
        found += gripper.verdicts(grip, robot)
    return found, evidence, grips


# ---------------------------------------------------------------- measured values by themselves


def state_verdicts(tracks: Sequence[Track], robot: Robot) -> Iterator[Verdict]:
    """Units and kinds that the measured values, and absolute commands, contradict by themselves."""
    targets = [part for part in robot.action if part.mode == "absolute"]
    named = [("state", part) for part in robot.state] + [("action", part) for part in targets]
    for group, part in named:
        rows = [row for track in tracks if (row := track.values(part.path)) is not None]
        rows = [row for row in rows if row.shape[1] == part.width and np.isfinite(row).all()]
        if not rows:
            continue
        values = np.concatenate(rows)
        place = f"{group}.{part.name}"
        if part.kind == "position":
            yield from _reach(place, part, values)
        elif part.kind in ("rotation", "joints"):
            yield from _angles(place, part, values)
        if part.kind == "rotation":
            yield from _continuity(place, part, rows)


def _reach(place: str, part: Part, values: np.ndarray) -> Iterator[Verdict]:
    if part.width != 3:
        return
    distance = np.linalg.norm(values * part.factor, axis=1)
    middle, farthest = float(np.median(distance)), float(np.quantile(distance, 0.99))
    numbers = f"median distance from the base {middle:.3g} m, 99% within {farthest:.3g} m"
    if farthest <= REACH:
        yield Verdict(place, "unit of the position", AGREES, part.unit or "m", part.unit or "m",
                      numbers, "unit")  # fmt: skip
        return
    for unit, size in (("mm", 1e-3), ("cm", 1e-2)):
        if 0.1 < middle * size < 1.3 and farthest * size <= REACH:
            entries = ((f"{place}.unit", unit),)
            yield Verdict(place, "unit of the position", CONTRADICTS, part.unit or "m", unit,
                          numbers, "unit", entries)  # fmt: skip
            return
    yield Verdict(
        place, "a position of the tool", UNCLEAR, "position", "position",
        numbers + "; farther than an arm reaches: joints, a mobile base, or another unit", "kind",
    )  # fmt: skip


def _angles(place: str, part: Part, values: np.ndarray) -> Iterator[Verdict]:
    form = part.form or ""
    if part.width in (4, 6, 9) and part.kind == "rotation":
        yield from _lengths(place, part, values)
        return
    if part.kind == "rotation" and not form.startswith("euler") and form != "axis_angle":
        return
    limit = TURN if part.kind == "rotation" else JOINT_TURN
    largest = float(np.abs(values * part.factor).max())
    numbers = f"values up to {largest:.3g} {'rad' if part.unit == 'rad' else 'rad as stated'}"
    if part.unit == "rad" and largest > limit:
        yield Verdict(place, "unit of the angles", CONTRADICTS, "rad", "deg", numbers, "unit",
                      ((f"{place}.unit", "deg"),))  # fmt: skip
    elif part.unit == "deg" and float(np.abs(values).max()) < 4.0:
        yield Verdict(place, "unit of the angles", CONTRADICTS, "deg", "rad",
                      f"values up to {np.abs(values).max():.3g}", "unit",
                      ((f"{place}.unit", "rad"),))  # fmt: skip
    elif part.unit in ("rad", "deg"):
        yield Verdict(place, "unit of the angles", AGREES, part.unit, part.unit, numbers, "unit")
    if form == "axis_angle":
        size = np.linalg.norm(values * part.factor, axis=1)
        if float(np.quantile(size, 0.99)) > np.pi * 1.01 and largest <= limit:
            numbers = f"lengths up to {size.max():.3g} rad: a rotation vector has at most pi"
            yield Verdict(place, "form of the rotation", CONTRADICTS, form, "euler_xyz", numbers,
                          "form", ((f"{place}.form", "euler_xyz"),))  # fmt: skip


def _continuity(place: str, part: Part, rows: Sequence[np.ndarray]) -> Iterator[Verdict]:
    """Whether an axis times angle or Euler angles: read as the wrong one of them, a rotation jumps
    where the other goes around the circle. Of quaternions, which value is w: it is often kept
    positive."""
    form = part.form or ""
    if part.width == 4:
        yield from _quaternion_order(place, part, rows)
    if part.width != 3 or np.abs(np.concatenate(rows) * part.factor).max() > TURN:
        return
    stated = "axis_angle" if form == "axis_angle" else form
    other = "euler_xyz" if form == "axis_angle" else "axis_angle"
    jumps = {name: _jumps(part, rows, name) for name in (stated, other)}
    if jumps[stated] == jumps[other]:
        return
    says = AGREES if jumps[stated] < jumps[other] else CONTRADICTS
    found = stated if says == AGREES else other
    numbers = (
        f"read as {stated} the rotation jumps at {jumps[stated]} steps, as {other} at "
        f"{jumps[other]}"
    )
    entries = ((f"{place}.form", found),) if says == CONTRADICTS else ()
    yield Verdict(place, "form of the rotation, by its continuity", says, form, found, numbers,
                  "form", entries)  # fmt: skip


def _jumps(part: Part, rows: Sequence[np.ndarray], form: str) -> int:
    """Steps that turn by much more than the others."""
    sizes = []
    for values in rows:
        read = rotations(values, part, form)
        sizes.append((read[1:] * read[:-1].inv()).magnitude() if len(values) > 1 else np.zeros(0))
    every = np.concatenate(sizes)
    usual = float(np.quantile(every, 0.9)) if len(every) else 0.0
    return int((every > max(0.2, 4 * usual)).sum())


def _quaternion_order(place: str, part: Part, rows: Sequence[np.ndarray]) -> Iterator[Verdict]:
    stated = part.form or ""
    at = {"quaternion_xyzw": 3, "quaternion_wxyz": 0}
    values = np.concatenate(rows)
    kept = {
        form: bool(values[:, i].min() >= -1e-6 and values[:, i].min() < 0.2)
        for form, i in at.items()
    }
    both = {form: bool(values[:, i].min() < -0.01) for form, i in at.items()}
    other = next(form for form in at if form != stated)
    question = "order of the quaternion, by the sign that is kept"
    numbers = f"value {at[stated]} {'is' if kept[stated] else 'is not'} kept positive, value " \
        f"{at[other]} {'is' if kept[other] else 'is not'}"  # fmt: skip
    if kept[stated] and both[other]:
        yield Verdict(place, question, AGREES, stated, stated, numbers, "form")
    elif kept[other] and both[stated]:
        yield Verdict(place, question, CONTRADICTS, stated, other, numbers, "form",
                      ((f"{place}.form", other),))  # fmt: skip


def _lengths(place: str, part: Part, values: np.ndarray) -> Iterator[Verdict]:
    if not (part.form or "").startswith("quaternion"):
        return
    off = np.abs(np.linalg.norm(values, axis=1) - 1) > 0.02
    question, numbers = "length of the quaternions", f"{off.mean():.1%} are not of length 1"
    if off.mean() > 0.05:
        numbers += ": other values than a quaternion"
        yield Verdict(place, question, CONTRADICTS, "quaternion", "other", numbers, "quaternion")
    elif not off.any():
        yield Verdict(place, question, AGREES, "quaternion", "quaternion", numbers, "quaternion")


# ---------------------------------------------------------------- commands against motion


def of_motion(motion: Motion, robot: Robot) -> list[Verdict]:
    """Mode, frame, forms and scale of one action part."""
    part = next(row for row in robot.action if row.name == motion.part)
    state = robot.commanded(part)
    place = f"action.{part.name}"
    found = []

    def ask(
        code: str, question: str, stated: str, key: Callable[[Fit], str], among: Sequence[Fit],
        entry: str = "", matters: bool = True,
    ) -> None:  # fmt: skip
        alike = [fit for fit in among if key(fit) == stated]
        rivals = [fit for fit in among if key(fit) != stated]
        if not alike or not rivals:
            return
        mine, rival = (max(fits, key=lambda fit: fit.explained) for fits in (alike, rivals))
        says = answer(mine, rival)
        numbers = (
            f"{stated} explains {mine.explained:.1%} of the measured motion (gain {mine.gain:.3g}, "
            f"lag {mine.lag}), {key(rival)} {rival.explained:.1%}; difference "
            f"{abs(advantage(rival, mine)):.1f} standard errors, {mine.steps} steps"
        )
        # Readings of small changes that explain the same are the same for a policy.
        same = mine.reading.mode == "delta" and mine.explained - rival.explained < ALIKE_SHARE
        winner = key(rival) if says == CONTRADICTS else stated
        entries = ((entry, winner),) if says == CONTRADICTS and entry else ()
        found.append(
            Verdict(
                place, question, says, stated, winner, numbers, code, entries, matters and not same
            )
        )

    plain = [fit for fit in motion.fits if fit.reading.measured != COMPONENTS]
    mode = "absolute" if part.mode == "absolute" else "delta"
    entry = f"{place}.mode"
    ask("mode", "delta or absolute", mode, lambda f: f.reading.mode, motion.fits, entry)
    decided = motion.best.reading.mode if motion.decided else mode
    among = [fit for fit in plain if fit.reading.mode == decided]
    if decided == "delta" and part.kind in ("position", "rotation"):
        frame = part.frame
        ask(
            "frame", "base or tool frame", frame, lambda f: f.reading.frame, among, f"{place}.frame"
        )
    if part.kind == "rotation" and state is not None:
        form, measured = part.form or "", state.form or ""
        if part.width == 3:
            ask("form", "form of the commanded rotation", form, lambda f: f.reading.form, among,
                f"{place}.form", motion.spread > SMALL)  # fmt: skip
        ask("state_form", "form of the measured rotation", measured, lambda f: f.reading.measured,
            among, f"state.{state.name}.form", motion.state_spread > SMALL)  # fmt: skip
        found += _composed(motion, place, mode)
    found += _scale(motion, part, robot, place)
    return found


def _composed(motion: Motion, place: str, mode: str) -> list[Verdict]:
    """Whether three angles turn a tool or are separate values."""
    group = [fit for fit in motion.fits if fit.reading.measured != COMPONENTS]
    single = [fit for fit in motion.fits if fit.reading.measured == COMPONENTS]
    if mode != "delta" or not group or not single:
        return []
    best, rival = (max(fits, key=lambda fit: fit.explained) for fits in (group, single))
    says = answer(best, rival)
    numbers = (
        f"turned as rotations the commands explain {best.explained:.1%} of the measured turns, "
        f"value by value {rival.explained:.1%} of the change of the values; difference "
        f"{abs(advantage(rival, best)):.1f} standard errors"
    )
    found = (
        "separate values (joints, or angles subtracted)" if says == CONTRADICTS else "a rotation"
    )
    return [Verdict(place, "a rotation or separate values", says, "a rotation", found, numbers,
                    "kind")]  # fmt: skip


def _scale(motion: Motion, part: Part, robot: Robot, place: str) -> list[Verdict]:
    """Factor and signs of the commanded values."""
    best = motion.best
    if not motion.decided and not motion.by_axis:
        return _mixed(motion, place)
    if motion.axis_mode == "absolute":
        return _levels(motion, part, place)
    expected = 1 / robot.rate if part.mode == "velocity" else 1.0
    total = best.gain * motion.prescale / expected
    ratio = motion.axis_gain * motion.prescale / expected
    clear = motion.axis_explained > 0.5
    stated = f"1 is {np.ravel(part.scale)[0]:g} {part.unit}" if part.unit != "none" else "1"
    if part.mode == "velocity":
        stated += f" a second at {robot.rate:g} Hz"
    numbers = (
        f"a commanded 1 moves by {total:.3g} of what the table says "
        f"({best.explained:.1%} of the motion explained, lag {best.lag})"
    )
    question = "factor of the commanded values"
    if not len(ratio) or not clear.any():
        return []
    sizes = np.abs(ratio[clear])
    turned = [int(i) for i in np.flatnonzero(clear & (ratio < 0))]
    middle = float(np.median(sizes))
    uneven = float(sizes.max() / max(sizes.min(), 1e-12)) > 1.6
    if turned or uneven:
        each = ", ".join(f"[{i}] {r:.3g}" for i, r in enumerate(ratio) if clear[i])
        numbers += f"; value by value {each}"
    far = max(middle, 1 / max(middle, 1e-12))
    exact = best.explained >= EXACT or motion.by_axis
    if turned or far > LOOSE or (exact and (far > ALIKE or uneven)):
        found, entries = _correction(part, place, ratio, clear, middle, bool(turned) or uneven)
        code = "sign" if turned and far <= ALIKE else "scale"
        if entries[0][0].endswith(".unit"):
            code, found, stated = "unit", str(entries[0][1]), part.unit or ""
        elif 0.99 < motion.largest <= 1.0 + 1e-6 and far > LOOSE:
            found = f"normalised to [-1, 1], {found}"
        return [Verdict(place, question, CONTRADICTS, stated, found, numbers, code, entries)]
    says = AGREES if far <= ALIKE and not uneven else UNCLEAR
    return [Verdict(place, question, says, stated, stated, numbers, "scale", matters=False)]


def _mixed(motion: Motion, place: str) -> list[Verdict]:
    """Whether another choice of axes explains what none of the readings does."""
    matrix = motion.matrix
    if matrix is None or motion.matrix_explains - max(motion.gain_explains, 0.0) < 0.2:
        return []
    rows = "; ".join(" ".join(f"{value:+.2f}" for value in row) for row in matrix)
    numbers = (
        f"measured = M commanded explains {motion.matrix_explains:.0%}, a factor for each axis "
        f"{motion.gain_explains:.0%}; M = [{rows}]"
    )
    return [Verdict(place, "axes of the commands and of the poses", CONTRADICTS, "the same",
                    "others", numbers, "axes")]  # fmt: skip


def named_factor(size: float) -> str:
    """What a factor is known as; "" for none."""
    for name, value in FACTORS.items():
        if abs(np.log(size / value)) < 0.18:
            return name
    return ""


def _correction(
    part: Part, place: str, ratio: np.ndarray, clear: np.ndarray, middle: float, each: bool
) -> tuple[str, tuple[tuple[str, object], ...]]:
    name = named_factor(middle)
    fits_kind = name in ("mm", "cm") if part.kind == "position" else name == "deg"
    if fits_kind and not each and part.unit in ("m", "rad") and np.all(np.asarray(part.scale) == 1):
        return f"1 is 1 {name}", ((f"{place}.unit", name),)
    factors = np.where(clear, ratio, middle) if each else np.full(part.width, middle)
    now = np.broadcast_to(np.asarray(part.scale, float), (part.width,)) * factors
    rounded = [neat(value) for value in now]
    scale: object = rounded if each else rounded[0]
    words = f"1 is {scale} {part.unit}" + (f" ({name})" if name else "")
    return words, ((f"{place}.scale", scale),)


def neat(value: float) -> float:
    """A factor as a person would write it, where that is within 3% of it."""
    for digits in (1, 2):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) < (0.015 if digits == 1 else 0.03) * abs(value):
            return short
    return float(f"{value:.3g}")


def _levels(motion: Motion, part: Part, place: str) -> list[Verdict]:
    """Unit of absolute commands, from how far the measured values reach them."""
    slopes = motion.levels
    if not len(slopes):
        return []
    middle = float(np.median(slopes))
    numbers = f"the measured values change by {middle:.3g} where the commanded ones change by 1"
    question = "unit of the commanded values against the measured ones"
    if 0.6 < abs(middle) < 1.6 and middle > 0:
        return [Verdict(place, question, AGREES, "the same", "the same", numbers, "scale")]
    found, entries = _correction(part, place, slopes, np.ones(len(slopes), bool), middle, False)
    return [Verdict(place, question, CONTRADICTS, "the same", found, numbers, "scale", entries)]


# ---------------------------------------------------------------- timing


def timing(evidence: Sequence[Motion], robot: Robot) -> list[Verdict]:
    """Whether actions stand at the step that they move, over all parts that tell."""
    stated = -robot.steps.lag
    telling = [motion for motion in evidence if motion.decided]
    if not telling:
        return []
    moved = [motion for motion in telling if late(motion, stated)]
    lags = [motion.best.lag for motion in moved]
    share = {name: max((m.best.lags.get(k, 0.0) for m in telling), default=0.0)
             for name, k in (("stated", stated),)}  # fmt: skip
    words = f"lag {robot.steps.lag}"
    question = "which step an action belongs to"
    if not moved or len(moved) * 2 < len(telling):
        numbers = f"the step as stated explains {share['stated']:.1%} of the motion, as much as any"
        return [Verdict("steps", question, AGREES, words, words, numbers, "lag", matters=False)]
    lag = max(set(lags), key=lags.count)
    each = "; ".join(
        f"{motion.part}: {motion.best.lags.get(stated, 0.0):.1%} as stated, "
        f"{motion.best.explained:.1%} with the motion {abs(motion.best.lag - stated)} "
        f"step{'s' * (abs(motion.best.lag - stated) > 1)} "
        f"{'later' if motion.best.lag > stated else 'earlier'}"
        for motion in moved
    )
    spoilt = [
        motion.part for motion in telling if motion not in moved and _better(motion, stated, lag)
    ]
    if spoilt:
        # Such as a measured speed that is a copy of the command, beside an arm that follows it.
        numbers = f"{each}; {', '.join(spoilt)}: as stated"
        return [Verdict("steps", question, UNCLEAR, words, words, numbers, "lags", matters=False)]
    if lag < stated:
        return [Verdict("steps", question, CONTRADICTS, words, f"lag {-lag}", each, "lag",
                        (("steps.lag", -lag),))]  # fmt: skip
    return [Verdict("steps", question, UNCLEAR, words, words, each, "lead", matters=False)]


def _better(motion: Motion, lag: int, other: int) -> bool:
    """Whether a lag clearly explains more than another one."""
    lags = motion.best.lags
    return 1 - lags.get(lag, 0.0) < 0.6 * (1 - lags.get(other, 0.0))


def explained(evidence: Sequence[Motion]) -> float:
    """The largest share of motion that is explained."""
    return max((motion.best.explained for motion in evidence), default=0.0)
