"""LeRobot data sets (format v3) to episodes and back, through the library lerobot.

Written are `action` (8,) and `observation.state` (8,) float32 (names beside them), the camera's
image, `next.reward`, `next.success` and, as every frame's task, its instruction. Numbers come back
bit for bit; images as PNG do too, as video within the video codec's error. Needs the extra
`lerobot`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.episodes import Episode
from robotics.data.images import decode_image, encode_image, resize_image
from robotics.data.rlds import EpisodeReader, EpisodeWriter
from robotics.data.rlds.convert import convert, kept, selected
from robotics.data.rlds.schema import IMAGE_SHAPE
from robotics.data.rlds.spec import Column, DatasetSpec, column, load_spec

ACTION = ("x", "y", "z", "roll", "pitch", "yaw", "gripper", "terminate")
STATE = ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper_closed")
IMAGE = "observation.images.front"


def load_lerobot() -> Any:
    """LeRobot's data set class."""
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset  # pyright: ignore
    except ImportError as error:
        raise ImportError(
            "LeRobot data needs the library lerobot: pip install 'selfflow-wm[lerobot]', in a "
            f"separate environment ({error})"
        ) from error
    return LeRobotDataset


def write(directory: Path, episodes: Iterable[Episode], fps: float, *, videos: bool = False) -> int:
    """Write `episodes` in their order to `directory` (new), in one piece; returns how many.

    Args:
        fps: control steps a second, a whole number.
        videos: images as video instead of PNG.

    Raises:
        ValueError: the directory is there, no episodes, or a rate that LeRobot cannot state.
    """
    directory = Path(directory)
    if directory.exists():
        raise ValueError(f"expected a new directory, got {directory}; choose another or delete it")
    if fps != int(fps):
        raise ValueError(f"expected a whole number of steps a second for LeRobot, got {fps}")
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    count, data = 0, None
    for episode in episodes:
        frames = [decode_image(image) for image in episode.images]
        if data is None:
            data = load_lerobot().create(
                repo_id=f"local/{directory.name}",
                fps=int(fps),
                features=_features(frames[0].shape, "video" if videos else "image"),
                root=partial,
                use_videos=videos,
            )
        for row in _rows(episode, frames):
            data.add_frame(row)
        data.save_episode()
        count += 1
    if data is None:
        raise ValueError("expected at least one episode, got none")
    data.finalize()
    partial.rename(directory)
    return count


def _features(shape: tuple[int, ...], kind: str) -> dict[str, Any]:
    def vector(dtype: str, names: tuple[str, ...]) -> dict[str, Any]:
        return {"dtype": dtype, "shape": (len(names),), "names": list(names)}

    return {
        IMAGE: {"dtype": kind, "shape": tuple(shape), "names": ["height", "width", "channels"]},
        "observation.state": vector("float32", STATE),
        "action": vector("float32", ACTION),
        "next.reward": vector("float32", ("reward",)),
        "next.success": vector("bool", ("success",)),
    }


def _rows(episode: Episode, frames: list[np.ndarray]) -> Iterator[dict[str, Any]]:
    state = np.column_stack([episode.tool_pose, episode.gripper_closed])  # as recorded
    actions = episode.actions()
    for step, frame in enumerate(frames):
        yield {
            IMAGE: frame,
            "observation.state": state[step],
            "action": actions[step],
            "next.reward": episode.reward[step : step + 1],
            "next.success": np.array([episode.success and step == len(frames) - 1]),
            "task": episode.instruction[step],
        }


