"""Checkpoint directories: finding them, reading config.json, fingerprints.

DIR/config.json             schema 3: `kind` of network and its `arguments`, `layout`, `codecs`,
                            `training` (the run's configuration) and, of a world model, `robot`:
                            `robots` (by name: table, statistics, sizes of pictures, window), modes
DIR/model.safetensors       weights (the EMA's, as a rule)
DIR/codec_NAME.safetensors  the fitted tensors of each of `codecs`

Directories of schema 1, of which there were two, and of schema 2 are read as if they were of schema
3: `read_config`, and `current_weight` for the names of weights. Torch is not needed: commands look
here before they load anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from selfflow_wm.files import file_digest, read_json

SCHEMA = 3
"""Version of config.json. Raise it when a reader of the old one would misread the new one."""

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints"
"""Checkpoints that come with the project, each under its name."""

KINDS = ("backbone", "sit")
"""Networks: `model.Backbone` and `model.SiT`."""

_KEYS = {"schema", "kind", "arguments", "layout", "codecs", "training", "robot"}
_ROBOT_KEYS = {"robots", "modes", "condition_level"}
_EACH_ROBOT = {
    "table", "statistics", "statistics_hash", "image_sizes", "horizon", "video_offsets",
    "history_offsets", "terminate", "modes",
}  # fmt: skip
_EARLIER_ROBOTS = ("embedded", "google_robot", "widowx")
"""Robots of schemas 1 and 2, now shipped tables of the same names."""
_EARLIER_ROWS = {
    "image": "image/head", "history": "history/head", "video": "video/head", "proprio": "state",
}  # fmt: skip
"""Rows of the layouts of schemas 1 and 2 -> today's names; "head" is the camera of those tables."""


def find_checkpoint(name: Path | str) -> Path:
    """The directory that `name` means: a checkpoint's own, a run's (its newest checkpoint), or the
    name of one in `SHIPPED`. ValueError when there is none."""
    place = Path(name).expanduser()
    for path in (place, place / "checkpoint", SHIPPED / str(name)):
        if (path / "config.json").is_file():
            return path
    names = sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))
    near = get_close_matches(str(name), names, 1)
    remedy = f"write {near[0]}" if near else "check the path, or train until the first export"
    raise ValueError(
        f"{name}: expected a checkpoint directory (config.json and model.safetensors), a run's "
        f"directory with its checkpoint/, or a name out of {', '.join(names) or 'none here'}, got "
        f"{'a directory without' if place.is_dir() else 'nothing there'}; {remedy}"
    )


