"""A model's table of modalities, from its robots' codecs, windows and widths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robotics.model.modes import (
    ACTION,
    HISTORY,
    IMAGE,
    KEYPOSE,
    STATE,
    VIDEO,
    row,
)
from selfflow_wm.layout import Layout, Modality


@dataclass(frozen=True)
class RobotRows:
    """What the rows of one robot follow from.

    Raises:
        ValueError: offsets that are not equally spaced, or of another number than a codec's frames.
    """

    codecs: Mapping[str, tuple[Any, Any]]
    """Camera -> codec of the current frame and of the frames after it, of which only grid, channels
    and, of video, frames and frames_per_latent are read."""
    state_width: int
    action_width: int
    """Values of the model's vectors; 0: no such row."""
    horizon: int
    """Actions in a chunk, one a control step."""
    video_offsets: Sequence[int]
    """Future frames, in control steps after the current one, equally spaced."""
    history_offsets: Sequence[int] = ()
    """Past frames, in control steps before the current one, equally spaced, oldest first."""
    history: Mapping[str, int] = field(default_factory=dict)
    """Camera -> how many of the past frames, the last ones, it shows; all where it is missing."""
    has_pose: bool = True
    """Whether the state holds a place to go to."""

    def __post_init__(self) -> None:
        offsets = [int(offset) for offset in self.video_offsets]
        for _, codec in self.codecs.values():
            if len(self._strides) > 1 or len(offsets) != codec.frames:
                raise ValueError(
                    f"expected {codec.frames} equally spaced video offsets, got {offsets}; write "
                    f"dataset.video_offsets={[offsets[0] * (n + 1) for n in range(codec.frames)]}"
                )
        past = [-int(offset) for offset in self.history_offsets]
        pauses = {b - a for a, b in zip(past, [*past[1:], 0], strict=False)}
        if len(pauses) > 1 or min(pauses, default=1) < 1:
            raise ValueError(
                "expected history offsets that go down to 0 in equal steps such as (6, 3), got "
                f"{tuple(self.history_offsets)}"
            )

    @property
    def _strides(self) -> set[int]:
        offsets = [int(offset) for offset in self.video_offsets]
        return {b - a for a, b in zip(offsets, offsets[1:], strict=False)} or {1}

    def rows(self, state: bool, keypose: bool) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
        """(kind, camera, fields of a `Modality`) of every row, in the layout's order."""
        for camera, (image, _) in self.codecs.items():
            yield IMAGE, camera, {"grid": image.grid, "channels": image.channels}
        for camera, (image, _) in self.codecs.items():
            count = self.history.get(camera, len(self.history_offsets))
            past = [-int(offset) for offset in self.history_offsets][-count:] if count else []
            if past:
                yield HISTORY, camera, {
                    "grid": (len(past), *image.grid[1:]),
                    "channels": image.channels,
                    "time_origin": past[0],
                    "time_stride": -past[-1],
                }  # fmt: skip
        vector = {"grid": (1, 1, 1), "channels": self.state_width}
        if state and self.state_width:
            yield STATE, None, vector
        if keypose and self.state_width and self.action_width and self.has_pose:
            yield KEYPOSE, None, vector | {"time_origin": self.horizon}
        for camera, (_, video) in self.codecs.items():
            yield VIDEO, camera, {
                "grid": video.grid,
                "channels": video.channels,
                "time_origin": int(self.video_offsets[0]),
                "time_stride": next(iter(self._strides)) * video.frames_per_latent,
            }  # fmt: skip
        if self.action_width:
            yield ACTION, None, {"grid": (self.horizon, 1, 1), "channels": self.action_width}


def robot_layout(
    robots: Mapping[str, RobotRows],
    *,
    text_length: int,
    state: bool = True,
    keypose: bool = False,
    mask_ratio: Mapping[str, float] | None = None,
    weight: Mapping[str, float] | None = None,
    rows: Mapping[str, Mapping[str, Any]] | None = None,
    several: bool | None = None,
) -> Layout:
    """The table of modalities: for every robot the current frames, past ones, the state, future
    frames, the chunk of actions. A latent frame of video stands at the time of its last frame.

    Rows of a robot's cameras carry their names; with several robots, all carry the robot's
    (`robotics.model.modes.row`). mask_ratio, weight: by kind of what is generated; a kind's weight
    is divided among the robot's cameras.
    keypose: with the state at the next keyframe (`robotics.data.episodes.keypose_steps`), which a
    policy generates beside its actions: where the hand goes tells where the object is, without the
    noise of single actions. Robots whose state holds no position go without. state: False leaves
    the state out. rows: grid and channels of image and video where they are stated; the codecs must
    agree. several: name the rows as with several robots; default: where there are several.
    """
    ratio, weight = mask_ratio or {}, weight or {}
    named = len(robots) > 1 if several is None else several
    found = []
    for name, robot in robots.items():
        for kind, camera, fields in robot.rows(state, keypose):
            _check_row(kind, (rows or {}).get(kind) or {}, fields)
            share = 1 if camera is None else len(robot.codecs)
            found.append(
                Modality(
                    row(kind, camera, name if named else None),
                    mask_ratio=ratio.get(kind, 0.25),
                    weight=weight.get(kind, 1.0) / share,
                    **fields,
                )
            )
    return Layout(tuple(found), text_length=text_length)


def _check_row(kind: str, stated: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """ValueError when a row of the configuration is not that of the codec."""
    found = {"grid": tuple(fields["grid"]), "channels": fields["channels"]}
    asked = {key: value for key, value in stated.items() if value is not None}
    if "grid" in asked:
        asked["grid"] = tuple(asked["grid"])
    if any(found.get(key) != value for key, value in asked.items()):
        raise ValueError(
            f"layout.rows.{kind}: expected tokens of the codec, {found}, got {asked}; change the "
            "row or the codec's sizes"
        )
