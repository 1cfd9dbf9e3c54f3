"""Parameter counts of the model presets, beside the published ones (`evaluate sizes`).

Nothing is allocated: the networks are built on the meta device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model import Backbone
from selfflow_wm.objective import SelfFlow

PRESETS = Path(__file__).resolve().parent.parent / "configs" / "model"

PUBLISHED = {"290m": 290e6, "420m": 420e6, "625m": 625e6, "1b": 1e9, "4b": 4e9}
"""arXiv 2603.06507, scaling runs and the typography model; projector included."""

PAPER_LAYOUT = Layout(
    (
        Modality("image", (1, 16, 16), 128, mask_ratio=0.25),  # FLUX.2 AE, 256 x 256 pixels
        Modality("video", (5, 12, 20), 48, mask_ratio=0.1),  # Wan2.2 AE, 17 frames of 192 x 320
        Modality("audio", (250, 1, 1), 64, mask_ratio=0.5),  # Songbloom AE, 10 s
    ),
    text_length=128,
)


@dataclass(frozen=True)
class Size:
    """One preset: its shape and numbers of parameters."""

    name: str
    width: int
    double: int
    single: int
    backbone: int
    projector: int

    @property
    def total(self) -> int:
        return self.backbone + self.projector


def presets() -> list[str]:
    """Names of the files in configs/model, smallest network first."""
    return sorted(
        (path.stem for path in PRESETS.glob("*.yaml")), key=lambda name: measure(name).total
    )


@cache
def measure(name: str, layout: Layout = PAPER_LAYOUT) -> Size:
    """Count the parameters of configs/model/`name`.yaml with the modalities of `layout`."""
    shape: Any = OmegaConf.to_container(OmegaConf.load(PRESETS / f"{name}.yaml"))
    with torch.device("meta"):
        backbone = Backbone(layout, **shape)
        projector = SelfFlow({}, width=shape["width"]).modules()
    return Size(
        name,
        shape["width"],
        shape["double"],
        shape["single"],
        backbone.num_parameters(),
        sum(parameter.numel() for parameter in projector.parameters()),
    )
