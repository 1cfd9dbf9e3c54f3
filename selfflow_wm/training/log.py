"""Scalars to metrics.jsonl (always) and Weights & Biases (optional)."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

WANDB_MODES = ("auto", "online", "offline", "disabled")


class MetricsLog:
    """Appends `{"step", "time", name: value}` lines to `out_dir/metrics.jsonl`.

    wandb: "disabled" never imports wandb; "offline" writes its files under `out_dir/wandb`;
    "online" uploads; "auto" uploads when this machine is logged in, stays offline when it is
    not, and does without when wandb is not installed.
    resume_step: lines after it are dropped, so that a resumed run never logs a step twice.
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
        _drop_after(self.path, resume_step)
        self._file = self.path.open("a", buffering=1)
        self._run = _start_wandb(wandb, Path(out_dir), project, name, config)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line. NaN and infinity become null: JSON cannot hold them."""
        clean = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **clean}) + "\n")
        if self._run is not None:
            self._run.log({k: v for k, v in clean.items() if v is not None}, step=step)

    def close(self) -> None:
        """Flush and end the wandb run."""
        self._file.close()
        if self._run is not None:
            self._run.finish()
            self._run = None


class NoLog:
    """Takes what a MetricsLog takes and keeps nothing: the log of all processes but the main."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            continue  # a line that a crash cut short
    path.write_text("".join(line + "\n" for line in kept))


def _start_wandb(mode: Any, out_dir: Path, project: str, name: str | None, config: dict | None):
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
    settings = wandb.Settings(silent=True, console="off")
    return wandb.init(
        mode=mode, dir=str(out_dir), project=project, name=name, config=config, settings=settings
    )
