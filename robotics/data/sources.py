"""The data sets that `data=` names: whether they fit together, and their windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robotics.data.cameras import camera_sizes
from robotics.data.mixture import DatasetMixture, check_same_robot
from robotics.data.rlds.storage import expanded
from robotics.data.windows import WindowDataset
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot, read_yaml

WINDOW = ("cameras", "image_size", "horizon", "video_offsets")
"""Of the section `dataset`, what a set of a mixture may state for itself."""


@dataclass(frozen=True)
class MixtureEntry:
    """One data set of a mixture; None: as the run's configuration has it."""

    path: str
    """Directory of the data set, or the URL of an RLDS one."""
    weight: float = 1.0
    """Its part of the windows drawn, relative to the other sets'."""
    spec: str | Mapping[str, Any] | None = None
    """The robot's table: a file of configs/robot, a path, or its content. Sets whose tables have
    one name are of one robot."""
    train_split: str | None = None
    validation_split: str | None = None
    embodiment: str | None = None
    """The robot itself, instead of the table's."""
    cameras: Any = None
    """As `dataset.cameras`."""
    image_size: Sequence[int] | None = None
    horizon: int | None = None
    video_offsets: Sequence[int] | None = None


def parse_mixture(data: Any) -> dict[str, MixtureEntry] | None:
    """The sets of `data` by name; None when it is a plain directory.

    data: the path of a yaml (see configs/dataset/mixture_template.yaml), its content (name: entry),
    or a list of entries, which are then named by their directories.

    ValueError: unknown or missing keys, a weight that is no positive number, or a name twice.
    """
    if isinstance(data, (str, Path)):
        if not str(data).endswith((".yaml", ".yml")):
            return None
        if not Path(data).is_file():
            raise ValueError(f"data: expected a directory or a yaml, got {data}: not there")
        data = read_yaml(Path(data))
    if isinstance(data, Sequence):
        names = [Path(str(_mapping(row, "data").get("path", ""))).name for row in data]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"data: expected sets with different directory names, got {doubled} more than "
                "once; name them: data={one: {path: ...}, two: {path: ...}}"
            )
        data = dict(zip(names, data, strict=True))
    rows = _mapping(data, "data")
    if not rows:
        raise ValueError("data: expected at least one data set, got none")
    return {str(name): _entry(f"data.{name}", row) for name, row in rows.items()}


def to_plain(entries: Mapping[str, MixtureEntry]) -> dict[str, Any]:
    """JSON values, which `parse_mixture` reads back."""
    return {name: dataclasses.asdict(entry) for name, entry in entries.items()}


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{place}: expected a directory, a yaml, or sets such as {{path: DIR, weight: 2}}, got "
            f"{value!r}; see configs/dataset/mixture_template.yaml"
        )
    return value


def _entry(place: str, row: Any) -> MixtureEntry:
    known = [item.name for item in dataclasses.fields(MixtureEntry)]
    unknown = sorted(set(_mapping(row, place)) - set(known))
    if unknown or not row.get("path"):
        raise ValueError(
            f"{place}: expected a path, and entries out of {known}, got {sorted(row)}; see "
            "configs/dataset/mixture_template.yaml"
        )
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight > 0:
        raise ValueError(f"{place}: expected a weight above 0, got {weight!r}")
    path = expanded(str(row["path"]))
    return MixtureEntry(**{**row, "path": path, "weight": float(weight)})


def robot_of(spec: Any, embodiment: str | None) -> Robot:
    """The table that data are read with; embodiment: instead of the one it states."""
    robot = load_robot(spec)
    return dataclasses.replace(robot, embodiment=embodiment) if embodiment else robot


def check_conventions(
    entries: Mapping[str, MixtureEntry],
    spec: Any = None,
    embodiment: str | None = None,
    mixed_rates: bool | None = None,
) -> None:
    """Refuse sets of one robot in which the same action means different motions.

    Args:
        entries: the sets.
        spec, embodiment: for the sets that state none.
        mixed_rates: let control rates of a robot's sets differ. An action is a motion within one
            control step: at another rate the same values are another speed, and a horizon another
            time.

    Raises:
        ValueError: which sets differ, and in what.
    """
    groups: dict[str, list[tuple[str, Robot]]] = {}
    for name, entry in entries.items():
        try:
            robot = robot_of(entry.spec or spec, entry.embodiment or embodiment)
        except ValueError as error:
            raise ValueError(f"data.{name}: {error}") from error
        groups.setdefault(robot.name, []).append((name, robot))
    for name, rows in groups.items():
        for other in rows[1:]:
            check_same_robot(*rows[0], *other)
        rates = {place: robot.rate for place, robot in rows}
        if len(set(rates.values())) > 1 and not mixed_rates:
            listed = ", ".join(f"{place} {rate:g} Hz" for place, rate in rates.items())
            raise ValueError(
                f"data: expected sets of robot {name} of one control rate, got {listed}; an action "
                "is the motion of one control step. To train on them anyway: mixed_rates=true"
            )


def open_data(config: DictConfig, split: str) -> WindowDataset | DatasetMixture:
    """The windows of `config.data`, one set or several. split: "train_split" or
    "validation_split", of the configuration or of the sets that state one."""
    if isinstance(config.data, str):
        return open_dataset(config, config.dataset[split])
    entries = parse_mixture(OmegaConf.to_container(config.data)) or {}
    spec = _plain(config.spec)
    check_conventions(entries, spec, config.embodiment, config.mixed_rates)
    parts = {}
    for name, entry in entries.items():
        changed = {key: getattr(entry, key) for key in WINDOW if getattr(entry, key) is not None}
        try:
            parts[name] = _open(
                config,
                entry.path,
                getattr(entry, split) or config.dataset[split],
                changed,
                spec=entry.spec or spec,
                embodiment=entry.embodiment or config.embodiment,
                frame_cache_mb=config.frame_cache_mb / len(entries),
            )
        except ValueError as error:
            raise ValueError(f"data.{name}: {error}") from error
    return DatasetMixture(parts, {name: entry.weight for name, entry in entries.items()})


def open_dataset(
    config: DictConfig, split: str, image_sizes: Mapping[str, Sequence[int]] | None = None
) -> WindowDataset:
    """The windows of one split of the one set `config.data`. image_sizes: the cameras and the size
    of their frames, instead of the configuration's."""
    if not isinstance(config.data, str):
        raise ValueError("expected data=DIR, got a mixture; this is done one data set at a time")
    sizes = {camera: {"size": list(size)} for camera, size in (image_sizes or {}).items()}
    changed = {"cameras": sizes} if sizes else {}
    return _open(config, config.data, split, changed)


def _open(
    config: DictConfig, directory: str, split: str, changed: Mapping[str, Any], **options: Any
) -> WindowDataset:
    """changed: of the section `dataset`. options: of `WindowDataset`, instead of the run's."""
    settings: Any = {**_plain(config.dataset), **changed}
    reading = ("on_error", "decoded", "frame_cache_mb", "draft", "embodiment", "seed")
    options = {name: config[name] for name in reading} | {"spec": _plain(config.spec)} | options
    sizes = camera_sizes(settings, robot_of(options["spec"], None))
    window = ("horizon", "video_offsets", "history", "history_stride", "cache_dir")
    return WindowDataset(
        directory,
        next(iter(sizes.values())),
        cameras=list(sizes),
        image_sizes=sizes,
        split=split,
        terminate=config.layout.get("terminate", True),
        **{name: settings[name] for name in window},
        **options,
    )


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
