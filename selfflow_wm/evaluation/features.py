"""Whose features the Fréchet distances compare: a protocol, and the extractors there are.

The toy world's own need no download, FID's Inception takes weights from the disk
(--features image=inception:FILE). Others are registered with `register`, or named on the command
line as a class or function to import (--features video=my_package.features.Clips:weights/clips).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float

from selfflow_wm.data.toy import ToyConfig
from selfflow_wm.evaluation.inception import InceptionFeatures
from selfflow_wm.metrics.frechet import audio_features, video_features
from selfflow_wm.metrics.recogniser import Recogniser

MODALITIES = ("image", "video", "audio")


class Extractor(Protocol):
    """Features of samples of one modality."""

    @property
    def name(self) -> str:
        """Stands beside every distance: those by different extractors can't be compared."""
        ...

    def __call__(self, samples: np.ndarray) -> Float[np.ndarray, "B D"]:
        """Of image uint8 (B, H, W, 3), video uint8 (B, T, H, W, 3) or audio float (B, S)."""
        ...


@dataclass(frozen=True)
class Context:
    """What an extractor may be made from."""

    config: ToyConfig
    """Sizes, fps and sample rate of the samples."""
    recogniser: Recogniser
    recogniser_name: str
    argument: str | None = None
    """What stood after the colon, such as the path of weights."""


Factory = Callable[[Context], Extractor]
EXTRACTORS: dict[tuple[str, str], Factory] = {}
"""By modality and name."""


def register(modality: str, key: str) -> Callable[[Factory], Factory]:
    """Make a factory available as --features MODALITY=KEY[:ARGUMENT]."""

    def add(factory: Factory) -> Factory:
        EXTRACTORS[modality, key] = factory
        return factory

    return add


@dataclass(frozen=True)
class Named:
    """A function with the name of its features."""

    name: str
    function: Callable[[np.ndarray], np.ndarray]

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        return self.function(samples)


@register("image", "toy")
def toy_pictures(context: Context) -> Extractor:
    """The reader of signs: no Inception, so no FID by that name."""
    return Named(
        context.recogniser_name,
        lambda images: context.recogniser.features(torch.from_numpy(images)).numpy(),
    )


@register("video", "toy")
def toy_clips(context: Context) -> Extractor:
    """Mean and change of the frames' features."""
    pictures = toy_pictures(context)
    return Named(
        f"{pictures.name}, mean and change over frames",
        lambda videos: video_features(pictures, videos),
    )


@register("audio", "toy")
def toy_sounds(context: Context) -> Extractor:
    """Log energies in bands; no network."""
    rate = context.config.sample_rate
    return Named("log energy in 16 bands", lambda audio: audio_features(audio, rate))


@register("image", "inception")
def inception(context: Context) -> Extractor:
    """--features image=inception:WEIGHTS"""
    if not context.argument:
        raise ValueError("--features image=inception: expected inception:WEIGHTS, got no file")
    return InceptionFeatures(context.argument)


def parse_features(words: Sequence[str]) -> dict[str, tuple[str, str | None]]:
    """MODALITY=NAME[:ARGUMENT] to modality -> (name, argument); toy where nothing is said."""
    chosen: dict[str, tuple[str, str | None]] = dict.fromkeys(MODALITIES, ("toy", None))
    for word in words:
        modality, equals, rest = word.partition("=")
        key, colon, argument = rest.partition(":")
        if modality not in MODALITIES or not equals or not key:
            raise ValueError(
                f"--features: expected MODALITY=NAME[:ARGUMENT] with a modality of {MODALITIES}, "
                f"got {word!r}"
            )
        chosen[modality] = (key, argument if colon else None)
    return chosen


def make_extractors(
    chosen: Mapping[str, tuple[str, str | None]], context: Context
) -> dict[str, Extractor]:
    """An extractor for each modality; ValueError for a name that is not there."""
    made = {}
    for modality, (key, argument) in chosen.items():
        own = Context(context.config, context.recogniser, context.recogniser_name, argument)
        made[modality] = _factory(modality, key)(own)
    return made


def _factory(modality: str, key: str) -> Factory:
    if (modality, key) in EXTRACTORS:
        return EXTRACTORS[modality, key]
    module, dot, name = key.rpartition(".")
    try:
        if dot:
            return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"--features {modality}={key}: expected a class or function to import: {error}; check "
            "PYTHONPATH and spelling"
        ) from None
    known = sorted(name for kind, name in EXTRACTORS if kind == modality)
    raise ValueError(
        f"--features {modality}={key}: expected one of {known} or package.module.Name, got {key!r}"
    )
