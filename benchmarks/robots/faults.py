"""Faults that some episodes of a data set have, put into made-up ones; which of them are found.

    python -m benchmarks.robots.faults             # all of them, and clean sets
    python -m benchmarks.robots.faults --clean 20  # false alarms on 20 seeds of every robot

Each fault is in half of the episodes, in a few or in one, as its name says. "named" counts where
the finding's code is the one that stands for the fault and its episodes are exactly those.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.robots.sets import EPISODES, as_seen, clean, robots, surveyed
from robotics.data.images import encode_image
from robotics.data.rlds.raw import RawEpisode
from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot
from robotics.inspection.findings import Finding
from selfflow_wm.cli import Parser, at_least, run_main

# ---------------------------------------------------------------- faults

Change = Callable[[RawEpisode, Robot], RawEpisode]


@dataclass(frozen=True)
class Fault:
    """A fault, and the code of the finding that names it."""

    name: str
    robot: str
    code: str
    change: Change
    episodes: tuple[int, ...]


def _part(robot: Robot, place: str) -> tuple[str, slice]:
    group, _, name = place.partition(".")
    part = next(row for row in getattr(robot, group) if row.name == name)
    found = column(part.path)
    return found.key, found.values or slice(None)


def values(*places: str, to: Callable[[np.ndarray], np.ndarray]) -> Change:
    """The parts' values changed by `to`."""

    def change(raw: RawEpisode, robot: Robot) -> RawEpisode:
        for place in places:
            key, span = _part(robot, place)
            raw.numbers[key][:, span] = to(raw.numbers[key][:, span])
        return raw

    return change


def _late(by: int) -> Change:
    def change(raw: RawEpisode, robot: Robot) -> RawEpisode:
        for key in {column(part.path).key for part in robot.action}:
            rows = raw.numbers[key]
            steps = np.clip(np.arange(len(rows)) - by, 0, len(rows) - 1)
            raw.numbers[key] = rows[steps]
        return raw

    return change


def taken(choose: Callable[[int], np.ndarray], flags: bool = True) -> Change:
    """Other steps: `choose` gives them for a number of steps. flags: first, last and time too."""

    def change(raw: RawEpisode, robot: Robot) -> RawEpisode:
        steps = choose(raw.steps)
        kept = {"steps/is_first", "steps/is_last", "steps/timestamp"} if not flags else set()
        numbers = {k: v if k in kept else v[steps] for k, v in raw.numbers.items()}
        if not flags:
            count = np.arange(len(steps))[:, None]
            numbers["steps/is_first"] = (count == 0).astype(float)
            numbers["steps/is_last"] = (count == len(steps) - 1).astype(float)
            numbers["steps/timestamp"] = count / robot.rate
        texts = {k: [v[i] for i in steps] for k, v in raw.texts.items()}
        return RawEpisode(len(steps), numbers, texts, [])

    return change


def frames(camera: str, to: Callable[[list[bytes]], list[bytes]]) -> Change:
    """One camera's pictures changed."""

    def change(raw: RawEpisode, robot: Robot) -> RawEpisode:
        key = column(robot.camera(camera).path).key
        raw.texts[key] = to(raw.texts[key])
        return raw

    return change


def _nan(raw: RawEpisode, robot: Robot) -> RawEpisode:
    raw.numbers["steps/action"][5, 1] = np.nan
    return raw


def _silent(raw: RawEpisode, robot: Robot) -> RawEpisode:
    raw.texts["steps/language_instruction"] = [b""] * raw.steps
    return raw


