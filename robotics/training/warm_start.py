"""Fine-tuning from a checkpoint: of pretraining, or of another fine-tuning run.

A checkpoint holds the EMA weights and no others. Student and teacher both start from them: they are
better than the last student's, they are the ones that were evaluated, and a teacher is the average
of its student's past, so at step 0 the two are equal.

A robot that the checkpoint does not know gets rows of its own beside those of the robots in it,
which go on acting (`init_drop`: they are left out). Its rows start from those whose tokens mean the
same: a camera's from pretraining's image, or from another robot's with the same codec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robotics.data.batches import Dataset
from robotics.model.modes import (
    ACTION,
    HISTORY,
    IMAGE,
    MODES,
    VIDEO,
    camera_of,
    kind_of,
    robot_of,
    row,
)
from robotics.model.robot_model import RobotModel
from robotics.model.world_model import WorldModel
from robotics.training.fit import (
    by_robot,
    layout_of,
    network_of,
    robot_model,
    rows_of_robots,
)
from robotics.training.start import InitCheckpoint, codecs_of, read_source, row_beside
from robotics.training.texts import text_length
from selfflow_wm.layout import BYTE_VOCABULARY, Layout, Modality
from selfflow_wm.training import checkpoint
from selfflow_wm.training.model_files import read_weights
from selfflow_wm.training.transfer import (
    OUTCOMES,
    Transfer,
    differing_shape,
    full_arguments,
    part_of,
    transfer,
)


@dataclass
class Loaded:
    """What was loaded from a checkpoint, for the run's record and for people."""

    source: str
    command: str
    step: int | None
    transfer: Transfer
    codecs: dict[str, str]
    """Row of image or video -> where the codec comes from and why."""
    robots: list[str]
    """Lines on the robots of the checkpoint that the data do not have."""
    projector: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values; counts as [tensors, parameters]."""
        return {
            "source": self.source,
            "written_by": self.command,
            "step": self.step,
            "weights": "EMA, for student and teacher",
            "parts": self.transfer.parts,
            "codecs": self.codecs,
            "robots": self.robots,
            "projector": self.projector,
            "statistics": "of the training data",
            "table": self.lines(),
        }

    def lines(self) -> list[str]:
        """A table of parts: tensors and parameters that were loaded, resized, added, dropped."""
        step = "" if self.step is None else f", step {self.step}"
        shown = [outcome for outcome in OUTCOMES if self.transfer.total(outcome)[0]]
        parts = self.transfer.parts | {"all": {name: self.transfer.total(name) for name in shown}}
        width = max(map(len, [*parts, "tensors, parameters"]))
        return [
            f"init        {self.source} ({self.command}{step}): EMA weights for student and "
            "teacher",
            _row("tensors, parameters", shown, width),
            *(
                _row(name, [_pair(part[outcome]) for outcome in shown], width)
                for name, part in parts.items()
            ),
            *(f"codec       {name}: {words}" for name, words in self.codecs.items()),
            *(f"robot       {words}" for words in self.robots),
            f"projector   {self.projector}",
            "statistics  of the training data",
        ]


def _row(name: str, cells: Sequence[str], width: int) -> str:
    return f"            {name:<{width}}" + "".join(f"{cell:>18}" for cell in cells)


def _pair(counts: Sequence[int]) -> str:
    return f"{counts[0]}, {counts[1]:,}" if counts[0] else "-"


def start_from(
    place: Path | str, dataset: Dataset, config: Mapping[str, Any], modes: Sequence[str]
) -> tuple[WorldModel, Loaded]:
    """The world model of `config` with what it shares with the checkpoint at `place`.

    place: a checkpoint of `selfflow_wm.pretrain` or `robotics.finetune`, or the directory of such
    a run. Modalities keep their projections if their tokens have the same meaning, that is with the
    checkpoint's codec; statistics are those of `dataset`. Robots of the checkpoint that the data do
    not have stay as they are, unless `init_drop` of the configuration leaves them out.

    Raises:
        ValueError: no checkpoint there, not of a backbone, or one of another shape.
    """
    source = read_source(place)
    _check_shape(source, config)
    words: dict[str, str] = {}
    taken: dict[str, dict[str, str]] = {}
    robots: dict[str, RobotModel] = {}
    for name, part in by_robot(dataset).items():
        codecs, said, taken[name] = codecs_of(source, name, part, config)
        robots[name] = robot_model(part, config, modes, codecs)
        words |= {
            f"{name}:{key}" if len(by_robot(dataset)) > 1 else key: v for key, v in said.items()
        }
    kept = {} if config.get("init_drop") else _others(source, robots)
    world = _network(source, robots, kept, dataset, config, modes)
    rows = _sources(source, world, taken, kept)
    weights, layout = _renamed(source, read_weights(source.path), rows)
    done = transfer(world.backbone, weights, layout, list(rows))
    step = source.training.get("step")
    lines = _robot_lines(source, robots, kept)
    return world, Loaded(str(place), source.command, step, done, words, lines)


def _others(source: InitCheckpoint, robots: Mapping[str, RobotModel]) -> dict[str, RobotModel]:
    """The checkpoint's robots that the data do not have."""
    return {name: robot for name, robot in source.robots.items() if name not in robots}


