"""Inference modes as rows: what is given and what is generated. And the names of a layout's rows.

A mode names kinds of rows; for a robot each kind means its rows of a model's layout, one for every
camera where it is one of pictures (`rows_of`). What the robot or the layout lacks is left out. An
absent modality is left out of the sequence, so a policy never pays for video tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from selfflow_wm.data import ModeSchedule
from selfflow_wm.data.modes import Mode as Mode
from selfflow_wm.data.modes import Share as Share

Value = TypeVar("Value")

IMAGE, HISTORY, STATE = "image", "history", "state"
KEYPOSE, VIDEO, ACTION = "keypose", "video", "action"
KINDS = (IMAGE, HISTORY, STATE, KEYPOSE, VIDEO, ACTION)
"""In the order of a layout."""


MODES: dict[str, Mode] = {
    row.name: row
    for row in (
        Mode("policy", (IMAGE, HISTORY, STATE), (KEYPOSE, ACTION)),
        Mode("joint", (IMAGE, HISTORY, STATE), (KEYPOSE, VIDEO, ACTION)),
        Mode("forward", (IMAGE, HISTORY, STATE, ACTION), (VIDEO,)),
        Mode("inverse", (IMAGE, HISTORY, STATE, VIDEO), (ACTION,)),
        Mode("video", (IMAGE, HISTORY, STATE), (VIDEO,)),
    )
}
"""Names are kinds of rows."""


def mode(name: str) -> Mode:
    """The row called `name`; ValueError with the known names otherwise."""
    if name not in MODES:
        raise ValueError(f"expected a mode out of {sorted(MODES)}, got {name!r}")
    return MODES[name]


def robot_schedule(shares: Mapping[str, Share | Mapping[str, Any]], seed: int = 0) -> ModeSchedule:
    """The schedule of a run that trains the robot's modes."""
    return ModeSchedule(shares, seed, MODES)


def possible_modes(has_actions: bool) -> tuple[str, ...]:
    """The modes of a robot: without recorded actions, the future frames alone."""
    if has_actions:
        return tuple(MODES)
    return tuple(row.name for row in MODES.values() if ACTION not in row.present)


# ---------------------------------------------------------------- names of rows


def row(kind: str, camera: str | None = None, robot: str | None = None) -> str:
    """The name of a layout's row: "action", "image/front", with a robot "aloha:image/front".

    ValueError for a camera or a robot whose name would make another row's, or no module's.
    """
    for what, name in (("camera", camera), ("robot", robot)):
        if name is not None and (not name or set(name) & set("./:")):
            raise ValueError(
                f"{what} {name!r}: expected a name without . / and :, which separate the names of "
                f"a model's rows, got one with them; rename the {what} in its table"
            )
    name = kind if camera is None else f"{kind}/{camera}"
    return name if robot is None else f"{robot}:{name}"


def kind_of(name: str) -> str:
    """ "image" of "aloha:image/front"."""
    return name.rpartition(":")[2].partition("/")[0]


def camera_of(name: str) -> str | None:
    """ "front" of "aloha:image/front"; None of a row that is of no camera."""
    return name.rpartition(":")[2].partition("/")[2] or None


def robot_of(name: str) -> str | None:
    """ "aloha" of "aloha:image/front"; None in a model of one robot."""
    return name.rpartition(":")[0] or None


def rows_of(kinds: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Those of a layout's `names` that are of `kinds`, in the order of kinds."""
    names = tuple(names)
    return tuple(name for kind in kinds for name in names if kind_of(name) == kind)


def by_row(values: Mapping[str, Value], names: Collection[str]) -> dict[str, Value]:
    """Settings by kind -> the same by row of a layout, in the order of the settings."""
    return {name: value for kind, value in values.items() for name in rows_of((kind,), names)}
