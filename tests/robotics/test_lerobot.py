"""LeRobot data sets read in place: every column and frame, slices, and what does not fit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_sets import (
    JOINTS,
    TOP,
    WRIST,
    change_episodes,
    change_info,
    number_of,
    write_set,
    write_video,
)

from benchmarks.robots import synthetic
from robotics.data.images import decode_image
from robotics.data.lerobot.draft import draft
from robotics.data.lerobot.info import read_info
from robotics.data.lerobot.raw import raw_lerobot
from robotics.data.lerobot.recording import LeRobotRecording
from robotics.data.recordings import Reading
from robotics.data.rlds.faults import Faults
from robotics.data.windows import WindowDataset
from robotics.embodiment.tables import load_robot

LENGTHS = (11, 7, 25, 9)
STARTS = np.cumsum([0, *LENGTHS])
DATA = "data/chunk-000/file-{:03d}.parquet"
VIDEO = f"videos/{TOP}/chunk-000/file-{{:03d}}.mp4"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("lerobot") / "set"
    return directory, write_set(directory, LENGTHS)


@pytest.fixture
def changed(written, tmp_path):
    """A copy to damage."""
    shutil.copytree(written[0], tmp_path / "set")
    return tmp_path / "set"


def table(directory, **changes):
    return load_robot({**draft(read_info(directory)), **changes})


def opened(directory, tmp_path, split="train", decoded=True, on_error="error", **changes):
    """Steps of a split in one piece, and the faults."""
    recording = LeRobotRecording(directory, table(directory, **changes))
    reading = Reading(
        {"top": (96, 128), "wrist": (48, 64)},
        tmp_path / "cache",
        Faults(on_error),
        decoded=decoded,
        progress=False,
    )
    parts, sources = recording.steps(split, reading)
    assert [source.steps for source in sources] == [len(part) for part in parts]
    return parts, reading.faults


def test_columns_and_pictures_are_as_written(written):
    directory, episodes = written
    assert len(list(directory.glob("videos/*/*/*.mp4"))) == 2  # several episodes in a file
    raw = raw_lerobot(directory, "train")
    assert raw.info.fps == 10 and raw.info.robot_type == "so101_follower"
    assert raw.names["steps/action"] == JOINTS
    for number, (place, expected) in enumerate(zip(raw.places, episodes, strict=True)):
        episode = raw.read(place)
        assert not episode.problems and episode.steps == LENGTHS[number]
        for name in ("observation.state", "action", "next.reward", "observation.torque"):
            wanted = np.reshape(expected[name], (episode.steps, -1))
            np.testing.assert_array_equal(episode.numbers[f"steps/{name}"], wanted, name)
        for name in ("note", "task"):
            assert [text.decode() for text in episode.texts[f"steps/{name}"]] == expected[name]
        assert episode.numbers["success"].item() == (number % 2 == 0)
        assert episode.texts["file"] == [f"{number}.h5".encode()]
        for camera, ahead in ((TOP, 0), (WRIST, 200)):
            pictures = episode.texts[f"steps/{camera}"]
            found = [number_of(decode_image(picture)) for picture in pictures]
            assert found == [STARTS[number] + ahead + step for step in range(episode.steps)]


@pytest.mark.parametrize("decoded", [True, False])
@pytest.mark.parametrize(
    ("split", "first", "last"),
    [("train", 0, 4), ("train[:50%]", 0, 2), ("train[50%:]", 2, 4), ("train[1:3]", 1, 3)],
)
def test_slices_are_of_episodes_with_their_frames(written, tmp_path, split, first, last, decoded):
    directory, episodes = written
    parts, _ = opened(directory, tmp_path, split, decoded)
    state = np.concatenate([part.state for part in parts])
    expected = [episode["observation.state"] for episode in episodes[first:last]]
    np.testing.assert_array_equal(state, np.concatenate(expected))
    np.testing.assert_array_equal(
        np.concatenate([part.lengths for part in parts]), LENGTHS[first:last]
    )
    for camera, ahead, size in (("top", 0, (96, 128)), ("wrist", 200, (48, 64))):
        frames = [part.frames[camera] for part in parts]
        images = [part.decode(step) for part in frames for step in range(len(part))]
        assert images[0].shape == (*size, 3)
        assert [number_of(image) for image in images] == [
            number + ahead for number in range(STARTS[first], STARTS[last])
        ]
        out = np.empty((*size, 3), np.uint8)
        frames[0][1:].read_into(0, out)
        np.testing.assert_array_equal(out, images[1])
    part = parts[0]
    assert part.instructions[part.instruction_id[0, 0]] == f"task {first % 3}"


def test_decoded_once_or_when_asked_for_the_pixels_are_equal(written, tmp_path):
    def pixels(decoded):
        parts, _ = opened(written[0], tmp_path, "train", decoded)
        return np.concatenate(
            [[part.frames["wrist"].decode(step) for step in range(len(part))] for part in parts]
        )

    np.testing.assert_array_equal(pixels(True), pixels(False))


def test_decoded_frames_are_kept_and_shared_by_slices(written, tmp_path, monkeypatch):
    opened(written[0], tmp_path, "train[:2]")
    monkeypatch.setattr("robotics.data.lerobot.video.decode", None)
    parts, _ = opened(written[0], tmp_path, "train[2:]")
    assert number_of(parts[0].frames["top"].decode(0)) == STARTS[2]


def test_filters_by_step_and_by_episode(written, tmp_path):
    parts, faults = opened(written[0], tmp_path, filters=[{"path": "/success", "keep": [True]}])
    assert sum(len(part) for part in parts) == LENGTHS[0] + LENGTHS[2] and faults.filtered == 2
    parts, _ = opened(written[0], tmp_path, filters=[{"path": "task", "contains": "task 1"}])
    assert sum(len(part) for part in parts) == LENGTHS[1]


def test_a_turned_camera(written, tmp_path):
    content = draft(read_info(written[0]))
    content["cameras"]["top"]["rotate"] = 180
    parts, _ = opened(written[0], tmp_path, cameras=content["cameras"], decoded=False)
    assert number_of(parts[0].frames["top"].decode(3)[::-1, ::-1]) == 3


@pytest.mark.parametrize("decoded", [True, False])
def test_windows_of_it(written, tmp_path, decoded):
    directory, episodes = written
    windows = WindowDataset(
        directory, (96, 128), spec=draft(read_info(directory)), cache_dir=tmp_path, decoded=decoded,
        split="train[1:]", horizon=3, video_offsets=(2,), history=1, progress=False,
    )  # fmt: skip
    assert len(windows) == sum(LENGTHS[1:])
    batch = windows.batch(np.array([0, 6, 7 + 10]))
    first = STARTS[1]
    for camera, ahead in (("top", 0), ("wrist", 200)):
        numbers = [number_of(image) - ahead for image in batch[f"image/{camera}"]]
        assert numbers == [first, first + 6, first + 17]
        assert number_of(batch[f"video/{camera}"][2, 0]) == first + 19 + ahead
        assert number_of(batch[f"history/{camera}"][2, 0]) == first + 16 + ahead
        assert batch["video_valid"].tolist() == [[True], [False], [True]]
    recorded = batch["state_recorded"][2]
    np.testing.assert_array_equal(recorded, episodes[2]["observation.state"][10])
    assert batch["instruction"] == ["task 1", "task 1", "task 2"]


def test_one_recording_in_either_format_is_the_same_to_a_model(tmp_path):
    """The shipped table of LeRobot's own arm, its world written as RLDS and as LeRobot."""
    sets = []
    for lerobot in (False, True):
        directory = tmp_path / str(lerobot)
        synthetic.write(load_robot("so101"), directory, episodes=2, seconds=1, lerobot=lerobot)
        sets.append(WindowDataset(directory, (48, 64), spec="so101", progress=False))
    rlds, lerobot = (data.batch(np.arange(len(data))) for data in sets)
    assert rlds.keys() == lerobot.keys() and rlds["instruction"] == lerobot["instruction"]
    for name, values in rlds.items():
        if "image" in name or name.startswith("video/"):
            assert np.abs(values.astype(int) - lerobot[name]).mean() < 8, name
        elif name not in ("instruction", "robot"):
            np.testing.assert_array_equal(values, lerobot[name], name)


