"""Strips of imagined video, written while a run trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from robotics.data.batches import Dataset
from robotics.data.images import strip, write_png
from robotics.data.mixture import shuffled
from robotics.model.world_model import WorldModel
from selfflow_wm.defaults import IMAGINE_STEPS
from selfflow_wm.model import Backbone


class Preview:
    """Writes `directory/step_*.png`: one pair of rows per window, the true future frames above
    the generated ones, the current frame at the left of both. What lies after the end of an episode
    is left white.

    The mode is the first of video, forward and joint the model is trained in; without any it does
    nothing. Windows and sampling noise are fixed, so that strips of one run compare.
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
        known = (name for name in ("video", "forward", "joint") if name in world.modes)
        self.mode = next(known, None)
        index = shuffled(dataset, np.random.default_rng([seed, 3]))
        self.samples = dataset.batch(np.sort(index[:windows]), video=True)

    def __call__(self, ema: Backbone, step: int) -> None:
        if self.mode is None:
            return
        device = next(ema.parameters()).device
        generator = torch.Generator(device).manual_seed(self.seed)
        video = self.world.with_backbone(ema).generate(
            self.samples, self.mode, steps=self.steps, generator=generator
        )["video"]
        rows = []
        for current, true, shown, imagined in zip(
            *(self.samples[name] for name in ("image", "video", "video_valid")), video, strict=True
        ):
            seen = [frame if real else None for frame, real in zip(true, shown, strict=True)]
            rows += [[current, *seen], [current, *imagined]]
        write_png(self.directory / f"step_{step:08d}.png", strip(rows))
