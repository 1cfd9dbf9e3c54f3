"""Strips of imagined video, written while a run trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robotics.data.batches import Dataset
from robotics.data.images import beside, strip, write_mp4, write_png
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
    there, is left white. `step_*.mp4` plays the same.

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

    def __call__(self, ema: Backbone, step: int) -> list[Path]:
        """Make and write the strips and clips of `step`; where they are."""
        world, device = self.world.with_backbone(ema), next(ema.parameters()).device
        files = []
        for name, samples in self.samples.items():
            generator = torch.Generator(device).manual_seed(self.seed)
            found = world.generate(samples, self.modes[name], steps=self.steps, generator=generator)
            model = world.robots[name]
            rows = [_rows(samples, camera, found[f"video/{camera}"]) for camera in model.cameras]
            robot = f"_{name}" if self.several else ""
            path = self.directory / f"step_{step:08d}{robot}.png"
            write_png(path, beside([strip(camera) for camera in rows]))
            files += [path, path.with_suffix(".mp4")]
            seconds = model.video_offsets[-1] / model.robot.rate
            write_mp4(files[-1], _clip(rows), max(1.0, len(model.video_offsets) / seconds))
        return files


Rows = list[list[np.ndarray | None]]
"""Of a camera's windows, a pair each: the true frames from the current one on, then the generated
ones; None where there is none."""


def _rows(samples: Mapping[str, Any], camera: str, video: np.ndarray) -> Rows:
    rows: Rows = []
    there = samples.get(f"camera_valid/{camera}", np.ones(len(video), bool))
    names = (f"image/{camera}", f"video/{camera}", "video_valid")
    for exists, current, true, shown, imagined in zip(
        there, *(samples[name] for name in names), video, strict=True
    ):
        seen = [frame if real and exists else None for frame, real in zip(true, shown, strict=True)]
        first = current if exists else np.full_like(current, 255)
        rows += [[first, *seen], [first, *imagined]]
    return rows


def _clip(cameras: Sequence[Rows]) -> list[np.ndarray]:
    """Frame by frame: windows from left to right, the true ones above the generated ones, one
    camera beside the other."""
    return [
        beside([strip([[row[t] for row in rows[kind::2]] for kind in (0, 1)]) for rows in cameras])
        for t in range(len(cameras[0][0]))
    ]
