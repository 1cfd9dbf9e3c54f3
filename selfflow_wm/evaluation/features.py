"""Whose features the Fréchet distances compare: a protocol, and the extractors there are.

Those of the toy world need no download, the others take weights from the disk
(--features image=inception:FILE). More are added to `EXTRACTORS`, or named on the command line as a
class or function to import (--features video=my_package.features.Clips:weights/clips).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from selfflow_wm.data.toy import ToyConfig
from selfflow_wm.evaluation.audio_features import ClapFeatures
from selfflow_wm.evaluation.inception import InceptionFeatures
from selfflow_wm.evaluation.video_features import I3DFeatures, VideoMAEFeatures
from selfflow_wm.metrics.frechet import audio_features, video_features
from selfflow_wm.metrics.recogniser import Recogniser

MODALITIES = ("image", "video", "audio")


class Extractor(Protocol):
    """Features of samples of one modality. One that has an attribute `mixed_sizes` = True is given
    pictures of several sizes as a list; others get those of one size together."""

    @property
    def name(self) -> str:
        """Stands beside every distance: those by different extractors can't be compared."""
        ...

    def __call__(self, samples: np.ndarray) -> Float[np.ndarray, "B D"]:
        """Of image uint8 (B, H, W, 3), video uint8 (B, T, H, W, 3) or audio float (B, S)."""
        ...


@dataclass(frozen=True)
class Context:
    """What an extractor may be made from; None if unknown or absent."""

    config: ToyConfig | None = None
    """The toy world, where samples are of it."""
    recogniser: Recogniser | None = None
    recogniser_name: str = ""
    argument: str | None = None
    """The text after the colon, such as the path of weights."""
    sample_rate: int | None = None
    """Hz of audio samples."""
    fps: float | None = None
    """Of video samples."""
    device: torch.device | str = "cpu"
    """Where networks work."""


def checked(extract: Extractor, samples: Any) -> Float[np.ndarray, "B D"]:
    """Features of `samples`; ValueError unless they are finite (B, D)."""
    rows = np.asarray(extract(samples))
    if rows.ndim != 2 or len(rows) != len(samples) or not np.isfinite(rows).all():
        raise ValueError(
            f"{extract.name}: expected finite features ({len(samples)}, D), got {rows.shape}"
            + ("" if np.isfinite(rows).all() else " with nan or inf")
        )
    return rows


Factory = Callable[[Context], Extractor]


@dataclass(frozen=True)
class Named:
    """A function with the name of its features."""

    name: str
    function: Callable[[np.ndarray], np.ndarray]

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        return self.function(samples)


def toy_pictures(context: Context) -> Extractor:
    """The reader of signs: no Inception, so no FID by that name."""
    reader = _reader(context, "image")
    return Named(
        context.recogniser_name,
        lambda images: reader.features(torch.from_numpy(images)).numpy(),
    )


def toy_clips(context: Context) -> Extractor:
    """Mean and change of the frames' features."""
    _reader(context, "video")
    pictures = toy_pictures(context)
    return Named(
        f"{pictures.name}, mean and change over frames",
        lambda videos: video_features(pictures, videos),
    )


def _reader(context: Context, modality: str) -> Recogniser:
    if context.recogniser is None:
        raise ValueError(
            f"--features {modality}=toy: expected samples of the toy world and its reader of "
            "signs, which only python -m selfflow_wm.evaluate has; name another extractor"
        )
    return context.recogniser


def toy_sounds(context: Context) -> Extractor:
    """Log energies in bands; no network, so any sounds will do."""
    rate = context.sample_rate
    if rate is None:
        raise ValueError(
            "--features audio=toy: expected the rate of the sounds, got none; give --sample-rate HZ"
        )
    return Named("log energy in 16 bands", lambda audio: audio_features(audio, rate))


EXTRACTORS: dict[tuple[str, str], Factory] = {
    ("image", "toy"): toy_pictures,
    ("video", "toy"): toy_clips,
    ("audio", "toy"): toy_sounds,
    ("image", "inception"): lambda context: InceptionFeatures(context.argument, context.device),
    ("video", "i3d"): lambda context: I3DFeatures(context.argument, context.device),
    ("video", "videomae"): lambda context: VideoMAEFeatures(context.argument, context.device),
    ("audio", "clap"): lambda context: ClapFeatures(
        context.argument, context.sample_rate, context.device
    ),
}
"""By modality and name, as --features MODALITY=NAME[:ARGUMENT]."""


Choice = tuple[str, str | None]
"""(name, argument) of an extractor."""


def parse_feature(word: str) -> tuple[str, Choice]:
    """MODALITY=NAME[:ARGUMENT] to (modality, (name, argument)); ValueError for another form."""
    modality, equals, rest = word.partition("=")
    key, colon, argument = rest.partition(":")
    if modality not in MODALITIES or not equals or not key:
        raise ValueError(
            f"--features: expected MODALITY=NAME[:ARGUMENT] with a modality of {MODALITIES}, "
            f"got {word!r}"
        )
    return modality, (key, argument if colon else None)


def parse_features(words: Sequence[str]) -> dict[str, Choice]:
    """MODALITY=NAME[:ARGUMENT] to modality -> (name, argument); toy for modalities without one."""
    return dict.fromkeys(MODALITIES, ("toy", None)) | dict(map(parse_feature, words))


def make_extractors(chosen: Mapping[str, Choice], context: Context) -> dict[str, Extractor]:
    """An extractor for each modality; ValueError for a name that is not there."""
    return {
        modality: _factory(modality, key)(replace(context, argument=argument))
        for modality, (key, argument) in chosen.items()
    }


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
