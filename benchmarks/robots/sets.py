"""Made-up sets of six robots in memory, as raw episodes; and written to a disk.

`benchmarks.robots.faults` spoils them, `benchmarks.robots.rough` makes them less neat.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.robots.synthetic import recorded_columns
from robotics.data.images import decode_image, encode_image
from robotics.data.parts import recording
from robotics.data.rlds.fake import write_dataset
from robotics.data.rlds.raw import RawEpisode
from robotics.embodiment.columns import column
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from robotics.inspection.groups import Place
from robotics.inspection.scan import reduced
from robotics.inspection.survey import Survey
from selfflow_wm.nesting import nested

EPISODES = 14
_CAMERAS = {"front": {"path": "observation/image", "size": [48, 64]},
            "wrist": {"path": "observation/wrist", "size": [48, 64], "view": "wrist"}}  # fmt: skip


def _tool(form: str, width: int, mode: str, **more: Any) -> dict[str, Any]:
    end = 3 + width
    return {
        "position": {"path": "V[0:3]", "kind": "position", "mode": mode},
        "rotation": {"path": f"V[3:{end}]", "kind": "rotation", "form": form, "mode": mode},
        "gripper": {"path": f"V[{end}]", "kind": "gripper", "mode": "absolute", **more},
    }


def _table(name: str, rate: float, state: dict[str, Any], action: dict[str, Any]) -> Robot:
    """state and action: parts with V for the vector's path."""
    groups = {}
    for group, parts, path in (("state", state, "observation/state"), ("action", action, "action")):
        groups[group] = {
            key: {
                **{k: v for k, v in part.items() if group == "action" or k != "mode"},
                "path": part["path"].replace("V", path),
            }
            for key, part in parts.items()
        }
    return load_robot({
        "name": name, "rate": rate, "cameras": _CAMERAS, "instruction": "language_instruction",
        **groups,
    })  # fmt: skip


@functools.cache
def robots() -> dict[str, Robot]:
    """Tool deltas, an absolute pose, normalised commands, joints of two arms, joint velocities."""
    euler = _tool("euler_xyz", 3, "delta")
    quaternion = _tool("quaternion_xyzw", 4, "absolute")
    scaled = _tool("axis_angle", 3, "delta", open=-1, closed=1)
    scaled["position"]["scale"], scaled["rotation"]["scale"] = 0.05, 0.5
    arms = {
        "left": {"path": "V[0:6]", "kind": "joints", "mode": "absolute"},
        "left_gripper": {"path": "V[6]", "kind": "gripper", "mode": "absolute"},
        "right": {"path": "V[7:13]", "kind": "joints", "mode": "absolute"},
        "right_gripper": {"path": "V[13]", "kind": "gripper", "mode": "absolute"},
    }
    seven = {"path": "V[0:7]", "kind": "joints", "mode": "absolute"}
    speed = {**seven, "mode": "velocity"}
    hand = {"path": "V[7]", "kind": "gripper", "mode": "absolute"}
    pulse = _tool("euler_xyz", 3, "delta")
    pulse["gripper"] |= {"mode": "pulse", "open": -1, "closed": 1}
    return {
        "deltas": _table("deltas", 5, euler, euler),
        "poses": _table("poses", 10, quaternion, quaternion),
        "normalised": _table("normalised", 20, _tool("axis_angle", 3, "delta"), scaled),
        "pulses": _table("pulses", 3, _tool("quaternion_xyzw", 4, "delta"), pulse),
        "arms": _table("arms", 50, arms, arms),
        "velocities": _table("velocities", 15, {"joints": seven, "gripper": hand},
                             {"joints": speed, "gripper": hand}),
    }  # fmt: skip


@functools.cache
def clean(
    name: str, seed: int = 0, episodes: int = EPISODES, pictures: bool = True
) -> tuple[Any, ...]:
    """Raw episodes of a robot's made-up world."""
    robot = robots()[name]
    seconds = {"arms": 3.2, "pulses": 12.0}.get(name, 7.0)
    return tuple(_raw(robot, 1000 * seed + n, seconds, pictures) for n in range(episodes))


