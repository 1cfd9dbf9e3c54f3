"""Evaluates all checkpoints of a training run and draws their learning curve."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from eval.report.comparison import compare_runs

STEP = re.compile(r"step_(\d+)")


def find_checkpoints(run: str | None, which: str) -> list[Path]:
    """The checkpoints of a run of robotics.finetune, by step.

    Args:
        run: its directory, or the folder `checkpoints` in it.
        which: `all`, or steps separated by commas.

    Raises:
        ValueError: no such run, no checkpoints, or a step without a checkpoint.
    """
    if run is None:
        raise ValueError(
            "checkpoints: expected --checkpoint with a run's directory, got none; add "
            "--checkpoint runs/NAME, the out= of python -m robotics.finetune"
        )
    folder = Path(run, "checkpoints") if Path(run, "checkpoints").is_dir() else Path(run)
    found = {
        int(match[1]): path
        for path in folder.glob("step_*")
        if (match := STEP.fullmatch(path.name)) and (path / "model.safetensors").is_file()
    }
    if not found:
        raise ValueError(
            f"checkpoints: expected a run with checkpoints/step_*, got {run} without any; give "
            "the out= of python -m robotics.finetune, which writes one every trainer.export_every "
            "steps"
        )
    if which == "all":
        return [path for _, path in sorted(found.items())]
    words = which.split(",")
    if wrong := [word for word in words if not word.isdigit() or int(word) not in found]:
        raise ValueError(
            f"checkpoints: expected all, or steps out of {', '.join(map(str, sorted(found)))}, got "
            f"{', '.join(wrong)}; choose among these"
        )
    return [found[step] for step in sorted({int(word) for word in words})]


def evaluate_checkpoints(
    checkpoints: list[Path], out: Path, run: Callable[[Path, Path], int]
) -> int:
    """Evaluate each into `out`/step_*, then compare them in `out`/curve.

    run: `(checkpoint, directory)` starts or continues one evaluation and returns its exit code; an
    interruption (130) ends the loop.

    Returns:
        The exit code: 0, 1 with episodes that crashed, 130 when interrupted.
    """
    worst = 0
    parts: list[Path] = []
    for number, path in enumerate(checkpoints, 1):
        print(f"checkpoint {number} of {len(checkpoints)}: {path}", flush=True)
        code = run(path, out / path.name)
        if code == 130:
            return code
        worst = max(worst, code)
        parts.append(out / path.name)
    if len(parts) > 1:
        compare_runs(parts, out / "curve", allowed=["incomplete"] if worst else [])
    return worst
