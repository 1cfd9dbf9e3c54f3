"""Finding and reading the tables of robots: shipped ones by name, anyone's by path."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robotics.embodiment.parts import Part, PartModel
from robotics.embodiment.recording import Camera, Filter, Instruction, Steps, Window
from robotics.embodiment.robot import Robot
from selfflow_wm.plugins import ROBOTS

TABLES = Path(__file__).resolve().parents[2] / "configs" / "robot"
DEFAULT = "rt1"
_MERGED = ("cameras", "state", "action", "steps", "window", "renames", "keys", "proprio")
"""Entries of which a file that extends another states only what differs."""


def load_robot(source: str | Path | Mapping[str, Any] | Robot | None = None) -> Robot:
    """A robot's table by shipped name ("rt1"), by path of a yaml, or from its content.

    None is RT-1's.

    Raises:
        ValueError: no such file, unknown or missing entries, or values that cannot be.
    """
    if isinstance(source, Robot):
        return source
    name = "given" if isinstance(source, Mapping) else Path(str(source or DEFAULT)).stem
    content = _resolved(source or DEFAULT, ())
    try:
        renames = content.pop("renames", None) or {}
        content = {
            # Keys of other protocols are no paths of the recording.
            key: value if key == "keys" else _renamed(value, renames)
            for key, value in content.items()
        }
        if "control_hz" in content:
            content = _modern(content)
        return _robot({"name": name} | content)
    except ValueError as error:
        raise ValueError(f"robot {content.get('name', name)}: {error}") from None


@functools.cache
def shipped(name: str = DEFAULT) -> Robot:
    """`load_robot` of a shipped table."""
    return load_robot(name)


def _robot(content: dict[str, Any]) -> Robot:
    rows: dict[str, Any] = dict(content)
    rows["cameras"] = tuple(
        _build(Camera, {"path": row} if isinstance(row, str) else row, f"cameras.{key}", name=key)
        for key, row in _mapping(rows.get("cameras"), "cameras").items()
        if row is not None
    )
    for group in ("state", "action"):
        rows[group] = tuple(
            _part(row, f"{group}.{key}", str(key))
            for key, row in _mapping(rows.get(group), group).items()
            if row is not None
        )
    rows["instruction"] = _instruction(rows.get("instruction"))
    rows["steps"] = _build(Steps, rows.get("steps") or {}, "steps")
    rows["window"] = _build(Window, rows.get("window") or {}, "window")
    rows["filters"] = tuple(
        _build(Filter, row, f"filters[{number}]")
        for number, row in enumerate(rows.get("filters") or [])
    )
    rows["keys"] = {
        str(key): {str(k): str(v) for k, v in _mapping(row, f"keys.{key}").items()}
        for key, row in _mapping(rows.get("keys"), "keys").items()
    }
    return _build(Robot, rows, "")


def _part(row: Any, place: str, name: str) -> Part:
    content = dict(_mapping(row, place))
    content["model"] = _build(PartModel, content.get("model") or {}, f"{place}.model")
    content["names"] = tuple(content.get("names") or ())
    return _build(Part, content, place, name=name)


def _instruction(value: Any) -> Instruction:
    if value is None:
        return Instruction()
    if isinstance(value, str):
        value = {"paths": [value]}
    if isinstance(value, Sequence):
        value = {"paths": list(value)}
    paths = _mapping(value, "instruction").get("paths") or []
    paths = [paths] if isinstance(paths, str) else paths
    return _build(Instruction, {**value, "paths": tuple(map(str, paths))}, "instruction")


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{place}: expected key: value lines, got {value!r}; see template.yaml.")
    return value


def _build(kind: Any, values: Any, place: str, **fixed: Any) -> Any:
    prefix = f"{place}." if place else ""
    known = {item.name: item for item in dataclasses.fields(kind)}
    content = {**_mapping(values, place or "the file"), **fixed}
    if unknown := sorted(set(map(str, content)) - set(known)):
        raise ValueError(
            f"expected entries out of {sorted(set(known) - set(fixed))}, got unknown "
            f"{', '.join(prefix + key for key in unknown)}; see template.yaml."
        )
    missing = dataclasses.MISSING
    required = [
        key
        for key, item in known.items()
        if item.default is missing and item.default_factory is missing
    ]
    if absent := [key for key in required if content.get(key) is None]:
        raise ValueError(
            f"expected {', '.join(prefix + key for key in absent)}, got no such entry; see "
            "template.yaml."
        )
    lists = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
    try:
        return kind(**lists)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{prefix}{error}") from None


# ---------------------------------------------------------------- files


def read_yaml(path: Path) -> Any:
    """The content of a yaml file, interpolations resolved; ValueError where it is none."""
    from omegaconf import OmegaConf

    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:  # the yaml parser's errors have no common base
        raise ValueError(
            f"{path}: expected a yaml, got {error}; inside braces a path with brackets needs "
            'quotes, such as {path: "action[0:3]"}.'
        ) from error


def _resolved(source: str | Path | Mapping[str, Any], seen: tuple[str, ...]) -> dict[str, Any]:
    """The content with whatever it extends merged in."""
    content = dict(source) if isinstance(source, Mapping) else _load(source)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(source, Mapping) and (near := Path(source).parent / str(base)).is_file():
        base = near
    base = str(base)
    if base in seen:
        raise ValueError(f"expected tables that extend no circle, got {(*seen, base)}.")
    merged = _resolved(base, (*seen, base))
    # A robot of its own has its own name, even if it is like another.
    merged.pop("name", None)
    if "control_hz" in content and "rate" in merged:
        raise ValueError(
            f"expected entries as {base} has them (rate, state, action.PART ...), got those of "
            "the old format (control_hz, proprio ...); see template.yaml."
        )
    for key, value in content.items():
        if key in _MERGED and isinstance(value, Mapping):
            merged[key] = _merged(merged.get(key) or {}, value)
        else:
            merged[key] = value
    return merged


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in change.items():
        before = found.get(key)
        inside = isinstance(value, Mapping) and isinstance(before, Mapping)
        found[key] = _merged(before, value) if inside else value  # pyright: ignore
    return found


def _load(source: str | Path) -> dict[str, Any]:
    path = TABLES / f"{source}.yaml"
    if not path.is_file():
        path = Path(ROBOTS.load(str(source)) if source in ROBOTS.names() else source)
    if path.parent.name == "dataset_spec" and not path.is_file():  # what configs/robot once was
        path = TABLES / {"bridge.yaml": "bridge_dataset.yaml"}.get(path.name, path.name)
    if not path.is_file():
        names = sorted({*(file.stem for file in TABLES.glob("*.yaml")), *ROBOTS.usable()})
        raise ValueError(
            f"expected one of {names} or the path of a yaml, got {str(source)!r}; "
            f"copy {TABLES / 'template.yaml'} to start one."
        )
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected key: value lines, got {type(content).__name__}.")
    return content  # pyright: ignore


def _renamed(content: Any, renames: Mapping[str, str]) -> Any:
    """Every path that is renamed, with its brackets kept."""
    if isinstance(content, Mapping):
        return {key: _renamed(value, renames) for key, value in content.items()}
    if isinstance(content, list):
        return [_renamed(value, renames) for value in content]
    if isinstance(content, str):
        path, bracket, rest = content.partition("[")
        return renames.get(path, path) + bracket + rest
    return content


# ---------------------------------------------------------------- the format before this one


def _modern(old: Mapping[str, Any]) -> dict[str, Any]:
    """A file of the format before this one (control_hz, action.kind, proprio), of robots with one
    tool, one camera and eight values."""
    unknown = set(old) - {
        "name", "control_hz", "cameras", "camera", "instruction", "action", "proprio", "reward",
        "is_terminal", "success", "filters",
    }  # fmt: skip
    if unknown:
        raise ValueError(
            f"expected entries of one format, got control_hz and {sorted(unknown)}; write rate "
            "instead of control_hz, see template.yaml."
        )
    action, cameras = dict(old.get("action") or {}), dict(old.get("cameras") or {})
    chosen = old.get("camera") or next(iter(cameras), None)
    return {
        **{key: old[key] for key in ("name", "reward", "success", "filters") if key in old},
        "rate": old["control_hz"],
        "cameras": {name: {"path": path, "use": name == chosen} for name, path in cameras.items()},
        "instruction": old.get("instruction"),
        "state": _old_parts(dict(old.get("proprio") or {}), (0.0, 1.0), None),
        "action": _old_parts(action, (-1.0, 1.0), action.get("kind", "delta")),
        "terminate": action.get("terminate") or old.get("is_terminal"),
    }


def _old_parts(pose: Mapping[str, Any], default: Any, mode: str | None) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    moving = {} if mode is None else {"mode": mode}
    if pose.get("position"):
        parts["position"] = {"path": pose["position"], "kind": "position", **moving}
    if pose.get("rotation"):
        form = pose.get("rotation_kind", "euler_xyz")
        row = {"path": pose["rotation"], "kind": "rotation", "form": form, **moving}
        parts["rotation"] = row
    if pose.get("gripper"):
        low, high = pose.get("gripper_range") or default
        ends = {"open": low, "closed": high}
        if pose.get("gripper_closes", "positive") == "negative":
            ends = {"open": high, "closed": low}
        command = {} if mode is None else {"mode": "absolute"}
        parts["gripper"] = {"path": pose["gripper"], "kind": "gripper", **ends, **command}
    return parts
