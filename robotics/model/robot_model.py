"""What a model knows of one of its robots, beside the network's weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robotics.embodiment.coding import Coder
from robotics.embodiment.normalize import Normalizer, Quantiles
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from robotics.model.layout import RobotRows
from robotics.model.modes import possible_modes
from selfflow_wm.codec import PairedCodec, ResidualCodec
from selfflow_wm.codec.base import ImageCodec

VideoCodec = ResidualCodec | PairedCodec
"""Of the frames after the current one; with the codec of the current one as `base`."""
GROUPS = ("state", "action")


@dataclass(frozen=True)
class RobotModel:
    """A robot in a model: its table, its coding, its codecs and what a window of it holds."""

    robot: Robot
    coder: Coder
    normalizers: Mapping[str, Normalizer]
    """"state" and "action", of the model's values; without those of which there are none."""
    codecs: Mapping[str, VideoCodec]
    """By camera, in the order of the model's rows."""
    horizon: int
    """Actions in a chunk."""
    video_offsets: tuple[int, ...]
    """Future frames, in control steps after the current one."""
    history_offsets: tuple[int, ...] = ()
    """Past frames, in control steps before the current one, oldest first."""
    modes: tuple[str, ...] = ()
    """Those it was trained in."""

    @property
    def name(self) -> str:
        return self.robot.name

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that the model sees through."""
        return tuple(self.codecs)

    @property
    def image_sizes(self) -> dict[str, tuple[int, int]]:
        """(H, W) of each camera's frames, as the codecs take them."""
        return {name: self.image_codec(name).image_size for name in self.codecs}

    def image_codec(self, camera: str) -> ImageCodec:
        """Of the current and of past frames."""
        return self.codecs[camera].base  # pyright: ignore[reportReturnType]

    def rows(self, history: Mapping[str, int] | None = None) -> RobotRows:
        """What its rows of a layout follow from. history: past frames by camera, default all."""
        return RobotRows(
            {camera: (codec.base, codec) for camera, codec in self.codecs.items()},
            self.coder.state_width,
            self.coder.action_width,
            self.horizon,
            self.video_offsets,
            self.history_offsets,
            dict(history or {}),
            has_pose=any(part.kind == "position" for part in self.robot.state),
        )

    # ---------------------------------------------------------------- as JSON

    def to_dict(self) -> dict[str, Any]:
        """JSON values of a checkpoint's section; all but the codecs."""
        return {
            "table": self.robot.to_dict(),
            "statistics": {name: self.normalizers[name].to_dict() for name in self.normalizers},
            "statistics_hash": statistics_hash(self.robot.embodiment, self.normalizers),
            "image_sizes": {name: list(size) for name, size in self.image_sizes.items()},
            "horizon": self.horizon,
            "video_offsets": list(self.video_offsets),
            "history_offsets": list(self.history_offsets),
            "terminate": self.coder.terminate,
            "modes": list(self.modes),
        }

    @classmethod
    def from_dict(
        cls, content: Mapping[str, Any], codecs: Mapping[str, VideoCodec], modes: Sequence[str]
    ) -> RobotModel:
        """The inverse of `to_dict`. modes: where the content, of an earlier schema, has none.

        ValueError for statistics that are missing or of other vectors, or a table that is none.
        """
        robot = load_robot(content["table"])
        coder = Coder(robot, terminate=content["terminate"])
        stored = content["statistics"]
        widths = {"state": coder.state_width, "action": coder.action_width}
        if missing := [group for group in GROUPS if widths[group] and group not in stored]:
            raise ValueError(
                f"robot {robot.name}: expected statistics of {' and '.join(missing)}, got none; "
                "copy the whole checkpoint directory"
            )
        normalizers = {
            group: _of_width(Normalizer.from_dict(stored[group]), coder, group)
            for group in GROUPS
            if widths[group]
        }
        return cls(
            robot,
            coder,
            normalizers,
            dict(codecs),
            int(content["horizon"]),
            tuple(content["video_offsets"]),
            tuple(content["history_offsets"]),
            tuple(modes if content["modes"] is None else content["modes"]),
        )

    def trained_in(self, modes: Sequence[str]) -> RobotModel:
        """The same with those of `modes` that the robot can do."""
        possible = possible_modes(bool(self.coder.action_width))
        return replace(self, modes=tuple(name for name in modes if name in possible))


def _of_width(normalizer: Normalizer, coder: Coder, group: str) -> Normalizer:
    """The normaliser, if it is of the robot's values; earlier checkpoints keep the statistics of
    the last value of an action, which terminates, of models without it. ValueError otherwise."""
    width = coder.state_width if group == "state" else coder.action_width
    if normalizer.dim == width:
        return normalizer
    without_last = group == "action" and bool(coder.robot.terminate) and not coder.terminate
    if not without_last or normalizer.dim != width + 1:
        raise ValueError(
            f"robot {coder.robot.name}: expected statistics of {width} values of its {group}, got "
            f"{normalizer.dim}; the file is of another robot or was edited. Copy the whole "
            "checkpoint directory"
        )
    floors = np.broadcast_to(normalizer.floor, normalizer.dim)[:width]
    statistics = first_values(normalizer.statistics, width)
    return Normalizer(statistics, normalizer.scaled[:width], floors.tolist(), normalizer.kind)


def first_values(statistics: Quantiles, width: int) -> Quantiles:
    """Statistics of the first `width` values."""
    columns = statistics.to_dict()
    return Quantiles.from_dict(
        {
            name: value[:width] if isinstance(value, list) else value
            for name, value in columns.items()
        }
    )


def statistics_hash(embodiment: str, normalizers: Mapping[str, Normalizer]) -> str:
    """sha256 (hex) of a robot's name and its normalisers."""
    values = {name: normalizer.to_dict() for name, normalizer in normalizers.items()}
    text = json.dumps({"embodiment": embodiment, **values}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
