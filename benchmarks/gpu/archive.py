"""What the stage train leaves in --out: float16 weights, curves, episodes, in a few tar files."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

from selfflow_wm.files import atomic_file

PART_LIMIT = 14 << 20
"""Bytes of one archive: what comes back from a lent machine may be 16 MB a file."""
PARTS = 4
"""With results.json, report.md, log.txt and a trace they are the eight files that may come back."""
KEPT = ("metrics.jsonl", "run.json", "init.txt")
DONE = "steps.json"


def keep(run: Path, kept: Path, name: str, before: int) -> int | None:
    """Keep a training run's weights in float16, its curves and settings; returns its total steps.

    before: steps of the earlier run it continued, whose evaluation was of other weights and is set
    aside. Returns None, changing nothing, when the run has no checkpoint.
    """
    import torch

    from robotics.model.world_model import WorldModel

    if not (run / "checkpoint" / "model.safetensors").is_file():
        return None
    world = WorldModel.load(run / "checkpoint")
    steps, out = before + int(world.config["step"]), kept / "runs" / name
    played = kept / "evaluations" / name
    if before and played.is_dir():
        played.replace(played.with_name(f"{name}-at-{before}"))
    out.mkdir(parents=True, exist_ok=True)
    world.save(out / "checkpoint", dtype=torch.float16)
    for file in KEPT:
        if (run / file).is_file():
            # A continued run keeps the curve of its beginning too.
            shutil.copy2(run / file, out / (f"{before}-{file}" if before else file))
    (out / DONE).write_text(json.dumps({"steps": steps}))
    return steps


def steps_done(kept: Path, name: str) -> int:
    """Training steps of the kept run `name`; 0 when there is none."""
    file = kept / "runs" / name / DONE
    return int(json.loads(file.read_text())["steps"]) if file.is_file() else 0


def successes(episodes: Path) -> dict[str, tuple[int, int]]:
    """Task -> (successes, episodes) of an evaluation's episodes.jsonl. The last line of each
    episode counts; crashed episodes are left out."""
    if not episodes.is_file():
        return {}
    last: dict[tuple[str, int], str] = {}
    for line in episodes.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the last line of a process that was killed
        last[record["task"], record["seed"]] = record["status"]
    tally: dict[str, tuple[int, int]] = {}
    for (task, _), status in last.items():
        if status in ("success", "failure"):
            won, played = tally.get(task, (0, 0))
            tally[task] = (won + (status == "success"), played + 1)
    return tally


def pack(kept: Path, out: Path, limit: int = PART_LIMIT, parts: int = PARTS) -> list[str]:
    """Write train-1.tar ... in `out`; returns the names of the files that did not fit.

    Small files first (results before weights), each whole in the first archive that has room.
    """
    files = sorted((f for f in kept.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    groups: list[list[Path]] = [[] for _ in range(parts)]
    sizes, left_out = [0] * parts, []
    for file in files:
        size = file.stat().st_size + 2048  # of its header and padding
        places = [i for i in range(parts) if sizes[i] + size <= limit]
        if not places:
            left_out.append(str(file.relative_to(kept)))
            continue
        groups[places[0]].append(file)
        sizes[places[0]] += size
    for number, group in enumerate(groups, start=1):
        target = out / f"train-{number}.tar"
        if not group:
            target.unlink(missing_ok=True)
            continue
        with atomic_file(target) as partial, tarfile.open(partial, "w") as tar:
            for file in group:
                tar.add(file, arcname=str(file.relative_to(kept)))
    return left_out


def brought_back(source: Path) -> list[Path]:
    """The archives that `pack` wrote to `source`; ValueError where there are none."""
    found = sorted(source.glob("train-*.tar"))
    if not found:
        raise ValueError(
            f"resume: expected the --out of a run with the stage train, got {source}, which has no "
            "train-*.tar; give another directory, or leave --resume out"
        )
    for path in found:
        if not tarfile.is_tarfile(path):
            raise ValueError(f"resume: expected tar files, got {path}; copy it there again")
    return found


def unpack(source: Path, kept: Path) -> None:
    """Unpack the archives that `pack` wrote to `source`; ValueError when there are none."""
    for path in brought_back(source):
        with tarfile.open(path) as tar:
            tar.extractall(kept, filter="data")
