"""The toy world as a source of training samples."""

from __future__ import annotations

import numpy as np
import pytest

from selfflow_wm.data import KINDS, check_source, split_source
from selfflow_wm.data.toy import ToyConfig, ToySource, split_of

SMALL = {"height": 32, "width": 32, "frames": 5, "sample_rate": 4000}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_number_is_a_sample_and_held_out_ones_have_other_seeds(kind):
    source = check_source(ToySource(kind, 40, world=SMALL), kind)
    a, b = source[3], ToySource(kind, 1000, world=ToyConfig(**SMALL))[3]
    assert a.keys() == b.keys() == {"caption", *KINDS[kind]}
    assert all(np.array_equal(a[name], b[name]) for name in a)
    if "audio" in a:
        assert a["audio"].shape == (1, 1600) and a["sample_rate"] == 4000
    training, held_out = split_source(source, 0.1)
    assert len(training) == 40 and len(held_out) == 4
    assert isinstance(training, ToySource) and isinstance(held_out, ToySource)
    assert {split_of(training.rendering(n).seed) for n in range(3)} == {"train"}
    assert {split_of(held_out.rendering(n).seed) for n in range(3)} == {"validation"}


def test_kinds_of_clips_take_turns():
    source = ToySource("video", 4, world=SMALL)
    assert [source.rendering(n).kind for n in range(4)] == ["shapes", "figure"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "poem"}, "poem"),
        ({"kind": "image", "split": "else"}, "else"),
        ({"kind": "image", "split": "test", "samples": 10**6 + 1}, "1000001"),
        ({"kind": "image", "world": {"cases": ["odd"]}}, "odd"),
    ],
)
def test_misuse_is_explained(options, message):
    with pytest.raises(ValueError, match=message):
        ToySource(**options)


def test_words_in_one_case_keep_everything_else():
    upper = ToySource("image", world=SMALL | {"cases": ["upper"]})
    every = ToySource("image", world=SMALL)
    for n in range(6):
        a, b = upper.rendering(n).truth, every.rendering(n).truth
        assert a.text == a.text.upper() == b.text.upper() and a.box == b.box
