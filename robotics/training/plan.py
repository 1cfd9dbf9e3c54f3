"""What fine-tuning costs before it is started; the counting is `selfflow_wm.pretraining.plan`'s."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robotics.data.cameras import camera_sizes
from robotics.embodiment.coding import Coder
from robotics.embodiment.robot import Robot
from robotics.model.layout import RobotRows
from robotics.model.modes import IMAGE, MODES, VIDEO, robot_of, robot_schedule, rows_of
from robotics.training.build import check_modes, robots_of, with_tables
from robotics.training.fit import (
    backbone_arguments,
    layout_of,
    past_frames,
    unfitted_codecs,
    window_settings,
)
from robotics.training.texts import LONGEST
from selfflow_wm import data
from selfflow_wm.codec.video import GROUP
from selfflow_wm.layout import Layout
from selfflow_wm.pretraining.plan import planned
from selfflow_wm.training.command import without_data
from selfflow_wm.training.run import of_run


def plan(config: DictConfig, given: argparse.Namespace) -> str:
    """The plan of a composed configuration as text; neither data nor weights are needed. Of
    several robots, a step is counted as of the first one."""
    if OmegaConf.is_missing(config, "data"):
        config.data = "none"
    sets: Any = OmegaConf.to_container(with_tables(config), throw_on_missing=False)
    robots = robots_of(sets)
    plain: dict[str, Any] = without_data(config) | {"data": sets["data"]}
    check_modes(plain["modes"], robots)
    names = robot_schedule(plain["modes"]).names
    layout = planned_layout(plain, names, robots)
    plain["model"] = backbone_arguments(plain["model"], layout)
    first = next(iter(robots)) if len(robots) > 1 else None
    table = {name: _within(MODES[name], layout, first) for name in MODES}
    stated = data.ModeSchedule(plain["modes"], plain["seed"], table)
    return planned(plain, layout, of_run(stated, plain["batch_of"], given.gpus), given)


def planned_layout(
    plain: Mapping[str, Any], modes: tuple[str, ...], robots: Mapping[str, Robot]
) -> Layout:
    """The layout of a configuration, from layout.rows where they state the tokens of image and
    video, and else from their codecs, which then must need no weights."""
    rows = {name: planned_rows(plain, robot) for name, robot in robots.items()}
    length = plain["layout"]["text_length"] or LONGEST
    return layout_of(plain, rows, modes, length)


def planned_rows(plain: Mapping[str, Any], robot: Robot) -> RobotRows:
    """What a robot's rows follow from, without its data."""
    settings = window_settings(plain, robot.name)
    offsets = settings["video_offsets"] or robot.window.video_offsets
    coder = Coder(robot, terminate=plain["layout"]["terminate"])
    return RobotRows(
        {
            camera: _codecs(plain, size, len(offsets))
            for camera, size in camera_sizes(settings, robot).items()
        },
        coder.state_width,
        coder.action_width,
        settings["horizon"] or robot.window.horizon,
        offsets,
        [settings["history_stride"] * i for i in range(settings["history"], 0, -1)],
        past_frames(settings),
        has_pose=any(part.kind == "position" for part in robot.state),
    )


def _codecs(plain: Mapping[str, Any], size: tuple[int, int], frames: int) -> tuple[Any, Any]:
    rows = plain["layout"]["rows"] or {}
    stated = {name: rows.get(name) or {} for name in (IMAGE, VIDEO)}
    if not all(row.get("grid") and row.get("channels") for row in stated.values()):
        codecs = unfitted_codecs(plain["codec"], size, frames)
        return codecs[IMAGE], codecs[VIDEO]
    clips = "video" in plain["codec"]
    image, video = (
        SimpleNamespace(
            grid=tuple(row["grid"]),
            channels=row["channels"],
            frames=frames,
            frames_per_latent=GROUP if clips else 1,
        )
        for row in stated.values()
    )
    return image, video


def _within(mode: data.Mode, layout: Layout, robot: str | None) -> data.Mode:
    """A mode's rows of a robot in a layout."""
    names = [name for name in layout.names if robot_of(name) == robot]
    return data.Mode(mode.name, rows_of(mode.given, names), rows_of(mode.generated, names))
