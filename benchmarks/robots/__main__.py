"""Any robot, from its table to acting: data inspected, a policy trained for seconds, held out,
acting on raw frames, round trips.

    python -m benchmarks.robots --out runs/robots
    python -m benchmarks.robots aloha libero --steps 300
    python -m benchmarks.robots bridge_dataset=data/bridge/1.0.0 my_robot.yaml

Every NAME is a robot's table. Its data are written by `benchmarks.robots.synthetic`, or are those
of NAME=DIR. MIXTURE=A+B+C trains one model on several. What is there in --out is not made again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.robots.lerobot import is_lerobots
from benchmarks.robots.recipe import HELD_OUT, command, words
from benchmarks.robots.synthetic import write
from robotics.data.formats import is_lerobot
from robotics.data.rlds.reader import split_shards
from robotics.embodiment.tables import load_robot
from selfflow_wm.cli import Parser, at_least, run_main
from selfflow_wm.files import write_json

TABLES = Path(__file__).parent / "tables"
NAMES = (
    "rt1", "bridge_dataset", "droid", "droid_cartesian", "libero", "aloha", "so101",
    *(str(TABLES / f"{name}.yaml") for name in ("absolute_wxyz", "no_language", "rover")),
    "mixture=libero+aloha+droid",
)  # fmt: skip
STEPS_OF_EPISODE = 80


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m benchmarks.robots", description=__doc__, epilog="")
    parser.add_argument("names", nargs="*", metavar="NAME[=DIR]", default=list(NAMES))
    parser.add_argument("--out", type=Path, default=Path("runs/robots"), metavar="DIR")
    parser.add_argument("--steps", type=at_least(1), default=300, metavar="N")
    parser.add_argument("--episodes", type=at_least(HELD_OUT + 2), default=60, metavar="N")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.robots`; returns the exit code."""
    given = build_parser().parse_args(argv)
    rows = []
    for name in given.names:
        row = robot_row(name, given)
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(markdown(rows))
    return 0


def robot_row(name: str, given: Any) -> dict[str, Any]:
    """Everything measured of one table, or of a mixture; kept in a json beside its run."""
    label, _, place = name.partition("=")
    label = Path(label).stem
    out = given.out / label
    done = out / "row.json"
    if done.is_file():
        return json.loads(done.read_text())
    parts = place.split("+") if "+" in place else [name.partition("=")[0]]
    data = {part: _data(part, "" if len(parts) > 1 else place, given) for part in parts}
    row: dict[str, Any] = {"robot": label}
    if len(parts) == 1:
        row |= _inspected(parts[0], data[parts[0]], out)
    counts = {part: _episodes(data[part]) for part in parts}
    sets, spec = str(data[parts[0]]), parts[0]
    if len(parts) > 1:
        entries = (_entry(part, data[part], counts[part]) for part in parts)
        sets, spec = f"{{{', '.join(entries)}}}", None
    begun = time.perf_counter()
    code = command(
        "robotics.finetune", [*words(spec, sets, out / "run", given.steps, counts[parts[0]]),
        *(["mixed_rates=true"] if len(parts) > 1 else [])], out / "train.log",
    )  # fmt: skip
    if code:
        raise RuntimeError(f"{label}: training ended with {code}, see {out / 'train.log'}")
    row["training_s"] = time.perf_counter() - begun
    row["robots"] = {
        Path(part).stem: _acting(part, data[part], out / "run", len(parts) > 1, counts[part])
        for part in parts
    }
    write_json(done, row)
    return row


def _entry(part: str, data: Path, episodes: int) -> str:
    """A set of a mixture."""
    seen = episodes - HELD_OUT
    splits = f"train_split: 'train[:{seen}]', validation_split: 'train[{seen}:]'"
    return f"{Path(part).stem}: {{path: {data}, spec: {part}, {splits}}}"


def _episodes(data: Path) -> int:
    info = data / "meta" / "info.json"
    if info.is_file():
        return int(json.loads(info.read_text())["total_episodes"])
    return sum(shard.count for shard in split_shards(data))


def _data(name: str, place: str, given: Any) -> Path:
    """The directory of a table's data, written where none is named."""
    if place:
        if is_lerobot(place):
            return Path(place)
        found = [file.parent for file in sorted(Path(place).glob("**/dataset_info.json"))]
        if not found:
            raise ValueError(f"{name}={place}: expected a data set, got none; check the path")
        return found[0]
    target = given.out / "data" / Path(name).stem
    if not (target / "dataset_info.json").is_file() and not is_lerobot(target):
        robot = load_robot(name)
        settings = {"episodes": given.episodes, "seconds": STEPS_OF_EPISODE / robot.rate}
        write(robot, target, **settings, lerobot=is_lerobots(robot))
    return target


def _inspected(name: str, data: Path, out: Path) -> dict[str, Any]:
    """Exit codes of the inspection, without the table and with it."""
    codes = {}
    for label, more in (("inspect", []), ("inspect_spec", ["--spec", name])):
        words = [str(data), *more, "--out", str(out / label)]
        codes[label] = command("robotics.inspect", words, out / f"{label}.log")
    return codes


def _acting(name: str, data: Path, run: Path, several: bool, episodes: int) -> dict[str, Any]:
    from benchmarks.robots import measure

    robot = load_robot(name)
    held_out = measure.windows(run, data, name, f"train[{episodes - HELD_OUT}:]")
    error = measure.held_out_error(run, held_out, robot.name if several else None)
    acts, served = measure.acts_alike(
        run, *measure.raw_observation(data, robot), robot.name if several else None
    )
    return {
        "error": error.model, "mean_error": error.mean,
        "gain": [error.gain, error.low, error.high],
        "round_trip": measure.round_trip(held_out), "acts": acts, "served": served,
    }  # fmt: skip


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table for the documentation."""
    lines = [
        "| robot | inspect | with its table | squared error, in variances | of the mean "
        "| better by (95%) | round trip | acts, served alike |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for name, found in row["robots"].items():
            gain, low, high = (f"{100 * value:.0f}" for value in found["gain"])
            label = name if len(row["robots"]) == 1 else f"{row['robot']}: {name}"
            lines.append(
                f"| {label} | {row.get('inspect', '')} | {row.get('inspect_spec', '')} | "
                f"{found['error']:.2f} | {found['mean_error']:.2f} | {gain}% [{low}, {high}] | "
                f"{found['round_trip']:.0e} | {'yes' if found['acts'] else 'no'}, "
                f"{'yes' if found['served'] else 'no'} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
