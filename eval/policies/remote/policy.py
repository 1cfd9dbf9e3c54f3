"""A policy server as a `Policy`: requests action chunks and executes their first rows open loop.

A server of this project says which robot it serves, and its rows become the environment's controls
through a `Bridge`, as a checkpoint's in this process do; for others the options say what rows mean.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from websockets import exceptions as errors
from websockets.sync import client

from eval.policies.remote import METADATA, messages
from eval.policies.remote.keys import INSTRUCTION, wire_keys
from robotics.data.images import resize_image
from robotics.embodiment.bridge import Bridge
from robotics.embodiment.control import (
    CONTROL_DIM,
    Action,
    Observation,
    takes_tool_control,
    tool_robot,
)
from robotics.embodiment.robot import Robot
from robotics.embodiment.rotation import rpy_to_axis_angle
from robotics.embodiment.tables import load_robot

ROTATIONS = ("axis_angle", "rpy")
GRIPPERS = ("close_positive", "open_positive", "close_unit", "open_unit")
STATES = ("quaternion", "axis_angle")


class RemoteError(RuntimeError):
    """The policy server is gone, silent, or failed."""


class RemotePolicy:
    """The client side of one connection; see the package for what is sent and expected.

    Args:
        url: `ws://host:port`.
        embodiment: refuse a server of this project for another robot.
        robot: the environment's table; default: a `tool_robot`.
        execute: rows of a chunk that are executed before the next request; 0 is all of them.
        rotation: of other servers, columns 3 to 5 of an action: `axis_angle` or `rpy` (fixed axes),
            rad.
        gripper: column 6: `close_positive` (+1 closes, -1 opens, 0 keeps), `open_positive` (the
            opposite), `close_unit` (1 closed, 0 open) or `open_unit` (the opposite).
        state: rotation in `observation/state`, `quaternion` (xyzw) or `axis_angle`.
        image_size: side of the square the image is fitted into, padded with black; 0: unchanged.
        connect_s: how long to wait for the server to come up, s.
        timeout_s: how long to wait for one answer, s.

    Raises:
        ValueError: no server, an invalid option, or a server with other conventions.
    """

    options_group = "remote"

    def __init__(
        self, url: str, *, embodiment: str | None = None, robot: Robot | None = None,
        execute: int = 3, rotation: str = "axis_angle", gripper: str = "close_positive",
        state: str = "quaternion", image_size: int = 0, connect_s: float = 60.0,
        timeout_s: float = 120.0,
    ) -> None:  # fmt: skip
        for name, value, known in (
            ("rotation", rotation, ROTATIONS), ("gripper", gripper, GRIPPERS),
            ("state", state, STATES),
        ):  # fmt: skip
            if value not in known:
                raise ValueError(
                    f"remote.{name}: expected {', '.join(known)}, got {value!r}; "
                    "choose one of these"
                )
        if execute < 0 or image_size < 0:
            raise ValueError(
                f"remote: expected execute and image_size of at least 0, got {execute} and "
                f"{image_size}; 0 means the whole chunk, and the image as it is"
            )
        self.url, self.execute, self.image_size = url, execute, image_size
        self.rotation, self.gripper, self.state = rotation, gripper, state
        self._connect_s, self._timeout_s = connect_s, timeout_s
        self._socket: Any = None
        self._open = contextlib.ExitStack()
        self._plan: deque[np.ndarray] = deque()
        self._instruction, self._seed, self._call, self._done = "", 0, 0, 0
        self.bridge: Bridge | None = None
        """To what a server of this project serves or, for an environment that is not moved by its
        tool, to the environment's own table, which any server is taken to know; None: rows are what
        the options say."""
        self._keys: dict[str, str] = {}
        self.metadata: dict[str, Any] = {}
        try:
            self._connect()
        except RemoteError as error:
            raise ValueError(
                f"policy: expected a policy server, got {error}; start one, such as "
                "python -m eval.serve, and give its address as ws://HOST:PORT"
            ) from None
        self._check_server(embodiment, robot)

    @classmethod
    def served_sha256(cls, url: str, options: dict[str, Any]) -> str | None:
        """The checkpoint hash that a server of this project reports; None for others."""
        policy = cls(url, **options)
        policy.close()
        served = policy.metadata.get(METADATA)
        return served.get("checkpoint_sha256") if isinstance(served, dict) else None

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode."""
        self._seed, self._call, self._done = seed or 0, 0, 0
        if self.bridge is not None:
            self.bridge.reset()
        self.instruct(instruction)

    def instruct(self, instruction: str) -> None:
        """Take a new instruction and drop what was planned for the old one."""
        self._instruction = instruction
        self._plan.clear()

    @property
    def needs_observation(self) -> bool:
        """True when the next `act` asks the server."""
        return not self._plan

    def act(self, observation: Observation | None) -> Action:
        """The next action; `RemoteError` for a server that fails, `ValueError` for a bad answer."""
        if not self._plan:
            if observation is None:
                raise ValueError(
                    "expected an observation, got None: the planned actions are used up; "
                    "ask needs_observation before each step"
                )
            chunk = self._chunk(self._ask(self._request(observation)))
            self._plan.extend(chunk[: self.execute or None])
            self._call, self._done = self._call + 1, 0
        self._done += 1
        return self._action(self._plan.popleft())

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            self._open.close()
        self._socket = None

    def _check_server(self, embodiment: str | None, robot: Robot | None) -> None:
        """Refuse a server of this project whose actions would be misread, and note what it has."""
        served = self.metadata.get(METADATA)
        if not isinstance(served, dict):
            if robot is not None and not takes_tool_control(robot):
                self.bridge = Bridge(robot, robot)
                self._keys = wire_keys(robot, [row.name for row in robot.used_cameras()])
            return
        embodiment = embodiment if robot is None else robot.embodiment
        wanted: dict[str, Any] = {"embodiment": embodiment}
        if "robot" not in served:  # of an earlier version: rows are controls
            wanted |= {"rotation": self.rotation, "gripper": self.gripper, "state": self.state}
        for name, value in wanted.items():
            if value is not None and served.get(name, value) != value:
                self._refuse(
                    f"{name}={value}, got {self.url} with {name}={served[name]}; serve another "
                    f"checkpoint, or set remote.{name}"
                )
        if "robot" not in served:
            return
        given = {"rotation": self.rotation, "gripper": self.gripper, "state": self.state}
        usual = {"rotation": ROTATIONS[0], "gripper": GRIPPERS[0], "state": STATES[0]}
        for name, value in given.items():
            if value != usual[name]:
                self._refuse(
                    f"{name}={value}, got {self.url}, which says itself what its actions are; "
                    f"leave remote.{name} out"
                )
        try:
            table = load_robot(served["robot"])
            cameras = [str(name) for name in served["cameras"]]
            if robot is None:
                size = table.camera(cameras[0]).size
                robot = tool_robot(table.embodiment, table.rate, size)
            self.bridge, self._keys = Bridge(robot, table, cameras), dict(served["keys"])
        except (ValueError, KeyError) as error:
            self.close()
            raise ValueError(f"policy: {self.url}: {error}") from None

    def _refuse(self, words: str) -> None:
        self.close()
        raise ValueError(f"policy: expected a server with {words}")

    def _request(self, observation: Observation) -> dict[str, Any]:
        if self.bridge is not None:
            return self._request_of(self.bridge, observation)
        values: dict[str, Any] = dict(observation)
        pose = np.asarray(values["tool_pose"], np.float32)
        turn = pose[3:]
        if self.state == "axis_angle":
            turn = Rotation.from_quat(turn).as_rotvec().astype(np.float32)
        image = np.asarray(values["image"])
        return {
            "observation/image": fit(image, self.image_size) if self.image_size else image,
            "observation/state": np.concatenate([pose[:3], turn, values["gripper_closed"]]),
            "prompt": self._instruction,
            **self._episode(),
        }

    def _request_of(self, bridge: Bridge, observation: Observation) -> dict[str, Any]:
        """A request under the keys that the server names."""
        table, keys = bridge.checkpoint, self._keys
        seen = bridge.observation(observation)
        found: dict[str, Any] = {
            keys[f"cameras.{name}"]: fit(image, self.image_size) if self.image_size else image
            for name, image in seen.items()
            if name != "state"
        }
        if "state" in seen and "state" in keys:
            found[keys["state"]] = seen["state"]
        elif "state" in seen:
            places = table.slices("state").items()
            found |= {keys[f"state.{name}"]: seen["state"][place] for name, place in places}
        if INSTRUCTION in keys:
            found[keys[INSTRUCTION]] = self._instruction
        return found | self._episode()

    def _episode(self) -> dict[str, int]:
        if METADATA not in self.metadata:
            return {}
        executed = {"episode/executed": self._done} if self._call else {}
        return {"episode/seed": self._seed, "episode/call": self._call} | executed

    def _connect(self) -> None:
        """Connect and read the metadata, waiting for a server that is still starting."""
        deadline, told = time.monotonic() + self._connect_s, False
        while True:
            left = max(0.1, deadline - time.monotonic())
            try:
                # No keepalive: a server that computes in its event loop answers no ping meanwhile.
                connection = client.connect(
                    self.url, compression=None, max_size=messages.MAX_BYTES, open_timeout=left,
                    ping_interval=None,
                )  # fmt: skip
                self._socket = self._open.enter_context(connection)
                first = self._socket.recv(timeout=left)
                self.metadata = messages.unpack(first) if isinstance(first, bytes) else {}
                return
            except errors.InvalidURI:
                raise ValueError(
                    f"policy: expected an address ws://HOST:PORT, got {self.url!r}; "
                    "correct --policy"
                ) from None
            except (OSError, TimeoutError, errors.WebSocketException) as error:
                self.close()
                if time.monotonic() + 0.5 > deadline:
                    raise RemoteError(f"no server at {self.url} ({_words(error)})") from None
                if not told:
                    told = True
                    seconds = f"{self._connect_s:g} s; remote.connect_s=N changes it"
                    print(f"waiting for {self.url} ({seconds})", file=sys.stderr, flush=True)
                time.sleep(0.5)

    def _ask(self, request: dict[str, Any]) -> Any:
        """The server's answer; a lost connection is reestablished once."""
        data = messages.pack(request)
        for last in (False, True):
            if self._socket is None:
                self._connect()
            socket: Any = self._socket
            try:
                socket.send(data)
                answer = socket.recv(timeout=self._timeout_s)
            except TimeoutError:
                self.close()  # a late answer must not be taken for the next request's
                raise RemoteError(
                    f"{self.url} gave no answer in {self._timeout_s:g} s (remote.timeout_s)"
                ) from None
            except (OSError, errors.ConnectionClosed) as error:
                self.close()
                if last:
                    raise RemoteError(
                        f"{self.url} closed the connection ({_words(error)})"
                    ) from None
                continue
            if isinstance(answer, str):
                self.close()
                text = answer.strip().splitlines()
                raise RemoteError(f"{self.url} failed: {text[-1] if text else 'no reason given'}")
            return messages.unpack(answer)
        raise AssertionError("the loop returns or raises")

    def _chunk(self, answer: Any) -> list[np.ndarray]:
        """The rows of an answer, in the server's convention."""
        if not isinstance(answer, dict) or "actions" not in answer:
            got = sorted(map(str, answer)) if isinstance(answer, dict) else type(answer).__name__
            raise ValueError(
                f"remote: expected a map with 'actions' from {self.url}, got {got}; "
                "check what the server serves"
            )
        rows = np.asarray(answer["actions"])
        width = CONTROL_DIM if self.bridge is None else self.bridge.checkpoint.action_width
        if rows.ndim != 2 or rows.shape[1] not in (width, width + 1) or not len(rows):
            raise ValueError(
                f"remote: expected actions of shape (H, {width}) or (H, {width + 1}), got "
                f"{rows.shape} from {self.url}; check what the server serves"
            )
        if rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
            raise ValueError(
                f"remote: expected finite actions, got NaN, infinity or dtype {rows.dtype} from "
                f"{self.url}; check the server's checkpoint and normalisation"
            )
        return list(rows)

    def _action(self, row: np.ndarray) -> Action:
        """A row as a control step of the environment."""
        if self.bridge is not None:
            width = self.bridge.checkpoint.action_width
            ends = len(row) > width and bool(row[width] > 0.5)
            return Action(self.bridge.control(row[:width]), ends)
        turn = row[3:6] if self.rotation == "axis_angle" else rpy_to_axis_angle(row[3:6])
        grip = float(row[6])
        if self.gripper in ("close_unit", "open_unit"):
            grip = 2 * grip - 1
        if self.gripper in ("open_positive", "open_unit"):
            grip = -grip
        control = np.concatenate([row[:3], turn, [grip]]).astype(np.float32)
        return Action(control, len(row) > CONTROL_DIM and bool(row[CONTROL_DIM] > 0.5))


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) to (size, size, 3): the longer side is `size`, the rest black."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    square = np.zeros((size, size, 3), np.uint8)
    square[top : top + inner[0], left : left + inner[1]] = resize_image(image, inner)
    return square


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