def _robot_lines(
    source: InitCheckpoint, robots: Mapping[str, RobotModel], kept: Mapping[str, RobotModel]
) -> list[str]:
    lines = []
    for name in source.robots:
        if name in robots:
            lines.append(f"{name}: the checkpoint's, with statistics of the training data")
        elif name in kept:
            lines.append(
                f"{name}: kept, with its rows and statistics as they are; the blocks, which it "
                "shares, train on without its data. init_drop=true leaves it out"
            )
        else:
            lines.append(f"{name}: left out (init_drop)")
    new = [name for name in robots if name not in source.robots]
    return lines + [f"{name}: new" for name in new if source.robots]


def _network(
    source: InitCheckpoint,
    robots: Mapping[str, RobotModel],
    kept: Mapping[str, RobotModel],
    dataset: Dataset,
    config: Mapping[str, Any],
    modes: Sequence[str],
) -> WorldModel:
    """The untrained world model of the data's robots and those that are kept."""
    rows = rows_of_robots(robots, config)
    length = text_length(dataset, config["layout"]["text_length"])
    if not kept:
        layout = layout_of(config, rows, modes, length)
        return network_of(robots, layout, config, modes)
    length = max(length, source.layout.text_length)
    layout = layout_of(config, rows, modes, length, several=True)
    others = [
        replace(one, name=_with_robot(one.name, source.robot(one.name)))
        for one in source.layout.modalities
        if source.robot(one.name) in kept
    ]
    layout = replace(layout, modalities=(*others, *layout.modalities))
    all_modes = [name for name in MODES if name in {*modes, *source.modes}]
    world = network_of({**kept, **robots}, layout, config, all_modes)
    return world


def _with_robot(name: str, robot: str) -> str:
    return row(kind_of(name), camera_of(name), robot)


def _sources(
    source: InitCheckpoint,
    world: WorldModel,
    taken: Mapping[str, Mapping[str, str]],
    kept: Mapping[str, RobotModel],
) -> dict[str, str]:
    """Row of the model -> row of the checkpoint that its projections come from: one whose tokens
    hold the same values."""
    found = {}
    for modality in world.layout.modalities:
        robot = world.robot(robot_of(modality.name))
        if robot.name in kept:
            candidates = [one for one in source.layout.names if source.robot(one) == robot.name]
            same = [n for n in candidates if _bare(n) == _bare(modality.name)]
        else:
            same = _alike(source, modality, robot, taken[robot.name])
        if same:
            found[modality.name] = same[0]
    return found


def _bare(name: str) -> str:
    """A row's name without its robot's."""
    return name.rpartition(":")[2]


def _alike(
    source: InitCheckpoint, modality: Modality, robot: RobotModel, taken: Mapping[str, str]
) -> list[str]:
    """The checkpoint's rows with tokens like these, the same robot's first. taken: by row of image
    or video, the checkpoint's whose codec this robot has."""
    name, kind = _bare(modality.name), kind_of(modality.name)
    if kind in (IMAGE, HISTORY, VIDEO):
        coded = row(VIDEO if kind == VIDEO else IMAGE, camera_of(name))
        if coded not in taken:
            return []
        theirs = taken[coded]
        names = [row_beside(theirs, kind)]
    else:
        names = [one for one in source.layout.names if kind_of(one) == kind]
        names = [one for one in names if _same_values(source, one, robot)]
        names.sort(key=lambda one: source.robot(one) != robot.name)
    return [
        one
        for one in names
        if one in source.layout and source.layout[one].channels == modality.channels
    ]


