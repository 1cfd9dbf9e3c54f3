"""python -m selfflow_wm.evaluation.distance: FID, FVD or FAD of any two sets of media."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from selfflow_wm.cli import LINE_EVERY, Parser, at_least, compute_device, exit_code, run_main
from selfflow_wm.evaluation.features import (
    Context,
    Extractor,
    checked,
    make_extractors,
    parse_feature,
)
from selfflow_wm.evaluation.media_sets import NOUNS, Cut, MediaSet, open_sets
from selfflow_wm.files import atomic_file
from selfflow_wm.metrics.frechet import frechet_distance, plug_in_distance
from selfflow_wm.training.checkpoint import write_json
from selfflow_wm.training.log import Progress

BATCH = {"image": 32, "video": 8, "audio": 16}

TITLES = {
    ("image", "inception"): "FID",
    ("video", "i3d"): "FVD",
    ("video", "videomae"): "FVD",
    ("audio", "clap"): "FAD",
}
"""What the distance is called in the literature, by modality and extractor."""

RESAMPLES, AFFORDABLE = 100, 768
"""Resamples behind the interval, and the widest features whose eigenvalues are taken that often
unless --resamples says so: six minutes of a CPU core."""

QUICK = 256
"""Features up to which that takes seconds and needs no word."""

SCHEMA = 1
"""Version of the file of --json."""

EPILOG = """\
A and B are each an .npz such as samples.npz of python -m selfflow_wm.sample (arr_0: pictures uint8
NHWC, videos uint8 NTHWC, sounds float NAS), or a folder of media. Pictures keep their sizes; of
videos the first T frames count, scaled to cover H W; of sounds the first S samples, channels mixed.
T, H W and S are those of the .npz unless said otherwise. A file that can't be read is an error.

--features, whose weights are yours to bring (nothing is downloaded):
  image=inception:FILE  FID. pt_inception-2015-12-05-6726825d.pth; pictures are scaled as clean-fid
                        does, numbers of other scalings differ a little
  video=i3d:FILE        FVD. StyleGAN-V's i3d_torchscript.pt, a program: trust where it comes from
  video=videomae:DIR    FVD by VideoMAE, as transformers keeps it (extra evaluation)
  audio=clap:DIR        FAD by CLAP, as transformers keeps it (extra evaluation)
  MODALITY=package.Name[:ARGUMENT]  one of your own: selfflow_wm/evaluation/features.py

The value is the plug-in one, as it is published: biased upwards, so compare equal counts only. With
more than twice as many samples as features it is also extrapolated to infinitely many, with a 95%
interval. Distances by different extractors can't be compared.

examples:
  python -m selfflow_wm.evaluation.distance samples/media/samples.npz data/media/image \\
      --features image=inception:weights/inception.pth
  python -m selfflow_wm.evaluation.distance samples/films/samples.npz data/media/video \\
      --features video=i3d:weights/i3d_torchscript.pt --json fvd.json --device cuda
  python -m selfflow_wm.evaluation.distance samples/sounds/samples.npz data/media/audio \\
      --features audio=clap:weights/clap --sample-rate 48000
