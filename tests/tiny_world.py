"""Small world models of any robots, with weights that are all alive and no data behind them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from fake_world import episode

from robotics.embodiment.coding import Coder
from robotics.embodiment.normalize import Normalizer, Quantiles
from robotics.embodiment.robot import Robot
from robotics.model.robot_model import RobotModel
from robotics.model.world_model import WorldModel
from robotics.training.build import compose_config
from robotics.training.fit import assemble
from selfflow_wm.codec import PatchPCA, ResidualCodec

SIZE = (8, 12)
WORDS = (
    "model.width=24", "model.heads=2", "model.double=1", "model.single=2", "layout.rows=null",
    "data=x", "out=x",
)  # fmt: skip


def tiny_world(
    *robots: Robot, history: tuple[int, ...] = (), modes: tuple[str, ...] = ("policy",)
) -> WorldModel:
    """An untrained model of these robots, every parameter moved from where it starts."""
    config = _config()
    torch.manual_seed(0)
    found = {robot.name: robot_model(robot, history).trained_in(modes) for robot in robots}
    world = assemble(found, config, modes, 48)
    world.backbone.eval().requires_grad_(False)
    for parameter in world.backbone.parameters():  # the heads start at zero: nothing would show
        parameter.add_(0.05 * torch.randn_like(parameter))
    return world


def robot_model(robot: Robot, history: tuple[int, ...] = ()) -> RobotModel:
    """What a model knows of a robot, from one synthetic episode and random pictures."""
    coder, horizon, offsets = Coder(robot), 4, (2, 4)
    states, actions = episode(robot)
    steps = np.arange(len(actions) - horizon)
    chunks = actions[steps[:, None] + np.arange(horizon)]
    values = {
        "state": coder.state(states),
        "action": coder.chunk(chunks, states[steps], np.zeros(chunks.shape[:2], bool)),
    }
    normalizers = {
        group: Normalizer.of_fields(
            Quantiles.of(rows.reshape(-1, rows.shape[-1])), coder.fields(group), "quantiles", 1e-3
        )
        for group, rows in values.items()
        if rows.shape[-1]
    }
    codecs = {camera.name: _codec() for camera in robot.used_cameras()}
    return RobotModel(robot, coder, normalizers, codecs, horizon, offsets, history)


@functools.cache
def _config() -> dict[str, Any]:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(compose_config(list(WORDS)), resolve=True)


@functools.cache
def _codec() -> ResidualCodec:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (6, *SIZE, 3), generator=generator, dtype=torch.uint8)
    clips = torch.randint(0, 256, (6, 2, *SIZE, 3), generator=generator, dtype=torch.uint8)
    image = PatchPCA(SIZE, patch=4, channels=8)
    image.fit(frames, seed=0)
    return ResidualCodec(image, frames=2).fit(clips, frames)