def _same_values(source: InitCheckpoint, name: str, robot: RobotModel) -> bool:
    """Whether a row of the checkpoint holds the values that this robot's of its kind does."""
    theirs = source.robots.get(source.robot(name))
    if theirs is None:
        return False
    if kind_of(name) == ACTION:
        return theirs.coder.action_names == robot.coder.action_names
    return theirs.coder.state_names == robot.coder.state_names


def _renamed(
    source: InitCheckpoint, weights: Mapping[str, torch.Tensor], rows: Mapping[str, str]
) -> tuple[dict[str, torch.Tensor], Layout]:
    """The checkpoint's weights and layout by the names of the model's rows. rows: see `_sources`;
    several rows may start from one. What none starts from keeps its name."""
    targets: dict[str, list[str]] = {}
    for target, name in rows.items():
        targets.setdefault(name, []).append(target)
    unused = {  # whose name may be that of a row which starts from another
        name: f"{name} (not used)" if name in rows else name
        for name in source.layout.names
        if name not in targets
    }
    found = {}
    for name, value in weights.items():
        modality = part_of(name)[1]
        if modality is None:
            found[name] = value
            continue
        first = name.partition(".")[0]
        rest = name.removeprefix(f"{first}.{modality}")
        for target in targets.get(modality, [unused.get(modality, modality)]):
            found[f"{first}.{target}{rest}"] = value
    modalities = [replace(source.layout[name], name=target) for target, name in rows.items()]
    modalities += [replace(source.layout[name], name=new) for name, new in unused.items()]
    return found, replace(source.layout, modalities=tuple(modalities))


def _check_shape(source: InitCheckpoint, config: Mapping[str, Any]) -> None:
    asked, found = full_arguments(config["model"]), full_arguments(source.arguments)
    if differing := differing_shape(asked, found):
        raise ValueError(
            f"init={config['init']}: expected a backbone with "
            + ", ".join(f"{name} {asked[name]}" for name in differing)
            + ", got "
            + ", ".join(f"{name} {found[name]}" for name in differing)
            + "; set "
            + " ".join(f"model.{name}={found[name]}" for name in differing)
            + ", or choose another checkpoint"
        )
    if source.layout.vocabulary != BYTE_VOCABULARY:
        raise ValueError(
            f"init={config['init']}: expected captions of {BYTE_VOCABULARY} ids (bytes), got "
            f"{source.layout.vocabulary}; choose a checkpoint trained on captions"
        )


# ---------------------------------------------------------------- projector


def adopt_projector(place: Path | str, objective: Mapping[str, Any], modules: nn.Module) -> str:
    """Load the projector of the run at `place` into the objective's `modules`, if there is one of
    the same objective; returns a description of what was done.

    A checkpoint has no projector; the last state of the run has. A new one has to be learned
    first, and until then pulls the student towards an arbitrary projection.

    objective: the configuration's.
    """
    if not list(modules.parameters()):
        return "none"
    source = read_source(place)
    if source.run is None:
        return "new: a checkpoint has none; give the run's directory to keep it"
    state = checkpoint.latest_step(source.run / "state")
    file = state / "objective.safetensors" if state else None
    if file is None or not file.is_file():
        return f"new: no state in {source.run / 'state'}"
    theirs = source.training.get("objective") or {}
    keys = ("_target_", "student_layer", "teacher_layer")
    if differing := [key for key in keys if objective.get(key) != theirs.get(key)]:
        return "new: another objective, " + ", ".join(
            f"{key} {objective.get(key)} and there {theirs.get(key)}" for key in differing
        )
    try:
        checkpoint.load_strict(modules, checkpoint.load_tensors(file), file)
    except ValueError:
        return "new: the run's is of another shape"
    count = sum(parameter.numel() for parameter in modules.parameters())
    return f"the run's, {count:,} parameters, from {file.parent.name}"
