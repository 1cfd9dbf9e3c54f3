"""What a robot shows, checked against its table: frames as the model takes them, and the state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robotics.data.images import resize_image, turn_image
from robotics.embodiment.limits import limits, no_rotation
from robotics.embodiment.recording import Camera
from robotics.embodiment.robot import Robot

IMAGE = "image"
"""Another name of the only camera."""
STATE = "state"


@dataclass(frozen=True)
class Seen:
    """One observation."""

    frames: dict[str, np.ndarray]
    """Camera -> uint8 (H, W, 3), turned and resized as in training; a camera that may be absent and
    is, is missing."""
    state: np.ndarray
    """(S,) float32 as recorded; (0,) of a robot without."""


def read_observation(
    observation: Mapping[str, Any], robot: Robot, sizes: Mapping[str, tuple[int, int]]
) -> Seen:
    """Check an observation and bring its pictures to the model's sizes.

    Args:
        observation: "<camera>" uint8 (H, W, 3) RGB of any size, as recorded; with one camera,
            "image" is it, too. "state": (S,) as recorded, or every "state.<part>".
        robot: whose table says what there is.
        sizes: the model's cameras and the height and width it takes them in.

    Raises:
        ValueError: a missing, unknown or malformed entry, with the robot's own keys.
    """
    given = dict(observation)
    if len(sizes) == 1 and IMAGE in given and IMAGE not in sizes:
        (only,) = sizes
        if only in given:
            raise ValueError(
                f"observation: expected {only!r} or {IMAGE!r}, which is the same camera, got both; "
                "leave one out"
            )
        given[only] = given.pop(IMAGE)
    _check_keys(given, robot, sizes)
    frames = {
        name: resize_image(turn_image(_frame(name, given[name]), robot.camera(name).rotate), size)
        for name, size in sizes.items()
        if name in given
    }
    return Seen(frames, _state(given, robot))


def observation_keys(robot: Robot, cameras: Mapping[str, Any]) -> list[str]:
    """The keys that an observation of this robot has, with their shapes, for messages."""
    keys = [f"{name!r} uint8 (H, W, 3)" for name in cameras]
    if robot.state:
        parts = ", ".join(f"'state.{part.name}' ({part.width},)" for part in robot.state)
        keys.append(f"{STATE!r} ({robot.state_width},) or {parts}")
    return keys


def _check_keys(given: Mapping[str, Any], robot: Robot, cameras: Mapping[str, Any]) -> None:
    parts = [f"state.{part.name}" for part in robot.state]
    known = {row.name for row in robot.cameras} | {*parts, *([STATE] if parts else [])}
    unknown = sorted(key for key in map(str, given) if key not in known)
    missing = [name for name in cameras if name not in given and _required(robot.camera(name))]
    stated = [part for part in parts if part in given]
    if STATE not in given:
        missing += (
            [part for part in parts if part not in given] if stated else [STATE][: len(parts)]
        )
    if unknown or missing:
        wrong = [f"unknown {', '.join(unknown)}"] if unknown else []
        wrong += [f"no {', '.join(missing)}"] if missing else []
        raise ValueError(
            f"observation: expected {'; '.join(observation_keys(robot, cameras))} of robot "
            f"{robot.name}, got {' and '.join(wrong)}; name what you have as this table does"
        )
    if STATE in given and stated:
        raise ValueError(
            f"observation: expected 'state' or its parts, got both 'state' and "
            f"{', '.join(stated)}; leave one out"
        )


def _required(camera: Camera) -> bool:
    return camera.present is None


def _frame(name: str, value: Any) -> np.ndarray:
    image = np.asarray(value)
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3 and image.size:
        return image
    remedy = "give RGB as a camera has it"
    if image.ndim == 4 and len(image) == 1:
        remedy = "leave out the axis of the batch: image[0]"
    elif image.ndim == 3 and image.shape[0] == 3:
        remedy = "put the colours last: image.transpose(1, 2, 0)"
    elif image.dtype.kind == "f":
        remedy = "give 0 to 255: (255 * image).round().astype(np.uint8)"
    raise ValueError(
        f"observation[{name!r}]: expected uint8 RGB (H, W, 3), got {image.dtype} {image.shape}; "
        f"{remedy}"
    )


def _state(given: Mapping[str, Any], robot: Robot) -> np.ndarray:
    if not robot.state:
        return np.zeros(0, np.float32)
    if STATE in given:
        state = _vector(STATE, given[STATE], robot.state_width, robot)
    else:
        names = {f"state.{part.name}": part.width for part in robot.state}
        state = np.concatenate(
            [_vector(key, given[key], width, robot) for key, width in names.items()]
        )
    for part, place in zip(robot.state, robot.slices("state").values(), strict=True):
        if no_rotation(part, state[place]):
            raise ValueError(
                f"observation: expected state.{part.name} as {part.form}, got "
                f"{state[place].tolist()}, which is no rotation of that form; give it as robot "
                f"{robot.name}'s recordings have it"
            )
        bounds = limits(part)
        if bounds is not None and bounds.far_outside(state[place]).any():
            raise ValueError(
                f"observation: expected state.{part.name} in {bounds.low.tolist()} to "
                f"{bounds.high.tolist()}, as {bounds.entry} of robot {robot.name} have it, got "
                f"{state[place].tolist()}; give it in the recording's units and sense"
            )
    return state


def _vector(key: str, value: Any, width: int, robot: Robot) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim == 0 and width == 1:
        array = array.reshape(1)
    if array.dtype.kind not in "fiub" or array.shape != (width,):
        names = ", ".join(f"{part.name} ({part.width})" for part in robot.state)
        order = f": {names} of robot {robot.name}, as recorded" if key == STATE else ""
        raise ValueError(
            f"observation[{key!r}]: expected numbers of shape ({width},){order}, got "
            f"{array.dtype} {array.shape}; correct what fills it"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"observation[{key!r}]: expected finite values, got {array}; check the robot's sensors"
        )
    return array.astype(np.float32)
