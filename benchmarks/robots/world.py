"""A pick-and-place world without a simulator: pose, joints, gripper and pictures move together.

An arm's tool approaches an object, closes, carries it to a plate and opens. Everything a robot
could record of it follows from that: what is commanded in a step is what the next state shows, up
to a little noise, so a policy can be learned and a data set inspected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation

OBJECTS = {
    "red can": (200, 30, 30),
    "green block": (30, 170, 60),
    "blue bowl": (40, 60, 210),
    "yellow banana": (230, 210, 40),
}
PHASES = ("approach", "descend", "close", "lift", "carry", "open")
SHARES = (0.25, 0.15, 0.1, 0.15, 0.25, 0.1)
"""Of an episode's steps, by phase."""
JOINTS = 7


@dataclass
class Arm:
    """T steps of one arm; the state before each step and what the step commands."""

    position: np.ndarray
    """(T + 1, 3) m."""
    rotation: list[Rotation]
    """T + 1 orientations of the tool in the base frame."""
    closed: np.ndarray
    """(T + 1,) in [0, 1]."""
    joints: np.ndarray
    """(T + 1, JOINTS) rad."""
    move: np.ndarray
    """(T, 3) m, base frame."""
    turn: np.ndarray
    """(T, 3) axis times angle, rad, base frame."""
    close: np.ndarray
    """(T,) 1 or 0."""
    item: np.ndarray
    """(T + 1, 3): where the object is."""
    plate: np.ndarray
    name: str

    def __len__(self) -> int:
        return len(self.close)


def arm(seed: int, rate: float, seconds: float, down: bool = False) -> Arm:
    """One episode; down: the tool points down instead of along the base's axes."""
    rng = np.random.default_rng(seed)
    steps = max(int(seconds * rate * rng.uniform(0.85, 1.15)), 12)
    rest = Rotation.from_euler("x", np.pi if down else 0.0)
    position = np.array([0.35, 0.0, 0.30]) + rng.normal(0, 0.02, 3)
    rotation = Rotation.from_rotvec(rng.normal(0, 0.05, 3)) * rest
    item, plate = (
        np.array([0.5, 0.0, height]) + rng.uniform([-0.12, -0.2, 0], [0.12, 0.2, 0])
        for height in (0.05, 0.10)
    )
    grasp = Rotation.from_euler("xyz", rng.uniform(-0.5, 0.5, 3)) * rest
    ends = np.cumsum(SHARES) * steps
    columns: dict[str, list] = {
        name: [] for name in ("position", "rotation", "closed", "move", "turn", "close", "item")
    }
    closed, held = 0.0, False
    for step in range(steps + 1):
        phase = PHASES[min(int(np.searchsorted(ends, step, side="right")), len(PHASES) - 1)]
        for name, value in zip(
            ("position", "rotation", "closed", "item"),
            (position.copy(), rotation, closed, item.copy()),
            strict=True,
        ):
            columns[name].append(value)
        if step == steps:
            break
        above = {"approach": 0.12, "lift": 0.15, "carry": 0.05, "open": 0.05}.get(phase, 0.0)
        goal = (plate if phase in ("carry", "open") else item) + [0, 0, above]
        facing = rest if phase in ("carry", "open") else grasp
        left = max(ends[PHASES.index(phase)] - step, 2.0)
        move = (goal - position) / left * 1.3 + rng.normal(0, 0.004 / np.sqrt(rate), 3)
        turn = (facing * rotation.inv()).as_rotvec() / left * 1.3
        turn = turn + rng.normal(0, 0.012 / np.sqrt(rate), 3)
        close = float(phase in ("close", "lift", "carry"))
        held = close == 1.0 and (held or closed > 0.5)
        for name, value in zip(("move", "turn", "close"), (move, turn, close), strict=True):
            columns[name].append(value)
        position = position + move + rng.normal(0, 0.0015 / np.sqrt(rate), 3)
        noise = rng.normal(0, 0.003 / np.sqrt(rate), 3)
        rotation = Rotation.from_rotvec(turn + noise) * rotation
        closed += (close - closed) * min(1.0, 5.0 / rate)
        if held:
            item = position.copy()
    arrays = {name: np.array(rows) for name, rows in columns.items() if name != "rotation"}
    return Arm(
        rotation=columns["rotation"],
        joints=_joints(arrays["position"], columns["rotation"], rest),
        plate=plate,
        name=list(OBJECTS)[int(rng.integers(len(OBJECTS)))],
        **arrays,
    )


