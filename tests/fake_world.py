"""A model without a network, for tests of what lies between it and a robot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.robots.synthetic import recorded
from benchmarks.robots.world import arm
from robotics.embodiment.coding import Coder
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot

SIZE = (8, 12)
TABLES: dict[str, dict[str, Any]] = {
    "two_arms": {
        "rate": 50,
        "cameras": {
            "high": {"path": "observation/cam_high", "size": [48, 64]},
            "left_wrist": {"path": "observation/cam_left", "view": "wrist", "size": [48, 64]},
            "right_wrist": {"path": "observation/cam_right", "view": "wrist", "size": [48, 64]},
        },
        "state": {
            "left_arm": {"path": "observation/state[0:6]", "kind": "joints"},
            "left_gripper": {"path": "observation/state[6]", "kind": "gripper"},
            "right_arm": {"path": "observation/state[7:13]", "kind": "joints"},
            "right_gripper": {"path": "observation/state[13]", "kind": "gripper"},
        },
        "action": {
            "left_arm": {"path": "action[0:6]", "kind": "joints", "mode": "absolute"},
            "left_gripper": {
                "path": "action[6]", "kind": "gripper", "mode": "absolute", "continuous": True,
            },
            "right_arm": {"path": "action[7:13]", "kind": "joints", "mode": "absolute"},
            "right_gripper": {
                "path": "action[13]", "kind": "gripper", "mode": "absolute", "continuous": True,
            },
        },
    },
    "velocities": {
        "rate": 15,
        "cameras": {
            "side": {"path": "observation/exterior", "size": [18, 32]},
            "wrist": {
                "path": "observation/wrist", "view": "wrist", "rotate": 180,
                "present": "/has_wrist",
            },
        },
        "state": {
            "joints": {"path": "observation/joint_position", "kind": "joints", "width": 7},
            "gripper": {"path": "observation/gripper_position", "kind": "gripper"},
        },
        "action": {
            "joints": {
                "path": "action_dict/joint_velocity", "kind": "joints", "width": 7,
                "mode": "velocity",
            },
            "gripper": {
                "path": "action_dict/gripper_position", "kind": "gripper", "mode": "absolute",
            },
        },
        "instruction": ["language_instruction", "language_instruction_2"],
        "keys": {"openpi": {
            "cameras.side": "observation/exterior_image_1_left",
            "state.joints": "observation/joint_position",
            "state.gripper": "observation/gripper_position",
        }},
    },
    "pose_wxyz": {
        "rate": 10,
        "cameras": {"front": {"path": "rgb", "size": [30, 40]}},
        "state": {
            "position": {"path": "pose[0:3]", "kind": "position", "unit": "mm"},
            "rotation": {
                "path": "pose[3:7]", "kind": "rotation", "form": "quaternion_wxyz",
                "model": {"form": "quaternion_wxyz"},
            },
            "gripper": {"path": "grip", "kind": "gripper", "open": 1, "closed": 0},
        },
        "action": {
            "position": {
                "path": "target[0:3]", "kind": "position", "unit": "mm", "mode": "absolute",
            },
            "rotation": {
                "path": "target[3:7]", "kind": "rotation", "form": "quaternion_wxyz",
                "mode": "absolute",
            },
            "gripper": {
                "path": "close", "kind": "gripper", "mode": "absolute", "open": 1, "closed": 0,
                "model": {"mode": "pulse"},
            },
        },
        "instruction": "task",
    },
    "blind_cart": {
        "rate": 5,
        "cameras": {"front": {"path": "rgb", "size": [30, 40]}},
        "action": {"base": {"path": "drive", "kind": "base", "width": 2, "mode": "velocity"}},
    },
}  # fmt: skip
"""Robots that the code has never heard of."""


@dataclass
class FakeRobot:
    """What a policy asks of a robot in a model."""

    robot: Robot
    horizon: int = 4
    history_offsets: tuple[int, ...] = ()
    coder: Coder = field(init=False)
    image_sizes: dict[str, tuple[int, int]] = field(init=False)
    normalizers: dict[str, Any] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)
    """Samples of every prediction."""
    modes: tuple[str, ...] = ("policy",)

    def __post_init__(self) -> None:
        self.coder = Coder(self.robot)
        self.image_sizes = {row.name: SIZE for row in self.robot.used_cameras()}


class FakeWorld:
    """Answers with noise that depends on all it is given, or with what `answer` makes of it.

    answer: (robot, samples) -> model values (H, A').
    """

    def __init__(self, *robots: FakeRobot, answer: Any = None) -> None:
        self.robots = {model.robot.name: model for model in robots}
        self._answer = answer

    def generate(self, samples, mode_name, *, steps, shift, generator):
        model = self.robots[samples["robot"]]
        model.asked.append(samples)
        if self._answer is not None:
            return {"action": np.asarray(self._answer(model, samples), np.float32)[None]}
        shape = (model.horizon, model.coder.action_width)
        seen = [samples[key].astype(np.float64).mean() for key in sorted(samples) if "/" in key]
        if "state" in samples:
            seen.append(samples["state"].sum())
        noise = torch.randn(shape, generator=generator[0]).numpy()
        words = len(samples["instruction"][0])
        return {"action": (0.2 * noise + 0.01 * np.mean(seen) + 0.01 * words)[None]}


def robot(name: str) -> Robot:
    """A table of `TABLES`, or a shipped one."""
    return load_robot({"name": name, **TABLES[name]} if name in TABLES else name)


def episode(table: Robot, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Recorded states (T, S) and actions (T, A), float32, of one episode of the robot."""
    arms = [arm(seed + 1000 * side, table.rate, 4.0) for side in (0, 1)]
    steps = min(map(len, arms))
    found = [recorded(table, group, arms, steps) for group in ("state", "action")]
    return found[0].astype(np.float32), found[1].astype(np.float32)


def frames(table: Robot, seed: int = 0) -> dict[str, np.ndarray]:
    """A picture of every camera, as recorded."""
    rng = np.random.default_rng(seed)
    return {
        row.name: rng.integers(0, 256, (*(row.size or (20, 24)), 3), np.uint8)
        for row in table.cameras
    }


def look(table: Robot, state: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """A whole observation as `Policy.act` takes it."""
    return frames(table, seed) | ({"state": state} if table.state else {})