# ---------------------------------------------------------------- what does not fit


def refused(directory, tmp_path, match, decoded=False, **changes):
    with pytest.raises(ValueError, match=match):
        opened(directory, tmp_path, decoded=decoded, **changes)


@pytest.mark.parametrize("decoded", [True, False])
@pytest.mark.parametrize("frames", [40, 47, 50])
def test_a_video_of_another_length_than_its_episodes(changed, tmp_path, frames, decoded):
    write_video(changed / VIDEO.format(0), range(frames), 10, g="2")  # of 43
    refused(changed, tmp_path, r"episode 2, observation.images.top: expected", decoded)
    # The other episodes of the file are all there.
    parts, faults = opened(changed, tmp_path, decoded=decoded, on_error="skip")
    np.testing.assert_array_equal(np.concatenate([part.lengths for part in parts]), [11, 7, 0, 9])
    assert faults.episodes == 1
    assert number_of(parts[0].frames["top"].decode(12)) == 12
    assert number_of(parts[-1].frames["top"][-9:].decode(0)) == STARTS[3]


def test_a_video_of_another_rate(changed, tmp_path):
    write_video(changed / VIDEO.format(0), range(43), 20, g="2")
    refused(changed, tmp_path, r"episode 0, observation.images.top.*20 fps against 10")
    write_video(changed / VIDEO.format(0), range(43), 5, g="2")
    refused(changed, tmp_path, r"episode 0, observation.images.top.*5 fps against 10")


