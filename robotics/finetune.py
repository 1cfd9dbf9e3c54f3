"""Train one world model on recordings of a robot, or of several.

python -m robotics.finetune experiment=embedded objective=self_flow data=DIR out=DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from selfflow_wm.training.command import make_parser, run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from selfflow_wm.training.run import TrainingRun

HELP = """\
data=DIR         data set (of RLDS the directory with dataset_info.json); needed
                 or several sets with weights, of one robot or of several: a yaml
                 (configs/dataset/mixture_template.yaml) or
                 data="{a: {path: DIR, spec: rt1, weight: 3}, b: {path: DIR, spec: aloha}}"
out=DIR          directory of the run: checkpoint/, checkpoints/, state/, metrics.jsonl,
                 previews/; needed. A run that stopped resumes from its state
spec=NAME        the robot and how its data are read: a file of configs/robot (rt1, embedded,
                 bridge_dataset, droid, aloha ...) or the path of yours, started from
                 template.yaml there; default rt1
on_error=skip    leave damaged episodes out and count them; default error: stop at the first
experiment=NAME  what to start from, see configs/experiment: embedded (the MuJoCo robot), simpler
                 (SIMPLER's), rt1_small, rt1_paper
init=DIR         start from a checkpoint, or a run's newest, of selfflow_wm.pretrain or of this
                 command: the modalities may be others, width and depth may not. A new robot joins
                 those of the checkpoint, which stay in it (init_drop=true leaves them out). What
                 was loaded, added and dropped is printed and recorded in run.json and init.txt
objective=NAME   a file of configs/objective: flow_matching, dual_timestep, self_flow,
                 self_flow_separated, diffusion_forcing, sra, repa
codec=NAME       how frames become tokens: patch_pca (default), image_and_video, published
modes=NAME       what is generated, how often: mixed (default), policy_only, joint_only,
                 video_only (for recordings without actions)
model=NAME       tiny (default), small, 290m, 420m, 625m, 1b, 4b
augment=NAME     a file of configs/augment: crop_colour; off by default
latents=DIR      train from latents written by python -m robotics.encode
Anything else in configs/ can be overridden the same way, for example
    seed=1 trainer.total_steps=2000 trainer.max_minutes=60 optim.lr=5e-4
    log.wandb=disabled objective.gamma=0.5 trainer.compile=true

Several GPUs share every batch, so batch sizes are multiples of their number:
    torchrun --nproc-per-node 8 -m robotics.finetune ... trainer.parallel=ddp     or fsdp2

Ctrl-C (or SIGTERM) saves the state and stops; rerun the same command to resume.

    python -m robotics.finetune experiment=embedded objective=self_flow data=data/demo out=runs/sf
    python -m robotics.finetune experiment=embedded objective=flow_matching data=data/demo \\
        out=runs/fm seed=0 trainer.total_steps=2000
    python -m robotics.finetune experiment=rt1_small init=runs/media data=data/demo out=runs/b
    python -m robotics.finetune --config ...   print the composed configuration and stop
    python -m robotics.finetune --plan experiment=rt1_paper --gpus 64   what it costs; needs no data
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status: 0 done, 1 a training failure, 2 misuse, 130 interrupted."""

    def compose(words: Sequence[str]) -> DictConfig:
        from robotics.training.build import compose_config

        return compose_config(words)

    def planned(config: DictConfig, given: argparse.Namespace) -> str:
        from robotics.training.plan import plan

        return plan(config, given)

    def built(config: DictConfig) -> TrainingRun:
        from robotics.training.build import build

        return build(config)

    parser = make_parser("robotics.finetune", __doc__, HELP)
    return run_command(parser, argv, compose, planned, built)


if __name__ == "__main__":
    sys.exit(main())
