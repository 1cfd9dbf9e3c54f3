"""Does the measured motion follow the commands, and under which convention?

Every convention of the stored action predicts a displacement p and a turn p (a rotation vector,
base frame) of each step; measured are m = x[t+1+lag] - x[t+lag] and the turn likewise. A gain g is
fitted, m = g p, by least squares, and a convention is as good as the share of the measured motion
it explains, 1 - |m - g p|^2 / |m|^2. Two conventions are compared by their squared residuals in
blocks of `BLOCK` steps, so that noise within an episode does not pass for evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from robotics.data.rlds.spec import DatasetSpec
from robotics.embodiment.rotation import as_quaternion
from robotics.inspection.scan import Track

LAGS = (0, 1, 2, 3)
OUTLYING = 20.0
"""Commands longer than this many medians are left out of the evidence."""
BLOCK = 10
EVIDENCE_STEPS = 20_000
"""Steps that are evaluated; more would change no verdict."""
FEW = 30
"""Steps below which the data do not decide."""
SURE, LIKELY = 4.0, 3.0
"""Standard errors by which another convention, and the stated one, must win."""
MARGIN = 0.1
"""Share of the residual that another convention must remove to contradict the specification."""
EXPLAINS = 0.4
"""Share of the motion that must be explained before the data decide."""
ORDERS = ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx")
"""Orders of rotations about fixed axes; "zyx" is also roll-pitch-yaw about the moving axes."""
AGREES, CONTRADICTS, UNCLEAR = "agrees", "contradicts", "cannot tell"


@dataclass(frozen=True)
class Convention:
    """One way to read an action (and the measured rotation)."""

    kind: str
    """"delta" or "absolute"."""
    frame: str
    """"base" or "tool"; of absolute targets "base"."""
    rotation: str = ""
    """"euler_xyz", ..., "axis_angle", "quaternion_xyzw", "quaternion_wxyz"; none for positions."""
    measured: str = ""
    """How the measured rotation is stored."""

    def __str__(self) -> str:
        words = [self.kind, f"{self.frame} frame" if self.kind == "delta" else "", self.rotation]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class Fit:
    """How well one convention explains what was measured."""

    convention: Convention
    explained: float
    """Share of the squared motion, at most 1."""
    gain: float
    lag: int
    """Steps between a command and the motion."""
    residual: float
    """Root mean square of what is left, m or rad."""
    blocks: np.ndarray
    """Residuals squared, summed over blocks of steps, in shares of the whole motion."""


@dataclass(frozen=True)
class Verdict:
    """One question to the data and its answer."""

    topic: str
    question: str
    answer: str
    """`AGREES`, `CONTRADICTS` or `UNCLEAR`."""
    stated: str
    """By the specification."""
    found: str
    """By the data; equal to `stated` unless they contradict."""
    numbers: str


@dataclass(frozen=True)
class Motion:
    """Evidence of translations or of rotations."""

    name: str
    """"translation" or "rotation"."""
    fits: list[Fit]
    """Best first; the specified one is among them."""
    stated: Fit
    steps: int
    moved: float
    """Root mean square of the measured motion of a step, m or rad."""
    matrix: np.ndarray | None = None
    """(3, 3) least squares: measured = matrix @ commanded, under the stated convention."""
    matrix_explains: float = 0.0
    """By it, over the axes that move at all."""
    gain_explains: float = 0.0
    """By one gain for these axes."""
    spread: float = 0.0
    """rad: how far apart the Euler and axis-angle readings of the commands are, 99th percentile."""


def translation(tracks: Sequence[Track], spec: DatasetSpec) -> Motion | None:
    """Compare the conventions of the commanded translation; None without measured positions."""
    parts = _limited(tracks, "position")
    if not parts:
        return None
    conventions = [Convention("delta", "base"), Convention("absolute", "base")]
    kind = spec.proprio.rotation_kind
    if all("proprio.rotation" in p and _usable(p["proprio.rotation"], kind) for p in parts):
        conventions.insert(1, Convention("delta", "tool"))

    def predict(p: dict[str, np.ndarray], convention: Convention) -> np.ndarray:
        command, x = p["action.position"], p["proprio.position"]
        if convention.kind == "absolute":
            return command - x
        if convention.frame == "tool":
            return Rotation.from_quat(as_quaternion(p["proprio.rotation"], kind)).apply(command)
        return command

    stored = [p["action.position"] for p in parts]
    moved = [np.diff(p["proprio.position"], axis=0) for p in parts]
    fits, predictions = [], {}
    for convention in conventions:
        predicted = _sane([predict(p, convention) for p in parts], stored)
        predictions[convention] = predicted
        if (fit := _fit(convention, predicted, moved)) is not None:
            fits.append(fit)
    motion = _motion("translation", fits, Convention(spec.action.kind, "base"))
    if motion is None:
        return None
    best = motion.stated
    commanded, measured = _paired(predictions[best.convention], moved, best.lag)
    matrix = np.linalg.lstsq(commanded, measured, rcond=None)[0].T
    moving = measured.std(0) > 1e-9  # a dead axis is another finding
    p, m = commanded[:, moving], measured[:, moving]
    gain = float((p * m).sum()) / max(float((p**2).sum()), 1e-18)
    shares = [
        1 - float((left**2).sum()) / max(float((m**2).sum()), 1e-18)
        for left in ((measured - commanded @ matrix.T)[:, moving], m - gain * p)
    ]
    return replace(motion, matrix=matrix, matrix_explains=shares[0], gain_explains=shares[1])


def rotation(tracks: Sequence[Track], spec: DatasetSpec) -> Motion | None:
    """Compare the conventions of the commanded rotation; None without measured rotations."""
    parts = _limited(tracks, "rotation")
    if not parts:
        return None
    commands = _kinds(parts[0]["action.rotation"].shape[1], orders=True)
    measures = _kinds(parts[0]["proprio.rotation"].shape[1], orders=False)
    measures = [m for m in measures if all(_usable(p["proprio.rotation"], m) for p in parts)]
    commands = [k for k in commands if all(_usable(p["action.rotation"], k) for p in parts)]
    fits = []
    for measured in measures:
        poses = [_rotations(p["proprio.rotation"], measured) for p in parts]
        turns = [
            (r[1:] * r[:-1].inv()).as_rotvec() if len(r) > 1 else np.zeros((0, 3)) for r in poses
        ]
        for command in commands:
            stored = [_rotations(p["action.rotation"], command) for p in parts]
            for kind, frame in (("delta", "base"), ("delta", "tool"), ("absolute", "base")):
                predicted = [_turn(a, r, kind, frame) for a, r in zip(stored, poses, strict=True)]
                predicted = _sane(predicted, [p["action.rotation"] for p in parts])
                convention = Convention(kind, frame, command, measured)
                if (fit := _fit(convention, predicted, turns)) is not None:
                    fits.append(fit)
    kinds = spec.action.rotation_kind, spec.proprio.rotation_kind
    motion = _motion("rotation", fits, Convention(spec.action.kind, "base", *kinds))
    if motion is None or "axis_angle" not in commands:
        return motion
    values = np.concatenate([p["action.rotation"] for p in parts])
    apart = _rotations(values, "euler_xyz").inv() * _rotations(values, "axis_angle")
    return replace(motion, spread=float(np.quantile(apart.magnitude(), 0.99)))


def _motion(name: str, fits: list[Fit], specified: Convention) -> Motion | None:
    stated = next((fit for fit in fits if fit.convention == specified), None)
    if stated is None:
        return None
    moved = stated.residual / np.sqrt(max(1 - stated.explained, 1e-12))
    fits = sorted(fits, key=lambda fit: -fit.explained)
    return Motion(name, fits, stated, len(stated.blocks) * BLOCK, float(moved))


def _limited(tracks: Sequence[Track], name: str) -> list[dict[str, np.ndarray]]:
    """The first episodes with this commanded and measured part, up to `EVIDENCE_STEPS`."""
    kept, steps = [], 0
    for track in tracks:
        if steps < EVIDENCE_STEPS and {f"action.{name}", f"proprio.{name}"} <= track.parts.keys():
            steps += track.steps
            kept.append(track.parts)
    return kept if steps >= FEW else []


def _kinds(width: int, orders: bool) -> list[str]:
    if width == 4:
        return ["quaternion_xyzw", "quaternion_wxyz"]
    if width != 3:
        return []
    return [f"euler_{order}" for order in (ORDERS if orders else ("xyz",))] + ["axis_angle"]


def _usable(values: np.ndarray, kind: str) -> bool:
    width = 4 if kind.startswith("quaternion") else 3
    if values.shape[1] != width:
        return False
    return width == 3 or bool((np.abs(values).max(1) > 1e-6).all())


def _rotations(values: np.ndarray, kind: str) -> Rotation:
    if kind.startswith("euler_"):  # the toolkit itself reads euler_xyz alone
        return Rotation.from_euler(kind.removeprefix("euler_"), values)
    return Rotation.from_quat(as_quaternion(values, kind))


def _turn(action: Rotation, pose: Rotation, kind: str, frame: str) -> np.ndarray:
    """(T, 3) the turn a command asks for, as a rotation vector in the base frame."""
    if kind == "absolute":
        return (action * pose.inv()).as_rotvec()
    turn = action.as_rotvec()
    return pose.apply(turn) if frame == "tool" else turn


def _paired(
    predicted: Sequence[np.ndarray], moved: Sequence[np.ndarray], lag: int
) -> tuple[np.ndarray, np.ndarray]:
    """Commands (n, 3) of all episodes and the motion (n, 3) that follows `lag` steps later.

    The same commands for every lag, so that lags compare. Commands left out by `_sane` are missing.
    """
    commands, motions = [], []
    for p, m in zip(predicted, moved, strict=True):
        count = max(len(m) - max(LAGS), 0)
        finite = np.isfinite(p[:count]).all(1)
        commands.append(p[:count][finite])
        motions.append(m[lag : lag + count][finite])
    return np.concatenate(commands), np.concatenate(motions)


def _sane(predicted: list[np.ndarray], stored: list[np.ndarray]) -> list[np.ndarray]:
    """`predicted` with NaN where the command is an outlier: one of 5 m would decide every fit."""
    sizes = [np.linalg.norm(values, axis=1) for values in stored]
    commanded = np.concatenate(sizes)
    commanded = commanded[commanded > 0]
    limit = OUTLYING * np.median(commanded) if len(commanded) else np.inf
    return [
        np.where((size > limit)[:, None], np.nan, values)
        for values, size in zip(predicted, sizes, strict=True)
    ]


def _fit(
    convention: Convention, predicted: Sequence[np.ndarray], moved: Sequence[np.ndarray]
) -> Fit | None:
    best = None
    for lag in LAGS:
        p, m = _paired(predicted, moved, lag)
        whole = float((m**2).sum())
        if len(m) < FEW or whole < 1e-12 * len(m):
            return None
        square = float((p**2).sum())
        gain = float((p * m).sum()) / square if square > 1e-18 else 0.0
        left = ((m - gain * p) ** 2).sum(1)
        explained = 1 - float(left.sum()) / whole
        if best is None or explained > best.explained + 1e-9:
            ends = np.arange(0, len(left), BLOCK)
            blocks = np.add.reduceat(left, ends) / whole
            best = Fit(convention, explained, gain, lag, float(np.sqrt(left.mean())), blocks)
    return best


def advantage(rival: Fit, fit: Fit) -> float:
    """Standard errors by which `rival` leaves less than `fit`; negative when it leaves more."""
    gained = fit.blocks - rival.blocks
    spread = float(np.sqrt((gained**2).sum()))
    return float(gained.sum()) / spread if spread > 1e-12 else 0.0


def _answer(stated: Fit, rival: Fit) -> str:
    if max(stated.explained, rival.explained) < EXPLAINS:
        return UNCLEAR
    sure = advantage(rival, stated)
    left, other = 1 - stated.explained, 1 - rival.explained
    if sure > SURE and other < (1 - MARGIN) * left and rival.gain > 0:
        return CONTRADICTS
    return AGREES if sure < -LIKELY and left < other else UNCLEAR


def verdicts(motion: Motion) -> list[Verdict]:
    """What the data say of each part of the stated convention of a `translation` or `rotation`."""
    stated = motion.stated
    rows = [("kind", "delta or absolute"), ("frame", "base or tool frame")]
    if motion.name == "rotation":
        rows += [("rotation", "kind of the commanded rotation")]
        rows += [("measured", "kind of the measured rotation")]
    found = []
    for name, question in rows:
        value = getattr(stated.convention, name)
        alike = [fit for fit in motion.fits if getattr(fit.convention, name) == value]
        rivals = [fit for fit in motion.fits if getattr(fit.convention, name) != value]
        if name == "frame":
            if stated.convention.kind == "absolute":
                continue
            rivals = [fit for fit in rivals if fit.convention.kind == "delta"]
        if name != "kind":  # what was decided before does not count again
            decided = motion.fits[0].convention.kind
            rivals = [fit for fit in rivals if fit.convention.kind == decided] or rivals
        if not rivals:
            continue
        mine, rival = (max(fits, key=lambda fit: fit.explained) for fits in (alike, rivals))
        answer = _answer(mine, rival)
        numbers = (
            f"{value} explains {mine.explained:.1%} of the measured motion (gain {mine.gain:.2f}, "
            f"lag {mine.lag}), {getattr(rival.convention, name)} {rival.explained:.1%}; difference "
            f"{abs(advantage(rival, mine)):.1f} standard errors, {motion.steps} steps"
        )
        winner = getattr(rival.convention, name) if answer == CONTRADICTS else value
        found.append(Verdict(motion.name, question, answer, value, winner, numbers))
    return found


def correction(row: Verdict) -> tuple[str, str, str] | None:
    """The entry of a specification (group, name and value) that a contradiction asks for."""
    entries = {
        "delta or absolute": ("action", "kind"),
        "kind of the commanded rotation": ("action", "rotation_kind"),
        "kind of the measured rotation": ("proprio", "rotation_kind"),
    }
    if row.answer != CONTRADICTS or row.question not in entries:
        return None
    return *entries[row.question], row.found
