"""Raw samples with captions, and batches of several modalities drawn from them."""

from selfflow_wm.data.encode import SampleEncoder
from selfflow_wm.data.mixture import MixtureStream, fixed_batches
from selfflow_wm.data.modes import MODES, Mixture, Mode, Share
from selfflow_wm.data.source import (
    JOINT,
    KINDS,
    Part,
    Sample,
    Source,
    UnusableSample,
    check_captions,
    check_source,
    split_source,
)

__all__ = [
    "JOINT",
    "KINDS",
    "MODES",
    "Mixture",
    "MixtureStream",
    "Mode",
    "Part",
    "Sample",
    "SampleEncoder",
    "Share",
    "Source",
    "UnusableSample",
    "check_captions",
    "check_source",
    "fixed_batches",
    "split_source",
]
