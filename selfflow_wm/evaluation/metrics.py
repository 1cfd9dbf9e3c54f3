"""What is measured of a sample: columns of numbers, and the metrics that they make.

A metric is sum(numerators) / sum(denominators) over samples; a sample that it does not concern has
denominator 0. Columns are named as the metric and, the denominators, METRIC/of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from selfflow_wm.data import JOINT
from selfflow_wm.data.toy import ContactTruth, FigureTruth, ShapesTruth, SignTruth, SoundTruth
from selfflow_wm.data.toy.config import ToyConfig
from selfflow_wm.data.toy.truth import Sample
from selfflow_wm.metrics.persistence import limb_persistence, object_persistence
from selfflow_wm.metrics.recogniser import Recogniser, edit_distance
from selfflow_wm.metrics.sync import av_offset, find_onsets

Columns = dict[str, np.ndarray]
"""By name, each (B,) or, of features, (B, D)."""


@dataclass(frozen=True)
class Metric:
    """One row of the table of results."""

    name: str
    mode: str
    """Of `data.MODES`."""
    title: str
    unit: str
    """"%" (values are shares in [0, 1]), "ms", or "" for a distance."""
    higher_is_better: bool = False
    binary: bool = False
    """A share of samples, each right or wrong: its interval is Wilson's."""
    bounds: tuple[float, float] = (-float("inf"), float("inf"))
    """What values are possible; intervals are cut there."""


def _share(name: str, mode: str, title: str, higher: bool = False, binary: bool = False) -> Metric:
    return Metric(name, mode, title, "%", higher, binary, (0.0, 1.0))


_POSITIVE = (0.0, float("inf"))

METRICS = (
    _share("word_accuracy", "image", "words read right", True, True),
    _share("new_word_accuracy", "image", "words never trained on, read right", True, True),
    Metric("letter_error", "image", "letters wrong, per letter asked for", "%", bounds=_POSITIVE),
    _share("object_error", "video", "objects missing, moved, changed, extra or absent"),
    _share("limb_error", "video", "frames with a wrong number of limbs"),
    _share("strikes_right", "audio", "clips with as many strikes as asked for", True, True),
    _share("contacts_heard", JOINT, "contacts heard, at one offset a clip", True),
    Metric(
        "offset_ms", JOINT, "sound against picture where matched, mean |offset|", "ms",
        bounds=_POSITIVE,
    ),
)  # fmt: skip

FRECHET: dict[str, tuple[str, str]] = {
    "frechet_image": ("image", "image"),
    "frechet_video": ("video", "video"),
    "frechet_audio": ("audio", "audio"),
    "frechet_joint_video": (JOINT, "video"),
    "frechet_joint_audio": (JOINT, "audio"),
}
"""Fréchet distances: the mode, and the modality whose features they compare."""

_TITLES = {"image": "FID", "video": "FVD", "audio": "FAD"}


def frechet_metric(name: str) -> Metric:
    """The row of one of `FRECHET`."""
    mode, modality = FRECHET[name]
    other = {"video": "sound", "audio": "video"}.get(modality)
    what = f"{modality} made together with {other}" if mode == JOINT else modality
    return Metric(name, mode, f"Fréchet distance, {what} ({_TITLES[modality]}-style)", "")


def measure(
    mode: str,
    made: Mapping[str, np.ndarray],
    asked: Sequence[Sample],
    recogniser: Recogniser,
    config: ToyConfig,
) -> Columns:
    """The columns of a batch of `mode`.

    made: image uint8 (B, H, W, 3), video uint8 (B, T, H, W, 3), audio float (B, S), as the mode
    has them. asked: the renderings whose captions they were made from.
    """
    if mode == "image":
        read = recogniser.read(torch.from_numpy(made["image"]))
        rows = [_sign(word, one.truth) for word, one in zip(read, asked, strict=True)]
    elif mode == "video":
        rows = [_clip(clip, one.truth) for clip, one in zip(made["video"], asked, strict=True)]
    elif mode == "audio":
        rows = [
            _sound(clip, one.truth, config) for clip, one in zip(made["audio"], asked, strict=True)
        ]
    else:
        rows = [
            _contacts(clip, sound, one.truth, config)
            for clip, sound, one in zip(made["video"], made["audio"], asked, strict=True)
        ]
    columns: Columns = {}
    for metric in METRICS:
        if metric.mode == mode:
            pairs = [row.get(metric.name, (0.0, 0.0)) for row in rows]
            columns[metric.name] = np.array([pair[0] for pair in pairs], np.float64)
            columns[f"{metric.name}/of"] = np.array([pair[1] for pair in pairs], np.float64)
    return columns


Row = dict[str, tuple[float, float]]


def _sign(read: str, truth: Any) -> Row:
    assert isinstance(truth, SignTruth)
    right = (float(read == truth.word), 1.0)
    row: Row = {"word_accuracy": right}
    row["letter_error"] = (float(edit_distance(read, truth.word)), float(len(truth.word)))
    return row | ({"new_word_accuracy": right} if truth.new_word else {})


def _clip(video: np.ndarray, truth: Any) -> Row:
    if isinstance(truth, ShapesTruth):
        promised = {thing.color: thing.shape for thing in truth.things}
        return {"object_error": (object_persistence(video, promised).error, 1.0)}
    assert isinstance(truth, FigureTruth)
    return {"limb_error": (limb_persistence(video, truth.limbs).error, 1.0)}


def _sound(audio: np.ndarray, truth: Any, config: ToyConfig) -> Row:
    assert isinstance(truth, SoundTruth)
    heard = find_onsets(audio, config.sample_rate)
    return {"strikes_right": (float(len(heard) == len(truth.times)), 1.0)}


def _contacts(video: np.ndarray, audio: np.ndarray, truth: Any, config: ToyConfig) -> Row:
    assert isinstance(truth, ContactTruth)
    found, promised = av_offset(video, audio, config.fps, config.sample_rate), len(truth.times)
    row: Row = {"contacts_heard": (float(min(found.matched, promised)), float(promised))}
    return row | ({"offset_ms": (abs(found.offset_ms), 1.0)} if found.matched else {})
