"""python -m selfflow_wm.evaluation.fid: the FID of pictures against others."""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from selfflow_wm.cli import Parser, exit_code, run_main
from selfflow_wm.data.files import find_media
from selfflow_wm.data.folders import PICTURES
from selfflow_wm.evaluation.inception import WIDTH, InceptionFeatures
from selfflow_wm.metrics.frechet import gaussian_distance
from selfflow_wm.training.log import Progress

BATCH = 32

EPILOG = """\
A and B are files such as samples.npz of python -m selfflow_wm.sample (arr_0: uint8 NHWC), or
folders of pictures, which keep their sizes. FILE is the state dict of FID's Inception
(pt_inception-2015-12-05-6726825d.pth), which is yours to bring: nothing is downloaded. Pictures are
scaled as clean-fid does; numbers of other scalings differ a little.

example:
  python -m selfflow_wm.evaluation.fid samples/media/samples.npz data/media/image --weights FILE
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    parser = Parser(
        prog="python -m selfflow_wm.evaluation.fid",
        description="The FID between two sets of pictures.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("samples", type=Path, metavar="A", help="a .npz file or a folder of pictures")
    add("reference", type=Path, metavar="B", help="the same, of true ones")
    add("--weights", type=Path, required=True, metavar="FILE", help="of the Inception network")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where it works (cpu)")
    arguments = parser.parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    extract = InceptionFeatures(arguments.weights, arguments.device)
    sets = [features(path, extract) for path in (arguments.samples, arguments.reference)]
    distance = fid(*sets)
    print(f"FID {distance:.3f}, {len(sets[0])} against {len(sets[1])} pictures, {extract.name}")
    if min(map(len, sets)) <= WIDTH:
        sys.stderr.write(
            f"warning: fewer than {WIDTH + 1} pictures on a side: the covariance is singular and "
            "the FID far too large; 50,000 are usual\n"
        )


def features(path: Path, extract: InceptionFeatures) -> Float[np.ndarray, "N 2048"]:
    """Of all pictures of a file or folder, with a progress bar."""
    if path.is_dir():
        count, pictures = len(find_media(path, PICTURES)), _folder(path)
    else:
        count, pictures = _count(path), _archive(path)
    rows, group = [], []
    progress = Progress(count, 0, description=path.name, unit="picture")
    try:
        for number, picture in enumerate(pictures, start=1):
            group.append(picture)
            if len(group) == BATCH or number == count:
                rows.append(extract(group))
                group = []
                progress.advance(number)
    finally:
        progress.close()
    return np.concatenate(rows)


def fid(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> float:
    """The plug-in Fréchet distance of two sets of features, as FID is published; ValueError for
    fewer than two on a side."""
    if min(len(a), len(b)) < 2:
        raise ValueError(f"expected two pictures or more on each side, got {len(a)} and {len(b)}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    return gaussian_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


def _folder(path: Path) -> Iterator[np.ndarray]:
    import io

    for file in find_media(path, PICTURES):
        try:
            with Image.open(io.BytesIO(file.read())) as picture:
                yield np.array(picture.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise ValueError(
                f"{file.name}: expected a picture, got {error}; take it away, a FID is of all of "
                "them"
            ) from None


def _count(path: Path) -> int:
    shape, _, stream = _open(path)
    stream.close()
    return shape[0]


def _archive(path: Path) -> Iterator[np.ndarray]:
    """The pictures of arr_0, of which one at a time is in memory."""
    shape, size, stream = _open(path)
    with stream:
        for _ in range(shape[0]):
            yield np.frombuffer(stream.read(size), np.uint8).reshape(shape[1:])


def _open(path: Path) -> tuple[tuple[int, ...], int, zipfile.ZipExtFile]:
    """(shape, bytes of a picture, the stream at the first)."""
    try:
        stream = zipfile.ZipFile(path).open("arr_0.npy")  # noqa: SIM115  (closed by the caller)
        np.lib.format.read_magic(stream)
        shape, fortran, kind = np.lib.format.read_array_header_1_0(stream)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected a folder of pictures, or an .npz with arr_0, got {error}; check the "
            "path"
        ) from None
    if kind != np.uint8 or fortran or len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"{path}: expected arr_0 uint8 (N, H, W, 3), got {kind} {shape}")
    return shape, int(np.prod(shape[1:])), stream  # pyright: ignore[reportReturnType]


if __name__ == "__main__":
    run_main(main)
