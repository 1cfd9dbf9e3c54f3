"""The files of a run: `run.json` (settings), `episodes.jsonl` (one line per episode, the truth).

Only the parent process writes them. A run that was interrupted is continued by opening the same
directory with the same settings.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from selfflow_wm.files import write_file

SCHEMA_VERSION = 1
"""Of run.json, episodes.jsonl and results.json."""

Record = dict[str, Any]

_ALWAYS = {"task", "seed", "index", "status"}
_ENDED = {"success", "success_any", "steps", "terminated", "stages", "instructions", "latency_ms"}
"""What every record has, and what those of episodes that ended have beside it."""


class EpisodeLog:
    """The episodes of one run, on disk after each `append`.

    Opening only reads; nothing is created or repaired before `begin`.

    Args:
        out: directory of the run; may not exist yet.
        settings: what must be equal for two runs to count as one; JSON values.

    Raises:
        ValueError: `out` holds a run with other settings, something else, or a damaged file.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out = out
        self.path = out / "episodes.jsonl"
        self.settings = json.loads(json.dumps({"schema_version": SCHEMA_VERSION, **settings}))
        self.records: dict[tuple[str, int], Record] = {}
        """Latest record per (task, seed)."""
        self._file: int | None = None
        self._agree()
        self._good_bytes = self._load()

    @property
    def continued(self) -> int:
        """Episodes that need no further work."""
        return sum(record["status"] != "error" for record in self.records.values())

    def done(self, task: str, seed: int) -> bool:
        """Whether this episode has a result; a crashed one has none and is tried again."""
        record = self.records.get((task, seed))
        return record is not None and record["status"] != "error"

    def begin(self) -> None:
        """Create the directory and `run.json`, drop a torn last line, and keep others out."""
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

    def _agree(self) -> None:
        if not self.out.exists():
            return
        if not self.out.is_dir():
            raise ValueError(
                f"out: expected a directory, got the file {self.out}; choose another --out"
            )
        if not (self.out / "run.json").is_file():
            if any(self.out.iterdir()):
                raise ValueError(
                    f"out: expected an empty directory or an earlier run, got {self.out} with "
                    "other files in it; choose another --out"
                )
            return
        recorded = read_object(self.out / "run.json", "choose another --out")
        names = [*self.settings, *(name for name in recorded if name not in self.settings)]
        for name in names:
            old, new = recorded.get(name), self.settings.get(name)
            if old != new:
                raise ValueError(
                    f"out: expected the settings {self.out} was begun with, {name}={_short(old)}; "
                    f"got {name}={_short(new)}; give the same settings, or another --out"
                )

    def _load(self) -> int:
        """Read the records; returns the length (bytes) that is whole lines."""
        self.records, good = read_episodes(self.path)
        return good


def read_episodes(path: Path) -> tuple[dict[tuple[str, int], Record], int]:
    """The latest record per (task, seed), and the length (bytes) of the part that is whole lines.

    No file is no episodes; a torn last line is left out. `ValueError` for another damaged one.
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
    """A JSON object of a run's directory; `ValueError` where it is none or lacks `keys`."""
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
    """Write JSON so that the file is whole at every moment."""
    write_file(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
