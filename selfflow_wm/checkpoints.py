"""Checkpoint directories: which one is meant, and what it is known by. Torch is not needed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from selfflow_wm.files import file_digest

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints"
"""Checkpoints that come with the project, each under its name."""


def find_checkpoint(name: Path | str) -> Path:
    """The directory that `name` means: a checkpoint's own, a run's (its newest checkpoint), or the
    name of one in `SHIPPED`. ValueError when there is none."""
    place = Path(name).expanduser()
    for path in (place, place / "checkpoint", SHIPPED / str(name)):
        if (path / "config.json").is_file():
            return path
    shipped = ", ".join(sorted(path.parent.name for path in SHIPPED.glob("*/config.json")))
    raise ValueError(
        f"{name}: expected a checkpoint directory (config.json and model.safetensors), a run's "
        f"directory with its checkpoint/, or a name out of {shipped or 'none here'}, got "
        f"{'a directory without' if place.is_dir() else 'nothing there'}; check the path, or train "
        "until the first export"
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
