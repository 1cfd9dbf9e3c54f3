"""Metrics of the toy world against answers known beforehand."""

import numpy as np
import pytest

from selfflow_wm.data.toy import ToyWorld
from selfflow_wm.data.toy.config import PALETTE, SHAPES
from selfflow_wm.metrics.colors import COLORS, name_pixels
from selfflow_wm.metrics.frechet import (
    audio_features,
    frechet_distance,
    gaussian_distance,
    reduce,
    video_features,
)
from selfflow_wm.metrics.persistence import limb_persistence, object_persistence, shape_of
from selfflow_wm.metrics.sync import av_offset, find_contacts, find_onsets

WORLD = ToyWorld()
CONFIG = WORLD.config


def test_true_shapes_persist():
    for seed in range(8):
        sample = WORLD.sample("shapes", seed)
        things = {thing.color: thing.shape for thing in sample.truth.things}
        found = object_persistence(sample.video, things)
        assert found.objects == things
        assert found.error == 0, (seed, found.errors)


def passing(seed):
    """A true clip of one shape that goes behind the wall, and the frame that hides it."""
    while len((sample := WORLD.sample("shapes", seed)).truth.things) != 1:
        seed += 1
    return sample, int(sample.truth.visible[:, 0].argmin())


def test_an_identity_that_changes_behind_the_wall_is_caught():
    sample, hidden = passing(0)
    color = sample.truth.things[0].color
    other = COLORS[(COLORS.index(color) + 2) % len(COLORS)]
    video = sample.video.copy()
    late = video[hidden:]
    late[name_pixels(late) == COLORS.index(color)] = PALETTE[other]
    found = object_persistence(video)
    assert {what for _, _, what in found.errors} == {"missing"}
    # The old colour is missed only after the wall, the new one only before it.
    frames = {name: [t for t, c, _ in found.errors if c == name] for name in (color, other)}
    assert len(frames[color]) >= 2 and min(frames[color]) >= hidden
    assert len(frames[other]) >= 2 and max(frames[other]) < hidden
    assert found.error == len(found.errors) / (2 * CONFIG.frames)


def test_a_shape_that_vanishes_is_caught_in_its_frame():
    sample, _ = passing(0)
    video = sample.video.copy()
    here = name_pixels(video[:1])[0] >= 0
    video[0][here] = video[0, 0, 0]
    assert object_persistence(video).errors == [(0, sample.truth.things[0].color, "missing")]
    assert object_persistence(sample.video, {"red": "circle", "blue": "cross"}).error >= 0.5


def test_noise_is_judged_too():
    random = np.random.default_rng(0)
    for size, frames in ((32, 5), (64, 9)):
        video = random.integers(0, 256, (frames, size, size, 3), dtype=np.uint8)
        assert object_persistence(video, {"red": "circle"}).error >= 0.5
        assert limb_persistence(video, 4).error > 0
    # The largest patch of a colour touches the edge in every frame, a smaller one does not.
    video = np.full((5, 32, 32, 3), 215, np.uint8)
    video[:, :6, :6] = video[:, 16:20, 16:20] = PALETTE["red"]
    assert set(object_persistence(video).objects) == {"red"}


def test_shapes_are_named_right_at_any_fraction_of_a_pixel():
    from selfflow_wm.data.toy.canvas import Canvas, paint_shape
    from selfflow_wm.metrics.colors import patches

    random = np.random.default_rng(0)
    for shape in SHAPES:
        for color in ("red", "teal"):
            canvas = Canvas(np.full((96, 96, 3), 215, np.uint8), 4)
            paint_shape(
                canvas, shape, 12 + random.random(2), random.uniform(5.5, 7.3), PALETTE[color]
            )
            mask = name_pixels(canvas.finish()[None])[0] >= 0
            (patch,) = patches(mask, 5)
            assert shape_of(patch) == shape


