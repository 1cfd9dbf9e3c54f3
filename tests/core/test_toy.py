"""The toy world: the same everywhere, and its ground truth is what the pictures and sounds show."""

import subprocess
import sys
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from selfflow_wm.commands.toy import main
from selfflow_wm.data.toy import KINDS, SPLITS, ToyConfig, ToyWorld, split_of
from selfflow_wm.data.toy.config import PALETTE, is_held_out
from selfflow_wm.metrics.colors import COLORS, name_pixels

WORLD = ToyWorld()
TRAIN = SPLITS["train"].start


def digest():
    total = sha256()
    for kind in KINDS:
        sample = WORLD.sample(kind, TRAIN + 5)
        total.update(sample.caption.encode())
        for array in (sample.image, sample.video, sample.audio):
            total.update(b"" if array is None else array.tobytes())
    return total.hexdigest()


def test_a_seed_shows_the_same_in_another_process():
    command = (
        "import sys; sys.path.insert(0, 'tests/core'); import test_toy; print(test_toy.digest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == digest()
    frames = [WORLD.sample("figure", TRAIN + n).video.tobytes() for n in range(3)]
    assert len(set(frames)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_follow_the_config(kind):
    world = ToyWorld(ToyConfig(height=48, width=80, frames=21, fps=10))
    sample = world.sample(kind, TRAIN)
    assert (sample.image is not None) == (kind == "sign")
    assert (sample.audio is not None) == (kind in ("sound", "bounce", "tap"))
    if sample.image is not None:
        assert sample.image.shape == (48, 80, 3) and sample.image.dtype == np.uint8
    if sample.video is not None:
        assert sample.video.shape == (21, 48, 80, 3) and sample.video.dtype == np.uint8
    if sample.audio is not None:
        assert sample.audio.shape == (33600,) and sample.audio.dtype == np.float32
        assert 0.1 < np.abs(sample.audio).max() <= 1


def test_splits_share_no_seed_and_training_lacks_what_is_held_out():
    ranges = sorted(SPLITS.values(), key=lambda seeds: seeds.start)
    assert all(a.stop <= b.start for a, b in zip(ranges[:-1], ranges[1:], strict=True))
    assert [split_of(seeds.start) for seeds in SPLITS.values()] == list(SPLITS)
    held_out = set(WORLD.config.held_out_words)
    assert held_out and not held_out & set(WORLD.config.seen_words)
    config = replace(WORLD.config, height=32, width=32)
    small = ToyWorld(config)
    fonts = list(config.fonts)
    for n in range(30):
        truth = small.sample("sign", TRAIN + n).truth
        assert truth.word in config.seen_words
        assert not is_held_out(fonts.index(truth.font), COLORS.index(truth.color))
    tests = [small.sample("sign", n).truth for n in range(30)]
    assert all(truth.new_word == (truth.word in held_out) for truth in tests)
    assert 5 < sum(truth.new_word for truth in tests) < 25
    assert any(truth.new_pair for truth in tests)


def test_shapes_are_where_the_truth_says():
    for seed in range(TRAIN, TRAIN + 3):
        sample = WORLD.sample("shapes", seed)
        truth, named = sample.truth, name_pixels(sample.video)
        assert truth.visible[:, 0].min() < 0.2 and truth.visible[:, 0].max() == 1
        for n, thing in enumerate(truth.things):
            for t in np.flatnonzero(truth.visible[:, n] == 1):
                rows, columns = np.nonzero(named[t] == COLORS.index(thing.color))
                x, y = truth.positions[t, n]
                assert abs(columns.mean() + 0.5 - x) < 0.6
                # a triangle's centroid lies below the middle of its box
                assert abs(rows.mean() + 0.5 - y) < 0.6 + (thing.shape == "triangle") * 3
            for t in np.flatnonzero(truth.visible[:, n] == 0):
                assert not (named[t] == COLORS.index(thing.color)).any()


def test_a_contact_is_where_the_flight_turns():
    for kind in ("bounce", "tap"):
        for seed in range(TRAIN, TRAIN + 8):
            truth = WORLD.sample(kind, seed).truth
            frames = truth.times * WORLD.config.fps
            assert len(frames) and frames.min() >= 2.2 and frames.max() <= 13.71
            assert (np.diff(frames) >= 4.29).all()
            y = truth.positions[:, 1]
            assert (y > truth.radius).all()  # never out of the picture
            turns = [t for t in range(1, 16) if y[t] >= y[t - 1] and y[t] > y[t + 1]]
            assert len(turns) == len(frames)
            assert np.abs(np.array(turns) - frames).max() <= 1


def test_captions_name_what_is_shown():
    for seed in range(TRAIN, TRAIN + 10):
        for kind in KINDS:
            sample = WORLD.sample(kind, seed)
            truth = sample.truth
            assert len(sample.caption.encode()) <= 96 and " a o" not in f" {sample.caption}"
            if kind == "sign":
                assert f'"{truth.text}"' in sample.caption and truth.color in sample.caption
            elif kind == "shapes":
                assert all(f"{t.color} {t.shape}" in sample.caption for t in truth.things)
            elif kind != "sound":
                assert truth.color in sample.caption


def test_letters_lie_on_the_board():
    truth = WORLD.sample("sign", TRAIN).truth
    left, _, right, _ = truth.box
    assert len(truth.letters) == len(truth.word)
    assert left < truth.letters[0][0] and truth.letters[-1][1] < right


def test_boundaries_say_what_is_wrong():
    for wrong in (
        dict(frames=16), dict(height=16), dict(fps=7.0), dict(words=("Upper",)), dict(words=()),
        dict(fonts=("comic",)), dict(held_out=0.9),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected"):
            ToyConfig(**wrong)
    with pytest.raises(ValueError, match="expected a kind"):
        WORLD.sample("poem", 0)
    with pytest.raises(ValueError, match="expected a seed"):
        WORLD.sample("sign", -1)
    with pytest.raises(ValueError, match="expected an index"):
        WORLD.seed("test", 10**6)


def test_the_contact_sheet(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "sheet.png"), "--rows", "1", "--size", "32", "32"]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert main(["--out", str(tmp_path / "no.png"), "--frames", "8"]) == 2
    assert "1 + 4k" in capsys.readouterr().err and not (tmp_path / "no.png").exists()


def test_colours_are_told_apart():
    for index, rgb in enumerate(PALETTE.values()):
        assert (name_pixels(np.full((1, 2, 2, 3), rgb, np.uint8)) == index).all()
