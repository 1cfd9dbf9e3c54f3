"""The command line of `python -m selfflow_wm.pretrain`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from selfflow_wm.training.command import make_parser, run_command, without_data

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from selfflow_wm.training.run import TrainingRun

DOC = "Train one model on images, video, audio and video with sound, a modality a step."

HELP = """\
data=...         a directory with image/, video/, audio/, video_audio/, or
                 data="{image: DIR, audio: {_target_: package.Source, option: 1}}"; needed, but
                 by toy_multimodal, which renders its own
out=DIR          directory of the run: checkpoint/, checkpoints/, state/, metrics.jsonl and
                 previews/ (what the model makes of held-out captions, every
                 trainer.preview_every steps); needed. A run that stopped resumes from its state
experiment=NAME  toy_multimodal, paper_625m, paper_4b
loss_weights=NAME
                 of the modalities: image, video, audio (the paper's three), equal
model=NAME       tiny (default), small, 290m, 420m, 625m, 1b, 4b
modes=NAME       multimodal, multimodal_joint; modes.video=null leaves video out
only=NAME        image, video or audio alone: no data, codec or tokens of the others
objective=NAME   flow_matching, dual_timestep, self_flow, self_flow_separated, diffusion_forcing,
                 sra, repa
codec=NAME       how samples become tokens: small (default; fitted, no download), or
                 published_multimodal with layout=published
codec.image="{kind: tae_flux2, image_size: [64, 64], weights: DIR}"
                 another codec in place of the one there: image patch_pca, tae_flux2, sd_vae,
                 flux2_ae; video patch_video, wan_video; audio mdct, oobleck_audio
Anything else in configs/ can be overridden the same way, for example
    seed=1 trainer.total_steps=2000 trainer.max_minutes=60 optim.lr=5e-4
    modes.image.batch_size=64 noise.time_laws.audio.shift=0.75 log.wandb=disabled
    trainer.precision=bfloat16 trainer.compile=true trainer.activation_checkpointing=true

Several GPUs share every batch, so batch sizes are multiples of their number (batch_of=process, as
paper_625m has it: each has a separate batch, and more GPUs train on more samples):
    torchrun --nproc-per-node 8 -m selfflow_wm.pretrain ... trainer.parallel=ddp     or fsdp2

    python -m selfflow_wm.pretrain experiment=toy_multimodal out=runs/toy
    python -m selfflow_wm.pretrain --plan experiment=paper_625m --gpus 64 --peak 989 --mfu 0.4

Ctrl-C (or SIGTERM) saves the state and stops; rerun the same command to resume. The checkpoint is
read by python -m selfflow_wm.sample --modality image|video|audio.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status: 0 done, 1 a training failure, 2 misuse, 130 interrupted."""
    parser = make_parser("selfflow_wm.pretrain", DOC, HELP)

    def compose(words: Sequence[str]) -> DictConfig:
        from selfflow_wm.pretraining.build import compose_config

        return compose_config(words)

    def plan(config: DictConfig, given: argparse.Namespace) -> str:
        from selfflow_wm.data import ModeSchedule
        from selfflow_wm.pretraining.codecs import planned_layout
        from selfflow_wm.pretraining.plan import planned
        from selfflow_wm.training.run import of_run

        plain = without_data(config)
        stated = ModeSchedule(plain["modes"], plain["seed"])
        modes = of_run(stated, plain["batch_of"], given.gpus)
        return planned(plain, planned_layout(plain), modes, given)

    def build(config: DictConfig) -> TrainingRun:
        from selfflow_wm.pretraining.build import build

        return build(config)

    return run_command(parser, argv, compose, plan, build)