class LeRobotReader:
    """Episodes of a local LeRobot data set, as JPEGs of RT-1's size; what filters drop is left out.

    Args:
        directory: holds meta/info.json.
        spec: where things are (`robotics.data.rlds.spec.load_spec`); default: as `write` has them.

    Raises:
        ValueError: no data set of format v3 there, or one the specification does not fit.
    """

    def __init__(self, directory: Path, spec: str | Path | DatasetSpec | None = None) -> None:
        directory = Path(directory)
        info = directory / "meta" / "info.json"
        if not info.is_file():  # lerobot would look for it on the network
            raise ValueError(f"expected a LeRobot data set with meta/info.json, got {directory}")
        version = str(json.loads(info.read_text()).get("codebase_version"))
        if not version.startswith("v3."):
            raise ValueError(
                f"{directory}: expected LeRobot's format v3, got {version}; convert it with "
                "LeRobot's conversion script"
            )
        self.spec = load_spec(spec or "lerobot")
        self.directory = directory
        self.data = load_lerobot()(f"local/{directory.name}", root=directory)
        present = {"task", *self.data.features}
        for place, wanted in self.spec.columns().items():
            if _name(wanted) not in present:
                raise ValueError(
                    f"{directory}: expected {_name(wanted)!r} for {place} of the specification "
                    f"{self.spec.name}, got {sorted(present)}; start a --spec from "
                    "configs/robot/lerobot.yaml"
                )

    def __iter__(self) -> Iterator[tuple[int, Episode]]:
        """Number and episode, of those that are kept."""
        for number in range(self.data.num_episodes):
            place = self.data.meta.episodes[number]
            steps = range(int(place["dataset_from_index"]), int(place["dataset_to_index"]))
            where = f"{self.directory}, episode {number}"
            columns = _Frames([self.data[step] for step in steps], where, self.spec)
            if kept(columns, self.spec):
                yield number, convert(columns, self.spec)


def _name(place: Column) -> str:
    return place.key.removeprefix("steps/")


class _Frames:
    """`robotics.data.rlds.convert.Columns` of LeRobot's frames; an episode has its last value."""

    def __init__(self, frames: list[dict[str, Any]], where: str, spec: DatasetSpec) -> None:
        self.frames, self.where, self.steps = frames, where, len(frames)
        camera = _name(column(spec.image))
        self.images = [_jpeg(frame[camera]) for frame in frames]

    def array(self, place: Column, width: int) -> np.ndarray:
        """(steps, width) of a feature's values."""
        rows = self.frames if place.of_step else [self.frames[-1]] * self.steps
        values = np.stack([np.asarray(row[_name(place)]).reshape(-1) for row in rows])
        return selected(values, place, width)

    def texts(self, place: Column) -> list[str]:
        """A text feature, or the task, of every step."""
        return [str(frame[_name(place)]) for frame in self.frames]

    def one(self, place: Column) -> Any:
        """The last frame's value."""
        return self._value(self.frames[-1], place)

    def first(self, place: Column) -> Any:
        """A value to filter by: of the first frame, or of the episode."""
        return self._value(self.frames[0], place) if place.of_step else self.one(place)

    def _value(self, frame: dict[str, Any], place: Column) -> Any:
        value = frame[_name(place)]
        if isinstance(value, str):
            return value
        index = 0 if place.values is None else place.values.start
        return np.asarray(value).reshape(-1)[index].item()


def _jpeg(image: Any) -> bytes:
    """Their float (3, H, W) in [0, 1] as a JPEG of RT-1's size."""
    pixels = np.round(np.asarray(image, np.float32).transpose(1, 2, 0) * 255).astype(np.uint8)
    return encode_image(resize_image(pixels, IMAGE_SHAPE[:2]))


def rlds_to_lerobot(
    source: Path, target: Path, *, split: str = "train", spec: str | None = None, videos: bool
) -> int:
    """Write a split's episodes, in their order, to the new directory `target`; their number."""
    reader = EpisodeReader(source, split, spec=spec)
    return write(target, reader, load_spec(spec).control_hz, videos=videos)


def lerobot_to_rlds(source: Path, target: Path, *, spec: str | None = None) -> int:
    """Write all episodes to `target`, RT-1's features in the split "train"; how many it has.

    Images become 256 x 320. The keys in collection-train.json are the episodes' numbers, and an
    interrupted conversion resumes.
    """
    reader = LeRobotReader(source, spec)
    writer = EpisodeWriter(target, provenance={"lerobot": str(source), "fps": int(reader.data.fps)})
    for number, episode in reader:
        if number not in writer:
            writer.write(number, episode)
    writer.finalize()
    return len(writer.done())
