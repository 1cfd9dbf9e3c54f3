"""The flags of `python -m selfflow_wm.sample`, and what they make of a checkpoint."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from selfflow_wm.checkpoints import find_checkpoint, fingerprint
from selfflow_wm.cli import Parser, compute_device, exit_code
from selfflow_wm.data import JOINT, MODES
from selfflow_wm.flow.solvers import SOLVERS
from selfflow_wm.interop.official import load_official
from selfflow_wm.sampling.clips import Clips
from selfflow_wm.sampling.conditions import Labels, make_conditions
from selfflow_wm.sampling.decode import CodecDecoder, Decoder, vae_decoder
from selfflow_wm.sampling.parts import Parts
from selfflow_wm.sampling.run import Solve, finish, run_shard, shard_numbers
from selfflow_wm.training.model_files import SavedModel, load_model

EPILOG = """\
Results: OUT/samples.npz (arr_0: uint8 NHWC, for ADM's evaluation suite; arr_1: labels) and
OUT/grid.png, or OUT/latents.npz (arr_0: float32 tokens) when nothing can decode. Video and audio
are arrays in samples.npz (the sound of video_audio in sound.npz), and the first 64 of them also
OUT/films/*.mp4, with their sound, or OUT/sounds/*.wav. Finished batches lie in OUT/parts: the same
command goes on where it stopped, a larger --num adds to them, and any --batch or --shard gives the
same samples.

Several processes: torchrun --nproc-per-node 8 -m selfflow_wm.sample ..., or run --shard 0/8 to 7/8
with one --out. The last to finish writes the results.

The paper's ImageNet numbers: --num 50000 --solver euler_maruyama --steps 250, without guidance.

examples:
  python -m selfflow_wm.sample --checkpoint selfflow_imagenet256.pt --vae sd-vae-ft-ema \\
      --classes 207,360 --num 16 --guidance 3.5 --out samples/dogs
  python -m selfflow_wm.sample --checkpoint my_model --captions-file captions.txt --num 64 --out x
  python -m selfflow_wm.sample --checkpoint runs/media --modality video_audio --images a.png \\
      --captions-file captions.txt --shift 6.93 --guidance 5 --out samples/films

The paper samples in 50 steps with a shift of 1.78 on SD-VAE, 6.93 on FLUX.2's and Songbloom's, 15
on Wan 2.2's latents; guidance 3.5 (images) and 5 (video, audio) for what is looked at, none for
metrics.
"""


def make_parser() -> argparse.ArgumentParser:
    """The documented flags."""
    parser = Parser(
        prog="python -m selfflow_wm.sample",
        description="Sample images, video or audio from an official or own checkpoint.",
        epilog=EPILOG,
    )
    _add_solver_flags(parser)
    _add_input_flags(parser)
    return parser


def _add_solver_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="official .pt or .safetensors file, or an own checkpoint or run directory",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="where results and parts go")
    add("--modality", metavar="NAME", help="what a model of several is to make: image, video, "
        "audio, or video_audio from --images")  # fmt: skip
    add("--num", type=_positive, default=16, metavar="N", help="samples in all (16)")
    add("--batch", type=_positive, default=16, metavar="N", help="samples at a time (16)")
    add("--steps", type=_positive, default=50, metavar="N", help="steps of the solver (50)")
    add("--solver", choices=SOLVERS, default="euler", help="ODE or SDE solver (euler)")
    add(
        "--shift",
        type=_number,
        default=1.0,
        metavar="A",
        help="shift of the time grid towards noise, > 0 (1.0)",
    )
    add(
        "--guidance",
        type=_scale,
        default=1.0,
        metavar="G",
        help="classifier-free guidance; 1 is none (1.0)",
    )
    add(
        "--guidance-interval",
        type=_interval,
        default=(0.0, 1.0),
        metavar="LOW,HIGH",
        help="times t at which guidance acts, 1 being noise (0,1)",
    )
    add("--seed", type=_seed, default=0, metavar="N", help="seed of the run (0)")


def _add_input_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--classes",
        metavar="LIST",
        help="labels such as 207,360 in turn, balanced (all in turn; the default) or random",
    )
    add("--captions-file", type=Path, metavar="FILE", help="one caption per line, used in turn")
    add("--images", type=Path, nargs="+", default=[], metavar="FILE",
        help="pictures that video_audio begins from, used in turn")  # fmt: skip
    add("--fps", type=_number, metavar="F", help="frame rate of films (that of the training)")
    add(
        "--vae",
        type=Path,
        metavar="DIR",
        help="Stable Diffusion's autoencoder (sd-vae-ft-ema) in diffusers' format",
    )
    add("--device", default="cpu", help="cpu or cuda; ranks take a GPU each (cpu)")
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the network's arithmetic (float32)",
    )
    add(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="make only the I-th of N shares, from 0 (default: RANK and WORLD_SIZE, or 0/1)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 after a one-line error, 130 when interrupted."""
    args = make_parser().parse_args(argv)
    return exit_code(lambda: _run(args), resumable=True)


def _run(args: argparse.Namespace) -> None:
    shard, shards = args.shard or _environment_shard()
    device = _device(args.device)
    numbers = shard_numbers(args.num, shard, shards)
    solve = Solve(args.steps, args.shift, args.solver, args.guidance, args.guidance_interval)
    if not args.checkpoint.is_file():
        args.checkpoint = find_checkpoint(args.checkpoint)
    saved = load_checkpoint(args.checkpoint, device, args.modality)
    conditions = make_conditions(saved.model.layout, args.classes, args.captions_file, args.seed)
    clips = _clips(saved, args, device)
    decoder = None if clips else _decoder(saved, args.modality, args.vae, device)
    settings = {
        "checkpoint": fingerprint(args.checkpoint)[:16],
        "seed": args.seed,
        "classes": (args.classes or "balanced") if isinstance(conditions, Labels) else None,
        "captions": fingerprint(args.captions_file)[:16] if args.captions_file else None,
        "decoder": clips.name if clips else decoder.name if decoder else None,
        "precision": args.precision,
        "solve": {**vars(solve), "guidance_interval": list(solve.guidance_interval)},
    }
    if args.modality is not None:  # absent otherwise, so that older runs can go on
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
        batch=args.batch, seed=args.seed, device=device, precision=args.precision,
        modality=args.modality, clips=clips,
    )  # fmt: skip
    print(f"shard {shard}/{shards}: {made} samples made, {len(numbers) - made} were there")
    written = finish(parts, args.num, decoder is not None, clips)
    for path in written:
        print(f"wrote {path}")
    if not written:
        print(f"other shards are not done; the last of them writes the {args.num} samples")


def load_checkpoint(
    path: Path, device: torch.device | str, modality: str | None = None
) -> SavedModel:
    """An own checkpoint directory or an official file: a model of a single modality, or of several
    if `modality` says which to make; `codec` is then that one's."""
    if path.is_dir():
        saved = load_model(path, device)
    elif path.is_file():
        saved = SavedModel(load_official(path).to(device), {})
    else:
        raise ValueError(
            f"--checkpoint {path}: expected a file or directory, got nothing there; check the path"
        )
    if modality == JOINT and saved.codecs:
        return saved
    if modality is not None:
        if modality not in saved.model.layout:
            raise ValueError(
                f"--modality: expected one of {saved.model.layout.names}, got {modality!r}"
            )
        saved.codec = saved.codecs.get(modality, saved.codec)
    elif saved.codecs and len(saved.model.layout.names) > 1:
        raise ValueError(
            f"--checkpoint {path}: expected --modality for a model of {saved.model.layout.names}, "
            "got none; say which one to make"
        )
    elif len(saved.model.layout.names) != 1:
        raise ValueError(
            f"--checkpoint {path}: expected a model of images alone, got one of "
            f"{saved.model.layout.names}; it needs given modalities that this command has not"
        )
    return saved


def _clips(saved: SavedModel, args: argparse.Namespace, device: torch.device) -> Clips | None:
    """For models of several modalities that are to make video or audio; else None."""
    if saved.codecs and args.modality in MODES and args.modality != "image":
        return Clips(saved, args.modality, args.fps, args.images, device)
    if args.images or args.fps:
        raise ValueError(
            "--images, --fps: expected --modality video or video_audio of a model of several "
            f"modalities, got --modality {args.modality}; leave them out"
        )
    return None


def _decoder(
    saved: SavedModel, modality: str | None, vae: Path | None, device: torch.device
) -> Decoder | None:
    layout = saved.model.layout
    image = layout.modalities[0] if modality is None else layout[modality]
    if saved.codec is not None:
        if vae is not None:
            raise ValueError(
                "--vae: expected none for a checkpoint with a codec of its own; leave it out"
            )
        if saved.codec.modality != "image":
            return None
        return CodecDecoder(saved.codec, image)
    return None if vae is None else vae_decoder(vae, image, device)


def _device(name: str) -> torch.device:
    """`cuda` becomes this rank's GPU."""
    device = compute_device(name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


def _environment_shard() -> tuple[int, int]:
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _bad(expected: str, got: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"expected {expected}; got {got!r}")


def _positive(text: str) -> int:
    return int(text) if text.isdecimal() and int(text) > 0 else _bad("a whole number >= 1", text)


def _seed(text: str) -> int:
    return int(text) if text.isdecimal() else _bad("a whole number >= 0", text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    return value if 0 < value < float("inf") else _bad("a number above 0", text)


def _scale(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else _number(text)


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    return (
        (low, high) if 0 <= low <= high <= 1 else _bad("LOW,HIGH with 0 <= LOW <= HIGH <= 1", text)
    )


def _shard(text: str) -> tuple[int, int]:
    words: list[Any] = text.split("/")
    if len(words) == 2 and all(word.isdecimal() for word in words):
        index, shards = map(int, words)
        if index < shards:
            return index, shards
    return _bad("I/N with 0 <= I < N, such as 0/8", text)
