"""A toy world of signs, figures, shapes, sounds and contacts, with ground truth for each sample."""

from selfflow_wm.data.toy.config import KINDS, SPLITS, ToyConfig, split_of
from selfflow_wm.data.toy.source import RENDERED, ToySource
from selfflow_wm.data.toy.truth import (
    ContactTruth,
    FigureTruth,
    Sample,
    ShapesTruth,
    SignTruth,
    SoundTruth,
    Thing,
)
from selfflow_wm.data.toy.world import ToyWorld

__all__ = [
    "KINDS",
    "RENDERED",
    "SPLITS",
    "ContactTruth",
    "FigureTruth",
    "Sample",
    "ShapesTruth",
    "SignTruth",
    "SoundTruth",
    "Thing",
    "ToyConfig",
    "ToySource",
    "ToyWorld",
    "split_of",
]