def test_a_span_that_is_longer_than_its_episode(changed, tmp_path):
    # Episode 0 loses its last row of the video to nobody.
    change_episodes(changed, 1, **{f"videos__{TOP}__from_timestamp": 1.2})
    refused(changed, tmp_path, r"episode 0, observation.images.top: expected 11 frames.*got 12")


@pytest.mark.parametrize("change", [1, -1])
def test_rows_and_lengths_that_disagree(changed, tmp_path, change):
    path = changed / DATA.format(0)
    rows = pq.read_table(path)
    kept = pa.concat_tables([rows, rows.slice(20, 1)]) if change > 0 else rows.slice(0, 42)
    pq.write_table(kept.sort_by("index"), path)
    refused(changed, tmp_path, rf"episode 2: expected 25 rows by meta/episodes, got {25 + change}")


def test_rows_of_another_rate_or_out_of_order(changed, tmp_path):
    change_info(changed, fps=5)
    refused(changed, tmp_path, r"episode 0: expected timestamps.*fps 5.*10 fps on average")
    change_info(changed, fps=10)
    refused(changed, tmp_path, r"expected a table of 10 steps a second.*got rate 12", rate=12)
    path = changed / DATA.format(0)
    rows = pq.read_table(path)
    pq.write_table(rows.take([1, 0, *range(2, len(rows))]), path)
    refused(changed, tmp_path, "episode 0: expected frame_index 2 in row 1, got 0")


def test_a_description_that_contradicts_itself(changed, tmp_path):
    change_info(changed, total_frames=99)
    refused(changed, tmp_path, "expected 99 by total_frames of info.json, got 52")
    change_info(changed, total_frames=52)
    change_episodes(changed, 1, dataset_to_index=17)
    refused(changed, tmp_path, "episode 1: expected 7 rows by length .* got 6")


