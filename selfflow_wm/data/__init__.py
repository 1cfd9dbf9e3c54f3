"""Raw samples with captions, and batches of several modalities drawn from them."""

from selfflow_wm.data.encode import SampleEncoder
from selfflow_wm.data.modes import MODES, Mode, ModeSchedule, Share
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
from selfflow_wm.data.stream import SampleStream, fixed_batches

__all__ = [
    "JOINT",
    "KINDS",
    "MODES",
    "ModeSchedule",
    "SampleStream",
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
