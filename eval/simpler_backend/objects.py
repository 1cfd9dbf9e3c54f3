"""Plans of the scripted expert for the loose objects of SIMPLER: the apple, cans and the like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from eval.simpler_backend.motions import CLOSE, KEEP, OPEN, Arm, Moves, tilted
from robotics.control import Action

_TILT = 70.0
_LIFTED = 0.04
"""An object that is this much above where it stood is held, m."""
_DROP = np.array([0.13, 0.0, 0.83])
"""Where over the open drawer the apple is let go (y follows the apple)."""

Place = Callable[[], np.ndarray]


def grasp(
    arm: Arm, where: Place, quarters: tuple[int, ...], *, deeper: float = 0.03, lift: float = 0.12
) -> Iterator[Action]:
    """Take an object from above and lift it; another closing direction at each try.

    Args:
        arm: the robot's arm.
        where: gives the object's centre (3,) in the world, now.
        quarters: closing directions to try, see `tilted`.
        deeper: how far past the centre the tool goes along its approach, m.
        lift: how far it is raised, m.

    Returns:
        (by `yield from`) the orientation of the tool that holds it.
    """
    start = where()
    turn = tilted(_TILT, quarters[0])
    over = start + [0.03, 0.0, 0.18]
    if np.linalg.norm(arm.tool - over) > 0.15:
        yield from arm.go(over, turn, KEEP, near=0.05, aligned=0.3)
    for quarter in quarters:
        turn = tilted(_TILT, quarter)
        approach = turn[:, 2]
        target = where() + deeper * approach
        yield from arm.go(target - 0.12 * approach, turn, OPEN, near=0.02, steps=20)
        yield from arm.go(target, turn, OPEN, near=0.01, step=0.06, steps=15)
        yield from arm.hold(target, turn, CLOSE, 3)
        yield from arm.go(target + [0.0, 0.0, lift], turn, KEEP, near=0.02, step=0.06, steps=10)
        if where()[2] - start[2] > _LIFTED:
            break
    return turn


def apple_into_drawer(arm: Arm, env: Any, done: Callable[[], bool]) -> Moves:
    """Leave the panel that is held, take the apple, let it go over the open drawer."""

    def apple() -> np.ndarray:
        return np.array(env.obj.pose.p, dtype=np.float64)

    away = arm.tool + [0.02, 0.0, 0.22]
    yield from arm.go(away, tilted(45.0), KEEP, near=0.05, aligned=0.3, steps=12)
    turn = yield from grasp(arm, apple, (0, -1, 1, 0))
    held = apple() - arm.tool
    drop = _DROP + [0.0, apple()[1], 0.0]
    for height in (0.17, 0.0):
        target = drop + [0.0, 0.0, height] - held
        yield from arm.go(target, turn, KEEP, near=0.025, step=0.06, steps=20)
    for _ in range(8):
        if done():
            return
        yield from arm.hold(drop - held, turn, OPEN, 1)
