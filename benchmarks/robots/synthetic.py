"""A small data set in any robot's own schema, from its table and `benchmarks.robots.world`.

What the table says of a part (kind, mode, frame, unit, scale, sense of the gripper ...) is what is
written; its paths are the record's features. So whoever writes a table can try it before the data
are there, and the table's claims can be checked on data for which they are true.

    python -m benchmarks.robots.synthetic my_robot.yaml --out data/trial
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks.robots.lerobot import is_lerobots, write_lerobot
from benchmarks.robots.world import JOINTS, Arm, View, arm
from robotics.data.rlds.fake import write_dataset
from robotics.embodiment.columns import column
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from selfflow_wm.cli import Parser, at_least, run_main
from selfflow_wm.nesting import nested

SIZE = (240, 320)
"""Of a camera whose table does not state one."""


def write(
    robot: Robot,
    directory: Path,
    *,
    episodes: int = 24,
    seconds: float = 8.0,
    seed: int = 0,
    lerobot: bool = False,
) -> Path:
    """Write `episodes` of about `seconds` each; returns `directory`.

    lerobot: a LeRobot data set with videos, of a table of LeRobot's features, instead of a TFDS
    one.
    """
    if lerobot:
        numbers = range(seed, seed + episodes)
        examples = (_example(recorded_columns(robot, number, seconds)) for number in numbers)
        return write_lerobot(robot, directory, examples)
    features, examples = None, []
    for number in range(seed, seed + episodes):
        columns = recorded_columns(robot, number, seconds)
        if features is None:
            features = _features(columns)
        examples.append(_example(columns))
    return write_dataset(directory, features, examples, name=robot.name, shard_episodes=8)


def recorded(robot: Robot, group: str, arms: Sequence[Arm], steps: int) -> np.ndarray:
    """The recorded vectors (steps, width) of "state" or "action"."""
    make = _state if group == "state" else _action
    rows = [make(robot, part, arms[_side(part.name)], steps) for part in getattr(robot, group)]
    return np.concatenate(rows, axis=1) if rows else np.zeros((steps, 0))


def _side(name: str) -> int:
    """Which arm a part or camera is of: the second one's names begin with "right"."""
    return int(name.startswith("right"))


def recorded_columns(robot: Robot, seed: int, seconds: float) -> dict[str, list[Any]]:
    """Every path of the table with its values, one a step or one of the episode."""
    down = robot.action != () and any(part.form for part in robot.state)
    arms = [arm(seed + 1000 * side, robot.rate, seconds, down) for side in (0, 1)]
    steps = min(map(len, arms))
    found: dict[str, list[Any]] = {}
    for number, row in enumerate(robot.cameras):
        view = View(number, seed, row.size or SIZE, row.view)
        turns = (360 - row.rotate) // 90 % 4
        shots = [view.picture(arms[_side(row.name)], step) for step in range(steps)]
        found[row.path] = [_jpeg(np.rot90(shot, turns)) for shot in shots]
        if row.present is not None:
            found[row.present] = [True]
    for group in ("state", "action"):
        values = recorded(robot, group, arms, steps)
        places = robot.slices(group)
        for part in getattr(robot, group):
            found[part.path] = list(values[:, places[part.name]])
    last = np.arange(steps) == steps - 1
    text = f"put the {arms[0].name} on the plate"
    for number, path in enumerate(robot.instruction.paths):
        said = text if number == 0 else f"{text}, please ({number})"
        if robot.instruction.encoding == "characters":
            codes = np.zeros(512, np.int32)
            codes[: len(said)] = [ord(letter) for letter in said]
            found[path] = [codes] * steps
        else:
            found[path] = [said] * (steps if column(path).of_step else 1)
    for path in (robot.terminate, robot.reward):
        if path is not None:
            found[path] = [np.array([float(value)]) for value in last]
    if robot.success is not None:
        found[robot.success] = [True]
    for row in robot.filters:
        found.setdefault(row.path, [row.contains or "kept"])
    return found


def _state(robot: Robot, part: Part, arm: Arm, steps: int) -> np.ndarray:
    if part.kind == "position":
        values = arm.position[:steps, : part.width]
    elif part.kind == "rotation":
        return _form(arm.rotation[:steps], part)
    elif part.kind == "joints":
        values = arm.joints[:steps, np.arange(part.width) % JOINTS]
    elif part.kind == "gripper":
        return _opening(part, arm.closed[:steps])
    else:
        values = _drive(arm, part.width)[:steps]
    return values / part.factor


def _action(robot: Robot, part: Part, arm: Arm, steps: int) -> np.ndarray:
    if part.kind == "gripper":
        close = arm.close[:steps]
        if part.mode == "pulse":
            close = (np.diff(close, prepend=0.0) + 1) / 2  # -1, 0, 1 between open and closed
        return _opening(part, close)
    if part.kind == "rotation":
        turns = [Rotation.from_rotvec(turn) for turn in arm.turn[:steps]]
        before = arm.rotation[:steps]
        if part.mode == "absolute":
            return _form([a * b for a, b in zip(turns, before, strict=True)], part)
        if part.frame == "tool":
            turns = [b.inv() * a * b for a, b in zip(turns, before, strict=True)]
        if part.mode == "velocity":
            turns = [Rotation.from_rotvec(turn.as_rotvec() * robot.rate) for turn in turns]
        return _form(turns, part)
    if part.kind == "position":
        state, change = arm.position[:steps], arm.move[:steps]
        if part.frame == "tool":
            pairs = zip(arm.rotation[:steps], change, strict=True)
            change = np.array([turn.inv().apply(move) for turn, move in pairs])
    else:
        whole = arm.joints if part.kind == "joints" else _drive(arm, part.width)
        whole = whole[:, np.arange(part.width) % whole.shape[1]]
        state, change = whole[:steps], np.diff(whole, axis=0)[:steps]
    values = state + change if part.mode == "absolute" else change
    if part.mode == "velocity":
        values = change * robot.rate
    return values[:, : part.width] / part.factor


