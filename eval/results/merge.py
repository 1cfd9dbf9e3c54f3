"""Combine the shares of a run into the run they are shares of."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.results.records import (
    EpisodeLog,
    Record,
    check_unused,
    difference,
    read_episodes,
    read_object,
    wanted_episodes,
    write_json,
)
from eval.results.results import write_results
from selfflow_wm.files import atomic_directory

_PLANNED = ("command", "protocol", "seeds", "shard")
"""What merging reads of a plan.json."""


@dataclass(frozen=True)
class Part:
    """One directory that `eval.simpler` wrote."""

    path: Path
    settings: dict[str, Any]
    plan: dict[str, Any]
    records: dict[tuple[str, int], Record]


def read_part(path: Path) -> Part:
    """Read a run's directory; `ValueError` if it is none."""
    missing = [n for n in ("run.json", "plan.json", "episodes.jsonl") if not (path / n).is_file()]
    if missing:
        raise ValueError(
            f"merge: expected the directory of a run, got {path} without {', '.join(missing)}; "
            "name directories that eval.simpler --shard wrote"
        )
    records, _ = read_episodes(path / "episodes.jsonl")
    remedy = "rerun the share's command, which rewrites it, or leave the share out"
    settings = read_object(path / "run.json", remedy)
    return Part(path, settings, read_object(path / "plan.json", remedy, _PLANNED), records)


def merge_runs(
    out: Path, paths: Sequence[Path], command: str
) -> tuple[dict[str, Any], dict[tuple[str, int], Record]]:
    """Combine the runs at `paths` in `out`, which must be empty or not exist yet.

    `out` becomes a complete run: the shares' command without `--shard` continues it.

    Returns:
        Its results, and its records by task and seed.

    Raises:
        ValueError: different settings or plans, an episode in two shares, or `out` in use.
    """
    check_unused(out)
    parts = [read_part(path) for path in paths]
    for part in parts[1:]:
        _check_same(parts[0], part)
    records = _union(parts)
    commands = [*dict.fromkeys(part.plan["command"] for part in parts), command]
    plan = {**parts[0].plan, "shard": None, "command": "\n".join(commands)}
    settings = {**parts[0].settings, "shard": None}
    order = [(task, seed) for task, seeds in wanted_episodes(plan).items() for seed in seeds]
    with atomic_directory(out) as partial:
        with EpisodeLog(partial, settings) as log:
            for key in order:
                if key in records:
                    part, record = records[key]
                    log.append(_with_video(record, part.path, partial))
        write_json(partial / "plan.json", plan)
        found = write_results(partial, plan, log.records)
    return found, log.records


def _check_same(one: Part, other: Part) -> None:
    """`ValueError` unless two shares are of one run."""
    found = difference(one.settings, other.settings, ("shard",)) or difference(
        one.plan, other.plan, ("shard", "command", "policy")
    )
    if found:
        key, old, new = found
        raise ValueError(
            f"merge: expected one configuration, got {key}={old} in {one.path} and {key}={new} in "
            f"{other.path}; merge shares of one command"
        )


def _union(parts: Sequence[Part]) -> dict[tuple[str, int], tuple[Part, Record]]:
    records: dict[tuple[str, int], tuple[Part, Record]] = {}
    for part in parts:
        for key, record in part.records.items():
            if key in records:
                raise ValueError(
                    f"merge: expected every episode once, got {key[0]} seed {key[1]} in "
                    f"{records[key][0].path} and in {part.path}; name each share once"
                )
            records[key] = part, record
    return records


def _with_video(record: Record, source: Path, out: Path) -> Record:
    """The record with its video copied; a missing video becomes None."""
    if not record.get("video"):
        return record
    video, copy = source / record["video"], out / record["video"]
    if not video.is_file():
        return {**record, "video": None}
    copy.parent.mkdir(exist_ok=True)
    shutil.copy2(video, copy)
    return record
