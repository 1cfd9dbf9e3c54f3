"""Write labelled latents of the toy world, for probes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from selfflow_wm.cli import Parser, at_least, compute_device, perform

EPILOG = """\
KIND=LABEL are a kind of the toy world and an attribute of its ground truth: sign=word, sign=font,
sign=color, shapes=count, figure=limbs, figure=motion, sound=material, sound=contour, sound=count.

FILE is what `evaluate probe --data` takes: `latents` (N, tokens, C) by the codec of the checkpoint,
`labels` (N,), places in the sorted values of the attribute, and `codec`, the hash by which a probe
knows the checkpoints that share that codec, as the twins of a seed do.

example:
  python -m selfflow_wm.evaluate labelled runs/self_flow sign=word --out words.safetensors
  python -m selfflow_wm.evaluate probe --data words.safetensors --out runs/probe \\
      --checkpoint sf=runs/self_flow/checkpoint --checkpoint fm=runs/flow_matching/checkpoint
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    return perform(_parser(), _run, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m selfflow_wm.evaluate labelled",
        description="Write labelled latents of the toy world, for evaluate probe.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("checkpoint", metavar="WHICH", help="a run on the toy world, or a checkpoint's directory")
    add("what", metavar="KIND=LABEL", help="what is shown, and what a probe is to find in it")
    parser.add_shared("samples", type=at_least(10), default=2000, help="renderings (%(default)s)")
    parser.add_shared("out", metavar="FILE", help="a .safetensors file")
    parser.add_shared("device")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from selfflow_wm.evaluation.checkpoints import find_checkpoints
    from selfflow_wm.evaluation.labelled import labelled_latents, write_labelled

    kind, equals, label = arguments.what.partition("=")
    if not equals:
        raise ValueError(
            f"expected KIND=LABEL, got {arguments.what!r}; write for example sign=word"
        )
    device = compute_device(arguments.device)
    [entry] = find_checkpoints([arguments.checkpoint])
    tensors = labelled_latents(entry, kind, label, arguments.samples, device)
    write_labelled(arguments.out, tensors)
    classes = int(tensors["labels"].max()) + 1
    print(f"{arguments.out}: {tuple(tensors['latents'].shape)}, {classes} values of {label}")