def _drive(arm: Arm, width: int) -> np.ndarray:
    """A mobile base that creeps towards the object: (T + 1, width)."""
    way = np.cumsum(np.vstack([np.zeros(3), arm.move * [1, 1, 0] + arm.turn * [0, 0, 1]]), axis=0)
    return np.tile(way, (1, -(-width // 3)))[:, :width]


def _opening(part: Part, closed: np.ndarray) -> np.ndarray:
    """Values between `open` and `closed`, (steps, width)."""
    ends = (np.broadcast_to(np.asarray(end), part.width) for end in (part.open, part.closed))
    low, high = ends
    return low + closed[:, None] * (high - low)


def _form(rotations: Sequence[Rotation], part: Part) -> np.ndarray:
    every = Rotation.concatenate(rotations)
    form = str(part.form)
    if form.startswith("euler_"):
        return every.as_euler(form.removeprefix("euler_")) / part.factor
    if form == "axis_angle":
        return every.as_rotvec() / part.factor
    if form.startswith("quaternion"):
        quaternion = every.as_quat()
        return np.roll(quaternion, 1, axis=1) if form.endswith("wxyz") else quaternion
    matrix = every.as_matrix()
    if form == "rot6d":
        return np.concatenate([matrix[:, :, 0], matrix[:, :, 1]], axis=1)
    return matrix.reshape(-1, 9)


def _jpeg(picture: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=90)
    return data.getvalue()


# ---------------------------------------------------------------- records


def _widths(columns: dict[str, list[Any]]) -> dict[str, int]:
    """Values of every numeric feature: as many as its paths reach."""
    widths: dict[str, int] = {}
    for path, rows in columns.items():
        place = column(path)
        if isinstance(rows[0], np.ndarray):
            stop = place.values.stop if place.values is not None else len(rows[0])
            widths[place.key] = max(widths.get(place.key, 0), stop)
    return widths


def _features(columns: dict[str, list[Any]]) -> Any:
    from robotics.data.rlds.schema import load_tfds

    tfds = load_tfds().features
    widths = _widths(columns)
    flat: dict[str, Any] = {"steps/is_first": np.bool_, "steps/is_last": np.bool_}
    for path, rows in columns.items():
        place = column(path)
        value = rows[0]
        if isinstance(value, bytes):
            height, width, _ = np.asarray(Image.open(io.BytesIO(value))).shape
            flat[place.key] = tfds.Image(shape=(height, width, 3), encoding_format="jpeg")
        elif isinstance(value, str):
            flat[place.key] = tfds.Text()
        elif isinstance(value, bool):
            flat[place.key] = np.bool_
        else:
            dtype = value.dtype if value.dtype == np.int32 else np.float32
            flat[place.key] = tfds.Tensor(shape=(widths[place.key],), dtype=dtype)
    tree = nested(flat)
    steps = tfds.Dataset(tree.pop("steps"))
    return tfds.FeaturesDict({**tree, "steps": steps})


def _example(columns: dict[str, list[Any]]) -> dict[str, Any]:
    widths = _widths(columns)
    count = max(len(rows) for path, rows in columns.items() if column(path).of_step)
    steps: list[dict[str, Any]] = [
        {"steps/is_first": t == 0, "steps/is_last": t == count - 1} for t in range(count)
    ]
    episode: dict[str, Any] = {}
    for path, rows in columns.items():
        place = column(path)
        for target, value in zip(steps if place.of_step else [episode], rows, strict=True):
            if not isinstance(value, np.ndarray):
                target[place.key] = value
                continue
            dtype = value.dtype if value.dtype == np.int32 else np.float32
            whole = target.setdefault(place.key, np.zeros(widths[place.key], dtype))
            whole[place.values or slice(None)] = value
    tree = nested(episode)
    tree["steps"] = [nested(step)["steps"] for step in steps]
    return tree


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.robots.synthetic`; returns the exit code."""
    parser = Parser(
        prog="python -m benchmarks.robots.synthetic",
        description="Write a small data set in a robot's own schema: RLDS, or LeRobot where the "
        "table names LeRobot's features.",
    )
    parser.add_argument("table", metavar="NAME|YAML", help="the robot's table")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--episodes", type=at_least(1), default=24, metavar="N")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="S", help="of an episode")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    if given.out.exists() and any(given.out.iterdir()):
        raise ValueError(f"--out: expected a new directory, got {given.out}; choose another")
    robot = load_robot(given.table)
    settings = {"episodes": given.episodes, "seconds": given.seconds, "seed": given.seed}
    write(robot, given.out, **settings, lerobot=is_lerobots(robot))
    print(f"written: {given.episodes} episodes of {robot.name} to {given.out}")
    return 0


if __name__ == "__main__":
    run_main(main)
