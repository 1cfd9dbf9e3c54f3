"""Whether the contenders of `benchmarks.rlds` serve the same windows as our reader.

Run by `benchmarks.rlds --check`: NAMES of contenders as JSON and their settings as arguments, a
line of JSON for each on stdout. A window is recognised by its commanded motions, which are random
numbers here; its frames must then be ours but for how JPEGs are decoded and resized.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.rlds_readers import CONTENDERS, FRAMES, all_frames
from robotics.data.windows import WindowDataset

MOST = 4.0
"""Mean difference of a frame's pixels, of 255, that other filters may make."""


def compared(batch: dict[str, np.ndarray], dataset: WindowDataset) -> list[tuple[int, float]]:
    """For every window of a batch: the step it begins with, -1 if there is none with its motions,
    and the mean difference of the frame that differs most."""
    rows = []
    motions = dataset.actions[:, :3].astype(np.float32)
    starts = {motions[step].tobytes(): step for step in range(len(dataset))}
    for images, actions in zip(all_frames(batch), batch["action"], strict=True):
        wanted = np.ascontiguousarray(actions[: FRAMES - 1, :3], np.float32)
        step = starts.get(wanted[0].tobytes(), -1)
        if step < 0 or not np.array_equal(motions[step : step + FRAMES - 1], wanted):
            rows.append((-1, np.inf))
            continue
        ours = dataset.frames(np.arange(step, step + FRAMES)).astype(np.int16)
        rows.append((step, float(np.abs(ours - images).mean((1, 2, 3)).max())))
    return rows


def check(name: str, settings: dict[str, Any], batches: int = 8) -> dict[str, Any]:
    """Compare a contender's first batches with our reader's."""
    a = SimpleNamespace(**settings)
    dataset = WindowDataset(a.directory, a.size, decoded=False, progress=False)
    served = CONTENDERS[name](name, a)
    rows = [row for _ in range(batches) for row in compared(next(served), dataset)]
    found = [step for step, _ in rows if step >= 0]
    worst = max(difference for _, difference in rows)
    return {
        "name": name,
        "windows": len(rows),
        "found": len(found),
        "different": len(set(found)),
        "worst": worst,
        "same": len(found) == len(rows) and worst <= MOST,
    }


if __name__ == "__main__":
    for name in json.loads(sys.argv[1]):
        settings = json.loads(sys.argv[2])
        if name != "tfds.data_source":
            settings["array_record"] = settings["directory"]
        print(json.dumps(check(name, settings)), flush=True)
