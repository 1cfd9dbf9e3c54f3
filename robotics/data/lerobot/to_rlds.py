"""LeRobot's format v3 to RLDS, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.images import encode_image
from robotics.data.lerobot.draft import draft
from robotics.data.lerobot.episode import TASK, EpisodeColumns
from robotics.data.lerobot.frames import EpisodePictures, Videos, as_png
from robotics.data.lerobot.info import LeRobotInfo, read_info
from robotics.data.lerobot.mapping import (
    FLAGS,
    FROM_LEROBOT,
    FROM_RLDS,
    LANGUAGE,
    TABLE,
    mapped_table,
    rlds_keys,
    to_bytes,
    write_table,
)
from robotics.data.lerobot.recording import check_table
from robotics.data.rlds.schema import described_features, load_tfds
from robotics.data.rlds.writer import EpisodeWriter, RecordLayout
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from selfflow_wm.files import read_json, write_json
from selfflow_wm.nesting import put
from selfflow_wm.progress import Progress

PICTURES = ("jpeg", "png")


@dataclass(frozen=True)
class Target:
    """What becomes of a LeRobot data set's features."""

    info: LeRobotInfo
    keys: Mapping[str, str]
    """LeRobot's feature -> key of the record."""
    features: Any
    """A `tfds.features.FeaturesDict`."""
    pictures: str
    restored: bool
    """Whether the features are those of the RLDS data set that it once was."""


def lerobot_to_rlds(
    source: Path,
    target: Path,
    *,
    split: str = "train",
    spec: str | None = None,
    pictures: str = "jpeg",
) -> int:
    """Write a split's episodes, in their order, to `target`, split "train"; how many it has.

    Every feature is kept: numbers bit for bit, texts, the task as `language_instruction`, pictures
    of every camera at their size. `lerobot.json` has the names of values, fps and whatever else
    LeRobot's description says, `metadata.json` the fps, `robot.yaml` the robot's table. An
    interrupted conversion resumes.

    Args:
        source: LeRobot data set of format v3.
        target: new, or an interrupted conversion.
        split: split or slice.
        spec: the robot's table for `source`; default: `robot.yaml` beside it, else one drafted from
            its description.
        pictures: what frames of videos are encoded as, "jpeg" (quality 95) or "png" (exact).

    Raises:
        ValueError: a damaged data set, a table that does not fit, or numbers that RLDS cannot hold.
    """
    info = read_info(source)
    plan = plan_conversion(info, pictures)
    robot, about = _table(info, spec)
    places, videos = info.select(split), Videos(info)
    writer = EpisodeWriter(
        target,
        provenance={"lerobot": str(source), "split": split, "fps": info.fps, "pictures": pictures},
        layout=RecordLayout(
            lambda: plan.features,
            name="lerobot_converted",
            version="1.0.0",
            description=f"Converted from LeRobot's format, {info.fps:g} steps a second.",
            in_order=True,
        ),
    )
    with Progress(len(places), description="converting episodes", unit="episode") as bar:
        for place in places:
            key = f"{place.number:06d}"
            if place.length and key not in writer:
                columns = EpisodeColumns(info, place, videos)
                record = plan.features.serialize_example(_example(plan, columns))
                writer.write_record(key, record, steps=place.length, tasks=list(place.tasks))
            bar.add()
    if robot is not None:
        write_table(target, mapped_table(robot, _renames(plan), info.fps), about)
    _write_notes(plan, target)
    writer.finalize()
    return len(writer.done())


def _table(info: LeRobotInfo, spec: str | None) -> tuple[Robot | None, str]:
    """The robot's table for the LeRobot data set, and a comment on it; None without cameras."""
    about = "The robot's table for this data set: spec=robot.yaml"
    near = info.directory / TABLE
    if spec is None and near.is_file():
        spec = str(near)
    if spec is not None:
        robot = load_robot(spec)
        check_table(info, robot, [row.name for row in robot.cameras])
        return robot, about
    about += "\nDrafted from names: run python -m robotics.inspect before training."
    return (load_robot(draft(info)) if info.cameras else None), about


def _renames(plan: Target) -> dict[str, str]:
    """Paths of the LeRobot data set -> paths of the RLDS one."""
    found = {
        name: key.removeprefix("steps/") if key.startswith("steps/") else f"/{key}"
        for name, key in plan.keys.items()
    }
    return found if plan.restored else {**found, TASK: LANGUAGE}


def plan_conversion(info: LeRobotInfo, pictures: str = "jpeg") -> Target:
    """What becomes of every feature."""
    if pictures not in PICTURES:
        raise ValueError(f"pictures: expected one of {', '.join(PICTURES)}, got {pictures!r}")
    former = info.directory / FROM_RLDS
    if former.is_file():
        note = read_json(former)
        keys = {name: key for key, name in note["keys"].items()}
        known = set(info.features) | set(info.episodes[0].values if info.episodes else ())
        if set(keys) <= known:
            features = _without(note["features"], note["left_out"])
            return Target(info, keys, features, pictures, restored=True)
    names = {name: feature.picture for name, feature in info.features.items()}
    keys = rlds_keys(names)
    for name in info.episodes[0].values if info.episodes else ():
        keys.setdefault(name, name)
    return Target(info, keys, _features(info, keys, pictures), pictures, restored=False)


