"""What a source of samples is: a kind, a length, and a raw sample for every number below it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

JOINT = "video_audio"
"""The kind of sources whose samples hold a clip and its sound."""

KINDS: dict[str, tuple[str, ...]] = {
    "image": ("image",),
    "video": ("video",),
    "audio": ("audio", "sample_rate"),
    JOINT: ("video", "audio", "sample_rate"),
}
"""Kinds of sources and what their samples hold beside the caption."""

Sample = Mapping[str, Any]
"""caption (a string, "" for none) and, by kind: image uint8 (H, W, 3); video uint8 (T, H, W, 3);
audio float32 (A, S) in about [-1, 1] with sample_rate in Hz (int). A joint sample may also hold the
image that conditions it; without one it is the first frame of the video."""


class Source(Protocol):
    """Samples by number: the same number, the same sample, in any order and any process.

    One whose samples are parts of longer files may have `at(number, lap)`, see `sample_at`.
    """

    kind: str
    """A key of `KINDS`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def sample_at(source: Source, number: int, lap: int) -> Sample:
    """What pass `lap` (from 0) over `source` takes of its sample `number`."""
    if hasattr(source, "at"):
        return source.at(number, lap)  # pyright: ignore[reportAttributeAccessIssue]
    return source[number]


def check_source(source: Source, kind: str) -> Source:
    """`source`, if it is of `kind`, not empty, and its first sample holds what it should.

    Raises:
        ValueError: otherwise.
    """
    found = getattr(source, "kind", None)
    if found != kind:
        raise ValueError(
            f"data.{kind}: expected a source of kind {kind!r}, got {found!r} "
            f"({type(source).__name__}); put it under its own kind"
        )
    if len(source) < 1:
        raise ValueError(f"data.{kind}: expected at least one sample, got none; check the path")
    sample = source[0]
    needed = ("caption", *KINDS[kind])
    if lacking := [name for name in needed if name not in sample]:
        raise ValueError(
            f"data.{kind}: expected samples with {', '.join(needed)}, got {sorted(sample)}; "
            f"add {', '.join(lacking)}"
        )
    return source


class UnusableSample(ValueError):
    """A sample that training cannot use; an error that the user can fix."""


def check_captions(source: Source, kind: str, longest: int) -> None:
    """ValueError when a caption that `source` knows in advance takes more than `longest` bytes.

    Such sources have `captions()`: pairs of a name and a caption.
    """
    if not hasattr(source, "captions"):
        return
    found: Any = source.captions()  # pyright: ignore[reportAttributeAccessIssue]
    sizes = {name: len(caption.strip().encode()) for name, caption in found}
    if too_long := [name for name, size in sizes.items() if size > longest]:
        worst = max(too_long, key=lambda name: sizes[name])
        raise ValueError(
            f"data.{kind}: expected captions of at most {longest} bytes, got {len(too_long)} "
            f"longer ones of {len(sizes)}, up to {sizes[worst]} at {worst}; set "
            f"layout.text_length={sizes[worst]}, or shorten them"
        )


class Part:
    """Some of the samples of a source, renumbered from 0.

    A source that lets samples stand in for broken ones, or gives other parts of long ones at later
    passes, has `among(numbers, index, lap)`, which takes them out of `numbers`.
    """

    def __init__(self, source: Source, numbers: Sequence[int] | np.ndarray) -> None:
        self.source, self.kind = source, source.kind
        self.numbers = np.asarray(numbers, np.int64)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Sample:
        return self.at(index)

    def fingerprint(self) -> str | None:
        """See `fingerprint`."""
        whole = fingerprint(self.source)
        return whole and hashlib.sha256(whole.encode() + self.numbers.tobytes()).hexdigest()[:16]

    def at(self, index: int, lap: int = 0) -> Sample:
        """Sample `index` as pass number `lap` over the data gives it."""
        if hasattr(self.source, "among"):
            found: Any = self.source
            return found.among(self.numbers, index, lap)
        return self.source[int(self.numbers[index])]


def fingerprint(source: Source) -> str | None:
    """Which samples in which order, for sources with `fingerprint()`, and their parts."""
    if hasattr(source, "fingerprint"):
        return source.fingerprint()  # pyright: ignore[reportAttributeAccessIssue]
    return None


def split_source(source: Source, share: float, most: int = 1024) -> tuple[Source, Source]:
    """Training and held-out samples, the latter `share` of all (at least 1, at most `most`).

    Which ones depends on the length of the source alone. A source that has others to hold out
    gives them itself: `held_out(count)`, a source of the same kind.
    """
    if not 0.0 < share < 1.0 or len(source) < 2:
        raise ValueError(
            f"expected a held-out share in (0, 1) and two samples or more, got {share} and "
            f"{len(source)}; add samples"
        )
    count = min(max(1, round(share * len(source))), most, len(source) - 1)
    if hasattr(source, "held_out"):
        return source, source.held_out(count)  # pyright: ignore[reportAttributeAccessIssue]
    order = np.random.default_rng(len(source)).permutation(len(source))
    return Part(source, np.sort(order[count:])), Part(source, np.sort(order[:count]))
