"""What is said of robots and data before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robotics.data.batches import Dataset
from robotics.data.mixture import DatasetMixture
from robotics.embodiment import normalize
from robotics.embodiment.parts import Part
from robotics.model.robot_model import GROUPS, RobotModel
from robotics.training.texts import text_lines

_NO_UNIT = ("quaternion_xyzw", "quaternion_wxyz", "rot6d", "matrix")


def data_lines(
    name: Any, train: Dataset, held_out: Dataset, drawn: Mapping[str, float], text_length: int
) -> list[str]:
    """What is trained on. drawn: windows of every set; name: of the data, for people."""
    sets = []
    if isinstance(train, DatasetMixture):
        name = "a mixture, statistics pooled by weight for each robot"
        sets = [f"            {line}" for line in train.describe(drawn)]
    return [
        f"data        {name}: {train.num_episodes} episodes, {len(train)} windows to "
        f"train on; {held_out.num_episodes} episodes, {len(held_out)} windows held out",
        *sets,
        *text_lines(train, text_length),
    ]


def robot_lines(robot: RobotModel) -> list[str]:
    """How a robot was understood, and what of its statistics will not train well."""
    table = robot.robot
    named = table.name
    if table.embodiment != table.name:
        named += f" ({table.embodiment})"
    chunk = f", {robot.horizon} actions in a chunk" if robot.coder.action_width else ""
    lines = [
        f"robot       {named}, {table.rate:g} Hz{chunk}, future frames "
        f"{', '.join(map(str, robot.video_offsets))} steps ahead"
        + (
            f", past ones {', '.join(map(str, robot.history_offsets))}"
            * bool(robot.history_offsets)
        )
    ]
    for camera, size in robot.image_sizes.items():
        row = table.camera(camera)
        recorded = "" if row.size is None else f"{row.size[0]} x {row.size[1]} to "
        turned = f", turned by {row.rotate} degrees" if row.rotate else ""
        view = row.view.replace("_", " ")
        shape = f"{size[0]} x {size[1]}{_stretch(row.size, size)}"
        lines.append(f"camera      {camera}: {view}, {recorded}{shape}{turned}")
    for group in GROUPS:
        lines += [f"{group:<12}{line}" for line in _parts(robot, group)]
    for group, normalizer in robot.normalizers.items():
        fields = robot.coder.fields(group)
        found = normalize.warnings(normalizer.statistics, fields)
        lines += [f"warning     {group}: {line}" for line in found]
    return lines


def _stretch(recorded: Sequence[int] | None, size: Sequence[int]) -> str:
    """A remark where the pictures' proportions are changed by more than a twentieth."""
    if recorded is None:
        return ""
    factor = size[1] * recorded[0] / (size[0] * recorded[1])
    return "" if abs(factor - 1) < 0.05 else f", {factor:.2f} times as wide for its height"


def _parts(robot: RobotModel, group: str) -> list[str]:
    parts: Sequence[Part] = getattr(robot.robot, group)
    if not parts:
        return ["none: the future frames alone are trained" if group == "action" else "none"]
    places: Mapping[str, slice] = robot.coder.slices(group)
    names = robot.coder.state_names if group == "state" else robot.coder.action_names
    lines = []
    for part in parts:
        mine = [name.removeprefix(f"{part.name}.") for name in names[places[part.name]]]
        shown = f" ({', '.join(mine)})" if len(mine) > 1 or mine != [part.name] else ""
        moves = f", {_moves(robot, part)}" if group == "action" else ""
        lines.append(f"{part.name}: {_what(part)}{moves}{shown}")
    if group == "action" and robot.coder.terminate:
        lines.append("terminate: whether the task ends with the action")
    return lines


def _what(part: Part) -> str:
    if part.kind == "gripper":
        return f"gripper, open {_number(part.open)}, closed {_number(part.closed)}"
    unit = "" if part.unit == "none" or part.form in _NO_UNIT else f" in {part.unit}"
    scale = "" if part.scale == 1.0 else f" times {_number(part.scale)}"
    return f"{part.kind}{f' as {part.form}' if part.form else ''}{unit}{scale}"


def _number(value: Any) -> str:
    return ", ".join(f"{one:g}" for one in value) if isinstance(value, tuple) else f"{value:g}"


def _moves(robot: RobotModel, part: Part) -> str:
    given = robot.coder.mode(part.name)
    return str(part.mode) if given == part.mode else f"{part.mode}, to the model as {given}"
