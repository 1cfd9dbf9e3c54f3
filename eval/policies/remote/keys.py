"""What the entries of a request are called: a robot's own names and those of a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robotics.embodiment.robot import Robot
from selfflow_wm.nesting import flattened

PROTOCOL = "openpi"
INSTRUCTION = "instruction"
ACTIONS = "actions"
"""Key of every answer."""


def wire_keys(robot: Robot, cameras: Sequence[str], protocol: str = PROTOCOL) -> dict[str, str]:
    """Our name -> its key in a protocol: "cameras.NAME", "state" or "state.PART", "instruction",
    "action".

    Where the table's `keys` say nothing: observation/NAME, observation/state, prompt, actions. A
    table that names a part of the state has the state sent in parts.
    """
    stated = dict(robot.keys.get(protocol, {}))
    found = {f"cameras.{name}": f"observation/{name}" for name in cameras}
    if any(name.startswith("state.") for name in stated):
        found |= {f"state.{part.name}": f"observation/{part.name}" for part in robot.state}
    elif robot.state:
        found["state"] = "observation/state"
    if robot.instruction.paths:
        found[INSTRUCTION] = "prompt"
    found["action"] = ACTIONS
    return {name: stated.get(name, key) for name, key in found.items()}


def read_request(
    request: Mapping[str, Any], robot: Robot, cameras: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """The observation as `Policy.act` takes it, and the instruction ("" if there is none).

    request: entries under the robot's own names, those of `wire_keys` of any protocol that the
        table knows, a camera's path in the recordings or, of the only one, observation/image; maps
        in it are read as paths.
        Pictures may also be (3, H, W), as openpi's client for ALOHA sends them.

    Raises:
        ValueError: no instruction where the robot has one. Unknown entries are left to `act`.
    """
    names = _names(robot, cameras)
    found: dict[str, Any] = {}
    for key, value in flattened(request).items():
        name = names.get(key, key)
        if key.startswith("episode/"):
            continue
        if name in found:
            raise ValueError(f"request: expected {name} once, got it twice, also as {key}")
        found[name] = _colours_last(value) if name in cameras else value
    instruction = found.pop(INSTRUCTION, None)
    if instruction is None and robot.instruction.paths:
        keys = wire_keys(robot, cameras)
        wanted = ", ".join(key for name, key in keys.items() if name != "action")
        raise ValueError(
            f"request: expected {wanted} of robot {robot.name}, got "
            f"{', '.join(sorted(map(str, request))) or 'nothing'} and no instruction; add "
            f"{keys[INSTRUCTION]}"
        )
    return found, instruction or ""


def _names(robot: Robot, cameras: Sequence[str]) -> dict[str, str]:
    """Any key -> the name that `Policy.act` knows, or "instruction"."""
    found = {"prompt": INSTRUCTION, "task": INSTRUCTION}
    found |= dict.fromkeys(("observation/state", "observation.state"), "state")
    found |= {row.path: row.name for row in robot.cameras}
    found |= {f"observation/{part.name}": f"state.{part.name}" for part in robot.state}
    found |= {f"state/{part.name}": f"state.{part.name}" for part in robot.state}
    if len(cameras) == 1:
        found["observation/image"] = cameras[0]
    for row in robot.cameras:
        found |= {f"observation/{row.name}": row.name, f"cameras.{row.name}": row.name}
    for protocol in robot.keys:
        for name, key in wire_keys(robot, cameras, protocol).items():
            found[key] = name.removeprefix("cameras.")
    return found


def _colours_last(image: Any) -> Any:
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[-1] != 3:
        return array.transpose(1, 2, 0)
    return image
