"""Encode every frame of a data set once, so that training reads latents, not pictures.

python -m robotics.encode --data DIR --out DIR experiment=embedded
python -m robotics.encode --data DIR --out DIR --checkpoint runs/sf/checkpoint experiment=embedded
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from selfflow_wm.cli import Parser, at_least, exit_code

HELP = """\
The overrides after the flags are those of python -m robotics.finetune (experiment=..., dataset=...,
codec=..., spec=..., seed=...): they select the cameras and frames and, without --checkpoint, the
codecs that are fitted to dataset.train_split, one for each camera. Then train with the same
overrides and latents=OUT.

After an interruption, rerun the same command: it resumes. To share the work, give each process its
--shard; the directory is complete when all have finished. Latents take, per variant, frame and
camera, tokens x channels x 2 bytes (float16): 12 KiB for 96 x 128 pixels in patches of 16, 128
channels.

    python -m robotics.encode --data data/demo --out latents/demo experiment=embedded
    python -m robotics.encode --data data/demo --out latents/aug experiment=embedded \\
        --variants 4 --augment crop_colour --shard 1/2
    python -m robotics.finetune experiment=embedded data=data/demo latents=latents/demo out=runs/a
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status, see `selfflow_wm.cli.exit_code`."""
    parser = Parser(prog="python -m robotics.encode", description=__doc__, epilog=HELP)
    add = parser.add_argument
    add("--data", required=True, metavar="DIR", help="data set of a robot")
    parser.add_shared("out", help="directory of the latents")
    parser.add_shared("checkpoint", required=False, help="take the codecs of this checkpoint")
    add("--split", default="train", help="whole split to encode (%(default)s)")
    add("--dtype", default="float16", choices=("float16", "float32"), help="(%(default)s)")
    add("--variants", type=at_least(1), default=1, metavar="N", help="augmented ones (%(default)s)")
    add("--augment", metavar="NAME", help="a file of configs/augment")
    parser.add_shared("shard", default=(1, 1))
    add("overrides", nargs="*", metavar="KEY=VALUE", help="see below")
    given = parser.parse_intermixed_args(argv)
    return exit_code(lambda: _work(given), resumable=True)


def _work(given: argparse.Namespace) -> None:
    from omegaconf import OmegaConf

    from robotics.data.augment import Augment
    from robotics.training.build import compose_config
    from robotics.training.encode import encode

    words = [*given.overrides, f"data={given.data}"]
    config = compose_config([*words, *([f"augment={given.augment}"] if given.augment else [])])
    settings: Any = OmegaConf.to_container(config.augment) if given.augment else None
    counts = encode(
        config,
        given.out,
        split=given.split,
        checkpoint_dir=given.checkpoint,
        dtype=given.dtype,
        variants=given.variants,
        augment=None if settings is None else Augment(**settings, seed=config.seed),
        shard=given.shard,
    )
    rate = counts["frames"] / max(counts["seconds"], 1e-9)
    print(
        f"{counts['written']} shards written, {counts['skipped']} there already; "
        f"{counts['frames']} frames in {counts['seconds']:.1f} s ({rate:.0f} frames/s); {given.out}"
    )


if __name__ == "__main__":
    sys.exit(main())
