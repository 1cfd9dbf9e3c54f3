"""FID, FVD or FAD of any two sets of media."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selfflow_wm.cli import Parser, at_least, compute_device, perform

SCHEMA = 1
"""Version of the file of --out."""

EPILOG = """\
A and B are each an .npz such as samples.npz of python -m selfflow_wm.sample (arr_0: pictures uint8
NHWC, videos uint8 NTHWC, sounds float NAS), or a folder of media. Pictures keep their sizes; of
videos the first T frames count, scaled to cover H W; of sounds the first S samples, channels mixed.
T, H W and S are those of the .npz unless given. A file that can't be read is an error.

--features, whose weights are yours to bring (nothing is downloaded):
  image=inception:FILE  FID. pt_inception-2015-12-05-6726825d.pth; pictures are scaled as clean-fid
                        does, numbers of other scalings differ a little
  video=i3d:FILE        FVD. StyleGAN-V's i3d_torchscript.pt, a program: trust where it comes from
  video=videomae:DIR    FVD by VideoMAE, as transformers keeps it (extra evaluation)
  audio=clap:DIR        FAD by CLAP, as transformers keeps it (extra evaluation)
  MODALITY=package.Name[:ARGUMENT]  your class: see selfflow_wm/evaluation/features.py

The value is the plug-in one, as it is published: biased upwards, so compare equal counts only. With
more than twice as many samples as features it is also extrapolated to infinitely many, with a 95%
interval. Distances by different extractors can't be compared.

examples:
  python -m selfflow_wm.evaluate distance samples/media/samples.npz data/media/image \\
      --features image=inception:weights/inception.pth
  python -m selfflow_wm.evaluate distance samples/videos/samples.npz data/media/video \\
      --features video=i3d:weights/i3d_torchscript.pt --out fvd.json
  python -m selfflow_wm.evaluate distance samples/sounds/samples.npz data/media/audio \\
      --features audio=clap:weights/clap --sample-rate 48000
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    return perform(_parser(), _run, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m selfflow_wm.evaluate distance",
        description="The Fréchet distance between two sets of pictures, videos or sounds.",
        epilog=EPILOG,
        renamed={"--json": "--out", "--samples": "--length"},
    )
    add = parser.add_argument
    add("samples", type=Path, metavar="A", help="an .npz file or a folder")
    add("reference", type=Path, metavar="B", help="the same, of true ones")
    add("--features", required=True, metavar="MODALITY=NAME[:ARGUMENT]", help="see below")
    add("--frames", type=at_least(1), metavar="T", help="first ones of each video")
    add("--size", type=at_least(1), nargs=2, metavar=("H", "W"), help="of videos, pixels")
    add("--fps", type=at_least(0.001), metavar="F",
        help="frames a second that a folder's videos must have (any)")  # fmt: skip
    add("--length", type=at_least(1), metavar="S", help="first samples of each sound")
    add("--sample-rate", type=at_least(1), metavar="HZ",
        help="of all sounds; nothing is resampled")  # fmt: skip
    add("--resamples", type=at_least(0), metavar="N",
        help="behind the interval, 2 or more; 0: no extrapolation (100; 0 above 768 "
        "features)")  # fmt: skip
    parser.add_shared("out", required=False, metavar="FILE.json", help="write the result there too")
    parser.add_shared("device")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from selfflow_wm.evaluation.distance import BATCH, TITLES, describe, features, measure
    from selfflow_wm.evaluation.features import Context, make_extractors, parse_feature
    from selfflow_wm.evaluation.media_sets import NOUNS, Cut, open_sets

    a = arguments
    if a.resamples == 1:
        raise ValueError("--resamples: expected 0, or 2 or more, got 1; write --resamples 2")
    if a.out is not None and a.out.is_dir():
        raise ValueError(f"--out: expected a file to write, got the directory {a.out}; name a file")
    device = str(compute_device(a.device))
    modality, choice = parse_feature(a.features)
    size = None if a.size is None else (a.size[0], a.size[1])
    cut = Cut(a.frames, size, a.length, a.sample_rate, a.fps)
    sets, cut = open_sets(modality, (a.samples, a.reference), cut)
    context = Context(sample_rate=a.sample_rate, fps=a.fps, device=device)
    extract = make_extractors({modality: choice}, context)[modality]
    found = [features(media, extract, BATCH[modality]) for media in sets]
    metric = TITLES.get((modality, choice[0]), "Fréchet distance")
    distance = measure(metric, found[0], found[1], extract.name, a.resamples)
    print(describe(distance, NOUNS[modality]))
    if min(distance.counts) <= distance.width:
        sys.stderr.write(
            f"warning: expected more than {distance.width} {NOUNS[modality]} on each side, as many "
            f"as features, got {min(distance.counts)}: the covariance is singular and the distance "
            "far too large\n"
        )
    if a.out is not None:
        _write(a, modality, cut, distance)


def _write(arguments: argparse.Namespace, modality: str, cut: Any, distance: Any) -> None:
    """Write the result with its settings."""
    from selfflow_wm.files import write_json

    value = {
        "schema": SCHEMA,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "a": str(arguments.samples),
        "b": str(arguments.reference),
        "modality": modality,
        "features": arguments.features,
        "cut": asdict(cut),
        **asdict(distance),
    }
    write_json(arguments.out, value)