def _without(content: Any, left_out: Sequence[str]) -> Any:
    """The features that a data set had, less those that could not be kept."""
    features = load_tfds().features.FeatureConnector.from_json(content)
    if not left_out:
        return features

    def pruned(feature: Any, prefix: str) -> Any:
        tfds = load_tfds().features
        if isinstance(feature, tfds.FeaturesDict):
            rows = {
                key: pruned(value, f"{prefix}{key}/")
                for key, value in feature.items()
                if f"{prefix}{key}" not in left_out
            }
            return tfds.FeaturesDict({key: row for key, row in rows.items() if row is not None})
        if isinstance(feature, tfds.Dataset):
            return tfds.Dataset(pruned(feature.feature, prefix))
        return feature

    return pruned(features, "")


def _features(info: LeRobotInfo, keys: Mapping[str, str], pictures: str) -> Any:
    tfds = load_tfds().features
    tree: dict[str, Any] = {}

    for name, feature in info.features.items():
        if feature.picture:
            kind = pictures if feature.dtype == "video" else _encoding(info, name)
            shape = (*feature.size, 3)
            put(tree, keys[name], tfds.Image(shape=shape, encoding_format=kind))
        elif feature.dtype == "string":
            put(tree, keys[name], tfds.Text())
        else:
            shape = () if feature.shape in ((), (1,)) else feature.shape
            put(tree, keys[name], tfds.Tensor(shape=shape, dtype=np.dtype(feature.dtype)))
    for name, value in (info.episodes[0].values if info.episodes else {}).items():
        if isinstance(value, str):
            put(tree, keys[name], tfds.Text())
        elif value is not None:
            array = np.asarray(value)
            dtype = np.float32 if array.dtype.kind == "f" else array.dtype
            put(tree, keys[name], tfds.Tensor(shape=array.shape, dtype=dtype))
    for name in FLAGS:
        tree["steps"].setdefault(name, np.bool_)
    tree["steps"].setdefault(LANGUAGE, tfds.Text())
    steps = tree.pop("steps")
    return tfds.FeaturesDict({**tree, "steps": tfds.Dataset(steps)})


def _encoding(info: LeRobotInfo, name: str) -> str:
    """How the pictures of an image feature are encoded, by the first one."""
    columns = EpisodeColumns(info, info.episodes[0], Videos(info))
    return "png" if bytes(columns.pictures(name)[0][:4]) == b"\x89PNG" else "jpeg"


def _example(plan: Target, columns: EpisodeColumns) -> dict[str, Any]:
    """The record of an episode, as `serialize_example` takes it."""
    steps = [dict() for _ in range(columns.steps)]
    whole: dict[str, Any] = {}
    described = described_features(plan.features)
    for name, key in plan.keys.items():
        row = described.get(key)
        if row is None:
            continue
        if not key.startswith("steps/"):
            put(whole, key, _shaped(np.asarray(columns.place.values[name]), row, name, columns))
            continue
        values = columns.column(name)
        if isinstance(values, EpisodePictures):
            values = [_picture(values, step, plan) for step in range(columns.steps)]
        elif row.kind == "numbers":
            values = _shaped(values, row, name, columns, columns.steps)
        else:
            values = [to_bytes(text) for text in values]
        for step, value in enumerate(values):
            put(steps[step], key.removeprefix("steps/"), value)
    if not plan.restored:
        last = columns.steps - 1
        tasks = columns.column(TASK)
        for step, row in enumerate(steps):
            flags = {"is_first": step == 0, "is_last": step == last, "is_terminal": step == last}
            for name, value in {**flags, LANGUAGE: tasks[step]}.items():
                row.setdefault(name, value)
    return {**whole, "steps": steps}


def _shaped(
    values: np.ndarray, row: Any, name: str, columns: EpisodeColumns, steps: int | None = None
) -> Any:
    if row.kind != "numbers":
        return to_bytes(str(values.item()))
    dtype = np.dtype(row.dtype)
    if dtype.kind == "f" and not np.array_equal(
        values.astype(np.float32).astype(values.dtype), values, equal_nan=True
    ):
        raise ValueError(
            f"{columns.where}: expected numbers of {name} that a float32 holds, which is what "
            f"TFRecord stores, got {values.dtype}; change the feature's type to float32 first"
        )
    shape = tuple(int(n) for n in row.shape)
    return values.astype(dtype).reshape(shape if steps is None else (steps, *shape))


def _picture(pictures: EpisodePictures, step: int, plan: Target) -> bytes:
    if pictures.video is None:
        return pictures[step]
    image = pictures.decode(step)
    if plan.pictures == "jpeg" or plan.restored:
        return encode_image(image)
    return as_png(image)


def _write_notes(plan: Target, directory: Path) -> None:
    info = plan.info
    task = None if plan.restored else f"steps/{LANGUAGE}"
    note = {**info.content, "keys": dict(plan.keys), "task": task, "tasks": list(info.tasks)}
    if not plan.restored:
        write_json(directory / FROM_LEROBOT, note)
    write_json(
        directory / "metadata.json",
        {
            "fps": info.fps,
            "robot_type": info.robot_type,
            "names": {
                plan.keys[name]: list(row.names)
                for name, row in info.features.items()
                if row.names and name in plan.keys
            },
        },
    )
