"""Draws the pictures of the README and of docs/get-started.md; ten seconds of a CPU core.

    ./run python scripts/readme_picture.py

docs/assets/open_drawer_place.png: the shipped policy in one episode of the embedded simulator.
docs/assets/imagined.png: below, the same moments as the same checkpoint imagined them six control
steps (2 s) earlier, from the frame of that time and the six actions that were then executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eval.envs.registry import find_simulator
from eval.envs.tasks import TASKS
from eval.rollout.episode import run_episode
from robotics.data.images import resize_image, strip, write_png
from robotics.embodiment.control import Action, Observation
from robotics.embodiment.rotation import axis_angle_to_rpy
from robotics.model.policy import CheckpointPolicy
from robotics.model.world_model import WorldModel

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "docs" / "assets"
TASK, SEED, COLUMNS, WIDTH = "open_drawer_place", 1_000_000, 6, 256


class Recorder:
    """Keeps what was seen and what was done."""

    needs_image = True

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.done: list[Action] = []
        self.instructions: list[str] = []

    def step(self, observation: Observation, action: Action, instruction: str, info: Any) -> None:
        self.seen.append(observation)
        self.done.append(action)
        self.instructions.append(instruction)

    def end(self, observation: Observation, info: Any) -> None:
        self.seen.append(observation)


def imagined(world: WorldModel, episode: Recorder, step: int) -> np.ndarray:
    """The frame at `step`, as seen from a chunk of actions before: uint8 (H, W, 3)."""
    robot = world.robot()
    (camera,) = robot.cameras
    start = step - robot.horizon
    seen: Any = episode.seen[start]
    rows = [
        np.concatenate([a.control[:3], axis_angle_to_rpy(a.control[3:6]), a.control[6:], [-1.0]])
        for a in episode.done[start:step]
    ]
    samples = {
        f"image/{camera}": resize_image(seen["image"], robot.image_sizes[camera])[None],
        "state": robot.coder.state([*seen["tool_pose"], *np.ravel(seen["gripper_closed"])])[None],
        "instruction": [episode.instructions[start]],
        "action": np.stack(rows)[None].astype(np.float32),
        "action_valid": np.ones((1, robot.horizon), bool),
    }
    return world.imagine(samples, steps=1)[camera][0, -1]


def captioned(frame: np.ndarray, text: str) -> np.ndarray:
    """The frame at a common size with a line of text above."""
    picture = Image.fromarray(frame).resize((WIDTH, WIDTH * 4 // 5), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (WIDTH, picture.height + 22), (255, 255, 255))
    canvas.paste(picture, (0, 22))
    font = ImageFont.load_default(14)
    ImageDraw.Draw(canvas).text((3, 3), text, (40, 40, 40), font=font)
    return np.asarray(canvas)


def main() -> None:
    """Run the episode, imagine its frames, write the pictures."""
    world = WorldModel.load(ROOT / "checkpoints" / "self_flow")
    episode, task = Recorder(), TASKS[TASK]
    simulator = find_simulator("mujoco")
    simulator.prepare()
    env = simulator.make_env(task)
    result = run_episode(env, CheckpointPolicy(world), task, SEED, [episode])
    env.close()
    shown = np.linspace(world.robot().horizon, result.steps, COLUMNS).round().astype(int)
    above = [
        captioned(episode.seen[step]["image"], f"{step / 3:.0f} s: {words}")
        for step, words in ((n, episode.instructions[min(n, result.steps - 1)]) for n in shown)
    ]
    below = [captioned(imagined(world, episode, n), "imagined 2 s earlier") for n in shown]
    write_png(ASSETS / "open_drawer_place.png", strip([above]))
    write_png(ASSETS / "imagined.png", strip([above, below]))
    print(f"success: {result.success}, {result.steps} steps, frames {shown.tolist()}")


if __name__ == "__main__":
    main()
