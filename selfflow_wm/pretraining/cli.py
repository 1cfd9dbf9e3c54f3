"""The command line of `python -m selfflow_wm.pretrain`."""

from __future__ import annotations

from collections.abc import Sequence

from selfflow_wm.pretraining.build import build, compose_config
from selfflow_wm.training import run as core

DOC = "Train one model on images, video, audio and video with sound, a modality a step."

HELP = """\
data=...         a directory with image/, video/, audio/, video_audio/, or
                 data="{image: DIR, audio: {_target_: package.Source, option: 1}}"; needed
out=DIR          directory of the run: checkpoint/, checkpoints/, state/, metrics.jsonl; needed.
                 A run that stopped goes on from its state
experiment=NAME  toy_multimodal, paper_625m, paper_4b
weights=NAME     loss weights: image, video, audio (the paper's three), equal
modes=NAME       multimodal, multimodal_joint; modes.video=null leaves video out
objective=NAME   flow_matching, dual_timestep, self_flow, self_flow_separated, diffusion_forcing,
                 sra, repa
Anything else in configs/ can be overridden the same way, for example
    seed=1 trainer.total_steps=2000 trainer.max_minutes=60 optim.lr=5e-4 model=small
    modes.image.batch_size=64 noise.time_laws.audio.shift=0.75 log.wandb=disabled

Ctrl-C (or SIGTERM) saves the state and stops; the same command goes on. The checkpoint is read by
python -m selfflow_wm.sample --modality image|video|audio.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status: 0 done, 1 a training failure, 2 misuse, 130 interrupted."""
    parser = core.make_parser("selfflow_wm.pretrain", DOC, HELP)
    given = parser.parse_args(argv)
    return core.run_training(
        "pretrain", lambda: compose_config(given.overrides), build, given.config
    )
