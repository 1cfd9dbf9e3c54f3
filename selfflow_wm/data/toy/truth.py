"""A sample, and what is known about it.

Positions are (x, y) in pixels: x to the right, y down, pixel i covers [i, i + 1). Times are in
seconds from the first frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True)
class SignTruth:
    """A sign with a word."""

    word: str
    """Lower case."""
    text: str
    """As painted: the word in some case."""
    font: str
    color: str
    box: tuple[float, float, float, float]
    """Left, top, right and bottom of the board before it is tilted."""
    letters: tuple[tuple[float, float], ...]
    """Left and right end of each letter before the tilt."""
    new_word: bool
    """The word is one that training never shows."""
    new_pair: bool
    """So is the pair of font and colour."""

    @property
    def labels(self) -> dict[str, str]:
        """Attributes by name."""
        return {"word": self.word, "font": self.font, "color": self.color}


@dataclass(frozen=True)
class Thing:
    """A shape with an identity: within a clip no two share a colour."""

    color: str
    shape: str
    radius: float
    """Half its width in pixels."""


@dataclass(frozen=True)
class ShapesTruth:
    """Shapes at constant velocity; some pass behind a wall and come out again."""

    things: tuple[Thing, ...]
    positions: Float[np.ndarray, "T n 2"]
    visible: Float[np.ndarray, "T n"]
    """Share of each shape's width beside the wall, in [0, 1]."""
    wall: tuple[float, float]
    """Left and right edge in pixels."""
    new_pair: bool
    """Some pair of colour and shape is one that training never shows."""

    @property
    def labels(self) -> dict[str, str]:
        """Attributes by name."""
        return {"count": str(len(self.things)), "color": self.things[0].color}


@dataclass(frozen=True)
class FigureTruth:
    """A figure whose limbs move and stay as many as they are."""

    color: str
    motion: str
    arms: int
    legs: int
    joints: Float[np.ndarray, "T n 3 2"]
    """Root, elbow or knee, and end of each of the n limbs, arms first."""
    new_pair: bool
    """The pair of colour and number of limbs is one that training never shows."""

    @property
    def limbs(self) -> int:
        return self.arms + self.legs

    @property
    def labels(self) -> dict[str, str]:
        """Attributes by name."""
        return {"color": self.color, "motion": self.motion, "limbs": str(self.limbs)}


@dataclass(frozen=True)
class SoundTruth:
    """Struck notes."""

    material: str
    times: Float[np.ndarray, "n"]
    """Onsets in seconds."""
    pitches: Float[np.ndarray, "n"]
    """Hz."""
    contour: str
    """rising, falling or level."""

    @property
    def labels(self) -> dict[str, str]:
        """Attributes by name."""
        return {
            "material": self.material,
            "contour": self.contour,
            "count": str(len(self.times)),
        }


@dataclass(frozen=True)
class ContactTruth:
    """A ball that bounces or a drumstick that taps, and is heard at each contact."""

    color: str
    material: str
    times: Float[np.ndarray, "n"]
    """Contacts, and onsets of their sounds, in seconds."""
    pitch: float
    """Hz."""
    radius: float
    """Of the ball, or of the stick's head, in pixels."""
    positions: Float[np.ndarray, "T 2"]
    """Centre of the ball or of the stick's head."""
    new_pair: bool
    """The pair of colour and material is one that training never shows."""

    @property
    def labels(self) -> dict[str, str]:
        """Attributes by name."""
        return {
            "color": self.color,
            "material": self.material,
            "count": str(len(self.times)),
        }


Truth = SignTruth | ShapesTruth | FigureTruth | SoundTruth | ContactTruth


@dataclass(frozen=True)
class Sample:
    """What a seed shows. A modality that the kind lacks is None."""

    kind: str
    seed: int
    caption: str
    truth: Truth
    image: UInt8[np.ndarray, "H W 3"] | None = None
    video: UInt8[np.ndarray, "T H W 3"] | None = None
    audio: Float[np.ndarray, "S"] | None = None
    """float32 in [-1, 1], mono."""
