"""Augmentation: one transform a window, from its key alone, of frames that exist."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robotics.data.augment import Augment, apply

STRONG = Augment(0.6, 0.3, 0.3, 0.3, 20, seed=3)
IDENTITY = np.array([1.0, 0.5, 0.5]), np.eye(3, 4)


def smooth(height=24, width=32):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 7, y * 9, (x + y) * 4], axis=-1).astype(np.uint8)


def batch(rows=3):
    frames = np.random.default_rng(0).integers(0, 256, (rows, 24, 32, 3), np.uint8)
    valid = np.array([[True, True], [True, False], [False, False]])[:rows]
    repeated = np.where(valid[..., None, None, None], frames[:, None], 0).astype(np.uint8)
    return {
        "image/head": frames,
        "video/head": repeated,
        "video_valid": valid,
        "history/head": repeated[:, ::-1],
        "history_valid": valid[:, ::-1],
        "action": np.ones((rows, 6, 8)),
    }


def test_all_frames_of_a_window_share_one_transform():
    samples = batch()
    out = STRONG(samples, [0, 0, 0], [5, 6, 7])
    for row in range(3):
        assert not np.array_equal(out["image/head"][row], samples["image/head"][row])
        for name in ("video", "history"):
            for frame, valid in enumerate(samples[f"{name}_valid"][row]):
                expected = out["image/head"][row] if valid else 0  # what does not exist stays zero
                got = out[f"{name}/head"][row, frame]
                np.testing.assert_array_equal(got, np.broadcast_to(expected, got.shape))
    for name in ("action", "video_valid", "history_valid"):
        np.testing.assert_array_equal(out[name], samples[name])
    np.testing.assert_array_equal(
        samples["image/head"], batch()["image/head"]
    )  # the input is not touched


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(0, 999), st.integers(0, 999))
def test_a_transform_follows_from_seed_epoch_and_window_alone(epoch, window, other):
    augment = Augment(0.6, 0.3, 0.3, 0.3, 20, seed=3)
    augment.draw(other, other)  # no state between draws
    for a, b in zip(augment.draw(epoch, window), STRONG.draw(epoch, window), strict=True):
        np.testing.assert_array_equal(a, b)
    different = [STRONG.draw(epoch + 1, window), STRONG.draw(epoch, window + 1)]
    different.append(Augment(0.6, 0.3, 0.3, 0.3, 20, seed=4).draw(epoch, window))
    for crop, colour in different:
        assert (crop != STRONG.draw(epoch, window)[0]).all()
        assert (colour != STRONG.draw(epoch, window)[1]).any()


def test_nothing_asked_for_changes_nothing():
    samples = batch()
    out = Augment(seed=1)(samples, [0, 1, 2], [3, 4, 5])
    for name, values in samples.items():
        np.testing.assert_array_equal(out[name], values)
    image = samples["image/head"][0]
    assert apply(image, *IDENTITY) is image


def test_draws_stay_within_their_limits_and_reach_them():
    draws = [Augment(0.8, 0.2, 0.0, 0.0).draw(0, window) for window in range(300)]
    crops, colours = (np.array(column) for column in zip(*draws, strict=True))
    assert 0.8 <= crops[:, 0].min() < 0.82 and 0.98 < crops[:, 0].max() <= 1
    assert crops[:, 1:].min() < 0.05 and crops[:, 1:].max() > 0.95
    factor = colours[:, 0, 0]  # brightness alone is a factor of all channels
    assert 0.8 <= factor.min() < 0.82 and 1.18 < factor.max() <= 1.2
    np.testing.assert_allclose(colours[:, :, :3], factor[:, None, None] * np.eye(3), atol=1e-12)


def test_a_crop_shows_the_part_of_the_frame_it_says():
    """On a plane of colour, linear in x and y, a crop is known in closed form."""
    height, width = 24, 32
    image = smooth(height, width)
    side, top, left = 0.5, 1.0, 0.25  # the lower half, a quarter of the way to the right
    got = apply(image, np.array([side, top, left]), np.eye(3, 4)).astype(float)
    x = 0.5 * left * width + side * (np.arange(width) + 0.5) - 0.5
    y = 0.5 * top * height + side * (np.arange(height) + 0.5) - 0.5
    np.testing.assert_allclose(got[3, 1:-1, 0], (x * 7)[1:-1], atol=1.0)
    np.testing.assert_allclose(got[1:-1, 3, 1], (y * 9)[1:-1], atol=1.0)
    assert got.shape == image.shape


def test_colours_keep_what_they_should():
    grey = np.full((4, 4, 3), 127, np.uint8)
    for augment in (Augment(contrast=0.5), Augment(saturation=0.9), Augment(hue=90)):
        moved = [apply(grey, *augment.draw(0, window)) for window in range(20)]
        assert np.abs(np.array(moved).astype(int) - 127).max() <= 1  # mid-grey is their centre
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    hues = np.array([apply(red, *Augment(hue=60).draw(0, window)) for window in range(20)])
    assert hues[..., 1:].max() > 60
    luma = hues.astype(float) @ [0.299, 0.587, 0.114]
    assert np.ptp(luma) < 60  # saturated channels are cut at 0, which moves it a little


@pytest.mark.parametrize(
    "bad", [{"crop": 0.0}, {"crop": 1.1}, {"brightness": 1.0}, {"hue": 200}, {"contrast": -0.1}]
)
def test_impossible_limits_are_refused(bad):
    with pytest.raises(ValueError, match="configs/augment"):
        Augment(**bad)
