"""Our windows against those of tf.data and rlds, element for element, in both file formats."""

import subprocess
import sys

import numpy as np
import pytest

from robotics.data.images import decode_image, resize_image
from robotics.data.rlds import arrayrecord
from robotics.data.rlds.fake import fake_dataset
from robotics.data.windows import WindowDataset

pytestmark = pytest.mark.extra("rlds")
SIZE = (32, 40)
HORIZON, OFFSETS = 6, (2, 3, 6)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("rt1")
    fake_dataset(path / "tfrecord", (12, 9, 15, 8, 1, 7), shard_episodes=2)
    arrayrecord.repack(path / "tfrecord", path / "array_record")
    return path


def pixels(image):
    return resize_image(decode_image(image), SIZE)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.parametrize("decoded", [True, False])
def test_windows_equal_those_of_the_reference(directory, tmp_path, file_format, decoded):
    from robotics.data.rlds.tfdata import reference_windows

    ours = WindowDataset(
        directory / file_format,
        SIZE,
        split="train[1:]",
        horizon=HORIZON,
        video_offsets=OFFSETS,
        cache_dir=tmp_path,
        decoded=decoded,
        progress=False,
    )
    count = 0
    reference = reference_windows(directory / "tfrecord", HORIZON + 1, "train[1:]")
    for index, window in enumerate(reference):
        count += 1
        sample = ours.sample(index)
        view, action = window["observation"], window["action"]
        texts = [text.decode() for text in view["natural_language_instruction"]]
        pose = view["base_pose_tool_reached"][0]
        turned = pose[3:] * (-1 if pose[3] + pose[4] < 0 else 1)
        proprio = np.concatenate([pose[:3], turned, view["gripper_closed"][0]])
        # rlds cuts at the end of the episode, the toolkit at that of the sub-task as well.
        same = [text == texts[0] for text in texts]
        steps = (same + [False]).index(False)
        vectors = np.concatenate(
            [
                action["world_vector"],
                action["rotation_delta"],
                action["gripper_closedness_action"],
                np.where(action["terminate_episode"][:, :1] == 1, 1, -1).astype(np.float32),
            ],
            axis=1,
        )
        assert sample["instruction"] == texts[0]
        np.testing.assert_array_equal(sample["state"], proprio)
        np.testing.assert_array_equal(sample["image/head"], pixels(view["image"][0]))
        assert sample["action_valid"].tolist() == [i < steps for i in range(HORIZON)]
        valid = min(steps, HORIZON)
        np.testing.assert_array_equal(sample["action"][:valid], vectors[:valid])
        assert not sample["action"][valid:].any()
        for frame, (offset, shown) in enumerate(zip(OFFSETS, sample["video_valid"], strict=True)):
            assert shown == (offset < len(texts) and offset <= steps)
            image = pixels(view["image"][offset]) if shown else np.zeros((*SIZE, 3))
            np.testing.assert_array_equal(sample["video/head"][frame], image)
    assert count == len(ours)


def test_training_never_loads_tensorflow_where_it_is_installed(directory, tmp_path):
    code = (
        "import sys\n"
        "from robotics.data.windows import WindowDataset\n"
        f"WindowDataset({str(directory / 'array_record')!r}, {SIZE}, progress=False, "
        f"cache_dir={str(tmp_path)!r}).batch([0])\n"
        "assert 'tensorflow' not in sys.modules and 'rlds' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
