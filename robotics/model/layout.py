"""The robot's table of modalities, from its codecs, its chunk of actions and its frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robotics.embodiment.table import ACTION_DIM, PROPRIO_DIM, TERMINATE
from robotics.model.modes import ACTION, HISTORY, IMAGE, KEYPOSE, PROPRIO, VIDEO
from selfflow_wm.layout import Layout, Modality


def robot_layout(
    image_codec: Any,
    video_codec: Any,
    *,
    horizon: int,
    video_offsets: Sequence[int],
    text_length: int = 64,
    proprio: bool = True,
    keypose: bool = False,
    terminate: bool = True,
    history_offsets: Sequence[int] = (),
    mask_ratio: Mapping[str, float] | None = None,
    weight: Mapping[str, float] | None = None,
    rows: Mapping[str, Mapping[str, Any]] | None = None,
) -> Layout:
    """The table of modalities: current frame, proprioception, future frames, action chunk.

    image_codec, video_codec: of which only grid, channels and, of video, frames and
    frames_per_latent are read. A latent frame of video stands at the time of its last frame.
    horizon: actions in a chunk, one a control step. video_offsets: future frames, in control
    steps after the current one, equally spaced. history_offsets: past frames, in control steps
    before the current one, equally spaced, oldest first; their tokens have negative times and there
    are none without them. mask_ratio, weight: per generated modality.
    keypose: with the next keyframe's proprioception (`robotics.data.episodes.keypose_steps`), which
    a policy generates beside its actions: where the hand goes tells where the object is, without
    the noise of single actions. proprio: False leaves proprioception out. terminate: False leaves
    the last value of an action out, and the model never ends a sub-task by itself.
    rows: grid and channels of image and video where they are stated; the codecs must agree.
    """
    for name, codec in ((IMAGE, image_codec), (VIDEO, video_codec)):
        _check_row(name, (rows or {}).get(name) or {}, codec)
    offsets = [int(offset) for offset in video_offsets]
    past = [-int(offset) for offset in history_offsets]
    strides = {b - a for a, b in zip(offsets, offsets[1:], strict=False)} or {1}
    if len(strides) > 1 or len(offsets) != video_codec.frames:
        raise ValueError(
            f"expected {video_codec.frames} equally spaced video offsets, got {offsets}"
        )
    pauses = {b - a for a, b in zip(past, [*past[1:], 0], strict=False)}
    if len(pauses) > 1 or min(pauses, default=1) < 1:
        raise ValueError(
            "expected history offsets that go down to 0 in equal steps such as (6, 3), got "
            f"{tuple(history_offsets)}"
        )
    ratio, weight = mask_ratio or {}, weight or {}

    def row(name: str, grid: tuple[int, int, int], channels: int, **time: float) -> Modality:
        return Modality(name, grid, channels, ratio.get(name, 0.25), weight.get(name, 1.0), **time)

    return Layout(
        (
            row(IMAGE, image_codec.grid, image_codec.channels),
            *(
                row(
                    HISTORY,
                    (len(past), *image_codec.grid[1:]),
                    image_codec.channels,
                    time_origin=past[0],
                    time_stride=pause,
                )
                for pause in pauses
            ),
            *([row(PROPRIO, (1, 1, 1), PROPRIO_DIM)] if proprio else []),
            *([row(KEYPOSE, (1, 1, 1), PROPRIO_DIM, time_origin=horizon)] if keypose else []),
            row(
                VIDEO,
                video_codec.grid,
                video_codec.channels,
                time_origin=offsets[0],
                time_stride=strides.pop() * video_codec.frames_per_latent,
            ),
            # The value that terminates comes last.
            row(ACTION, (horizon, 1, 1), ACTION_DIM if terminate else TERMINATE),
        ),
        text_length=text_length,
    )


def _check_row(name: str, stated: Mapping[str, Any], codec: Any) -> None:
    """ValueError when a row of the configuration is not that of the codec."""
    found = {"grid": tuple(codec.grid), "channels": codec.channels}
    asked = {key: value for key, value in stated.items() if value is not None}
    if "grid" in asked:
        asked["grid"] = tuple(asked["grid"])
    if any(found.get(key) != value for key, value in asked.items()):
        raise ValueError(
            f"layout.rows.{name}: expected tokens of the codec, {found}, got {asked}; change the "
            "row or the codec's sizes"
        )
