"""What the toy world is made of: sizes, words, fonts, splits and what training never sees."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfflow_wm.data.toy.words import WORDS

KINDS = ("sign", "shapes", "figure", "sound", "bounce", "tap")
"""sign: an image; shapes, figure: videos; sound: audio; bounce, tap: video with audio."""

SPLITS = {
    "test": range(0, 10**6),
    "validation": range(10**6, 2 * 10**6),
    "train": range(2 * 10**6, 2**48),
}
"""Seeds of each split. They share none."""

FONTS = {
    "sans": "DejaVuSans.ttf",
    "bold sans": "DejaVuSans-Bold.ttf",
    "oblique sans": "DejaVuSans-Oblique.ttf",
    "serif": "DejaVuSerif.ttf",
    "bold serif": "DejaVuSerif-Bold.ttf",
    "italic serif": "DejaVuSerif-Italic.ttf",
    "mono": "DejaVuSansMono.ttf",
    "bold mono": "DejaVuSansMono-Bold.ttf",
}
"""Fonts by the name captions give them; the files come with matplotlib."""

CASES = {"upper": str.upper, "capital": str.capitalize, "lower": str.lower}
"""How a word may be painted."""

PALETTE = {
    "red": (220, 50, 47),
    "orange": (240, 140, 30),
    "green": (60, 160, 70),
    "teal": (0, 165, 165),
    "blue": (45, 100, 215),
    "purple": (140, 65, 180),
}
"""RGB of the things that have an identity. Detection names a pixel by the nearest of these."""

INK = (40, 36, 48)
"""RGB of limbs and of a drumstick's handle."""

GOLD = (250, 210, 60)
"""RGB of a limb's end."""

SLATE = (84, 90, 104)
"""RGB of the wall that hides shapes."""

SHAPES = ("circle", "square", "triangle", "diamond", "cross")
MATERIALS = ("wood", "metal", "drum")
MOTIONS = ("walks", "waves", "jumps")

_VERSION = 1
"""Enters every stream of random numbers; raise it when a rendering changes."""


@dataclass(frozen=True)
class ToyConfig:
    """Everything that decides what a seed shows.

    Args:
        height, width: pixels, at least 32.
        frames: T of a video, 1 + 4k as causal video codecs want it.
        fps: frames a second; frame i shows the instant i / fps.
        sample_rate: Hz; divisible by fps, so that a frame lasts a whole number of samples.
        words: what signs say, lower case a to z, at most 8 letters.
        fonts: names in `FONTS`.
        cases: of `CASES`, in which words are painted.
        held_out: share of the words that only the test split shows, in [0, 0.5].
    """

    height: int = 64
    width: int = 64
    frames: int = 17
    fps: float = 12.5
    sample_rate: int = 16000
    words: tuple[str, ...] = WORDS
    fonts: tuple[str, ...] = tuple(FONTS)
    cases: tuple[str, ...] = tuple(CASES)
    held_out: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))
        object.__setattr__(self, "fonts", tuple(self.fonts))
        object.__setattr__(self, "cases", tuple(self.cases))
        if min(self.height, self.width) < 32:
            raise ValueError(
                f"expected pictures of at least 32x32, got {self.height}x{self.width}; letters "
                "need the room"
            )
        if self.frames < 1 or self.frames % 4 != 1:
            raise ValueError(f"expected frames = 1 + 4k, got {self.frames}; take 17 or 33")
        if self.fps <= 0 or (self.sample_rate / self.fps) % 1:
            raise ValueError(
                f"expected a sample rate divisible by fps, got {self.sample_rate} and {self.fps}; "
                "a frame lasts whole samples"
            )
        if not self.words or len(set(self.words)) != len(self.words):
            raise ValueError(f"expected distinct words, at least one, got {len(self.words)}")
        for word in self.words:
            if not (word.isascii() and word.isalpha() and word.islower() and len(word) <= 8):
                raise ValueError(f"expected words of at most 8 letters a to z, got {word!r}")
        if unknown := sorted(set(self.fonts) - set(FONTS)):
            raise ValueError(f"expected fonts of {list(FONTS)}, got {unknown}")
        if not self.fonts:
            raise ValueError("expected at least one font, got none")
        if not self.cases or set(self.cases) - set(CASES):
            raise ValueError(f"expected cases of {list(CASES)}, got {list(self.cases)}")
        if not 0 <= self.held_out <= 0.5:
            raise ValueError(f"expected held_out in [0, 0.5], got {self.held_out}")

    @property
    def samples(self) -> int:
        """Audio samples of a clip: as long as its frames, each lasting 1 / fps."""
        return round(self.frames * self.sample_rate / self.fps)

    @property
    def held_out_words(self) -> tuple[str, ...]:
        """Words that only the test split shows, chosen by checksum."""
        order = sorted(self.words, key=lambda word: zlib.crc32(word.encode()))
        return tuple(sorted(order[: round(self.held_out * len(order))]))

    @property
    def seen_words(self) -> tuple[str, ...]:
        """Words that every split shows."""
        held_out = set(self.held_out_words)
        return tuple(word for word in self.words if word not in held_out)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {
            "words": list(self.words),
            "fonts": list(self.fonts),
            "cases": list(self.cases),
            "version": _VERSION,
        }


def split_of(seed: int) -> str:
    """The split that a seed belongs to; ValueError for one in none."""
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    raise ValueError(f"expected a seed in 0..{SPLITS['train'].stop - 1}, got {seed!r}")


def is_held_out(first: int, second: int) -> bool:
    """Whether a pair of attributes, such as (colour, shape) by index, is kept from training.

    A fifth of all pairs; each attribute alone is seen.
    """
    return (2 * first + second) % 5 == 0


class Draw:
    """The random numbers of one sample: a function of kind and seed alone."""

    def __init__(self, kind: str, seed: int) -> None:
        self.split = split_of(seed)
        entropy = (_VERSION, KINDS.index(kind), seed & 0xFFFFFFFF, seed >> 32)
        self._random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._random.random())

    def integer(self, count: int) -> int:
        """A whole number in 0..count-1."""
        return min(int(self._random.random() * count), count - 1)

    def noise(self, count: int) -> np.ndarray:
        """White noise, uniform on [-1, 1), float64."""
        return 2 * self._random.random(count) - 1

    def choose(self, items: Any) -> Any:
        """One of a sequence."""
        return items[self.integer(len(items))]

    def pair(self, first: int, second: int) -> tuple[int, int]:
        """Indices of two attributes; outside the test split never a held-out pair."""
        while True:
            pair = self.integer(first), self.integer(second)
            if self.split == "test" or not is_held_out(*pair):
                return pair
