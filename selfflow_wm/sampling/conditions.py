"""What each image of a run is conditioned on, as a function of its number alone.

Neither the batch an image is in, nor its shard, nor how many images there are changes what it
is asked to show or the noise it starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from selfflow_wm.codec import encode_text
from selfflow_wm.layout import BYTE_VOCABULARY, Layout


@dataclass(frozen=True)
class Labels:
    """Class labels: those of `classes` in turn, or independent draws from them."""

    classes: tuple[int, ...]
    seed: int
    random: bool = False

    def labels(self, numbers: Sequence[int]) -> Int[np.ndarray, "B"]:
        """The class of each image."""
        if not self.random:
            return np.array([self.classes[n % len(self.classes)] for n in numbers], np.int64)
        # A separate stream per image; the 1 keeps it apart from the images' noise.
        draws = (np.random.default_rng([self.seed, 1, n]) for n in numbers)
        return np.array([self.classes[rng.integers(len(self.classes))] for rng in draws], np.int64)

    def text(self, numbers: Sequence[int]) -> tuple[Int[Tensor, "B 1"], Bool[Tensor, "B 1"]]:
        """text_ids and text_mask of these images."""
        ids = torch.from_numpy(self.labels(numbers))[:, None]
        return ids, torch.ones_like(ids, dtype=torch.bool)


@dataclass(frozen=True)
class Captions:
    """Captions in turn; an empty one stands for none."""

    captions: tuple[str, ...]
    max_length: int

    def labels(self, numbers: Sequence[int]) -> None:
        """Captions are not labels."""
        return

    def text(self, numbers: Sequence[int]) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """text_ids and text_mask of these images."""
        picked = [self.captions[n % len(self.captions)] for n in numbers]
        return encode_text(picked, self.max_length)


def make_conditions(
    layout: Layout, classes: str | None, captions_file: Path | None, seed: int
) -> Labels | Captions:
    """The conditions that the command line asks for.

    Args:
        layout: the model's; its vocabulary says whether captions are labels or bytes.
        classes: "balanced" (the default: every class in turn), "random", or labels such as
            "207,360", used in turn.
        captions_file: one caption per line, used in turn; without it nothing is asked for.

    ValueError when they do not suit the model or a line cannot be used.
    """
    if layout.vocabulary != BYTE_VOCABULARY:
        if captions_file is not None:
            raise ValueError(
                f"--captions-file: expected --classes for a model of {layout.null_id} classes, "
                "got captions; leave it out"
            )
        everything = tuple(range(layout.null_id))
        if classes in (None, "balanced", "random"):
            return Labels(everything, seed, random=classes == "random")
        return Labels(_parse_classes(str(classes), layout.null_id), seed)
    if classes is not None:
        raise ValueError(
            "--classes: expected --captions-file for a model of text, got classes; leave it out"
        )
    captions = ("",) if captions_file is None else _read_captions(captions_file, layout.text_length)
    return Captions(captions, layout.text_length)


def _parse_classes(text: str, count: int) -> tuple[int, ...]:
    try:
        classes = tuple(int(word) for word in text.split(","))
    except ValueError:
        classes = ()
    if not classes or not all(0 <= label < count for label in classes):
        raise ValueError(
            f"--classes: expected balanced, random or labels in 0..{count - 1} such as 2,3, got "
            f"{text!r}"
        )
    return classes


def _read_captions(path: Path, max_length: int) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--captions-file {path}: expected a UTF-8 text file, got {error}; check the path"
        ) from None
    if not lines:
        raise ValueError(f"--captions-file {path}: expected a caption per line, got none; add one")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise ValueError(
                f"--captions-file {path}, line {number}: expected a caption, got an empty line; "
                "remove it"
            )
        if (size := len(line.strip().encode())) > max_length:
            raise ValueError(
                f"--captions-file {path}, line {number}: expected at most {max_length} bytes, got "
                f"{size}; shorten it"
            )
    return tuple(lines)


def noise_seed(seed: int, number: int) -> int:
    """The seed of image `number` in the run `seed`, different for every image of the run."""
    # torch's CPU generator keeps 32 bits of a seed. A hash of (seed, number) would make two of
    # 50,000 images equal once in four runs; an offset within the run cannot.
    start = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return (start + number) % 2**32
