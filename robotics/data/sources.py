"""The data sets that `data=` names: whether they fit together, and their windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robotics.data.mixture import DatasetMixture
from robotics.data.rlds.spec import load_spec, read_yaml
from robotics.data.rlds.storage import expanded
from robotics.data.windows import WindowDataset
from robotics.embodiment.table import embodiment

CONVENTIONS = ("action_dim", "gripper_closes", "data_rotation")
"""What the robots of one model must share: its actions mean one thing."""


@dataclass(frozen=True)
class MixtureEntry:
    """One data set of a mixture; None: as the run's configuration has it."""

    path: str
    """Directory or URL of the RLDS data set."""
    weight: float = 1.0
    """Its part of the windows drawn, relative to the other sets'."""
    spec: str | None = None
    """How it is read: a file of configs/robot or a path."""
    train_split: str | None = None
    validation_split: str | None = None
    embodiment: str | None = None
    """The robot that recorded it, a row of robotics.embodiment.table."""


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


def check_conventions(
    entries: Mapping[str, MixtureEntry],
    robot: str,
    spec: str | None,
    mixed_rates: bool | None = None,
) -> None:
    """Refuse sets in which the same action means different motions.

    Args:
        entries: the sets.
        robot: row of robotics.embodiment.table the model is for.
        spec: for the sets that state none.
        mixed_rates: let control rates differ. An action is a motion within one control step: at
            another rate the same values are another speed, and a horizon another time.

    Raises:
        ValueError: which sets differ, and in what.
    """
    model = embodiment(robot)
    rates = {}
    for name, entry in entries.items():
        row = embodiment(entry.embodiment or robot)
        if differing := [key for key in CONVENTIONS if getattr(row, key) != getattr(model, key)]:
            raise ValueError(
                f"data.{name}: expected a robot with the action conventions of {robot}, got "
                f"{row.name}, which differs in {', '.join(differing)}; train a separate model"
            )
        rates[name] = load_spec(entry.spec or spec).control_hz
    if len(set(rates.values())) > 1 and not mixed_rates:
        listed = ", ".join(f"{name} {rate:g} Hz" for name, rate in rates.items())
        raise ValueError(
            f"data: expected sets of one control rate, got {listed}; an action is the motion of "
            "one control step. To train on them anyway: mixed_rates=true"
        )


def open_data(config: DictConfig, split: str) -> WindowDataset | DatasetMixture:
    """The windows of `config.data`, one set or several. split: "train_split" or
    "validation_split", of the configuration or of the sets that state one."""
    if isinstance(config.data, str):
        return open_dataset(config, config.dataset[split])
    entries = parse_mixture(OmegaConf.to_container(config.data)) or {}
    check_conventions(entries, config.embodiment, config.spec, config.mixed_rates)
    parts = {}
    for name, entry in entries.items():
        one = config.copy()
        one.data, one.spec = entry.path, entry.spec or config.spec
        one.frame_cache_mb = config.frame_cache_mb / len(entries)
        try:
            parts[name] = open_dataset(one, getattr(entry, split) or config.dataset[split])
        except ValueError as error:
            raise ValueError(f"data.{name}: {error}") from error
    return DatasetMixture(parts, {name: entry.weight for name, entry in entries.items()})


def open_dataset(
    config: DictConfig, split: str, image_size: Sequence[int] | None = None
) -> WindowDataset:
    """The windows of one split of the one set `config.data`. image_size: instead of the
    configuration's."""
    if not isinstance(config.data, str):
        raise ValueError("expected data=DIR, got a mixture; this is done one data set at a time")
    settings: Any = OmegaConf.to_container(config.dataset)
    window = ("horizon", "video_offsets", "history", "history_stride", "cache_dir")
    reading = ("spec", "on_error", "decoded", "frame_cache_mb", "draft")
    return WindowDataset(
        config.data,
        settings["image_size"] if image_size is None else image_size,
        split=split,
        **{name: settings[name] for name in window},
        **{name: config[name] for name in reading},
    )
