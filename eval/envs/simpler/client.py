"""The harness's side of the pipe: an environment whose simulator is a child process.

The child is `python -m eval.envs.simpler.server` in the interpreter that SIMPLER is installed
in; see `wire` for the messages. A child that dies or does not answer becomes a `SimulatorError`,
and the next reset starts a new one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from eval.envs.contract import Limits
from eval.envs.simpler import wire
from eval.envs.simpler.adapters import ROBOTS, check_control
from eval.envs.simpler.interpreter import search_path
from eval.envs.simpler.protocols import cell_at
from eval.envs.simpler.tasks import SIMPLER_TASKS
from robotics.embodiment.control import Action, tool_robot

TIMEOUTS = {"open": 600.0, "reset": 600.0, "image": 900.0, "step": 120.0}
"""Seconds after which a child counts as hung; `step` applies to everything else, too. Generous: the
first image compiles shaders, which took 160 s on a busy two-core machine."""


def timeouts(limits: Limits) -> dict[str, float]:
    """`TIMEOUTS` for `limits`: a little shorter, so a hung simulator is reported as such before the
    worker that waits for it counts as hung."""
    reset, step = 0.8 * limits.reset, 0.8 * limits.step
    return {"open": reset, "reset": reset, "image": reset, "step": step}


class SimulatorError(RuntimeError):
    """The simulator's process died, hung, or raised."""