def _raw(robot: Robot, seed: int, seconds: float, pictures: bool) -> RawEpisode:
    columns = recorded_columns(robot, seed, seconds)
    numbers: dict[str, np.ndarray] = {}
    texts: dict[str, list[bytes]] = {}
    steps = len(columns[robot.cameras[0].path])
    for path, rows in columns.items():
        place = column(path)
        if isinstance(rows[0], bytes):
            if pictures:
                noise = np.random.default_rng([seed, len(texts)])
                texts[place.key] = [as_seen(row, noise) for row in rows]
        elif isinstance(rows[0], str):
            texts[place.key] = [row.encode() for row in rows]
        else:
            values = np.stack([np.atleast_1d(row) for row in rows]).astype(np.float32)
            stop = place.values.stop if place.values is not None else values.shape[1]
            whole = numbers.get(place.key, np.zeros((len(rows), 0)))
            if whole.shape[1] < stop:
                whole = np.pad(whole, ((0, 0), (0, stop - whole.shape[1])))
            whole[:, place.values or slice(None)] = values
            numbers[place.key] = whole.astype(np.float64)
    first = np.arange(steps)[:, None]
    numbers["steps/is_first"] = (first == 0).astype(float)
    numbers["steps/is_last"] = (first == steps - 1).astype(float)
    numbers["steps/timestamp"] = first / robot.rate
    return RawEpisode(steps, numbers, texts, [])


def as_seen(data: bytes, rng: np.random.Generator) -> bytes:
    """With a sensor's noise: no camera takes the same picture twice."""
    picture = decode_image(data)
    return encode_image((picture + rng.normal(0, 1.5, picture.shape)).clip(0, 255).astype(np.uint8))


def surveyed(robot: Robot, raws: Sequence[RawEpisode], shards: int = 2) -> Survey:
    """All episodes taken in, in shards of equal size."""
    survey = Survey(robot, Place("data/set"))
    each = -(-len(raws) // shards)
    for number, raw in enumerate(raws):
        keys = {row.name: column(row.path).key for row in robot.cameras}
        seen = {n: reduced(raw.texts[key], key) for n, key in keys.items() if key in raw.texts}
        survey.add(recording(raw, robot, f"train:{number}", f"{number // each:05d}"), seen)
    return survey


def stored(robot: Robot, raws: Sequence[RawEpisode], directory: Path) -> Path:
    """Write raw episodes as a TFDS data set."""
    from robotics.data.rlds.schema import load_tfds

    tfds = load_tfds().features
    flat: dict[str, Any] = {}
    for key, rows in raws[0].numbers.items():
        flag = key.startswith("steps/is_")
        flat[key] = np.bool_ if flag else tfds.Tensor(shape=(rows.shape[1],), dtype=np.float32)
    for key, texts in raws[0].texts.items():
        picture = texts[0].startswith(b"\xff\xd8")
        shape = decode_image(texts[0]).shape if picture else ()
        flat[key] = tfds.Image(shape=shape, encoding_format="jpeg") if picture else tfds.Text()
    features = tfds.FeaturesDict({"steps": tfds.Dataset(nested(flat)["steps"])})
    examples = [
        {"steps": [nested(_step(raw, t))["steps"] for t in range(raw.steps)]} for raw in raws
    ]
    return write_dataset(directory, features, examples, name=robot.name, shard_episodes=7)


def _step(raw: RawEpisode, step: int) -> dict[str, Any]:
    row: dict[str, Any] = {key: texts[step] for key, texts in raw.texts.items()}
    for key, rows in raw.numbers.items():
        flag = key.startswith("steps/is_")
        row[key] = bool(rows[step, 0]) if flag else rows[step].astype(np.float32)
    return row
