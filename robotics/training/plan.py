"""What fine-tuning costs before it is started; the counting is `selfflow_wm.pretraining.plan`'s."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig

from robotics.model.modes import IMAGE, MODES, VIDEO, robot_schedule
from robotics.training.fit import layout_of, unfitted_codecs
from selfflow_wm import data
from selfflow_wm.codec.video import GROUP
from selfflow_wm.layout import Layout
from selfflow_wm.pretraining.plan import planned
from selfflow_wm.training.command import without_data


def plan(config: DictConfig, given: argparse.Namespace) -> str:
    """The plan of a composed configuration as text; neither data nor weights are needed."""
    plain = without_data(config)
    names = robot_schedule(plain["modes"]).names
    layout = planned_layout(plain, names)
    table = {name: _within(MODES[name], layout) for name in MODES}
    return planned(plain, layout, data.ModeSchedule(plain["modes"], plain["seed"], table), given)


def planned_layout(plain: Mapping[str, Any], modes: tuple[str, ...]) -> Layout:
    """The layout of a configuration, from layout.rows where they state the tokens of image and
    video, and else from their codecs, which then must need no weights."""
    settings, rows = plain["dataset"], plain["layout"]["rows"] or {}
    frames = len(settings["video_offsets"])
    stated = {name: rows.get(name) or {} for name in (IMAGE, VIDEO)}
    if all(row.get("grid") and row.get("channels") for row in stated.values()):
        clips = "video" in plain["codec"]
        codecs: dict[str, Any] = {
            name: SimpleNamespace(
                grid=tuple(row["grid"]),
                channels=row["channels"],
                frames=frames,
                frames_per_latent=GROUP if clips else 1,
            )
            for name, row in stated.items()
        }
    else:
        codecs = dict(unfitted_codecs(plain["codec"], settings["image_size"], frames))
    history = [settings["history_stride"] * i for i in range(settings["history"], 0, -1)]
    return layout_of(plain, codecs[IMAGE], codecs[VIDEO], modes, history)


def _within(mode: data.Mode, layout: Layout) -> data.Mode:
    """A mode without what the layout lacks."""
    given, generated = (
        tuple(name for name in names if name in layout) for names in (mode.given, mode.generated)
    )
    return data.Mode(mode.name, given, generated)
