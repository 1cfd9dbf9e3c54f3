"""Samples of a checkpoint: images, video, audio."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.checkpoints import find_checkpoint, fingerprint
from selfflow_wm.cli import (
    Parser,
    above_zero,
    argument,
    at_least,
    compute_device,
    one_of,
    perform,
)
from selfflow_wm.defaults import SAMPLE_STEPS, SHIFT

EPILOG = """\
Results: OUT/samples.npz (arr_0: uint8 NHWC, for ADM's evaluation suite; arr_1: labels) and
OUT/grid.png, or OUT/latents.npz (arr_0: float32 tokens) when nothing can decode. Video and audio
are arrays in samples.npz (the sound of video_audio in sound.npz), and the first 64 of them also
OUT/videos/*.mp4, with their sound, or OUT/sounds/*.wav. Finished batches are in OUT/parts: rerun
the same command to resume; a larger --samples adds to them, and any --batch-size or --shard
gives the same samples.

Several processes: torchrun --nproc-per-node 8 -m selfflow_wm.sample ..., or run --shard 1/8 to 8/8
with one --out. The last to finish writes the results.

The paper's ImageNet numbers: --samples 50000 --solver euler_maruyama --steps 250, without guidance.

examples:
  python -m selfflow_wm.sample --checkpoint selfflow_imagenet256.pt --vae sd-vae-ft-ema \\
      --classes 207,360 --samples 16 --guidance 3.5 --out samples/dogs
  python -m selfflow_wm.sample --checkpoint my_model --captions-file captions.txt --out x
  python -m selfflow_wm.sample --checkpoint runs/media --modality video_audio --images a.png \\
      --captions-file captions.txt --shift 6.93 --guidance 5 --out samples/videos

The paper samples in 50 steps with a shift of 1.78 on SD-VAE, 6.93 on FLUX.2's and Songbloom's, 15
on Wan 2.2's latents; guidance 3.5 (images) and 5 (video, audio) for what is looked at, none for
metrics.
"""


def _parser() -> Parser:
    parser = Parser(
        prog="python -m selfflow_wm.sample",
        description="Sample images, video or audio from an official checkpoint or one of yours.",
        epilog=EPILOG,
        renamed={"--num": "--samples", "--batch": "--batch-size"},
    )
    add = parser.add_argument
    parser.add_shared("checkpoint", help="a checkpoint's directory, a run's (its newest), or an "
                      "official .pt or .safetensors file")  # fmt: skip
    parser.add_shared("out", help="where results and parts go")
    add("--modality", metavar="NAME", help="what a model of several is to make: image, video, "
        "audio, or video_audio from --images")  # fmt: skip
    parser.add_shared("samples", default=16, help="in all (%(default)s)")
    parser.add_shared("batch-size", default=16)
    parser.add_shared("steps", default=SAMPLE_STEPS)
    add("--solver", default="euler", metavar="NAME", help="euler (default), heun, euler_maruyama")
    parser.add_shared("shift", default=SHIFT)
    add("--guidance", type=at_least(0.0), default=1.0, metavar="G",
        help="classifier-free guidance; 1 is none (1.0)")  # fmt: skip
    add("--guidance-interval", type=argument(_interval), default=(0.0, 1.0), metavar="LOW,HIGH",
        help="times t at which guidance acts, 1 being noise (0,1)")  # fmt: skip
    parser.add_shared("seed")
    add("--classes", metavar="LIST",
        help="labels such as 207,360 in turn, balanced (all in turn; the default) or "
        "random")  # fmt: skip
    add("--captions-file", type=Path, metavar="FILE", help="one caption per line, used in turn")
    add("--images", type=Path, nargs="+", default=[], metavar="FILE",
        help="pictures that video_audio begins from, used in turn")  # fmt: skip
    add("--fps", type=above_zero, metavar="F", help="frame rate of videos (that of the training)")
    add("--vae", type=Path, metavar="DIR",
        help="Stable Diffusion's autoencoder (sd-vae-ft-ema) in diffusers' format")  # fmt: skip
    parser.add_shared("device")
    add("--precision", choices=("float32", "bfloat16"), default="float32",
        help="of the network's arithmetic (float32)")  # fmt: skip
    parser.add_shared("shard", help="only share I of N, from 1 (default: RANK and WORLD_SIZE)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 after a one-line error, 130 when interrupted."""
    return perform(_parser(), _run, argv, resumable=True)


def _run(args: argparse.Namespace) -> None:
    from selfflow_wm.flow.solvers import SOLVERS
    from selfflow_wm.sampling.conditions import Labels, make_conditions
    from selfflow_wm.sampling.inputs import load_checkpoint, make_clips, make_decoder
    from selfflow_wm.sampling.parts import Parts
    from selfflow_wm.sampling.run import Solve, finish, run_shard, shard_numbers

    one_of("--solver", args.solver, SOLVERS)
    shard, shards = args.shard or (
        int(os.environ.get("RANK", 0)) + 1,
        int(os.environ.get("WORLD_SIZE", 1)),
    )
    device = _device(args.device)
    numbers = shard_numbers(args.samples, shard, shards)
    solve = Solve(args.steps, args.shift, args.solver, args.guidance, args.guidance_interval)
    official = Path(args.checkpoint)
    checkpoint = official if official.is_file() else find_checkpoint(args.checkpoint)
    saved = load_checkpoint(checkpoint, device, args.modality)
    conditions = make_conditions(saved.model.layout, args.classes, args.captions_file, args.seed)
    clips = make_clips(saved, args.modality, args.fps, args.images, device)
    decoder = None if clips else make_decoder(saved, args.modality, args.vae, device)
    settings = {
        "checkpoint": fingerprint(checkpoint),
        "seed": args.seed,
        "classes": (args.classes or "balanced") if isinstance(conditions, Labels) else None,
        "captions": fingerprint(args.captions_file) if args.captions_file else None,
        "decoder": clips.name if clips else decoder.name if decoder else None,
        "precision": args.precision,
        "solve": {**vars(solve), "guidance_interval": list(solve.guidance_interval)},
    }
    if args.modality is not None:  # absent otherwise, so that older runs can be resumed
        settings["modality"] = args.modality
    if clips and clips.pictures:
        settings["images"] = clips.digests
    parts = Parts(args.out, settings)
    if clips is None and decoder is None:
        print(
            "no decoder: latents only. Give --vae for models of Stable Diffusion's latents",
            flush=True,
        )
    made = run_shard(
        parts, saved.model, conditions, decoder, numbers, solve,
        batch=args.batch_size, seed=args.seed, device=device, precision=args.precision,
        modality=args.modality, clips=clips,
    )  # fmt: skip
    print(f"shard {shard}/{shards}: {made} samples made, {len(numbers) - made} were there")
    written = finish(parts, args.samples, decoder is not None, clips)
    for path in written:
        print(f"wrote {path}")
    if not written:
        print(f"other shards are not done; the last one writes all {args.samples} samples")


def _device(name: str) -> Any:
    """`auto` and `cuda` become this rank's GPU."""
    import torch

    device = compute_device(name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise ValueError(f"expected LOW,HIGH with 0 <= LOW <= HIGH <= 1, got {text!r}")
    return low, high
