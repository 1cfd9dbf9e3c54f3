"""The walk from RLDS bytes to the loss: files of this project whose code runs in a training step.

python scripts/walks_training.py DATA

DATA: an RLDS data set of three episodes or more. Counted are the files in which a function is
called, by sys.setprofile, from `Trainer.train_step` on until the loss is there (its backward pass
begins), in the second step of experiment=embedded, objective=self_flow, mode joint, which has every
modality. The optimiser and the average come after the loss.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from robotics.training.build import build, compose_config

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "experiment=embedded", "objective=self_flow", "modes=joint_only", "modes.joint.batch_size=2",
    "model.width=24", "model.heads=2", "codec.fit_frames=32", "codec.fit_windows=16",
    "trainer.validation_batches=1", "log.wandb=disabled", "device=cpu",
    'dataset.train_split="train[:2]"', 'dataset.validation_split="train[2:]"',
)  # fmt: skip


def walk(data: str) -> Counter[str]:
    """Calls of functions by file, up to the loss of one step once warm."""
    calls: Counter[str] = Counter()

    def profile(frame: Any, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.endswith("torch/_tensor.py"):
            if frame.f_code.co_name == "backward":
                sys.setprofile(None)
        elif event == "call" and file.startswith(f"{ROOT}/") and file != __file__:
            calls[str(Path(file).relative_to(ROOT))] += 1

    with tempfile.TemporaryDirectory() as out:
        trainer = build(compose_config([*SMALL, f"data={data}", f"out={out}"])).trainer
        trainer.train_step()
        sys.setprofile(profile)
        trainer.train_step()
    return calls


if __name__ == "__main__":
    found = walk(sys.argv[1])
    for name, count in sorted(found.items()):
        print(f"{count:6d}  {name}")
    print(f"{len(found):6d}  files, RLDS bytes to loss")
