"""Which feature of RLDS is which of LeRobot, so that nothing is lost on the way there and back.

What one format cannot say is kept beside the data: `meta/rlds.json` of a LeRobot data set has the
RLDS features it was made of, `lerobot.json` of an RLDS data set LeRobot's description. With them,
converting back gives the names, shapes and types that were there before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from selfflow_wm.files import write_file

FROM_RLDS = "meta/rlds.json"
FROM_LEROBOT = "lerobot.json"
TABLE = "robot.yaml"
"""The robot's table for a converted data set, beside it."""
LANGUAGE = "language_instruction"
FLAGS = ("is_first", "is_last", "is_terminal")
"""Step flags that RLDS asks for."""


def lerobot_name(key: str, picture: bool) -> str:
    """LeRobot's name for a step's feature: "steps/observation/image" is
    "observation.images.image", "steps/action/world_vector" is "action.world_vector"."""
    path = key.removeprefix("steps/").split("/")
    if picture and path[0] == "observation" and path[1:2] != ["images"]:
        path[1:1] = ["images"]
    return ".".join(path)


def rlds_keys(names: Mapping[str, bool]) -> dict[str, str]:
    """LeRobot's names -> keys of step features, "observation.state" -> "steps/observation/state".

    names: those of all features, and whether they are pictures. A name that would be a value and a
    group at once ("action" beside "action.gripper") keeps its dots, as underscores.
    """
    paths = {name: name.split(".") for name in names}
    for name, picture in names.items():
        if picture and paths[name][:2] == ["observation", "images"] and len(paths[name]) > 2:
            del paths[name][1]
    taken = {tuple(path) for path in paths.values()}
    groups = {path[:n] for path in taken for n in range(1, len(path))}
    found: dict[str, str] = {}
    for name, path in paths.items():
        split = not any(tuple(path[:n]) in taken for n in range(1, len(path)))
        key = "/".join(path) if split and tuple(path) not in groups else name.replace(".", "_")
        while f"steps/{key}" in found.values():
            key += "_"
        found[name] = f"steps/{key}"
    return found


def mapped_table(robot: Robot, renames: Mapping[str, str], rate: float) -> Robot:
    """The table of a converted data set. renames: old path -> new path."""
    return load_robot({**robot.to_dict(), "rate": float(rate), "renames": dict(renames)})


def write_table(directory: Path, robot: Robot | Mapping[str, Any], about: str) -> None:
    """Write a table as `robot.yaml`. about: lines of comment."""
    from omegaconf import OmegaConf

    content = robot.to_dict() if isinstance(robot, Robot) else dict(robot)
    comment = "".join(f"# {line}\n" for line in about.splitlines())
    write_file(directory / TABLE, comment + OmegaConf.to_yaml(OmegaConf.create(content)))


def is_instruction(key: str) -> bool:
    """Whether a text's name says that it is what the robot is told to do."""
    return re.search(r"instruction|language|task", key.rpartition("/")[2]) is not None


def to_text(value: bytes) -> str:
    """A text; bytes that are none become characters 0 to 255 behind a NUL."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    return "\0" + value.decode("latin-1") if text.startswith("\0") else text


def to_bytes(text: str) -> bytes:
    """The inverse of `to_text`."""
    return text[1:].encode("latin-1") if text.startswith("\0") else text.encode()