"""


@dataclass(frozen=True)
class Distance:
    """A Fréchet distance with what it rests on."""

    metric: str
    """FID, FVD, FAD, or Fréchet distance."""
    value: float
    """The plug-in one."""
    unbiased: float | None
    """Extrapolated to infinitely many samples; with `low` and `high`, its 95% interval, None where
    samples were too few or features too wide. See `metrics.frechet.Frechet`."""
    low: float | None
    high: float | None
    counts: tuple[int, int]
    width: int
    """Features of a sample."""
    extractor: str


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    arguments = make_parser().parse_args(argv)
    return exit_code(lambda: _run(arguments))


def make_parser() -> argparse.ArgumentParser:
    """The documented flags."""
    parser = Parser(
        prog="python -m selfflow_wm.evaluation.distance",
        description="The Fréchet distance between two sets of pictures, videos or sounds.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("samples", type=Path, metavar="A", help="an .npz file or a folder")
    add("reference", type=Path, metavar="B", help="the same, of true ones")
    add("--features", required=True, metavar="MODALITY=NAME[:ARGUMENT]", help="see below")
    add("--frames", type=at_least(1), metavar="T", help="first ones of each video")
    add("--size", type=at_least(1), nargs=2, metavar=("H", "W"), help="of videos, pixels")
    add("--fps", type=at_least(0.001), metavar="F",
        help="frames a second that a folder's videos must have (any)")  # fmt: skip
    add("--samples", type=at_least(1), metavar="S", dest="length", help="first ones of each sound")
    add("--sample-rate", type=at_least(1), metavar="HZ",
        help="of all sounds; nothing is resampled")  # fmt: skip
    add("--resamples", type=at_least(0), metavar="N",
        help=f"behind the interval, 2 or more; 0: no extrapolation ({RESAMPLES}; 0 above "
        f"{AFFORDABLE} features)")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write the result there too")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where the network works (cpu)")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    a = arguments
    if a.resamples == 1:
        raise ValueError("--resamples: expected 0, or 2 or more, got 1")
    compute_device(a.device)
    if a.json is not None and a.json.is_dir():
        raise ValueError(f"--json: expected a file to write, got the directory {a.json}")
    modality, choice = parse_feature(a.features)
    size = None if a.size is None else (a.size[0], a.size[1])
    cut = Cut(a.frames, size, a.length, a.sample_rate, a.fps)
    sets, cut = open_sets(modality, (a.samples, a.reference), cut)
    context = Context(sample_rate=a.sample_rate, fps=a.fps, device=a.device)
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
    if a.json is not None:
        _write(a, modality, cut, distance)


def features(media: MediaSet, extract: Extractor, batch: int) -> Float[np.ndarray, "N D"]:
    """Of all samples of a set, `batch` at a time, with a progress bar.

    ValueError for features that are not finite (B, D), or what reading the media raises.
    """
    rows: list[np.ndarray] = []
    group: list[np.ndarray] = []
    progress = Progress(media.count, 0, description=media.path.name, unit="sample")
    reported = time.monotonic()
    try:
        for number, sample in enumerate(media.samples(), start=1):
            group.append(sample)
            if len(group) < batch and number < media.count:
                continue
            rows += _extract(extract, group)
            group = []
            progress.advance(number)
            if time.monotonic() - reported > LINE_EVERY:
                reported = time.monotonic()
                progress.report(number, {})
    finally:
        progress.close()
    return np.concatenate(rows)


def _extract(extract: Extractor, group: Sequence[np.ndarray]) -> list[np.ndarray]:
    if getattr(extract, "mixed_sizes", False):
        parts: list[Any] = [group]
    else:
        parts = [np.stack(list(same)) for _, same in groupby(group, lambda sample: sample.shape)]
    return [checked(extract, part) for part in parts]


def measure(
    metric: str,
    a: Float[np.ndarray, "N D"],
    b: Float[np.ndarray, "M D"],
    extractor: str,
    resamples: int | None = None,
) -> Distance:
    """The distance of two sets of features, extrapolated where there are more than 2 D of each and
    `resamples` (None: RESAMPLES of features no wider than AFFORDABLE) is not 0."""
    width = a.shape[1]
    if resamples is None:
        resamples = RESAMPLES if width <= AFFORDABLE else 0
    counts = (len(a), len(b))
    if not resamples or min(counts) <= 2 * width:
        value = plug_in_distance(a, b)
        return Distance(metric, value, None, None, None, counts, width, extractor)
    if width > QUICK:
        sys.stderr.write(f"extrapolating: {resamples} resamples of {width} features, minutes\n")
    found = frechet_distance(a, b, resamples)
    interval = (found.unbiased, found.low, found.high)
    return Distance(metric, found.distance, *interval, counts, width, extractor)


def describe(distance: Distance, noun: str) -> str:
    """One line of text."""
    d = distance
    extrapolated = (
        ""
        if d.unbiased is None
        else f" (extrapolated {d.unbiased:.5g} [{d.low:.5g}, {d.high:.5g}])"
    )
    return (
        f"{d.metric} {d.value:.5g}{extrapolated}, {d.counts[0]} against {d.counts[1]} {noun}, "
        f"{d.extractor}"
    )


def _write(arguments: argparse.Namespace, modality: str, cut: Cut, distance: Distance) -> None:
    """The result with what it is of, whole or not at all."""
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
    with atomic_file(arguments.json) as temporary:
        write_json(temporary, value)


if __name__ == "__main__":
    run_main(main)
