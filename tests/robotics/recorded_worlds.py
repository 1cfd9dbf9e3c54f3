"""Data sets in memory: a tool that does what it is told, recorded in whatever convention a test
asks for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from robotics.data.images import encode_image
from robotics.data.rlds.raw import RawEpisode, RawPlace
from robotics.data.rlds.schema import Leaf

EPISODES, STEPS = 14, 40
DOWN = Rotation.from_euler("x", np.pi)


@dataclass
class Arm:
    """What one arm did in one episode; states have a row more than commands."""

    x: np.ndarray
    """(T + 1, 3) m."""
    r: Rotation
    """T + 1."""
    move: np.ndarray
    """(T, 3) m, base frame, as commanded."""
    turn: Rotation
    """T, base frame, as commanded."""
    close: np.ndarray
    """(T,) 0 or 1, as commanded."""
    closed: np.ndarray
    """(T + 1,)"""
    q: np.ndarray
    """(T + 1, 7) joints, rad."""

    @property
    def steps(self) -> int:
        return len(self.move)


def arm(
    seed: int, steps: int = STEPS, angle: float = 0.2, rest: Rotation = DOWN, dwell: int = 8
) -> Arm:
    """Goes from goal to goal, smoothly; angle: rad that the tool turns in a step, at most; dwell:
    steps with one goal."""
    rng = np.random.default_rng(seed)
    x, r, closed = np.array([0.4, 0.0, 0.3]) + rng.normal(0, 0.03, 3), rest, 0.0
    r = Rotation.from_rotvec(rng.normal(0, 0.1, 3)) * r
    xs, rs, moves, turns, closes, closeds = [x], [r], [], [], [], [closed]
    goal, way = x, Rotation.identity()
    close = 0.0
    for step in range(steps):
        if step % dwell == 0:
            goal = np.array([0.45, 0.0, 0.2]) + rng.uniform(-0.2, 0.2, 3)
            way = Rotation.from_rotvec(rng.normal(0, 2.5 * angle, 3)) * rest
        if step % 13 == 12:
            close = 1 - close
        move = (goal - x) * 0.25 + rng.normal(0, 0.004, 3)
        turn = (way * r.inv()).as_rotvec() * 0.3 + rng.normal(0, 0.01, 3)
        turn *= min(1.0, angle / max(np.linalg.norm(turn), 1e-9))
        turned = Rotation.from_rotvec(turn)
        moves.append(move)
        turns.append(turned)
        closes.append(close)
        x = x + move + rng.normal(0, 0.0004, 3)
        r = Rotation.from_rotvec(rng.normal(0, 0.001, 3)) * turned * r
        closed += 0.7 * (close - closed)
        xs.append(x)
        rs.append(r)
        closeds.append(closed)
    x, r = np.array(xs), Rotation.concatenate(rs)
    return Arm(x, r, np.array(moves), Rotation.concatenate(turns), np.array(closes),
               np.array(closeds), _joints(x, r))  # fmt: skip


_MIX = np.random.default_rng(5).normal(0, 1, (7, 12))


def _joints(x: np.ndarray, r: Rotation) -> np.ndarray:
    every = np.concatenate([x, r.as_matrix().reshape(-1, 9)], axis=1)
    return np.tanh(every @ _MIX.T * 0.4) + np.array([0.2, -0.6, 0.1, -2.0, 0.0, 1.5, 0.8])


@dataclass
class Memory:
    """`RawSource` of episodes in memory."""

    episodes: list[RawEpisode]
    name: str = "made_up"
    rate: float | None = None
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    directory: str = "memory"
    split: str = "train"

    @property
    def total(self) -> int:
        return len(self.episodes)

    @property
    def stored(self) -> dict[str, Leaf]:
        first = self.episodes[0]
        rows = {key: Leaf("float_list", values.shape[1]) for key, values in first.numbers.items()}
        return rows | {key: Leaf("bytes_list", 1) for key in first.texts}

    @property
    def shapes(self) -> dict[str, str]:
        return {key: str(leaf.width) for key, leaf in self.stored.items()}

    def places(self, faults) -> list[RawPlace]:
        return [RawPlace(number, "memory", number) for number in range(self.total)]

    def read(self, place: RawPlace) -> RawEpisode:
        return self.episodes[place.number]


def episode(columns: dict[str, np.ndarray], seed: int = 0, text: str = "push it") -> RawEpisode:
    """Columns of steps ("state", "action") as an episode with a camera and an instruction."""
    rng = np.random.default_rng(seed)
    steps = len(next(iter(columns.values())))
    frames = [encode_image(rng.integers(0, 255, (24, 32, 3), np.uint8)) for _ in range(4)]
    numbers = {f"steps/{key}": np.atleast_2d(rows.T).T.astype(np.float32).astype(np.float64)
               for key, rows in columns.items()}  # fmt: skip
    texts = {
        "steps/observation/image": [frames[step % 4] for step in range(steps)],
        "steps/language_instruction": [text.encode()] * steps,
    }
    return RawEpisode(steps, numbers, texts, [])


def made(record, episodes: int = EPISODES, names=None, rate=None, **options) -> Memory:
    """A data set of `record(arm)`: a dictionary of columns for each episode."""
    rows = []
    for seed in range(episodes):
        rows.append(episode(record(arm(seed, **options)), seed, ("push it", "pull it")[seed % 2]))
    names = {f"steps/{key}": tuple(values) for key, values in (names or {}).items()}
    return Memory(rows, rate=rate, names=names)


def continuous(quaternions: np.ndarray) -> np.ndarray:
    """Of q and -q the one nearer to the step before."""
    signs = np.sign((quaternions[1:] * quaternions[:-1]).sum(1))
    return quaternions * np.concatenate([[1.0], np.cumprod(signs)])[:, None]


def deltas(a: Arm, form=lambda r: r.as_euler("xyz")) -> np.ndarray:
    """(T, 7): m, rad, closing +1 and -1."""
    return np.column_stack([a.move, form(a.turn), 2 * a.close - 1])


def pose(a: Arm, form=lambda r: r.as_euler("xyz")) -> np.ndarray:
    """(T, 3 + n): the measured pose before each step."""
    return np.column_stack([a.x, form(a.r)])[:-1]


def targets(a: Arm, form=lambda r: r.as_euler("xyz")) -> np.ndarray:
    """(T, 3 + n): the commanded pose of each step."""
    return np.column_stack([a.x[:-1] + a.move, form(a.turn * a.r[:-1])])
