"""The table of probes on disk: JSON and CSV after every row, and a plot."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfflow_wm.files import differing, write_file

SCHEMA = 1
"""Version of probe.json. Raise it when a reader of the old one would misread the new one."""


class Table:
    """Rows of probes in `directory`/probe.json, with the settings they share.

    Every file appears whole or not at all. A directory that holds the rows of other settings
    is refused: accuracies on other data or other splits do not belong in one table.
    """

    def __init__(self, directory: Path | str, settings: Mapping[str, Any]) -> None:
        self.directory = Path(directory)
        self.path = self.directory / "probe.json"
        # Through JSON once, so that tuples compare equal to the lists they come back as.
        self.settings = json.loads(json.dumps(settings))
        self.rows: list[dict[str, Any]] = self._read() if self.path.exists() else []

    def _read(self) -> list[dict[str, Any]]:
        remedy = "give another --out, or delete it"
        try:
            held = json.loads(self.path.read_text())
            schema, settings, rows = held["schema"], held["settings"], held["rows"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f"{self.path}: expected a table of probes; {remedy}") from None
        if schema != SCHEMA:
            raise ValueError(f"{self.path}: expected schema {SCHEMA}, got {schema}; {remedy}")
        if changed := differing(settings, self.settings):
            raise ValueError(
                f"{self.path}: expected rows of the same settings, got others that differ in "
                f"{', '.join(changed)}; {remedy}"
            )
        return rows

    def done(self, checkpoint: str) -> set[tuple[int, float]]:
        """The (layer, level) pairs that are there."""
        return {
            (row["layer"], row["level"]) for row in self.rows if row["checkpoint"] == checkpoint
        }

    def drop_stale(self, checkpoint: str, fingerprint: str) -> None:
        """Forget the rows of a checkpoint of this name whose content was another."""
        self.rows = [
            row
            for row in self.rows
            if row["checkpoint"] != checkpoint or row["fingerprint"] == fingerprint
        ]

    def add(self, row: dict[str, Any]) -> None:
        """Append a row and save probe.json, and probe.csv with a column per field."""
        self.rows.append(row)
        held = {"schema": SCHEMA, "settings": self.settings, "rows": self.rows}
        write_file(self.path, json.dumps(held, indent=1, allow_nan=False) + "\n")
        text = io.StringIO()
        writer = csv.DictWriter(text, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_file(self.directory / "probe.csv", text.getvalue())

    def write_plot(self) -> Path:
        """probe.png: accuracy by layer, a panel per noise level and a line per checkpoint."""
        from selfflow_wm.probing.plot import draw

        path = self.directory / "probe.png"
        write_file(path, draw(self.rows))
        return path
