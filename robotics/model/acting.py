"""What a policy asks of the model that acts, whoever made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from robotics.embodiment.coding import Coder
from robotics.embodiment.robot import Robot


class Clipper(Protocol):
    """Limits physical values to the range of the training data."""

    def clip(self, values: np.ndarray) -> np.ndarray: ...


class ActingRobot(Protocol):
    """What a policy asks of a robot in a model, see `robotics.model.world_model.RobotModel`."""

    @property
    def robot(self) -> Robot: ...

    @property
    def coder(self) -> Coder: ...

    @property
    def normalizers(self) -> Mapping[str, Clipper]: ...

    @property
    def horizon(self) -> int: ...

    @property
    def history_offsets(self) -> tuple[int, ...]: ...

    @property
    def image_sizes(self) -> Mapping[str, tuple[int, int]]: ...

    @property
    def modes(self) -> tuple[str, ...]: ...


class Model(Protocol):
    """What a policy asks of a `WorldModel`; another process may hold the real one."""

    @property
    def robots(self) -> Mapping[str, Any]: ...

    def generate(
        self, samples: Any, mode_name: str, *, steps: int, shift: float,
        generator: Sequence[torch.Generator],
    ) -> dict[str, np.ndarray]: ...  # fmt: skip
