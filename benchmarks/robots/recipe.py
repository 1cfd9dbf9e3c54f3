"""The small training that every robot of `benchmarks.robots` gets; what it costs is seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HELD_OUT = 8
"""Episodes that training does not see."""

WORDS = (
    "experiment=embedded",
    "embodiment=null",
    "modes=policy_only",
    "modes.policy.batch_size=64",
    "layout.keypose=false",
    "layout.text_length=null",
    "normalizer.kind=standard",
    "normalizer.rotation_floor=1e-3",
    "dataset.image_size=[48,64]",
    "dataset.horizon=null",
    "dataset.video_offsets=null",
    "model.width=96",
    "model.single=2",
    "codec.fit_frames=500",
    "codec.fit_windows=200",
    "optim.lr=5e-3",
    "optim.warmup=30",
    "trainer.ema_decay=0.97",
    "trainer.log_every=50",
    "trainer.diagnose_every=0",
    "trainer.preview_every=0",
    "log.wandb=disabled",
)


def words(spec: str | None, data: str, out: Path, steps: int, episodes: int) -> list[str]:
    """The words of `python -m robotics.finetune` for one data set, or a mixture as `data`."""
    seen = episodes - HELD_OUT
    return [
        *WORDS,
        *([] if spec is None else [f"spec={spec}"]),
        f"data={data}",
        f"out={out}",
        f'dataset.train_split="train[:{seen}]"',
        f'dataset.validation_split="train[{seen}:]"',
        f"trainer.total_steps={steps}",
        f"trainer.validate_every={steps}",
        f"trainer.export_every={steps}",
        f"trainer.save_every={steps}",
    ]


def command(module: str, arguments: Sequence[str], log: Path, **env: str) -> int:
    """Run `python -m module`; its output goes to `log`. Returns the exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment: Mapping[str, str] = {**os.environ, **env}
    with log.open("w") as file:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            stdout=file, stderr=subprocess.STDOUT, env=environment, check=False,
        ).returncode  # fmt: skip
