"""A checkpoint that acts: on the frames and the state of its robot, or in a simulator.

`Policy` takes what the recordings have and returns actions as the recordings have them.
`CheckpointPolicy` lays a `robotics.embodiment.bridge.Bridge` between it and an environment.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robotics.embodiment.bridge import Bridge
from robotics.embodiment.control import AUTO, Action, acting_mode, tool_robot
from robotics.embodiment.robot import Robot
from robotics.model.acting import ActingRobot, Model
from robotics.model.modes import ACTION
from robotics.model.observation import Seen, read_observation
from selfflow_wm.defaults import POLICY_STEPS
from selfflow_wm.flow.solvers import time_grid

EXECUTE = 3
"""Actions of a chunk that an evaluation executes before it looks again."""


class Policy:
    """Acts for one robot of a model: predicts a chunk of actions, executes its first `execute` open
    loop, looks again.

        policy = Policy.load("runs/mine")
        policy.reset("put the spoon on the towel")
        action = policy.act({"front": frame, "state": state})

    Args:
        world: a model, or anything that offers `Model`.
        robot: its name, needed where the model has several.
        steps: Euler steps of the sampler.
        execute: actions of a chunk that are executed before the next is predicted; None: half.
        shift: of the sampler's time grid, towards noise.
        mode_name: "policy", "joint" to imagine the video along with the actions, or "auto" for the
            first of the two that the model was trained in.
        seed: of the sampling noise when `reset` gives none; each episode has its own generator, so
            actions do not depend on the episodes before it or on the worker.
        clip: limit motions to the range of the training data; by default out-of-range predictions
            are returned unchanged.

    Raises:
        ValueError: a model that does not act, no such robot, or an option out of range.
    """

    def __init__(
        self, world: Model, robot: str | None = None, *, steps: int = POLICY_STEPS,
        execute: int | None = None, shift: float = 1.0, mode_name: str = AUTO, seed: int = 0,
        clip: bool = False,
    ) -> None:  # fmt: skip
        self.world, self.name = world, _robot_name(world, robot)
        self._model: ActingRobot = world.robots[self.name]
        self.robot: Robot = self._model.robot
        """The table: what `act` takes and returns."""
        self.cameras = tuple(self._model.image_sizes)
        """Those that the model looks at."""
        if not self.robot.action:
            raise ValueError(
                f"policy: expected a robot with actions, got {self.name}, whose recordings have "
                "none; train on some that have"
            )
        self.mode = acting_mode(mode_name, self._model.modes)
        self.horizon = self._model.horizon
        self.execute = max(1, self.horizon // 2) if execute is None else execute
        if not 1 <= self.execute <= self.horizon:
            raise ValueError(
                f"expected execute in 1..{self.horizon} (the chunk the model predicts), "
                f"got {execute}; write policy.execute={self.horizon} at most"
            )
        time_grid(steps, shift)  # refuses what no episode could be sampled with
        self.steps, self.shift, self.seed, self.clip = steps, shift, seed, clip
        self.latencies: list[float] = []
        """Seconds of every model call so far, resizing and encoding included."""
        self.terminated = False
        """The last action of `act` ends the sub-task."""
        self.ending = np.zeros(0, bool)
        """(H,) of the last chunk: the actions that end the sub-task."""
        # The frames before the current one, as far back as the model looks, newest last.
        self._past: deque[dict[str, np.ndarray]] = deque(
            maxlen=max(self._model.history_offsets, default=0)
        )
        self._instruction: str | None = None
        self._plan: deque[tuple[np.ndarray, bool]] = deque()
        self._start(None)

    @classmethod
    def load(
        cls, path: Path | str, robot: str | None = None, *, device: str = "cpu", **options: Any
    ) -> Policy:
        """The policy of a checkpoint.

        Args:
            path: a checkpoint's directory, a run's (its newest), or a name in `checkpoints/`.
            robot: its name, needed where the checkpoint has several.
            device: such as "cuda".
            options: keyword arguments of `Policy`.
        """
        from robotics.model.world_model import WorldModel

        return cls(WorldModel.load(path, device=device), robot, **options)

    # ---------------------------------------------------------------- an episode

    def reset(self, instruction: str = "", seed: int | None = None) -> None:
        """Start an episode; its sampling noise follows from `seed` alone."""
        self.instruct(instruction)
        self._start(seed)

    def _start(self, seed: int | None) -> None:
        self._generator = torch.Generator().manual_seed(self.seed if seed is None else seed)
        self._past.clear()
        self._plan.clear()
        self._chunk = np.zeros((0, self.robot.action_width), np.float32)
        self._previous: np.ndarray | None = None
        self._last_state: np.ndarray | None = None
        self.terminated, self.ending = False, np.zeros(0, bool)

    def instruct(self, instruction: str) -> None:
        """Take a new instruction and drop what was planned for the old one; what was seen stays.
        "" is none."""
        if not isinstance(instruction, str):
            raise ValueError(f'expected an instruction, or "" for none, got {instruction!r}')
        if self.robot.instruction.paths and not instruction.strip():
            warnings.warn(
                f"acting without an instruction, which recordings of {self.name} have; "
                "policy.reset(TEXT) gives one",
                stacklevel=3,
            )
        self._instruction = instruction
        self._plan.clear()

    @property
    def looks_back(self) -> bool:
        """Whether the model is shown past frames, so that it has to see every one."""
        return bool(self._model.history_offsets)

    @property
    def needs_observation(self) -> bool:
        """True when the next `act` predicts a new chunk, and always for a model with history: any
        frame may be a past one of a later prediction."""
        return not self._plan or self.looks_back

    def act(self, observation: Mapping[str, Any] | None) -> np.ndarray:
        """The next action (A,) float32 as recorded, the table's parts one after the other.

        Args:
            observation: see `robotics.model.observation.read_observation`; may be None when
                `needs_observation` is False.

        Raises:
            ValueError: a missing or malformed observation or a non-finite prediction.
        """
        self._check_started()
        if self.needs_observation:
            if observation is None:
                raise ValueError(
                    "expected an observation, got None: the planned actions are used up or the "
                    "model looks back at every frame; ask needs_observation before each step"
                )
            begun = time.perf_counter()
            seen = self._look(observation)
            if not self._plan:
                actions = self._predict(seen, begun)
                ending = self.ending.tolist()
                self._plan.extend(list(zip(actions, ending, strict=True))[: self.execute])
            self._past.append(seen.frames)
        action, self.terminated = self._plan.popleft()
        self._previous = action
        return action

    def chunk(self, observation: Mapping[str, Any]) -> np.ndarray:
        """All actions (H, A) predicted from an observation, for a caller that executes them itself;
        `ending` says which end the sub-task. Its first `execute` count as executed, unless
        `executed` says otherwise."""
        self._check_started()
        begun = time.perf_counter()
        seen = self._look(observation)
        self._plan.clear()
        actions = self._predict(seen, begun)
        self._past.append(seen.frames)
        self._chunk = actions
        self.executed(self.execute)
        return actions

    def executed(self, rows: int) -> None:
        """How many actions of the last `chunk` were executed."""
        if 1 <= rows <= len(self._chunk):
            self._previous = self._chunk[rows - 1]

    # ---------------------------------------------------------------- observation to actions

    def _check_started(self) -> None:
        if self._instruction is None:
            raise ValueError("expected reset(instruction) before act(observation)")

    def _look(self, observation: Mapping[str, Any]) -> Seen:
        seen = read_observation(observation, self.robot, self._model.image_sizes)
        if not self.robot.state:
            return seen
        # q and -q are one rotation: stay on the side of the step before, as in training.
        self._last_state = self._model.coder.continuous(seen.state, self._last_state)
        return replace(seen, state=self._last_state)

    def _predict(self, seen: Seen, begun: float) -> np.ndarray:
        coder, state = self._model.coder, seen.state
        samples: dict[str, Any] = {
            "robot": self.name,
            "instruction": [self._instruction],
            **self._frames(seen),
        }
        if self.robot.state:
            samples["state"] = coder.state(state)[None]
            samples["state_recorded"] = state[None]
        chunk = self.world.generate(
            samples,
            self.mode,
            steps=self.steps,
            shift=self.shift,
            generator=[self._generator],
        )[ACTION][0]
        if not np.isfinite(chunk).all():
            raise ValueError(
                f"expected a finite action from the model, got {chunk[0]}...; is the checkpoint "
                "of a run that diverged?"
            )
        if self.clip:
            chunk = self._model.normalizers[ACTION].clip(chunk)
        actions, self.ending = coder.recorded(coder.snapped(chunk), state, self._previous)
        self.latencies.append(time.perf_counter() - begun)
        return actions

    def _frames(self, seen: Seen) -> dict[str, np.ndarray]:
        """The frames as `WindowDataset.batch` has them; past ones are masked and black before the
        first, and so is a camera that is absent."""
        model, found = self._model, {}
        offsets = model.history_offsets
        valid = np.array([offset <= len(self._past) for offset in offsets])
        for name, (height, width) in model.image_sizes.items():
            black = np.zeros((height, width, 3), np.uint8)
            found[f"image/{name}"] = seen.frames.get(name, black)[None]
            if self.robot.camera(name).present is not None:
                found[f"camera_valid/{name}"] = np.array([name in seen.frames])
            if offsets:
                past = [
                    self._past[-offset].get(name, black) if exists else black
                    for offset, exists in zip(offsets, valid, strict=True)
                ]
                found[f"history/{name}"] = np.stack(past)[None]
        return found | ({"history_valid": valid[None]} if offsets else {})


class CheckpointPolicy:
    """A checkpoint as `robotics.embodiment.control.Policy`, for environments.

    Args:
        world: a model, anything that offers `Model`, or the path of a checkpoint directory.
        robot: the environment's; by default a `tool_robot` with the checkpoint's embodiment, rate
            and picture size, whose observations and controls are those of
            `robotics.embodiment.control`.
        name: of the robot in the model, needed where several are of one embodiment.
        embodiment: refuse a checkpoint of another one; default: that of `robot`.
        device: to load a path on. threads: torch's, None leaves them.
        options: keyword arguments of `Policy`.

    Raises:
        ValueError: a checkpoint of another embodiment, or one whose actions or observations differ
            from the environment's in what no transform bridges; see `bridge.notes` for what one
            does.
    """

    def __init__(
        self, world: Model | Path | str, *, robot: Robot | None = None, name: str | None = None,
        embodiment: str | None = None, execute: int = EXECUTE, device: str = "cpu",
        threads: int | None = None, **options: Any,
    ) -> None:  # fmt: skip
        if threads is not None:
            torch.set_num_threads(threads)
        if isinstance(world, Path | str):
            from robotics.model.world_model import WorldModel

            world = WorldModel.load(world, device=device)
        wanted = embodiment if robot is None else robot.embodiment
        self.policy = Policy(world, choose_robot(world, wanted, name), execute=execute, **options)
        if robot is None:
            table = self.policy.robot
            size = table.camera(self.policy.cameras[0]).size
            robot = tool_robot(table.embodiment, table.rate, size)
        self.bridge = Bridge(robot, self.policy.robot, self.policy.cameras)

    world = property(lambda self: self.policy.world, doc="The model.")
    mode = property(lambda self: self.policy.mode, doc="The mode it acts in.")
    latencies = property(lambda self: self.policy.latencies, doc="See `Policy`.")

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode; its sampling noise follows from `seed` alone."""
        self._check_instruction(instruction)
        self.bridge.reset()
        self.policy.reset(instruction, seed)

    def instruct(self, instruction: str) -> None:
        """Take a new instruction and drop what was planned for the old one; what was seen stays."""
        self._check_instruction(instruction)
        self.policy.instruct(instruction)

    def _check_instruction(self, instruction: str) -> None:
        given = isinstance(instruction, str) and instruction.strip()
        if not given and self.bridge.harness.instruction.paths:
            raise ValueError(f"expected an instruction, got {instruction!r}")

    @property
    def needs_observation(self) -> bool:
        """See `Policy.needs_observation`."""
        return self.policy.needs_observation

    def act(self, observation: Mapping[str, Any] | None) -> Action:
        """The next control of the environment; see `Policy.act`."""
        looks = self.policy.needs_observation and observation is not None
        seen = self.bridge.observation(observation) if looks and observation is not None else None
        action = self.policy.act(seen)
        return Action(self.bridge.control(action), bool(self.policy.terminated))