def _joints(position: np.ndarray, rotation: list[Rotation], rest: Rotation) -> np.ndarray:
    """A smooth function of the pose with the look of joint angles; turns are from `rest`, around
    which a vector of rotation has no seam."""
    mixing = np.random.default_rng(7).normal(size=(6, JOINTS))
    middle = np.array([0.0, -0.6, 0.0, -2.2, 0.0, 1.6, 0.8])
    turns = np.array([(turn * rest.inv()).as_rotvec() for turn in rotation]) * 0.3
    return np.tanh(np.hstack([position, turns]) @ mixing) * 0.6 + middle


class View:
    """Pictures of an arm from one camera of a laboratory: the same room, another light."""

    def __init__(self, number: int, seed: int, size: tuple[int, int], kind: str) -> None:
        rng = np.random.default_rng([number, 99])
        self.size, self.kind = size, kind
        self._light = np.random.default_rng([seed, 99]).uniform(-15, 15, 3)
        grey = 100 + rng.random((8, 10, 1)) * 60 + rng.random((8, 10, 3)) * 20
        coarse = grey.astype(np.uint8)
        self._table = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        self._grain = rng.normal(0, 4, (*size, 3))

    def picture(self, arm: Arm, step: int) -> np.ndarray:
        """uint8 (H, W, 3)."""
        image = self._table.copy()
        draw = ImageDraw.Draw(image)
        self._wrist(draw, arm, step) if self.kind == "wrist" else self._room(draw, arm, step)
        seen = np.asarray(image, np.float32) + self._grain + self._light
        return np.clip(seen, 0, 255).astype(np.uint8)

    def _room(self, draw: ImageDraw.ImageDraw, arm: Arm, step: int) -> None:
        scale = self.size[1] / 320

        def place(point: np.ndarray) -> tuple[float, float]:
            across = self.size[1] / 2 + 420 * scale * point[1]
            return across, self.size[0] * (0.8 + 0.7 * (point[0] - 0.5) - 1.1 * point[2])

        def dot(point: np.ndarray, half: tuple[float, float], colour: tuple[int, int, int]) -> None:
            (x, y), (a, b) = place(point), (half[0] * scale, half[1] * scale)
            draw.ellipse([x - a, y - b, x + a, y + b], fill=colour)

        dot(arm.plate, (30, 12), (235, 235, 235))
        dot(arm.item[step], (14, 16), OBJECTS[arm.name])
        x, y = place(arm.position[step])
        gap = ((1 - arm.closed[step]) * 8 + 4) * scale
        for side in (-1, 1):
            finger = [x + side * gap - 2 * scale, y - 20 * scale]
            draw.rectangle([*finger, finger[0] + 4 * scale, y + 6 * scale], fill=(40, 40, 45))
        draw.rectangle(
            [x - 12 * scale, y - 60 * scale, x + 12 * scale, y - 20 * scale], fill=(90, 90, 95)
        )

    def _wrist(self, draw: ImageDraw.ImageDraw, arm: Arm, step: int) -> None:
        scale = self.size[1] / 320
        seen = arm.rotation[step].inv().apply(arm.item[step] - arm.position[step])
        x, y = (self.size[1] / 2 + 500 * scale * seen[1], self.size[0] / 2 + 500 * scale * seen[0])
        half = 18 * scale
        draw.ellipse([x - half, y - half, x + half, y + half], fill=OBJECTS[arm.name])
        gap = ((1 - arm.closed[step]) * 30 + 8) * scale
        for side in (-1, 1):
            middle = self.size[1] / 2 + side * gap
            box = [middle - 6 * scale, self.size[0] - 50 * scale, middle + 6 * scale, self.size[0]]
            draw.rectangle(box, fill=(40, 40, 45))
