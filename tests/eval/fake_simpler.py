"""A stand-in for the `Scene` of `eval.envs.simpler` in the child: no simulator, no Vulkan."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from robotics.embodiment.control import Action


class FakeScene:
    """Counts steps; the first value of an action can make it raise, hang or die."""

    def __init__(self, shader: str) -> None:
        self.shader = shader
        print("a simulator prints on standard output")

    def reset(self, cell: dict) -> dict:
        self.cell, self.steps, self.subtask = cell, 0, 0
        lacking = ["stage table"] if cell["task"] == "move_near" else []
        return {**self.info(), "stand_ins": lacking}

    def step(self, control: np.ndarray) -> dict:
        if control[0] == 0.9:
            print("a screw came loose", file=sys.stderr, flush=True)
            os._exit(9)
        if control[0] == 0.8:
            time.sleep(60)
        if control[0] == 0.7:
            raise RuntimeError("lost contact")
        mark = os.environ.get("FAKE_SCENE_MARK")
        if mark and self.steps == 5 and not os.path.exists(mark):
            open(mark, "w").close()
            if os.environ["FAKE_SCENE_DOES"] == "hang":
                time.sleep(600)
            os._exit(9)
        self.steps += 1
        if self.steps > 100:
            self.subtask = 1
        return self.info()

    def advance(self) -> dict:
        self.subtask = 1
        return self.info()

    def info(self) -> dict:
        place = self.cell["task"] == "open_drawer_place"
        second = place and self.subtask == 1
        return {
            "instruction": "place apple into top drawer" if second else "open top drawer",
            "subtask": int(second),
            "is_final_subtask": second or not place,
            "success": False,
            "stages": {"drawer_opened": second},
            "elapsed_steps": self.steps,
            "truncated": self.steps >= self.cell["horizon"],
            "cell": self.cell["name"],
        }

    def observation(self) -> dict:
        return {
            "tool_pose": np.arange(7, dtype=np.float32),
            "gripper_closed": np.zeros(1, np.float32),
        }

    def image(self) -> np.ndarray:
        return np.full((256, 320, 3), self.steps, np.uint8)

    def expert(self):
        return self

    def act(self) -> Action:
        return Action(np.full(7, 0.25, np.float32), True)

    def label(self) -> dict:
        return {"rendering": self.shader, "stand_ins": [], "devices": []}

    def close(self) -> None:
        pass
