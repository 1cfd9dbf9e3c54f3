"""A checkpoint as a `Policy`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from robotics.data.episodes import proprio_vector
from robotics.data.images import resize_image
from robotics.embodiment.control import AUTO, Action, Observation, acting_mode
from robotics.embodiment.rotation import rpy_to_axis_angle
from robotics.embodiment.table import ARM, GRIPPER, POSITION, ROTATION, TERMINATE, Embodiment
from robotics.model.modes import ACTION
from robotics.model.world_model import WorldModel
from selfflow_wm.defaults import POLICY_STEPS
from selfflow_wm.flow.solvers import time_grid

GRIPPER_THRESHOLD = 0.3
"""Predicted closedness beyond which the gripper moves; below it, it keeps its state. The data
holds -1, 0 and +1, and an intermediate command would leave the fingers half open."""


class Clipper(Protocol):
    """Limits physical values to the range of the training data."""

    def clip(self, values: np.ndarray) -> np.ndarray: ...


class Model(Protocol):
    """What a policy asks of a `WorldModel`; another process may hold the real one."""

    @property
    def embodiment(self) -> Embodiment: ...

    @property
    def modes(self) -> tuple[str, ...]: ...

    @property
    def horizon(self) -> int: ...

    @property
    def image_size(self) -> tuple[int, int]: ...

    @property
    def history_offsets(self) -> tuple[int, ...]: ...

    @property
    def action(self) -> Clipper: ...

    def generate(
        self, samples: Any, mode_name: str, *, steps: int, shift: float,
        generator: Sequence[torch.Generator],
    ) -> dict[str, np.ndarray]: ...  # fmt: skip


class CheckpointPolicy:
    """Predicts a chunk of actions, executes its first `execute` open loop, looks again.

    world: a model, anything that offers `Model`, or the path of a checkpoint directory.
    steps: Euler steps of the sampler. shift: shift of its time grid towards noise.
    mode_name: "policy", "joint" to imagine the video along with the actions, or "auto" for the
    first of the two that the model was trained in. seed: of the sampling noise when `reset` gives
    none; each episode has its own generator, so actions do not depend on the episodes before it or
    the worker. clip: limit the arm's motions to the range of the training data; off by default:
    out-of-range predictions are sent unchanged. embodiment: refuse a checkpoint of another robot.
    threads: torch's, None leaves them.
    latencies: seconds of every model call so far, resizing and encoding included.
    """

    def __init__(
        self,
        world: Model | Path | str,
        *,
        steps: int = POLICY_STEPS,
        execute: int = 3,
        shift: float = 1.0,
        mode_name: str = AUTO,
        seed: int = 0,
        clip: bool = False,
        embodiment: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if isinstance(world, Path | str):
            world = WorldModel.load(world, embodiment=embodiment, device=device)
        elif embodiment is not None and world.embodiment.name != embodiment:
            raise ValueError(
                f"expected a model for {embodiment!r}, got one for {world.embodiment.name!r}; "
                "its actions would be misread"
            )
        mode_name = acting_mode(mode_name, world.modes)
        if not 1 <= execute <= world.horizon:
            raise ValueError(
                f"expected execute in 1..{world.horizon} (the chunk the model predicts), "
                f"got {execute}"
            )
        time_grid(steps, shift)  # refuses what no episode could be sampled with
        self.world = world
        self.steps, self.execute, self.shift, self.mode = steps, execute, shift, mode_name
        self.seed, self.clip = seed, clip
        self.latencies: list[float] = []
        self._plan: deque[Action] = deque()
        # The frames before the current one, as far back as the model looks, newest last.
        self._past: deque[np.ndarray] = deque(maxlen=max(world.history_offsets, default=0))
        self._instruction: str | None = None
        self._generator = torch.Generator().manual_seed(seed)

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode; its sampling noise follows from `seed` alone."""
        self._generator = torch.Generator().manual_seed(self.seed if seed is None else seed)
        self._past.clear()
        self.instruct(instruction)

    def instruct(self, instruction: str) -> None:
        """Take a new instruction and drop what was planned for the old one; what was seen stays."""
        if not isinstance(instruction, str) or not instruction.strip():
            raise ValueError(f"expected an instruction, got {instruction!r}")
        self._instruction = instruction
        self._plan.clear()

    @property
    def needs_observation(self) -> bool:
        """True when the next `act` predicts a new chunk, and always for a model with history: any
        frame may be a past one of a later prediction."""
        return not self._plan or bool(self.world.history_offsets)

    def act(self, observation: Observation | None) -> Action:
        """The next action of the chunk, predicting one first when the last is used up.

        ValueError for a missing or malformed observation or a non-finite prediction.
        """
        if self._instruction is None:
            raise ValueError("expected reset(instruction) before act(observation)")
        if self.needs_observation:
            if observation is None:
                raise ValueError(
                    "expected an observation, got None: the planned actions are used up or the "
                    "model looks back at every frame; ask needs_observation before each step"
                )
            image, proprio = check_observation(observation, self.world.embodiment.camera_size)
            begun = time.perf_counter()
            frame = resize_image(image, self.world.image_size)
            if not self._plan:
                self._plan.extend(self._predict(frame, proprio))
                self.latencies.append(time.perf_counter() - begun)
            self._past.append(frame)
        return self._plan.popleft()

    def _predict(self, frame: np.ndarray, proprio: np.ndarray) -> list[Action]:
        samples = {
            "image": frame[None],
            "proprio": proprio[None],
            "instruction": [self._instruction],
            **self._history(frame),
        }
        chunk = self.world.generate(
            samples,
            self.mode,
            steps=self.steps,
            shift=self.shift,
            generator=[self._generator],
        )[ACTION][0]
        if self.clip:
            chunk = self.world.action.clip(chunk)
        return [to_action(row) for row in chunk[: self.execute]]

    def _history(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        """The past frames as `WindowDataset.batch` has them: masked and black before the first."""
        offsets = self.world.history_offsets
        if not offsets:
            return {}
        valid = np.array([offset <= len(self._past) for offset in offsets])
        frames = [
            self._past[-offset] if exists else np.zeros_like(frame)
            for offset, exists in zip(offsets, valid, strict=True)
        ]
        return {"history": np.stack(frames)[None], "history_valid": valid[None]}


def check_observation(
    observation: Observation, camera_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The image uint8 (H, W, 3) and proprioception (8,) of an observation; ValueError if any of
    its keys is missing, misshapen or not finite. camera_size: the (H, W) of the embodiment."""
    values: dict[str, Any] = dict(observation)
    expected = {"image": (*camera_size, 3), "tool_pose": (7,), "gripper_closed": (1,)}
    for key, shape in expected.items():
        if key not in values:
            raise ValueError(
                f"expected observation keys {sorted(expected)}, got {sorted(values)}; "
                'make the environment with obs_mode="rgb"'
            )
        value = np.asarray(values[key])
        if value.shape != shape:
            raise ValueError(f"observation[{key!r}]: expected shape {shape}, got {value.shape}")
        if key == "image" and value.dtype != np.uint8:
            raise ValueError(f"observation['image']: expected uint8 RGB, got {value.dtype}")
        if key != "image" and not np.isfinite(value).all():
            raise ValueError(f"observation[{key!r}]: expected finite values, got {value}")
    proprio = proprio_vector(values["tool_pose"], values["gripper_closed"])
    return np.asarray(values["image"]), proprio


def to_action(row: np.ndarray) -> Action:
    """A model action (8,) in physical units to a control step: roll-pitch-yaw to axis-angle, the
    gripper to -1, 0 (keep) or +1, terminate when above 0."""
    if not np.isfinite(row).all():
        raise ValueError(
            f"expected a finite action from the model, got {row[ARM]}...; is the checkpoint "
            "of a run that diverged?"
        )
    gripper = float(row[GRIPPER])
    closes = float(np.sign(gripper)) if abs(gripper) > GRIPPER_THRESHOLD else 0.0
    control = np.concatenate([row[POSITION], rpy_to_axis_angle(row[ROTATION]), [closes]])
    return Action(control.astype(np.float32), bool(row[TERMINATE] > 0))