def fingerprint(path: Path | str) -> str:
    """SHA-256 (hex) over the names and contents of a checkpoint's files, or of a single file."""
    path = Path(path)
    if path.is_file():
        return file_digest(path)
    files = sorted(f for f in path.iterdir() if f.suffix in (".safetensors", ".json"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0")
        digest.update(bytes.fromhex(file_digest(file)))
    return digest.hexdigest()


def read_config(path: Path | str, robot: bool | None = None) -> dict[str, Any]:
    """The checked config.json of the checkpoint directory `path`, as schema 3.

    robot: True wants a robot's world model, False anything else, None takes both.

    Raises:
        ValueError: no checkpoint there, another schema, missing or unknown keys, or a checkpoint of
            another kind than wanted.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(
            f"{path}: expected a checkpoint directory, got nothing there; give the directory that "
            "holds model.safetensors and config.json"
        )
    config = read_json(path / "config.json")
    if not isinstance(config, Mapping) or config.get("schema") not in (1, 2, SCHEMA):
        found = config.get("schema") if isinstance(config, Mapping) else config
        raise ValueError(
            f"{path}: expected config.json of checkpoint schema {SCHEMA}, got {found!r}; use the "
            "version of this package that wrote it, or train again"
        )
    old = config["schema"] == 1
    _check_kind(path, "kind" not in config if old else bool(config.get("robot")), robot)
    try:
        read = dict(config)
        if old:
            read = _bare_1(config) if "kind" in config else _robot_1(path, config)
        if read["schema"] == 2:
            read = _from_2(path, read)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: config.json lacks {error}; the file was edited?") from None
    _check_keys(path, read)
    return read


def _check_kind(path: Path, found: bool, wanted: bool | None) -> None:
    if wanted is True and not found:
        raise ValueError(
            f"{path}: expected a robot's world model, as robotics.finetune writes, got a "
            "checkpoint without a robot, as selfflow_wm.pretrain writes; make a world model of it "
            f"with python -m robotics.finetune init={path}"
        )
    if wanted is False and found:
        raise ValueError(
            f"{path}: expected a model without a robot, as selfflow_wm.pretrain writes, got a "
            "robot's world model; python -m robotics.imagine shows what it makes, python -m "
            "eval.simpler runs it"
        )


def _check_keys(path: Path, config: Mapping[str, Any]) -> None:
    robot = config.get("robot") or dict.fromkeys(_ROBOT_KEYS, {})
    missing = (_KEYS - set(config)) | (_ROBOT_KEYS - set(robot))
    for one in dict(robot.get("robots") or {}).values():
        missing |= _EACH_ROBOT - set(one)
    if missing or (unknown := set(config) - _KEYS):
        raise ValueError(
            f"{path}: expected the config.json keys {sorted(_KEYS)}, the section robot with "
            f"{sorted(_ROBOT_KEYS)} and each of its robots with {sorted(_EACH_ROBOT)}, got "
            + (f"none of {sorted(missing)}" if missing else f"{sorted(unknown)} beside them")
            + "; the file was edited?"
        )
    if config["kind"] not in KINDS:
        raise ValueError(
            f"{path}: expected a kind among {sorted(KINDS)}, got {config['kind']!r}; use the "
            "version of this package that wrote it"
        )


def _bare_1(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of models without a robot: the codec of a single modality stood apart from `codecs`."""
    codecs = {name: dict(row) for name, row in config.get("codecs", {}).items()}
    if config["codec"] is not None:
        name = config["layout"]["modalities"][0]["name"]
        codecs[name] = {"config": config["codec"], "hash": config["codec_hash"]}
        codecs[name]["file"] = "codec.safetensors"
    kept = {key: config[key] for key in ("kind", "arguments", "layout", "training")}
    return {"schema": 2, **kept, "codecs": codecs, "robot": None}


def _robot_1(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of world models: statistics in a file of their own, everything of the robot's at the top.

    The oldest hold neither a hash of the statistics nor, with them, the robot's name.
    """
    file, robot = path / "statistics.json", config["embodiment"]
    statistics = dict(read_json(file))
    if (found := statistics.pop("embodiment", robot)) != robot:
        raise ValueError(
            f"{file}: expected statistics of the embodiment {robot!r}, got those of {found!r}; "
            "actions would have another scale. Copy the whole checkpoint directory"
        )
    codec = {"config": config["video_codec"], "hash": config["codec_hash"]}
    return {
        "schema": 2,
        "kind": "backbone",
        "arguments": config["backbone"],
        "layout": config["layout"],
        "codecs": {"video": codec | {"file": "statistics.safetensors"}},
        "training": config["training"],
        "robot": {
            "embodiment": robot,
            "statistics": statistics,
            "statistics_hash": config.get("statistics_hash"),
            **{key: config[key] for key in ("video_offsets", "modes", "condition_level")},
        },
    }


def _from_2(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of one robot with one camera, whose rows were named by their kinds."""
    if not config["robot"]:
        return {**config, "schema": SCHEMA}
    robot, layout = config["robot"], config["layout"]
    name = robot["embodiment"]
    if name not in _EARLIER_ROBOTS:
        raise ValueError(
            f"{path}: expected an embodiment out of {', '.join(_EARLIER_ROBOTS)} in a checkpoint "
            f"of this schema, got {name!r}; the file was edited?"
        )
    _check_statistics(path, robot)
    found = {row["name"]: row for row in layout["modalities"]}
    statistics = dict(robot["statistics"])
    past, codec = found.get("history"), config["codecs"]["video"]
    rows = [row | {"name": _EARLIER_ROWS.get(row["name"], row["name"])} for row in found.values()]
    arguments = dict(config["arguments"])
    if "vector_in" in arguments:
        given = arguments["vector_in"]
        arguments["vector_in"] = [_EARLIER_ROWS.get(one, one) for one in given]
    size = codec["config"]["base"]["image_size"]
    return {
        **config,
        "schema": SCHEMA,
        "arguments": arguments,
        "layout": layout | {"modalities": rows},
        "codecs": {"video/head": {"file": "codec_video.safetensors"} | codec},
        "robot": {
            "robots": {
                name: {
                    "table": name,
                    "statistics": {
                        "action": statistics["action"],
                        "state": statistics["proprio"],
                    },
                    "statistics_hash": None,  # checked above, by the formula it was made with
                    "image_sizes": {"head": size},
                    "horizon": found["action"]["grid"][0],
                    "video_offsets": robot["video_offsets"],
                    "history_offsets": []
                    if past is None
                    else [
                        -int(past["time_origin"] + past["time_stride"] * number)
                        for number in range(past["grid"][0])
                    ],
                    # Models that do not end a sub-task by themselves lack the last value.
                    "terminate": found["action"]["channels"] == 8,
                    "modes": None,
                }
            },
            "modes": robot["modes"],
            "condition_level": robot["condition_level"],
        },
    }


def _check_statistics(path: Path, robot: Mapping[str, Any]) -> None:
    """ValueError unless these are the statistics that a model of schema 1 or 2 was trained with."""
    statistics = robot["statistics"]
    if missing := sorted({"action", "proprio"} - set(statistics)):
        raise ValueError(
            f"{path}: expected statistics of action and proprio, {missing} missing; copy the whole "
            "checkpoint directory"
        )
    values = {name: {"kind": "quantiles"} | statistics[name] for name in ("action", "proprio")}
    text = json.dumps({"embodiment": robot["embodiment"], **values}, sort_keys=True)
    check_statistics_hash(path, robot["statistics_hash"], hashlib.sha256(text.encode()).hexdigest())


def check_statistics_hash(path: Path, expected: str | None, got: str) -> None:
    """ValueError unless the statistics are those the model was trained with. expected: None in the
    oldest checkpoints."""
    if expected not in (None, got):
        raise ValueError(
            f"{path}: expected the statistics {expected[:12]} the model was trained with, got "
            f"{got[:12]}; the file is of another checkpoint or was edited. Copy the whole "
            "checkpoint directory"
        )


def current_weight(name: str, schema: int) -> str:
    """A world model's weight as schema 3 names it. schema: of the config.json beside it."""
    first, _, rest = name.partition(".")
    row, dot, tail = rest.partition(".")
    if schema >= SCHEMA or first not in ("embed", "head", "gate", "vector_in"):
        return name
    return f"{first}.{_EARLIER_ROWS.get(row, row)}{dot}{tail}"
