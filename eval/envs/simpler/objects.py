"""Plans of the scripted expert for the loose objects of SIMPLER: the apple, cans and the like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from eval.envs.simpler.motions import CLOSE, KEEP, OPEN, Arm, Moves, tilted
from robotics.embodiment.control import Action

_TILT = 70.0
_LIFTED = 0.04
"""An object that was raised this much is held, m."""
_LOWEST, _HIGHEST = 0.013, 0.06
"""m; least height of the tool over the table, and largest object that fits under the palm."""
_DROP = np.array([0.13, 0.0, 0.83])
"""Where the apple is released over the open drawer (y follows the apple)."""

_ABOVE = 0.09
"""How far before an object, along its approach, the tool lines up, m."""

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
    over = start + [0.03, 0.0, 0.15]
    if np.linalg.norm(arm.tool - over) > 0.15:
        yield from arm.go(over, turn, KEEP, near=0.05, aligned=0.3)
    for quarter in quarters:
        turn = tilted(_TILT, quarter)
        approach = turn[:, 2]
        target = where() + deeper * approach
        yield from arm.go(target - _ABOVE * approach, turn, OPEN, near=0.02, steps=20)
        yield from arm.go(target, turn, OPEN, near=0.01, step=0.06, steps=15)
        yield from arm.hold(target, turn, CLOSE, 3)
        yield from arm.go(target + [0.0, 0.0, lift], turn, KEEP, near=0.02, step=0.06, steps=10)
        if where()[2] - start[2] > _LIFTED:
            break
    return turn


def apple_into_drawer(arm: Arm, env: Any, done: Callable[[], bool]) -> Moves:
    """Release the panel, take the apple, and release it over the open drawer."""

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


def pick(arm: Arm, env: Any) -> Moves:
    """Take the can, across its axis where it lies, and lift it."""
    body = env.obj.pose.to_transformation_matrix()[:3, :3]
    along = np.abs(body[:, 1])  # the can's axis is y of its mesh
    sideways = along[0] > 0.7
    size = 0.033 + (0.0285 if along[2] > 0.7 else 0.0)
    where = _centre(lambda: env.obj.pose, env.obj)
    quarters = _quarters(arm, sideways=bool(sideways))
    yield from grasp(arm, where, quarters, deeper=_deeper(size), lift=0.12)


def move_near(arm: Arm, env: Any) -> Moves:
    """Take the first object, put it beside the second, and release it."""
    source = _centre(lambda: env.episode_source_obj.pose, env.episode_source_obj)
    target = _centre(lambda: env.episode_target_obj.pose, env.episode_target_obj)
    box = np.abs(env.episode_source_obj_bbox_world)
    start = source()
    gap = _reach(env.episode_source_obj_bbox_world) + _reach(env.episode_target_obj_bbox_world)
    quarters = _quarters(arm, sideways=bool(box[0] > box[1] + 0.02))
    turn = yield from grasp(arm, source, quarters, deeper=_deeper(box[2] / 2), lift=0.08)
    others = [
        np.array(obj.pose.p)
        for obj in env.episode_objs
        if obj.name not in (env.episode_source_obj.name, env.episode_target_obj.name)
    ]
    goal = _beside(target(), start, others, gap + 0.02)
    held = source() - arm.tool
    over = np.array([*goal, arm.tool[2] + held[2]])
    yield from arm.go(over - held, turn, KEEP, near=0.03, steps=20)
    down = np.array([*goal, start[2] + 0.005])
    yield from arm.go(down - held, turn, KEEP, near=0.012, step=0.06, steps=15)
    place = arm.tool
    yield from arm.hold(place, turn, OPEN, 4)
    yield from arm.go(place + [0.0, 0.0, 0.12], turn, KEEP, near=0.04, steps=8)


def _centre(pose: Callable[[], Any], body: Any) -> Place:
    """Where the centre of mass of a body is."""
    return lambda: np.array(pose().transform(body.cmass_local_pose).p, dtype=np.float64)


def _quarters(arm: Arm, *, sideways: bool) -> tuple[int, ...]:
    """Closing directions to try: along y first (`sideways`) or along x, less turning first."""
    both = sorted((1, -1), key=lambda quarter: -np.trace(arm.turn.T @ tilted(_TILT, quarter)))
    return (*both, 0) if sideways else (0, *both)


def _deeper(half_height: float) -> float:
    """How far past its centre an object that stands on the table is taken, m."""
    down = np.sin(np.deg2rad(_TILT))
    return float(min(0.03, (half_height - _LOWEST) / down, (_HIGHEST - half_height) / down))


def _reach(box: np.ndarray) -> float:
    """Half the diagonal of an object's box on the table, as upstream measures nearness, m."""
    return float(np.linalg.norm(box[:2])) / 2


def _beside(
    target: np.ndarray, start: np.ndarray, others: list[np.ndarray], gap: float
) -> np.ndarray:
    """The free place (2,) at distance `gap` from the target that is nearest to the start."""
    angles = np.linspace(-np.pi, np.pi, 24, endpoint=False)
    ring = target[:2] + gap * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cost = np.linalg.norm(ring - start[:2], axis=1)
    for other in others:
        cost += 10.0 * (np.linalg.norm(ring - other[:2], axis=1) < gap + 0.03)
    return ring[int(np.argmin(cost))]
