"""Pick the coke can; move one object near another."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from eval.envs.mujoco.env import EmbeddedEnv
from eval.envs.mujoco.scene import OBJECTS, TABLE_TOP

CAN_POSES = ("standing", "along_x", "along_y")
"""SIMPLER's three: standing, laid vertically, laid horizontally (as the robot sees it)."""
_X, _Y = (-0.32, -0.14), (0.04, 0.36)


class TableEnv(EmbeddedEnv):
    scene = "table"
    robot_xy = (0.35, 0.20)
    source: str = "coke_can"

    def _lifted_height(self) -> float:
        return float(self.object_position(self.source)[2] - self.settled[self.source][2])

    def _after_settle(self) -> None:
        self.settled = {name: self.object_position(name) for name in OBJECTS}


class PickCokeCan(TableEnv):
    stages = ("object_grasped", "object_lifted")
    pose: str = "standing"

    def _setup(self, rng: np.random.Generator) -> None:
        self.pose = str(rng.choice(CAN_POSES))
        x, y = rng.uniform([_X[0], _Y[0]], [_X[1], _Y[1]])
        if self.pose == "standing":
            self.place("coke_can", self.rest_on("coke_can", x, y, TABLE_TOP))
        else:
            yaw = (0.0 if self.pose == "along_x" else np.pi / 2) + rng.uniform(-0.15, 0.15)
            lying = Rotation.from_euler("yz", [np.pi / 2, yaw])
            radius = OBJECTS["coke_can"].size[0]
            self.place("coke_can", np.array([x, y, TABLE_TOP + radius + 0.002]), lying)
        self._lifted_steps = 0

    @property
    def instruction(self) -> str:
        return "pick coke can"

    def judge(self) -> tuple[bool, dict[str, bool]]:
        grasped = self.is_grasped("coke_can")
        lifted = grasped and self.is_lifted("coke_can") and self._lifted_height() > 0.02
        if self.elapsed_steps:
            self._lifted_steps += int(lifted)
        # SIMPLER's rule: lifted now, or five steps of a significant lift in the episode
        success = lifted or self._lifted_steps >= 5
        return success, {"object_grasped": grasped, "object_lifted": lifted}


class MoveNear(TableEnv):
    """Three objects in a row or triangle; two are named."""

    stages = ("object_grasped", "object_moved")
    reference: str = "apple"

    def _setup(self, rng: np.random.Generator) -> None:
        names = [str(n) for n in rng.choice(list(OBJECTS), 3, replace=False)]
        self.source, self.reference, self.bystander = names
        spots = self._spread(rng)
        for name, (x, y) in zip(names, spots, strict=True):
            yaw = Rotation.from_euler("z", rng.uniform(-0.3, 0.3))
            self.place(name, self.rest_on(name, x, y, TABLE_TOP), yaw)

    def _spread(self, rng: np.random.Generator) -> np.ndarray:
        """Places of source, reference and bystander, by rejection: the first two clearly apart."""
        while True:
            source, reference, bystander = spots = rng.uniform(
                [_X[0], _Y[0]], [_X[1], _Y[1]], (3, 2)
            )
            aside = [np.linalg.norm(bystander - s) for s in (source, reference)]
            if np.linalg.norm(source - reference) >= 0.23 and min(aside) >= 0.16:
                return spots

    @property
    def instruction(self) -> str:
        return f"move {OBJECTS[self.source].language} near {OBJECTS[self.reference].language}"

    def judge(self) -> tuple[bool, dict[str, bool]]:
        trio = (self.source, self.reference, self.bystander)
        here = {n: self.object_position(n) for n in trio}
        moved = {n: float(np.linalg.norm((here[n] - self.settled[n])[:2])) for n in trio}
        others = trio[1:]
        gap = {n: float(np.linalg.norm((here[self.source] - here[n])[:2])) for n in others}
        near = gap[self.reference] < 0.10 + sum(OBJECTS[n].radius for n in trio[:2])
        # bystanders keep their height within 2 cm, source and reference stay on the table
        drop = {n: float((self.settled[n] - here[n])[2]) for n in trio}
        kept = drop[self.bystander] < 0.02 and max(drop.values()) < 0.15
        right = moved[self.source] > 0.03 and all(moved[n] < moved[self.source] for n in others)
        success = near and kept and right and gap[self.reference] < gap[self.bystander]
        grasped = self.is_grasped(self.source) and self._lifted_height() > 0.01
        return success, {"object_grasped": grasped, "object_moved": right}