def _reordered(count: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(count)


def _gap(raw: RawEpisode, robot: Robot) -> RawEpisode:
    raw.numbers["steps/timestamp"][raw.steps // 2 :] += 1.0
    return raw


def _slower(raw: RawEpisode, robot: Robot) -> RawEpisode:
    raw.numbers["steps/timestamp"] *= 2
    return raw


def _stale(raw: RawEpisode, robot: Robot) -> RawEpisode:
    rows = raw.numbers["steps/observation/state"]
    first, last = raw.steps // 4, raw.steps // 4 + max(raw.steps // 4, 9)
    rows[first:last] = rows[first]
    return raw


def _pausing(raw: RawEpisode, robot: Robot) -> RawEpisode:
    half = raw.steps // 2
    pause = int(6 * robot.rate)
    steps = np.concatenate([np.arange(half), np.full(pause, half), np.arange(half, raw.steps)])
    raw = taken(lambda count: steps, flags=False)(raw, robot)
    for part in robot.action:
        if part.mode == "delta" and part.kind != "gripper":
            place = column(part.path)
            raw.numbers[place.key][half : half + pause, place.values or slice(None)] = 0
    return raw


def _swapped(rows: np.ndarray) -> np.ndarray:
    return rows[:, [1, 0, 2]]


def _sign(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: rows * np.where(np.arange(rows.shape[1]) == axis, -1.0, 1.0)


_BLACK = encode_image(np.zeros((48, 64, 3), np.uint8))
HALF, ONE, FEW = tuple(range(1, EPISODES, 2)), (6,), (3, 8, 11)
LAST = tuple(range(EPISODES // 2, EPISODES))
_roll = functools.partial(np.roll, shift=1, axis=1)


def _from(part: int, picture: bytes | None) -> Callable[[list[bytes]], list[bytes]]:
    """From a share of the episode on one picture, or the last one before."""

    def to(rows: list[bytes]) -> list[bytes]:
        at = len(rows) // part
        return rows[:at] + [picture or rows[at]] * (len(rows) - at)

    return to


def _long(count: int) -> np.ndarray:
    return np.delete(np.arange(count), [count // 5, count // 2])


FAULTS = (
    Fault("gripper command inverted in half", "deltas", "gripper.inverted",
          values("action.gripper", to=lambda v: 1 - v), HALF),
    Fault("gripper command inverted in one", "normalised", "gripper.inverted",
          values("action.gripper", to=lambda v: -v), ONE),
    Fault("gripper pulses inverted in half", "pulses", "gripper.inverted",
          values("action.gripper", to=lambda v: -v), LAST),
    Fault("measured gripper inverted in a few", "poses", "gripper.inverted",
          values("state.gripper", to=lambda v: 1 - v), FEW),
    Fault("both grippers inverted in a few", "deltas", "gripper.both",
          values("state.gripper", "action.gripper", to=lambda v: 1 - v), FEW),
    Fault("gripper of 0 to 100 in half", "arms", "gripper.range",
          values("action.left_gripper", "state.left_gripper", to=lambda v: 100 * v), FEW),
    Fault("gripper command late in a few", "normalised", "gripper.late",
          values("action.gripper", to=lambda v: np.roll(v, 3, axis=0)), FEW),
    Fault("actions a step late in half", "deltas", "episodes.late", _late(1), HALF),
    Fault("actions a step late in one", "pulses", "episodes.late", _late(1), ONE),
    Fault("actions a step late in half, joints", "arms", "episodes.late", _late(1), LAST),
    Fault("actions a step early in half", "velocities", "episodes.early", _late(-1), HALF),
    Fault("actions doubled in half", "deltas", "episodes.scale",
          values("action.position", "action.rotation", to=lambda v: 2 * v), HALF),
    Fault("velocities halved in one", "velocities", "episodes.scale",
          values("action.joints", to=lambda v: v / 2), ONE),
    Fault("x inverted in half", "deltas", "episodes.sign",
          values("action.position", to=_sign(0)), HALF),
    Fault("all axes inverted in a few", "normalised", "episodes.sign",
          values("action.position", to=lambda v: -v), FEW),
    Fault("x and y swapped in a few", "deltas", "episodes.convention",
          values("action.position", to=_swapped), FEW),
    Fault("joints in another order in a few", "arms", "episodes.unexplained|episodes.convention",
          values("action.left", to=lambda v: v[:, ::-1]), FEW),
    Fault("quaternions wxyz in half, actions", "poses", "episodes.convention|episodes.quaternion",
          values("action.rotation", to=_roll), HALF),
    Fault("quaternions wxyz in half, both", "poses", "episodes.convention|episodes.quaternion",
          values("action.rotation", "state.rotation", to=_roll), LAST),
    Fault("quaternions wxyz in one, states", "pulses", "episodes.convention|episodes.quaternion",
          values("state.rotation", to=_roll), ONE),
    Fault("absolute instead of delta in a few", "deltas", "episodes.mode",
          lambda raw, robot: _absolute(raw, robot), FEW),
    Fault("actions in mm in half", "deltas", "episodes.unit|episodes.scale",
          values("action.position", to=lambda v: 1000 * v), HALF),
    Fault("both in mm in half", "deltas", "episodes.unit",
          values("action.position", "state.position", to=lambda v: 1000 * v), LAST),
    Fault("actions in degrees in one", "deltas", "episodes.unit|episodes.scale|episodes.convention",
          values("action.rotation", to=np.degrees), ONE),
    Fault("joints in degrees in half, both", "arms", "episodes.unit",
          values("action.left", "state.left", "action.right", "state.right", to=np.degrees), HALF),
    Fault("NaN in one", "deltas", "records.nan", _nan, ONE),
    Fault("wrist pictures frozen in a few", "deltas", "cameras.frozen",
          frames("wrist", _from(3, None)), FEW),
    Fault("front pictures frozen for 0.5 s in one", "velocities", "cameras.frozen",
          frames("front", lambda v: [*v[:30], *[v[30]] * 8, *v[38:]]), ONE),
    Fault("wrist black in half", "normalised", "cameras.black",
          frames("wrist", lambda v: [_BLACK] * len(v)), HALF),
    Fault("wrist goes black in one", "deltas", "cameras.blackout",
          frames("wrist", _from(2, _BLACK)), ONE),
    Fault("steps in random order in one", "deltas", "episodes.unexplained|episodes.order",
          taken(_reordered, flags=False), ONE),
    Fault("steps reversed in a few", "deltas", "episodes.reversed",
          taken(lambda n: np.arange(n)[::-1], flags=False), FEW),
    Fault("two frames dropped in a few", "deltas", "episodes.dropped",
          taken(_long, flags=False), FEW),
    Fault("ten frames dropped in one, joints", "arms", "episodes.dropped",
          taken(lambda n: np.delete(np.arange(n), range(n // 2, n // 2 + 10)), flags=False), ONE),
    Fault("a gap of time in one", "deltas", "episodes.gaps", _gap, ONE),
    Fault("another rate in a few", "deltas", "episodes.rate", _slower, FEW),
    Fault("cut off in one", "deltas", "ends.flags", taken(lambda n: np.arange(n // 2)), ONE),
    Fault("measured pose stale in one", "deltas", "episodes.stuck", _stale, ONE),
    Fault("idle for 6 s in a few", "normalised", "episodes.idle", _pausing, FEW),
    Fault("instructions empty in a few", "deltas", "instructions.empty", _silent, FEW),
    Fault("a dead state value in one", "arms", "episodes.dead",
          values("state.left", to=lambda v: v * (np.arange(v.shape[1]) != 2)), ONE),
    Fault("copies of others", "deltas", "episodes.copies.exact", lambda raw, robot: raw, (4, 9)),
    Fault("nearly copies of others", "poses", "episodes.copies.near",
          lambda raw, robot: _noisy(raw), (4, 9)),
    Fault("copies cut shorter", "deltas", "episodes.copies.partial|ends.flags",
          taken(lambda n: np.arange(3, n - 2), flags=False), (4, 9)),
)  # fmt: skip


def _absolute(raw: RawEpisode, robot: Robot) -> RawEpisode:
    raw.numbers["steps/action"][:, :3] += raw.numbers["steps/observation/state"][:, :3]
    return raw


def _noisy(raw: RawEpisode) -> RawEpisode:
    rng = np.random.default_rng(0)
    for key in ("steps/action", "steps/observation/state"):
        raw.numbers[key] = raw.numbers[key] + rng.normal(0, 1e-5, raw.numbers[key].shape)
    for key, rows in raw.texts.items():
        if "instruction" not in key:
            raw.texts[key] = [as_seen(row, rng) for row in rows]
    return raw


def faulty(fault: Fault, seed: int = 0) -> list[RawEpisode]:
    """The made-up set with the fault in its episodes."""
    raws = [copy.deepcopy(raw) for raw in clean(fault.robot, seed)]
    for number in fault.episodes:
        if "cop" in fault.code:
            raws[number] = copy.deepcopy(raws[number - 1])
        raws[number] = fault.change(raws[number], robots()[fault.robot])
    return raws


def alarms(findings: Sequence[Finding]) -> list[Finding]:
    """What is more than information."""
    return [row for row in findings if row.severity != "info"]


def judged(fault: Fault, seed: int = 0) -> tuple[bool, bool, list[Finding]]:
    """Whether the episodes are found at all, by the fault's name and exactly, and all alarms.

    Of faults in half of the episodes, naming the other half is as right.
    """
    robot = robots()[fault.robot]
    found = alarms(surveyed(robot, faulty(fault, seed)).findings())
    wanted = set(fault.episodes)
    rest = set(range(EPISODES)) - wanted
    right = [wanted, rest] if len(wanted) == EPISODES // 2 else [wanted]
    hit = any(set(row.episodes) & wanted or set(row.episodes) == rest for row in found)
    named = any(row.code in fault.code.split("|") and set(row.episodes) in right for row in found)
    return hit, named, found


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.robots.faults`; returns the exit code."""
    parser = Parser(prog="python -m benchmarks.robots.faults", description=__doc__)
    parser.add_argument("--clean", type=at_least(0), default=1, metavar="N", help="seeds")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--only", default="", help="faults whose name contains this")
    given = parser.parse_args(argv)
    for name in robots():
        for seed in range(given.clean):
            found = alarms(surveyed(robots()[name], clean(name, seed)).findings())
            clean.cache_clear() if seed else None
            if found:
                print(f"false alarm, {name}, seed {seed}: {[(r.title, r.text) for r in found]}")
    hits = names = count = 0
    for fault in FAULTS:
        if given.only in fault.name:
            hit, named, found = judged(fault, given.seed)
            hits, names, count = hits + hit, names + named, count + 1
            words = "named" if named else "found" if hit else "MISSED"
            print(f"{words:7} {fault.name:45} {[(r.code, r.episodes) for r in found]}")
            sys.stdout.flush()
    print(f"{hits} of {count} faults found, {names} by name")
    return 0


if __name__ == "__main__":
    run_main(main)
