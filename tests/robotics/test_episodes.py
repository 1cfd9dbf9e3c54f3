"""Episodes, their vectors and windows."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robotics.data.episodes import (
    EpisodeRecorder,
    run_ends,
)
from robotics.data.images import decode_image, encode_image, resize_image
from robotics.data.rlds.fake import fake_episode
from robotics.data.windows import action_window, video_window
from robotics.embodiment.control import Action
from robotics.embodiment.rotation import rpy_to_axis_angle
from robotics.embodiment.tables import shipped


def observation(value=0):
    return {
        "image": np.full((256, 320, 3), value, np.uint8),
        "tool_pose": np.array([1, 2, 3, 0, 0, 0, -1], np.float32),
        "gripper_closed": np.array([0.25], np.float32),
    }


def test_recorder_turns_control_into_rt1_conventions():
    recorder = EpisodeRecorder()
    control = np.array([0.1, -0.2, 0.3, 0.2, 0.3, -0.4, 1.0], np.float32)
    recorder.add(observation(), Action(control), "open top drawer")
    recorder.add(observation(), Action(-control, True), "open top drawer", reward=1.0)
    episode = recorder.build()
    turn = rpy_to_axis_angle(episode.part("action.rotation"))
    np.testing.assert_allclose(turn, [control[3:6], -control[3:6]], atol=1e-6)
    motion = episode.part("action.position")
    np.testing.assert_array_equal(motion, [control[:3], -control[:3]])
    np.testing.assert_array_equal(episode.part("action.gripper"), [[1], [-1]])
    np.testing.assert_array_equal(episode.terminate, [False, True])
    np.testing.assert_array_equal(episode.state[0], [1, 2, 3, 0, 0, 0, -1, 0.25])
    assert episode.instructions == [("open top drawer",)] * 2
    np.testing.assert_array_equal(episode.reward, [0, 1])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=20))
def test_run_ends_match_a_plain_loop(labels):
    expected = [
        next((j for j in range(i, len(labels)) if labels[j] != labels[i]), len(labels))
        for i in range(len(labels))
    ]
    np.testing.assert_array_equal(run_ends(np.array(labels)), expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 7))
def test_action_windows_stop_at_switches_and_ends(runs, horizon):
    labels = np.repeat(np.arange(len(runs)), runs)
    steps = np.arange(len(labels))
    index, valid = action_window(steps, run_ends(labels), horizon)
    for t in steps:
        for i in range(horizon):
            inside = t + i < len(labels) and labels[t + i] == labels[t]
            assert valid[t, i] == inside
            assert index[t, i] == (t + i if inside else t)


def test_video_is_valid_up_to_the_frame_the_last_valid_action_leads_to():
    # Steps 0..3 under one instruction, 4..6 under the next; frames 0..6.
    labels = np.array([0, 0, 0, 0, 1, 1, 1])
    steps = np.arange(7)
    index, valid = video_window(steps, run_ends(labels), np.full(7, 7), (1, 3))
    assert valid[:, 0].tolist() == [True, True, True, True, True, True, False]
    # From step 1, frame 4 follows actions 1, 2, 3; from step 2, frame 5 needs action 4 as well.
    assert valid[:, 1].tolist() == [True, True, False, False, False, False, False]
    assert index[1].tolist() == [2, 4]
    assert index[6].tolist() == [6, 6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": np.zeros((12, 6))}, r"expected action of shape \(12, 7\)"),
        (
            {"state": np.pad(np.full((12, 1), np.nan), ((0, 0), (7, 0)))},
            "expected finite state.gripper, got NaN or infinity at step 0",
        ),
        ({"cameras": {"head": [b"a"]}}, "expected 12 pictures of camera head, one a step, got 1"),
        ({"cameras": {"side": []}}, "cameras: expected one of head"),
        ({"instructions": []}, "at least one"),
    ],
)
def test_malformed_episodes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(fake_episode(0), **change)


def test_recorder_refuses_what_is_no_step():
    recorder = EpisodeRecorder()
    with pytest.raises(ValueError, match="expected an RGB image"):
        recorder.add(observation() | {"image": np.zeros((3, 4))}, Action(np.zeros(7)), "x")
    with pytest.raises(ValueError, match="expected control of shape"):
        recorder.add(observation(), Action(np.zeros(8)), "x")
    with pytest.raises(ValueError, match="at least one"):
        recorder.build()
    with pytest.raises(ValueError, match="expected the parts .* of robot so101"):
        EpisodeRecorder(shipped("so101"))


def test_images_survive_the_codec_and_are_averaged_by_area():
    image = np.random.default_rng(0).integers(0, 255, (8, 10, 3), np.uint8).repeat(32, 0)
    image = image.repeat(32, 1)
    assert np.abs(decode_image(encode_image(image)).astype(int) - image).mean() < 6
    np.testing.assert_array_equal(resize_image(image, (8, 10)), image[::32, ::32])
    assert resize_image(image, (256, 320)) is image