class Child:
    """The simulator's process and both ends of its pipes."""

    def __init__(self, python: str, shader: str, timeouts: dict[str, float]) -> None:
        self.timeouts = timeouts
        down_read, down_write = os.pipe()
        up_read, up_write = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        words = [python, "-m", "eval.envs.simpler.server", str(down_read), str(up_write), shader]
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                pass_fds=(down_read, up_write), start_new_session=True,
                env={**os.environ, "PYTHONPATH": search_path()},
            )  # fmt: skip
        except OSError as error:
            for fd in (down_read, down_write, up_read, up_write):
                os.close(fd)
            raise ValueError(
                f"simpler-python: expected an interpreter, got {python} ({error.strerror}); "
                "give the path of the python that SIMPLER is installed in"
            ) from None
        os.close(down_read)
        os.close(up_write)
        self._write, self._read = down_write, up_read

    def ask(
        self, operation: str, arrays: dict[str, np.ndarray] | None = None, **words: Any
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Send one message and wait for its answer.

        Raises `SimulatorError` if the process died, hung or raised; `ValueError` if it reports a
        bad request.
        """
        limit = self.timeouts.get(operation, self.timeouts["step"])
        try:
            wire.send(self._write, {"op": operation, **words}, arrays)
            answer, received = wire.receive(self._read, limit)
        except wire.Closed:
            raise SimulatorError(f"the simulator died during {operation}: {self._why()}") from None
        except wire.TimedOut:
            self.end(patience=0)
            raise SimulatorError(
                f"the simulator gave no answer to {operation} in {limit:g} s and was ended"
            ) from None
        if answer.pop("ok"):
            return answer, received
        if answer["kind"] == "value":
            raise ValueError(answer["error"])
        raise SimulatorError(f"the simulator failed during {operation}: {answer['error']}")

    def end(self, patience: float = 2.0) -> None:
        """Close the pipes and end the process, whatever it is doing.

        patience: seconds in which it may exit by itself; 0 for one that hangs, since waiting would
        use up the margin of `timeouts` before the worker counts as hung, too.
        """
        for fd in (self._write, self._read):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._write = self._read = -1
        try:
            self._process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()

    def _why(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.poll()
        if code is not None and code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        else:
            how = f"exit code {code}"
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 2000))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"{how}; its last line: {lines[-1].strip()}" if lines else how


class RemoteEnv(gymnasium.Env):
    """One task of SIMPLER, in `obs_mode="state"`; the seed of `reset` is the cell's number.

    Args:
        task: name of the task.
        protocol: `vm`, `va`, `paper`, `prepackaged`, `train` or a number; see `cells`.
        python: the interpreter SIMPLER is installed in.
        shader: `rasterised` or `ray_traced`.
        timeouts: seconds, in place of `TIMEOUTS`.
    """

    metadata = {"render_modes": []}
    backend = "simpler"

    def __init__(
        self, task: str, protocol: str, python: str, shader: str = "rasterised",
        timeouts: dict[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.task, self.protocol = task, protocol
        self._python, self._shader = python, shader
        self._timeouts = {**TIMEOUTS, **(timeouts or {})}
        row, self.horizon = ROBOTS[SIMPLER_TASKS[task].robot], SIMPLER_TASKS[task].horizon
        self.robot = tool_robot(row.embodiment, row.control_hz, row.image_size)
        self.observation_space = spaces.Dict(
            tool_pose=spaces.Box(-5.0, 5.0, (7,), np.float32),
            gripper_closed=spaces.Box(0.0, 1.0, (1,), np.float32),
        )
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self._child: Child | None = None
        self._mirror: dict[str, Any] = {}
        self.stand_ins: list[str] = []
        """What SIMPLER's installation lacks for the current cell, so that boxes replace it."""

    @property
    def instruction(self) -> str:
        """The instruction of the current sub-task."""
        return self._mirror["instruction"]

    @property
    def is_final_subtask(self) -> bool:
        """Whether a terminate would end the episode."""
        return self._mirror["is_final_subtask"]

    @property
    def cell(self) -> str:
        """Name of the current cell."""
        return self._mirror["cell"]

    def advance_to_next_subtask(self) -> str:
        """Start the next sub-task, as when a policy terminates one that is not the last."""
        answer, _ = self._ask("advance")
        self._mirror = answer["info"]
        return self.instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start cell number `seed`; a simulator that died is started again."""
        cell = cell_at(self.task, self.protocol, 0 if seed is None else seed)
        self.start_simulator()
        answer, observation = self._ask("reset", cell=cell.to_json())
        self.stand_ins = answer["info"].pop("stand_ins", [])
        self._mirror = answer["info"]
        return observation, self._info()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step of (7,); never terminated, truncated at the horizon."""
        control = check_control(action)
        answer, observation = self._ask("step", {"control": control})
        self._mirror = answer["info"]
        info = self._info()
        return observation, float(info["success"]), False, self._mirror["truncated"], info

    def camera_image(self) -> np.ndarray:
        """Render now: uint8 (256, 320, 3), or (240, 320, 3) for the WidowX."""
        return self._ask("image")[1]["image"]

    def expert_action(self) -> Action:
        """The scripted expert's action in the current state."""
        answer, arrays = self._ask("expert")
        return Action(arrays["control"].astype(np.float32), answer["terminate"])

    def current_label(self) -> dict[str, Any]:
        """How this environment renders and its stand-ins, see `Scene.label`."""
        self.start_simulator()
        return self._ask("label")[0]["label"]

    def start_simulator(self) -> None:
        """Start the simulator unless it runs; a `SimulatorError` refers to the doctor."""
        if self._child is not None:
            return
        self._child = Child(self._python, self._shader, self._timeouts)
        try:
            self._ask("open")
        except SimulatorError as error:
            raise SimulatorError(
                f"{error}; python -m eval.doctor --simpler-python {self._python} says what "
                "is missing there"
            ) from None
        except ValueError:
            self.close()
            raise

    def close(self) -> None:
        """End the simulator."""
        if self._child is not None:
            self._child.end()
        self._child = None

    def _ask(self, operation: str, arrays: Any = None, **words: Any) -> Any:
        if self._child is None:
            raise SimulatorError("no simulator is running; reset the environment first")
        try:
            return self._child.ask(operation, arrays, **words)
        except SimulatorError:
            self.close()
            raise

    def _info(self) -> dict[str, Any]:
        hidden = ("is_final_subtask", "truncated")
        return {name: value for name, value in self._mirror.items() if name not in hidden}


class Expert:
    """The scripted expert, which runs in the simulator's process."""

    def __init__(self, env: Any) -> None:
        self._env = env.unwrapped

    def reset(self) -> None:
        """Nothing to do: the simulator forgets its expert at every reset."""

    def act(self) -> Action:
        """The next action."""
        return self._env.expert_action()
