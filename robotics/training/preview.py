"""Strips of imagined video, written while a run trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robotics.data.batches import Dataset
from robotics.data.images import beside, strip, write_png
from robotics.data.mixture import shuffled
from robotics.model.world_model import WorldModel
from robotics.training.fit import by_robot
from selfflow_wm.defaults import IMAGINE_STEPS
from selfflow_wm.model import Backbone

MODES = ("video", "forward", "joint")


class Preview:
    """Writes `directory/step_*.png`, of several robots `step_*_ROBOT.png`: one pair of rows per
    window, the true future frames above the generated ones, the current frame at the left of both,
    one camera beside the other. What lies after the end of an episode, or of a camera that is not
    there, is left white.

    The mode is the first of video, forward and joint that the robot is trained in; without any it
    is left out. Windows and sampling noise are fixed, so that strips of one run compare.
    """

    def __init__(
        self,
        world: WorldModel,
        dataset: Dataset,
        directory: Path,
        *,
        windows: int = 4,
        steps: int = IMAGINE_STEPS,
        seed: int = 0,
    ) -> None:
        self.world, self.directory, self.steps, self.seed = world, directory, steps, seed
        self.modes: dict[str, str] = {}
        self.samples: dict[str, dict[str, Any]] = {}
        """By robot."""
        for name, part in by_robot(dataset).items():
            known = [mode for mode in MODES if mode in world.robots[name].modes]
            if known:
                index = shuffled(part, np.random.default_rng([seed, 3]))
                self.modes[name] = known[0]
                self.samples[name] = part.batch(np.sort(index[:windows]), video=True)
        self.several = len(by_robot(dataset)) > 1

    def __call__(self, ema: Backbone, step: int) -> None:
        world, device = self.world.with_backbone(ema), next(ema.parameters()).device
        for name, samples in self.samples.items():
            generator = torch.Generator(device).manual_seed(self.seed)
            found = world.generate(samples, self.modes[name], steps=self.steps, generator=generator)
            cameras = world.robots[name].cameras
            strips = [_strip(samples, camera, found[f"video/{camera}"]) for camera in cameras]
            robot = f"_{name}" if self.several else ""
            write_png(self.directory / f"step_{step:08d}{robot}.png", beside(strips))


def _strip(samples: Mapping[str, Any], camera: str, video: np.ndarray) -> np.ndarray:
    rows = []
    there = samples.get(f"camera_valid/{camera}", np.ones(len(video), bool))
    names = (f"image/{camera}", f"video/{camera}", "video_valid")
    for exists, current, true, shown, imagined in zip(
        there, *(samples[name] for name in names), video, strict=True
    ):
        seen = [frame if real and exists else None for frame, real in zip(true, shown, strict=True)]
        first = current if exists else np.full_like(current, 255)
        rows += [[first, *seen], [first, *imagined]]
    return strip(rows)
