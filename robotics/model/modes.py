"""Inference modes as rows: which modalities are given and which are generated.

An absent modality is left out of the sequence, so a policy never pays for video tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfflow_wm.data import ModeSchedule
from selfflow_wm.data.modes import Mode as Mode
from selfflow_wm.data.modes import Share as Share

IMAGE, HISTORY, PROPRIO = "image", "history", "proprio"
KEYPOSE, VIDEO, ACTION = "keypose", "video", "action"


MODES: dict[str, Mode] = {
    row.name: row
    for row in (
        Mode("policy", (IMAGE, HISTORY, PROPRIO), (KEYPOSE, ACTION)),
        Mode("joint", (IMAGE, HISTORY, PROPRIO), (KEYPOSE, VIDEO, ACTION)),
        Mode("forward", (IMAGE, HISTORY, PROPRIO, ACTION), (VIDEO,)),
        Mode("inverse", (IMAGE, HISTORY, PROPRIO, VIDEO), (ACTION,)),
        Mode("video", (IMAGE, HISTORY, PROPRIO), (VIDEO,)),
    )
}
"""What a model's layout lacks (history, key pose) is left out of its rows."""


def mode(name: str) -> Mode:
    """The row called `name`; ValueError with the known names otherwise."""
    if name not in MODES:
        raise ValueError(f"expected a mode out of {sorted(MODES)}, got {name!r}")
    return MODES[name]


def robot_schedule(shares: Mapping[str, Share | Mapping[str, Any]], seed: int = 0) -> ModeSchedule:
    """The schedule of a run that trains the robot's modes."""
    return ModeSchedule(shares, seed, MODES)
