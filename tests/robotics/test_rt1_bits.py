"""RT-1's windows are those that were made before robots were tables, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from rt1_arrays import actions, states

from robotics.data.images import decode_image, resize_image
from robotics.data.rlds.fake import INSTRUCTIONS, fake_dataset
from robotics.data.rlds.schema import rt1_features
from robotics.data.rlds.tfrecord import index_records, read_record
from robotics.data.windows import WindowDataset
from robotics.embodiment.normalize import Quantiles

SIZE, HORIZON, OFFSETS, HISTORY = (24, 30), 5, (2, 5), (4, 2)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return fake_dataset(tmp_path_factory.mktemp("rt1"), (12, 9, 15, 8), shard_episodes=3)


def recorded(directory):
    """Every episode's arrays, read by tensorflow-datasets."""
    for path in sorted(directory.glob("*.tfrecord-*")):
        for number, span in enumerate(index_records(path)):
            example = rt1_features().deserialize_example_np(read_record(path, span, number))
            steps = list(example["steps"])
            views, acts = ([step[key] for step in steps] for key in ("observation", "action"))
            yield {
                "images": [resize_image(view["image"], SIZE) for view in views],
                "texts": [v["natural_language_instruction"].decode() for v in views],
                "state": states(
                    np.stack([view["base_pose_tool_reached"] for view in views]),
                    np.stack([view["gripper_closed"] for view in views]),
                ),
                "action": actions(
                    np.stack([act["world_vector"] for act in acts]),
                    np.stack([act["rotation_delta"] for act in acts]),
                    np.concatenate([act["gripper_closedness_action"] for act in acts]),
                    np.array([act["terminate_episode"][0] for act in acts]) > 0.5,
                ),
            }


def keyframes(gripper, ends):
    """For every step the next whose command differs from the one held, or its sub-task's last."""
    found = []
    for t in range(len(gripper)):
        held = next((gripper[i] for i in range(t, -1, -1) if gripper[i]), 0.0)
        later = range(t + 1, ends[t])
        found.append(next((i for i in later if gripper[i] and gripper[i] != held), ends[t] - 1))
    return found


@pytest.mark.parametrize("decoded", [True, False])
def test_batches_are_those_of_the_formulas_written_out(directory, decoded):
    dataset = WindowDataset(
        directory, SIZE, horizon=HORIZON, video_offsets=OFFSETS, history=2, history_stride=2,
        decoded=decoded, progress=False,
    )  # fmt: skip
    got = dataset.batch(range(len(dataset)))
    assert got["state"].dtype == got["action"].dtype == got["keypose"].dtype == np.float32
    row = 0
    for episode in recorded(directory):
        texts, count = episode["texts"], len(episode["texts"])
        ends = [
            next((j for j in range(i, count) if texts[j] != texts[i]), count) for i in range(count)
        ]
        keys = keyframes(episode["action"][:, 6], ends)
        for t in range(count):
            assert got["instruction"][row] == texts[t] in INSTRUCTIONS
            expected = {
                "image/head": episode["images"][t],
                "state": episode["state"][t],
                "keypose": episode["state"][keys[t]],
            }
            valid = np.arange(t, t + HORIZON) < ends[t]
            chunk = np.zeros((HORIZON, 8), np.float32)
            chunk[valid] = episode["action"][t : t + valid.sum()]
            expected |= {"action": chunk, "action_valid": valid}
            for kind, offsets in (("video", OFFSETS), ("history", [-by for by in HISTORY])):
                exists = [0 <= t + by < count and (by < 0 or t + by <= ends[t]) for by in offsets]
                black = np.zeros((*SIZE, 3), np.uint8)
                expected[f"{kind}_valid"] = exists
                expected[f"{kind}/head"] = np.stack(
                    [
                        episode["images"][t + by] if there else black
                        for by, there in zip(offsets, exists, strict=True)
                    ]
                )
            for name, values in expected.items():
                np.testing.assert_array_equal(got[name][row], values, err_msg=f"{name} of {row}")
            row += 1
    assert row == len(dataset)


def test_statistics_are_those_of_every_step(directory):
    episodes = list(recorded(directory))
    statistics = WindowDataset(directory, SIZE, progress=False).statistics()
    for name in ("state", "action"):
        assert statistics[name] == Quantiles.of(np.concatenate([e[name] for e in episodes]))


def test_images_are_decoded_as_they_are(directory):
    """Nothing is turned, and no pixel changes, at the recorded size."""
    dataset = WindowDataset(directory, (256, 320), decoded=False, progress=False)
    frames = dataset.store.frames["head"][0]
    np.testing.assert_array_equal(dataset.frames([3])[0], decode_image(frames.encoded(3)))