def test_missing_and_damaged_files_are_named(changed, tmp_path):
    place = changed / VIDEO.format(0)
    place.rename(tmp_path / "kept.mp4")
    refused(changed, tmp_path, "file-000.mp4, got no such file")
    (tmp_path / "kept.mp4").rename(place)
    (changed / DATA.format(1)).write_bytes(b"PAR1 nothing")
    refused(changed, tmp_path, "file-001.parquet: expected a parquet file")
    parts, faults = opened(changed, tmp_path, on_error="skip", decoded=False)
    assert parts[0].lengths.tolist() == [11, 7, 25, 0] and "file-001" in faults.found[0].reason


def test_other_sizes_kinds_and_splits(written, tmp_path):
    directory = written[0]
    cameras = draft(read_info(directory))["cameras"]
    wrong = {"top": {**cameras["top"], "size": [100, 100]}}
    refused(directory, tmp_path, r"write size: \[96, 128\]", cameras=wrong)
    wrong = {"top": {"path": "note"}}
    refused(directory, tmp_path, f"the cameras are {TOP}, {WRIST}", cameras=wrong)
    wrong = {"top": {"path": "observation.images.tip"}}
    refused(directory, tmp_path, "no such feature; the nearest are .*top", cameras=wrong)
    with pytest.raises(ValueError, match=r"such as 'train\[:90%\]', got 'test'"):
        opened(directory, tmp_path, split="test")
    with pytest.raises(ValueError, match="got none"):
        opened(directory, tmp_path, split="train[:0]")


def test_a_table_has_to_be_named(written):
    with pytest.raises(ValueError, match="got none; write spec="):
        WindowDataset(written[0], (96, 128))


def test_what_is_no_data_set_of_format_3(tmp_path):
    with pytest.raises(ValueError, match="meta/info.json"):
        read_info(tmp_path)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"codebase_version": "v2.1", "features": {}}')
    with pytest.raises(ValueError, match=r"format v3, got v2\.1; convert it"):
        read_info(tmp_path)


# ---------------------------------------------------------------- a drafted table


def test_a_table_is_drafted_from_names(written):
    robot = table(written[0])
    assert robot.rate == 10 and robot.instruction.paths == ("task",)
    assert [(row.name, row.path, row.size) for row in robot.cameras] == [
        ("top", TOP, (96, 128)),
        ("wrist", WRIST, (96, 128)),
    ]
    assert robot.camera("wrist").view == "wrist"
    for group in (robot.state, robot.action):
        assert [(part.kind, part.width) for part in group] == [("joints", 2), ("gripper", 1)]
        assert group[0].unit == "deg" and (group[1].open, group[1].closed) == (100, 0)
    assert {part.mode for part in robot.action} == {"absolute"}


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (["x", "y", "z", "qx", "qy", "qz", "qw", "gripper"],
         [("position", None), ("rotation", "quaternion_xyzw"), ("gripper", None)]),
        ([f"{side}_{joint}.pos" for side in ("left", "right") for joint in ("elbow", "gripper")],
         [("joints", None), ("gripper", None)] * 2),
        ([f"{side}_arm_{n}" for side in ("left", "right") for n in ("x", "y", "z")],
         [("position", None)] * 2),
        (["x.vel", "y.vel", "theta.vel"], [("base", None)]),
        ({"motors": ["motor_0", "motor_1"]}, [("joints", None)]),
        (None, [("other", None)]),
    ],
)  # fmt: skip
def test_names_of_other_robots(changed, names, kinds):
    path = changed / "meta" / "info.json"
    info = json.loads(path.read_text())
    width = (
        2 if names is None else len(sum(names.values(), []) if isinstance(names, dict) else names)
    )
    row = {"dtype": "float32", "shape": [width], "names": names}
    info["features"] |= {"observation.state": row, "action": row}
    path.write_text(json.dumps(info))
    robot = table(changed)
    assert [(part.kind, part.form) for part in robot.state] == kinds
    assert robot.state_width == robot.action_width == width
