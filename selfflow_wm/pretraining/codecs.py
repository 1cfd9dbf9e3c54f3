"""The codecs that a run starts with, and the layout that they and the configuration make."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from selfflow_wm.codec import (
    Codec,
    MDCTCodec,
    PatchPCA,
    PatchVideo,
    TAEFlux2,
    codec_from_config,
)
from selfflow_wm.data import JOINT, Sample, Source
from selfflow_wm.layout import Layout, Modality

_FITTING = 12  # keeps these draws apart from others that start from the same seed


def make_codecs(configs: Mapping[str, Mapping[str, Any]], names: list[str]) -> dict[str, Codec]:
    """The codecs of `names`, those of principal components not fitted yet.

    configs: constructor arguments with "kind", by modality.
    """
    codecs = {}
    for name in names:
        if configs.get(name) is None:
            raise ValueError(f"codec.{name}: expected a codec for the layout's row, got none")
        try:
            codecs[name] = codec_from_config(configs[name])
        except ValueError as error:
            raise ValueError(f"codec.{name}: {error}") from None
    return codecs


def make_layout(config: Mapping[str, Any], codecs: Mapping[str, Any]) -> Layout:
    """The table of modalities. config: text_length and rows, whose grid and channels follow from
    the codecs where they are not stated."""
    rows = []
    for name, fields in config["rows"].items():
        if fields is None:
            continue
        known = {"grid": codecs[name].grid, "channels": codecs[name].channels}
        rows.append(Modality(name, **(known | {k: v for k, v in fields.items() if v is not None})))
    return Layout(tuple(rows), text_length=config["text_length"])


def planned_layout(plain: Mapping[str, Any]) -> Layout:
    """The layout of a composed configuration, without the weights of published codecs: its rows
    state grid and channels, or their codec needs no weights."""
    rows = {name: row for name, row in plain["layout"]["rows"].items() if row is not None}
    untold = [n for n, row in rows.items() if not (row.get("grid") and row.get("channels"))]
    codecs: dict[str, Any] = dict(make_codecs(plain["codec"], untold))
    for name, row in rows.items():
        if name not in codecs:
            codecs[name] = SimpleNamespace(grid=tuple(row["grid"]), channels=row["channels"])
    return make_layout(plain["layout"], codecs)


def fit_codecs(
    codecs: Mapping[str, Codec], sources: Mapping[str, Source], count: int, seed: int = 0
) -> None:
    """Fit those of principal components, and TAEF2's shift and scale, each on `count` samples of
    every kind that has it."""
    for name, codec in codecs.items():
        if not isinstance(codec, PatchPCA | TAEFlux2 | PatchVideo | MDCTCodec):
            continue
        kinds = (name, *((JOINT,) if name in ("image", "video", "audio") else ()))
        having = [sources[kind] for kind in kinds if kind in sources]
        if not having:
            raise ValueError(
                f"codec.{name}: expected samples of {' or '.join(kinds)} to fit {codec.kind}, "
                f"got data of {sorted(sources)}; add some, or leave the row out with "
                f"layout.rows.{name}=null"
            )
        samples = [sample for source in having for sample in _some(source, count, seed)]
        try:
            _fit(codec, samples, seed)
        except ValueError as error:
            raise ValueError(f"codec.{name}: {error}") from None


def _some(source: Source, count: int, seed: int) -> list[Sample]:
    generator = np.random.default_rng([seed, _FITTING])
    numbers = generator.permutation(len(source))[:count]
    return [source[int(number)] for number in np.sort(numbers)]


def _fit(
    codec: PatchPCA | TAEFlux2 | PatchVideo | MDCTCodec, samples: list[Sample], seed: int
) -> None:
    if isinstance(codec, PatchPCA | TAEFlux2):
        pictures = [one["image"] if "image" in one else one["video"][0] for one in samples]
        stacked = torch.from_numpy(np.stack(pictures))
        codec.fit(stacked, seed=seed) if isinstance(codec, PatchPCA) else codec.fit(stacked)
    elif isinstance(codec, PatchVideo):
        clips = [one["video"] for one in samples if len(one["video"]) == codec.frames]
        if not clips:
            raise ValueError(f"expected clips of {codec.frames} frames, got shorter or longer ones")
        codec.fit(torch.from_numpy(np.stack(clips)), seed=seed)
    else:
        clips = [one["audio"] for one in samples if one["audio"].shape[-1] == codec.samples]
        rates = {int(one["sample_rate"]) for one in samples}
        if not clips or len(rates) > 1:
            raise ValueError(
                f"expected clips of {codec.samples} samples at one rate, got {len(clips)} of that "
                f"length at {sorted(rates)} Hz; change codec.audio, or the data"
            )
        waveforms = torch.from_numpy(np.stack(clips).astype(np.float32))
        codec.fit(waveforms, rates.pop(), seed=seed)