def choose_robot(world: Model, embodiment: str | None, name: str | None = None) -> str | None:
    """The name of the model's robot for an embodiment; None where `Policy` has to choose.

    Raises:
        ValueError: the model has none of that embodiment, or several and no name is given.
    """
    if name is not None:
        name = _robot_name(world, name)
    if embodiment is None:
        return name
    tables = {key: model.robot for key, model in world.robots.items()}
    fitting = [key for key, table in tables.items() if table.embodiment == embodiment]
    if name in fitting or (name is None and len(fitting) == 1):
        return name or fitting[0]
    if name is None and fitting:
        raise ValueError(
            f"robot: expected one of {', '.join(fitting)} of the embodiment {embodiment!r}, got no "
            f"name; write policy.robot={fitting[0]}"
        )
    got = sorted({table.embodiment for key, table in tables.items() if name in (None, key)})
    raise ValueError(
        f"expected a model for {embodiment!r}, got one for {', '.join(map(repr, got))}; its "
        f"actions would be misread. Choose a checkpoint of {embodiment!r}, or fine-tune this one "
        "on data of that robot"
    )


def _robot_name(world: Model, name: str | None) -> str:
    """`name` if the model has that robot; its only one for None."""
    known = list(world.robots)
    if name is None and len(known) == 1:
        return known[0]
    if name not in known:
        raise ValueError(
            f"robot: expected one of {', '.join(known)} of this checkpoint, got "
            f"{name or 'no name'}; give its name, such as robot={known[0]!r}"
        )
    return str(name)