def test_true_figures_keep_their_limbs():
    for seed in range(12):
        sample = WORLD.sample("figure", seed)
        found = limb_persistence(sample.video, sample.truth.limbs)
        assert found.error == 0, (seed, found.counts, sample.truth.limbs)


def test_a_limb_lost_in_a_frame_is_caught_there():
    import cv2

    sample = WORLD.sample("figure", 1)
    video = sample.video.copy()
    for t in range(11, 17):
        _, joint, end = sample.truth.joints[t, 0].round().astype(int).tolist()
        cv2.line(video[t], joint, end, video[t, 2, 2].tolist(), 7)
    found = limb_persistence(video)
    assert found.first == 11 and found.error == pytest.approx(6 / 17)
    assert found.reference == sample.truth.limbs


@pytest.mark.parametrize("kind", ["bounce", "tap"])
def test_offset_of_true_and_shifted_sound(kind):
    for seed in range(3):
        sample = WORLD.sample(kind, seed)
        times = sample.truth.times
        assert find_contacts(sample.video, CONFIG.fps) == pytest.approx(times, abs=0.004)
        assert find_onsets(sample.audio, CONFIG.sample_rate) == pytest.approx(times, abs=0.002)
        for shift in (0, 40, -60, 110):
            audio = np.roll(sample.audio, shift * CONFIG.sample_rate // 1000)
            found = av_offset(sample.video, audio, CONFIG.fps, CONFIG.sample_rate)
            assert found.offset_ms == pytest.approx(shift, abs=4)
            assert found.matched == len(times)


def test_silence_has_no_offset():
    sample = WORLD.sample("bounce", 0)
    found = av_offset(sample.video, 0 * sample.audio, CONFIG.fps, CONFIG.sample_rate)
    assert np.isnan(found.offset_ms) and found.onsets == 0 and found.contacts > 0


def test_frechet_distance_of_known_normals():
    mean, variance = np.array([1.0, -2.0]), np.array([4.0, 0.25])
    zero, one = np.zeros(2), np.eye(2)
    # commuting covariances: |m|^2 + sum (s - t)^2
    assert gaussian_distance(mean, np.diag(variance), zero, one) == pytest.approx(5 + 1 + 0.25)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    turned = gaussian_distance(
        turn @ mean, turn @ np.diag(variance) @ turn.T, zero, turn @ one @ turn.T
    )
    assert turned == pytest.approx(6.25)
    random = np.random.default_rng(0)
    a = random.normal(size=(4000, 2)) * np.sqrt(variance) + mean
    found = frechet_distance(a, random.normal(size=(4000, 2)), resamples=20)
    assert found.low < 6.25 < found.high and found.distance == pytest.approx(6.25, rel=0.1)


def test_the_extrapolation_takes_the_bias_away():
    random = np.random.default_rng(1)
    pairs = [random.normal(size=(2, 120, 20)) for _ in range(8)]
    found = [frechet_distance(a, b, resamples=2) for a, b in pairs]
    plain = np.mean([one.distance for one in found])
    assert plain > 1  # equal distributions, and yet
    assert abs(np.mean([one.unbiased for one in found])) < 0.3 * plain
    with pytest.raises(ValueError, match="rows"):
        frechet_distance(pairs[0][0][:30], pairs[0][1])
    assert reduce(pairs[0][0], 3)(pairs[0][1]).shape == (120, 3)


def test_features_of_clips_and_sounds_tell_materials():
    sounds: dict[str, list] = {"wood": [], "metal": []}
    for seed in range(12):
        sample = WORLD.sample("sound", seed)
        sounds.setdefault(sample.truth.material, []).append(sample.audio)
    features = audio_features(np.stack(sounds["metal"] + sounds["wood"]), CONFIG.sample_rate)
    assert features.shape[1] == 32 and np.isfinite(features).all()
    frames = np.arange(12).reshape(1, 3, 2, 2, 1)
    rows = video_features(lambda video: video.reshape(len(video), -1), frames)
    assert rows.tolist() == [[4, 5, 6, 7, 4, 4, 4, 4]]
