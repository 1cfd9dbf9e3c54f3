"""A small LeRobot data set from the columns that `benchmarks.robots.synthetic` makes of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.images import decode_image
from robotics.data.lerobot.episode import TASK
from robotics.data.lerobot.info import Feature
from robotics.data.lerobot.mapping import FLAGS
from robotics.data.lerobot.writer import LeRobotWriter
from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot


def is_lerobots(robot: Robot) -> bool:
    """Whether a table is of LeRobot's features, whose cameras are observation.images.NAME."""
    return all(row.path.startswith("observation.") for row in robot.cameras)


def write_lerobot(robot: Robot, directory: Path, examples: Iterable[Mapping[str, Any]]) -> Path:
    """Write episodes with every camera as AV1 video; returns `directory`.

    examples: episodes as `tfds.features.FeaturesDict.serialize_example` takes them, their steps
    flat.
    """
    writer = None
    for example in examples:
        steps = example["steps"]
        names = [name for name in steps[0] if name not in FLAGS]
        rows = {name: [step[name] for step in steps] for name in names}
        tasks = rows.pop(TASK)
        if writer is None:
            features = {name: _feature(robot, name, values[0]) for name, values in rows.items()}
            writer = LeRobotWriter(directory, features, robot.rate, robot_type=robot.name)
        values = {key: value for key, value in example.items() if key != "steps"}
        writer.add(
            {
                name: np.stack(values) if isinstance(values[0], np.ndarray) else values
                for name, values in rows.items()
            },
            tasks,
            {key: bool(value) for key, value in values.items()},
        )
    if writer is None:
        raise ValueError("expected at least one episode, got none")
    writer.finish()
    return directory


def _feature(robot: Robot, name: str, value: Any) -> Feature:
    if isinstance(value, bytes):
        return Feature(name, "video", decode_image(value).shape, ("height", "width", "channels"))
    if not isinstance(value, np.ndarray):
        return Feature(name, "string" if isinstance(value, str) else "bool", (1,))
    names = [""] * len(value)
    for part in (*robot.state, *robot.action):
        place = column(part.path)
        if place.name == name:
            ends = part.names or tuple(f"{part.name}_{n}" for n in range(part.width))
            names[place.values or slice(None)] = ends if part.width > 1 else (part.name,)
    return Feature(name, value.dtype.name, value.shape, tuple(names) if all(names) else ())
