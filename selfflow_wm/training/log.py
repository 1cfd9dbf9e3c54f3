"""Scalars to metrics.jsonl (always); they, pictures and clips to Weights & Biases (optional)."""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.files import read_json, write_file, write_json

WANDB_MODES = ("auto", "online", "offline", "disabled")
WANDB_RECORD = "wandb.json"
"""File of a run's directory with the id of its run in Weights & Biases."""
UNWRITTEN = 60.0
"""Seconds that Weights & Biases may keep values in memory (15, as of 0.31), and some."""
PICTURES, CLIPS = (".png",), (".mp4",)
"""Endings of the files that are shown there."""


class MetricsLog:
    """Appends `{"step", "time", name: value}` lines to `out_dir/metrics.jsonl`.

    wandb: "disabled" never imports wandb; "offline" writes its files under `out_dir/wandb`;
    "online" uploads; "auto" uploads when this machine is logged in, stays offline when it is
    not, and does without when wandb is not installed. A resumed training goes on in the run of
    Weights & Biases that it began, whose id is kept in `out_dir/wandb.json` from before its first
    line. Of one that was killed, the last minute is sent again as far as it was saved: its process
    took unwritten values with it. What it had logged beyond its last saved state stays.
    name: of that run.
    resume_step: lines after it are dropped, so that a resumed run never logs a step twice. 0 begins
    a new run.
    """

    def __init__(
        self,
        out_dir: Path,
        *,
        wandb: str = "disabled",
        project: str = "selfflow-wm",
        name: str | None = None,
        config: dict[str, Any] | None = None,
        resume_step: int = 0,
    ) -> None:
        if wandb not in WANDB_MODES:
            raise ValueError(f"log.wandb: expected one of {WANDB_MODES}, got {wandb!r}")
        self.path = Path(out_dir) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unwritten = _drop_after(self.path, resume_step)
        self._file = self.path.open("a", buffering=1)
        self._record = Path(out_dir) / WANDB_RECORD
        if not resume_step:
            self._record.unlink(missing_ok=True)
        self._run, self._step = (
            _start_wandb(wandb, self._record, project, name, config),
            resume_step,
        )
        if self._run is not None:
            closed = read_json(self._record).get("closed", 0)
            for row in unwritten:
                if row["step"] > closed:
                    self._send(row["step"], {k: row[k] for k in row.keys() - {"step", "time"}})

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line. NaN and infinity become null: JSON cannot hold them."""
        clean = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **clean}) + "\n")
        self._send(step, clean)

    def _send(self, step: int, values: dict[str, float | None]) -> None:
        if self._run is not None:
            self._run.log({k: v for k, v in values.items() if v is not None}, step=step)
            self._step = step

    def media(self, step: int, files: Sequence[Path | str]) -> None:
        """Show pictures and clips that were written at `step`, each under its file's name without
        the step; others are left out."""
        if self._run is None:
            return
        import wandb

        shown: dict[str, Any] = {}
        for path in map(Path, files):
            name = f"preview/{re.sub(r'step_[0-9]+_?', '', path.stem)}".rstrip("/")
            if path.suffix in PICTURES:
                shown[name] = wandb.Image(str(path))
            elif path.suffix in CLIPS:
                shown[f"{name}_clip"] = wandb.Video(str(path), format="mp4")
        if shown:
            self._run.log(shown, step=step)

    def close(self) -> None:
        """Flush and end the wandb run."""
        self._file.close()
        if self._run is not None:
            self._run.finish()
            write_json(self._record, read_json(self._record) | {"closed": self._step})
            self._run = None


class NoLog:
    """Takes what a MetricsLog takes and keeps nothing: the log of all processes but the main."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Nothing."""

    def media(self, step: int, files: Sequence[Path | str]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _drop_after(path: Path, step: int) -> list[dict[str, Any]]:
    """Keep the lines up to `step`; those of the last `UNWRITTEN` seconds among them."""
    if not path.exists():
        return []
    kept: list[tuple[str, dict[str, Any]]] = []
    last = 0.0
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
            last = max(last, row["time"])
            if row["step"] <= step:
                kept.append((line, row))
        except (json.JSONDecodeError, KeyError):
            continue  # a line that a crash cut short
    write_file(path, "".join(line + "\n" for line, _ in kept))
    return [row for _, row in kept if row["time"] > last - UNWRITTEN]


def _start_wandb(
    mode: str, record: Path, project: str, name: str | None, config: dict[str, Any] | None
) -> Any:
    """The run of Weights & Biases that `record` names, or a new one that it names from now on."""
    if mode == "disabled":
        return None
    try:
        import wandb
    except ImportError:
        if mode == "auto":
            return None
        raise ValueError(
            f"log.wandb={mode} needs wandb: pip install wandb, or set log.wandb=disabled"
        ) from None
    if mode == "auto":
        mode = "online" if wandb.api.api_key else "offline"
    if not record.is_file():
        write_json(record, {"id": secrets.token_hex(4), "project": project})
    known = read_json(record)
    try:
        return wandb.init(
            mode=mode,  # pyright: ignore[reportArgumentType]
            dir=str(record.parent),
            # Of the beginning: an id is of one project.
            project=known["project"],
            id=known["id"],
            # Offline there is nobody to ask; `wandb sync` puts the parts together by their id.
            resume="allow" if mode == "online" else None,
            name=name,
            config=config,
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.Error as error:
        raise ConnectionError(
            f"log.wandb={mode}: expected Weights & Biases to answer, got {error}; "
            f"log.wandb=offline keeps what is logged in {record.parent / 'wandb'} for `wandb sync`"
        ) from error
