"""Labelled latents of the toy world: python -m selfflow_wm.evaluation.labelled, for probes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from selfflow_wm.cli import Parser, at_least, exit_code, run_main
from selfflow_wm.data import JOINT, MODES
from selfflow_wm.data.toy import ToyWorld
from selfflow_wm.data.toy.source import RENDERED, as_sample
from selfflow_wm.evaluation.checkpoints import Entry, find_checkpoints, open_checkpoint
from selfflow_wm.files import atomic_file
from selfflow_wm.probing.sources import codec_tensor
from selfflow_wm.training import checkpoint
from selfflow_wm.training.log import Progress

SPLIT = "validation"
"""No seed of training's; the words and pairs of attributes are training's own."""
BATCH = 50

EPILOG = """\
KIND=LABEL are a kind of the toy world and an attribute of its ground truth: sign=word, sign=font,
sign=color, shapes=count, figure=limbs, figure=motion, sound=material, sound=contour, sound=count.

FILE is what `python -m selfflow_wm.probe --data` takes: `latents` (N, tokens, C) by the codec of
the checkpoint, `labels` (N,), places in the sorted values of the attribute, and `codec`, the hash
by which a probe knows the checkpoints that share that codec, as the twins of a seed do.

example:
  python -m selfflow_wm.evaluation.labelled runs/self_flow sign=word --out words.safetensors
  python -m selfflow_wm.probe --data words.safetensors --out runs/probe \\
      --checkpoint sf=runs/self_flow/checkpoint --checkpoint fm=runs/flow_matching/checkpoint
"""


def modality_of(kind: str) -> str:
    """The modality that shows a kind of the toy world. ValueError for a kind without one of its own
    (contacts are seen and heard together)."""
    for mode, kinds in RENDERED.items():
        if kind in kinds and mode != JOINT:
            return mode
    known = [kind for mode, kinds in RENDERED.items() if mode != JOINT for kind in kinds]
    raise ValueError(f"expected a kind of {known}, got {kind!r}")


def labelled_latents(
    entry: Entry, kind: str, label: str, count: int, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """`latents` (N, tokens, C) float32 and `labels` (N,) int64 of the first `count` renderings, and
    `codec`, see `probing.sources.codec_tensor`.

    Raises:
        ValueError: a kind or label that the toy world lacks, or a modality that the checkpoint
            does.
    """
    modality = modality_of(kind)
    _, encoder = open_checkpoint(entry, device)
    if modality not in encoder.codecs:
        raise ValueError(
            f"{entry.path}: expected a model of {modality}, which shows {kind}, got one of "
            f"{', '.join(encoder.codecs)}; probe another kind"
        )
    world, latents, values = ToyWorld(entry.world), [], []
    progress = Progress(count, 0, description=f"rendering {kind}", unit="sample")
    try:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            samples = [world.sample(kind, world.seed(SPLIT, number)) for number in numbers]
            known = samples[0].truth.labels
            if label not in known:
                raise ValueError(f"expected a label of {kind} out of {list(known)}, got {label!r}")
            batch = encoder([as_sample(one, entry.world) for one in samples], MODES[modality])
            latents.append(batch.latents[modality].float().cpu())
            values += [sample.truth.labels[label] for sample in samples]
            progress.advance(len(values))
    finally:
        progress.close()
    names = sorted(set(values))
    labels = torch.tensor([names.index(value) for value in values])
    codec = codec_tensor(encoder.codecs[modality].hash())
    return {"latents": torch.cat(latents), "labels": labels, "codec": codec}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    parser = Parser(
        prog="python -m selfflow_wm.evaluation.labelled",
        description="Write labelled latents of the toy world, for python -m selfflow_wm.probe.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("checkpoint", metavar="PATH", help="a run on the toy world, or a checkpoint directory")
    add("what", metavar="KIND=LABEL", help="what is shown, and what a probe is to find in it")
    add("--samples", type=at_least(10), default=2000, metavar="N", help="renderings (2000)")
    add("--out", type=Path, required=True, metavar="FILE", help="a .safetensors file")
    arguments = parser.parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    kind, equals, label = arguments.what.partition("=")
    if not equals:
        raise ValueError(f"expected KIND=LABEL, such as sign=word, got {arguments.what!r}")
    [entry] = find_checkpoints([arguments.checkpoint])
    tensors = labelled_latents(entry, kind, label, arguments.samples)
    write_labelled(arguments.out, tensors)
    classes = int(tensors["labels"].max()) + 1
    print(f"{arguments.out}: {tuple(tensors['latents'].shape)}, {classes} values of {label}")


def write_labelled(path: Path, tensors: dict[str, Tensor]) -> None:
    """The file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        checkpoint.save_tensors(temporary, tensors)


if __name__ == "__main__":
    run_main(main)
