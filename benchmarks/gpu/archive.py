"""What the stage train brings back: float16 weights, curves, episodes, in a few tar files."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

PART_LIMIT = 14 << 20
"""Bytes of one archive: what comes back from a lent machine may be 16 MB a file."""
PARTS = 4
"""With results.json, report.md, log.txt and a trace they are the eight files that may come back."""
KEPT = ("metrics.jsonl", "run.json", "init.txt")
DONE = "steps.json"


def keep(run: Path, kept: Path, name: str, before: int) -> int | None:
    """Keep a training run's weights in float16, its curves and settings; the steps it has done.

    before: steps of the earlier run that it went on from, whose evaluation is then one of other
    weights and set aside. None: it has no checkpoint, and what was kept before stays.
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
            # A run that goes on keeps the curve of its beginning.
            shutil.copy2(run / file, out / (f"{before}-{file}" if before else file))
    (out / DONE).write_text(json.dumps({"steps": steps}))
    return steps


def steps_done(kept: Path, name: str) -> int:
    """Of a run that was kept; 0 where there is none."""
    file = kept / "runs" / name / DONE
    return int(json.loads(file.read_text())["steps"]) if file.is_file() else 0


def successes(episodes: Path) -> dict[str, tuple[int, int]]:
    """Task to (successes, episodes), of an evaluation's episodes.jsonl; the last line of an
    episode counts, and one that crashed is none."""
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
    """Write train-1.tar ... in `out`; names of the files for which there was no room.

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
        partial = target.with_name(f".{target.name}.partial")
        with tarfile.open(partial, "w") as tar:
            for file in group:
                tar.add(file, arcname=str(file.relative_to(kept)))
        partial.replace(target)
    return left_out


def unpack(source: Path, kept: Path) -> None:
    """Put what `pack` left in `source` back; ValueError where there is nothing."""
    found = sorted(source.glob("train-*.tar"))
    if not found:
        raise ValueError(f"resume: expected train-*.tar in {source}; found none; give another")
    for path in found:
        with tarfile.open(path) as tar:
            tar.extractall(kept, filter="data")
