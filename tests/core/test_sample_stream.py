"""Batches of one modality each: shares, order, ranks, resumption, refusals."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from selfflow_wm.codec import PatchPCA
from selfflow_wm.data import MODES, ModeSchedule, SampleEncoder, SampleStream, check_source
from selfflow_wm.data.source import split_source
from selfflow_wm.layout import Layout, Modality

LAYOUT = Layout((Modality("image", (1, 2, 2), 3),), text_length=8)


class Numbers:
    """Pictures whose caption is their number."""

    kind = "image"

    def __init__(self, length=10):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"caption": str(index), "image": np.full((4, 4, 3), index, np.uint8)}


@pytest.fixture(scope="module")
def encoder():
    pixels = torch.randint(0, 256, (20, 4, 4, 3), generator=torch.Generator().manual_seed(0))
    return SampleEncoder(LAYOUT, {"image": PatchPCA((4, 4), 2, 3).fit(pixels.to(torch.uint8))})


def stream(encoder, size=3, **options):
    schedule = ModeSchedule({"image": {"probability": 1.0, "batch_size": size}})
    return SampleStream({"image": Numbers()}, encoder, schedule, **options)


def numbers(batch):
    return ["".join(map(chr, row[row < 256].tolist())) for row in batch.text_ids]


def test_the_papers_shares_are_drawn_by_step_and_seed_alone():
    shares = {"image": (0.57, 38), "video": (0.30, 8), "audio": (0.13, 16)}
    rows = {n: {"probability": p, "batch_size": b} for n, (p, b) in shares.items()}
    drawn = [ModeSchedule(rows, seed=3).draw(step).name for step in range(2000)]
    counts = Counter(drawn)
    for name, (probability, _) in shares.items():
        assert counts[name] / 2000 == pytest.approx(probability, abs=0.035)
    again = ModeSchedule(rows, seed=3)
    assert drawn == [again.draw(step).name for step in reversed(range(2000))][::-1]


def test_every_pass_takes_each_sample_once(encoder):
    batches = stream(encoder, 5)
    for _ in range(3):
        seen = [n for _ in range(2) for n in numbers(next(batches))]
        assert sorted(seen, key=int) == [str(i) for i in range(10)]


def test_a_stream_resumes_from_a_small_state(encoder):
    whole, half = stream(encoder), stream(encoder)
    expected = [numbers(next(whole)) for _ in range(9)]
    for _ in range(4):
        next(half)
    state = json.dumps(half.state_dict())
    assert len(state) < 300
    again = stream(encoder)
    again.load_state_dict(json.loads(state))
    assert [numbers(next(again)) for _ in range(5)] == expected[4:]
    other = stream(encoder, seed=1)
    with pytest.raises(ValueError, match="seed"):
        other.load_state_dict(json.loads(state))


def test_ranks_share_what_one_reader_would_draw(encoder):
    one = stream(encoder, 4)
    ranks = [stream(encoder, 2, rank=rank, world_size=2) for rank in range(2)]
    for _ in range(6):
        alone = numbers(next(one))
        together = [numbers(next(rank)) for rank in ranks]
        assert sorted(alone) == sorted(together[0] + together[1])
    assert ranks[0].state_dict() == ranks[1].state_dict() == one.state_dict()
    with pytest.raises(ValueError, match="rank in"):
        stream(encoder, rank=2, world_size=2)


def test_held_out_samples_are_not_trained_on():
    training, held_out = split_source(Numbers(40), 0.1)
    assert len(training) == 36 and len(held_out) == 4
    captions = [{part[i]["caption"] for i in range(len(part))} for part in (training, held_out)]
    assert not captions[0] & captions[1] and len(captions[0] | captions[1]) == 40


def test_what_does_not_fit_is_refused(encoder):
    rows = {n: {"probability": 1, "batch_size": 2} for n in ("image", "video")}
    with pytest.raises(ValueError, match="modes.video.*source"):
        SampleStream({"image": Numbers()}, encoder, ModeSchedule(rows))
    with pytest.raises(ValueError, match="modes.video.*layout"):
        SampleStream({"image": Numbers(), "video": Numbers()}, encoder, ModeSchedule(rows))
    with pytest.raises(ValueError, match="'video'.*'image'"):
        check_source(Numbers(), "video")
    with pytest.raises(ValueError, match="at least one sample"):
        check_source(Numbers(0), "image")
    wider = Layout((Modality("image", (1, 2, 2), 5),))
    with pytest.raises(ValueError, match=r"\b5\b.*\(1, 2, 2\) of 3"):
        SampleEncoder(wider, encoder.codecs)
    with pytest.raises(ValueError, match="'image'"):
        SampleEncoder(LAYOUT, {})
    with pytest.raises(ValueError, match=r"\(4, 4, 3\)"):
        encoder([{"caption": "", "image": np.zeros((8, 4, 3), np.uint8)}], MODES["image"])
