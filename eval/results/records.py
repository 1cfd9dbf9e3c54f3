"""The files of a run: `run.json` (settings), `episodes.jsonl` (one line per episode, the source of
all results).

Only the parent process writes them. Open the same directory with the same settings to continue an
interrupted run.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.cli import Shard, parse_shard
from selfflow_wm.files import check_out, write_file

SCHEMA_VERSION = 1
"""Of run.json, episodes.jsonl and results.json."""

Record = dict[str, Any]

_ALWAYS = {"task", "seed", "index", "status"}
_ENDED = {"success", "success_any", "steps", "terminated", "stages", "instructions", "latency_ms"}
"""Keys of every record, and further keys of episodes that ended."""


def share(
    seeds: Mapping[str, Sequence[int]], shard: Shard | None
) -> dict[str, list[tuple[int, int]]]:
    """(index, seed) of each task's episodes that belong to `shard`; None: all of them.

    The share of an episode depends only on the position of its task and on its index, so requesting
    more episodes later moves none; tasks are staggered so that shares have similar sizes.
    """
    number, count = shard or (1, 1)
    return {
        task: [pair for pair in enumerate(found) if (place + pair[0]) % count == number - 1]
        for place, (task, found) in enumerate(seeds.items())
    }


def wanted_episodes(description: Mapping[str, Any]) -> dict[str, list[int]]:
    """Seeds per task of a run, or of its share."""
    shard = description["shard"] and parse_shard(description["shard"])
    return {
        task: [seed for _, seed in found]
        for task, found in share(description["seeds"], shard).items()
    }


class EpisodeLog:
    """The episodes of one run, on disk after each `append`.

    Opening only reads; nothing is created or repaired before `begin`.

    Args:
        out: directory of the run; may not exist yet.
        settings: what must be equal to continue a run; JSON values.

    Raises:
        ValueError: `out` holds a run with different settings, other files, or a damaged file.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out = out
        self.path = out / "episodes.jsonl"
        self.settings = json.loads(json.dumps({"schema_version": SCHEMA_VERSION, **settings}))
        self.records: dict[tuple[str, int], Record] = {}
        """Latest record per (task, seed)."""
        self._file: int | None = None
        self._check_settings()
        self._good_bytes = self._load()

    @property
    def continued(self) -> int:
        """Episodes that need no further work."""
        return sum(record["status"] != "error" for record in self.records.values())

    def done(self, task: str, seed: int) -> bool:
        """Whether this episode has a result; a crashed one has none and is retried."""
        record = self.records.get((task, seed))
        return record is not None and record["status"] != "error"

    def begin(self) -> None:
        """Create the directory and `run.json`, drop an incomplete last line, and lock the log."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ValueError(
                f"out: expected a directory no other run is writing, got {self.out}; "
                "wait for that run, or choose another --out"
            ) from None
        self._good_bytes = self._load()  # again, now that nobody else writes
        os.ftruncate(self._file, self._good_bytes)
        write_json(self.out / "run.json", self.settings)

    def append(self, record: Record) -> None:
        """Add one episode: a single write to the end of the file, on disk when this returns."""
        assert self._file is not None, "begin() comes before append()"
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"{self.path}: wrote {written} of {len(line)} bytes; is the disk full?")
        os.fsync(self._file)
        self.records[record["task"], record["seed"]] = record

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> EpisodeLog:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_settings(self) -> None:
        if not (self.out / "run.json").is_file():
            check_unused(self.out, "an empty directory or an earlier run")
            return
        recorded = read_object(self.out / "run.json", "choose another --out")
        if found := difference(recorded, self.settings):
            name, old, new = found
            raise ValueError(
                f"out: expected the settings {self.out} was begun with, {name}={old}, got "
                f"{name}={new}; give the same settings, or another --out"
            )

    def _load(self) -> int:
        """Read the records; returns the length of the whole lines, bytes."""
        self.records, good = read_episodes(self.path)
        return good


def read_episodes(path: Path) -> tuple[dict[tuple[str, int], Record], int]:
    """The latest record per (task, seed), and the length of the whole lines, bytes.

    Empty without a file; an incomplete last line is left out. `ValueError` for any other damage.
    """
    records: dict[tuple[str, int], Record] = {}
    if not path.is_file():
        return records, 0
    data = path.read_bytes()
    good = data.rfind(b"\n") + 1
    for number, line in enumerate(data[:good].splitlines(), start=1):
        try:
            record = json.loads(line)
            wanted = _ALWAYS if record["status"] == "error" else _ALWAYS | _ENDED
            if not wanted <= record.keys():
                raise KeyError
            records[record["task"], record["seed"]] = record
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path}: expected one episode a line, got a damaged line {number}; "
                "delete that line, or choose another --out"
            ) from None
    return records, good


def read_object(path: Path, remedy: str, keys: Collection[str] = ()) -> dict[str, Any]:
    """A JSON object in a run's directory; `ValueError` if it is damaged or lacks `keys`."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not set(keys) <= found.keys():
        raise ValueError(
            f"{path}: expected the JSON object that eval.simpler wrote, got a damaged file; "
            f"{remedy}"
        )
    return found


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_file(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def check_unused(out: Path, wanted: str = "a new or empty directory") -> None:
    """`ValueError` unless `out` can be written and is empty or does not exist yet."""
    check_out(out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(
            f"out: expected {wanted}, got {out}, with other files in it; choose another --out"
        )


def difference(
    old: Mapping[str, Any], new: Mapping[str, Any], but: Collection[str] = ()
) -> tuple[str, str, str] | None:
    """The first entry, other than `but`, in which two sets of settings differ, and both values."""
    for name in dict.fromkeys([*new, *old]):
        if name not in but and old.get(name) != new.get(name):
            return name, _short(old.get(name)), _short(new.get(name))
    return None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """All entries in which two sets of settings differ, and both values; `a.b` is entry `b` of the
    mapping `a`."""
    found = []
    for name in dict.fromkeys([*old, *new]):
        one, other = old.get(name), new.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += [(f"{name}.{key}", *values) for key, *values in differences(one, other)]
        elif one != other:
            found.append((name, _short(one), _short(other)))
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
