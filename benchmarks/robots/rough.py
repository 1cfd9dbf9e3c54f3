"""Sets without a fault that are not as neat as the made-up ones: noise, slow robots, other cuts.

python -m benchmarks.robots.rough        # any line is a false alarm
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from benchmarks.robots.faults import alarms, taken
from benchmarks.robots.sets import clean, robots, surveyed
from robotics.data.rlds.raw import RawEpisode
from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot
from selfflow_wm.cli import Parser, at_least, run_main


def noisy(raw: RawEpisode, robot: Robot, rng: np.random.Generator, size: float) -> RawEpisode:
    """Measurements with a noise of `size` m or rad, grippers of 1% of their way."""
    for part in robot.state:
        place = column(part.path)
        rows = raw.numbers[place.key][:, place.values or slice(None)]
        way = np.abs(np.subtract(part.closed, part.open)) if part.kind == "gripper" else 0.0
        rows += rng.normal(0, 1, rows.shape) * (0.01 * way if part.kind == "gripper" else size)
    return raw


def slow(raw: RawEpisode, robot: Robot, rng: np.random.Generator, share: float) -> RawEpisode:
    """Every step reaches `share` of the way to where it should be."""
    del rng
    for part in robot.state:
        if part.kind == "rotation":
            continue
        place = column(part.path)
        rows = raw.numbers[place.key][:, place.values or slice(None)]
        for step in range(1, len(rows)):
            rows[step] = rows[step - 1] + share * (rows[step] - rows[step - 1])
    return raw


def scaled(raw: RawEpisode, robot: Robot, rng: np.random.Generator, size: float) -> RawEpisode:
    """Commands that move the robot a little more or less than they say, by episode."""
    factor = 1 + rng.normal(0, size)
    for part in robot.action:
        if part.kind != "gripper" and part.mode != "absolute":
            place = column(part.path)
            raw.numbers[place.key][:, place.values or slice(None)] *= factor
    return raw


def cut(raw: RawEpisode, robot: Robot, rng: np.random.Generator, share: float) -> RawEpisode:
    """Recordings that begin later and end sooner."""
    first, last = (rng.uniform(0, share, 2) * raw.steps).astype(int)
    return taken(lambda count: np.arange(first, count - last), flags=False)(raw, robot)


ROUGH = (
    ("noise of 0.5 mm", noisy, 5e-4), ("noise of 2 mm", noisy, 2e-3), ("slow", slow, 0.6),
    ("very slow", slow, 0.3), ("gains differ by 10%", scaled, 0.1), ("cut anywhere", cut, 0.2),
)  # fmt: skip


def rough(name: str, kind: str, seed: int) -> list[RawEpisode]:
    """The episodes of a robot's made-up world, made rough."""
    change, size = next((change, size) for words, change, size in ROUGH if words == kind)
    rng = np.random.default_rng(seed)
    return [change(copy.deepcopy(raw), robots()[name], rng, size) for raw in clean(name, seed)]


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.robots.rough`; returns the exit code."""
    parser = Parser(prog="python -m benchmarks.robots.rough", description=__doc__)
    parser.add_argument("--seeds", type=at_least(1), default=3, metavar="N")
    count = wrong = 0
    for seed in range(parser.parse_args(argv).seeds):
        for name, robot in robots().items():
            for kind, _, _ in ROUGH:
                found = alarms(surveyed(robot, rough(name, kind, seed)).findings())
                count, wrong = count + 1, wrong + bool(found)
                for row in found:
                    print(f"{name}, {kind}, seed {seed}: {row.code}: {row.text}")
    print(f"false alarms in {wrong} of {count} sets")
    return 1 if wrong else 0


if __name__ == "__main__":
    run_main(main)
