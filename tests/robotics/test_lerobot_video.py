"""Frames of videos by time: exactly the one that was asked for, whatever the codec does inside."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from lerobot_sets import number_of, write_video

from robotics.data.lerobot.video import decode, read_index

FPS = 30
# Codec and options: LeRobot's default, a key frame seldom, frames stored in another order than they
# are shown (also across key frames), every frame a key frame.
CODECS = {
    "av1": ("libsvtav1", {"g": "2", "crf": "30"}),
    "av1 long": ("libsvtav1", {"g": "50", "crf": "35"}),
    "h264": ("libx264", {"g": "2", "crf": "23"}),
    "h264 b": ("libx264", {"g": "30", "bf": "3", "crf": "23"}),
    "h264 open": ("libx264", {"g": "20", "bf": "4", "x264-params": "open-gop=1:scenecut=0"}),
    "h264 intra": ("libx264", {"g": "1", "crf": "20"}),
    "hevc": ("libx265", {"x265-params": "keyint=25:bframes=4:open-gop=1:log-level=none"}),
}
COUNT = 90


@pytest.fixture(scope="module", params=CODECS)
def index(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    codec, options = CODECS[request.param]
    write_video(path, range(COUNT), FPS, codec, **options)
    return read_index(path)


def test_every_frame_in_a_row(index):
    assert len(index.pts) == COUNT and index.size == (96, 128)
    assert [number_of(decode(index, number)) for number in range(COUNT)] == list(range(COUNT))


def test_frames_at_random_backwards_and_again(index):
    rng = random.Random(0)
    wanted = (
        [rng.randrange(COUNT) for _ in range(60)] + list(range(COUNT))[::-7] + [5, 5, COUNT - 1]
    )
    assert [number_of(decode(index, number)) for number in wanted] == wanted


def test_threads_at_once(index):
    rng = random.Random(1)
    wanted = [rng.randrange(COUNT) for _ in range(60)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: number_of(decode(index, number)), wanted))
    assert found == wanted


def test_processes_forked_while_files_are_open(index):
    """Both go on, and a child that only starts another program does not wait for ever."""
    assert number_of(decode(index, 7)) == 7
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply_async(_numbers, (index, [9, 3, 60]))
        assert [number_of(decode(index, number)) for number in (8, 30)] == [8, 30]
        assert found.get(timeout=60) == [9, 3, 60]
    subprocess.run([sys.executable, "-c", ""], preexec_fn=os.getpid, timeout=60, check=True)


def _numbers(index, wanted):
    return [number_of(decode(index, number)) for number in wanted]


def test_the_first_and_last_frame_of_episodes_are_theirs(index):
    for first, last in ((0, 1), (0, 30), (31, 59), (59, COUNT)):
        times = first / FPS + np.float32(np.arange(last - first) / FPS)
        frames = index.find(times.astype(np.float64), FPS, "episode")
        assert [number_of(decode(index, frames[k])) for k in (0, -1)] == [first, last - 1]


def test_times_without_a_frame_are_refused(index):
    times = np.arange(10) / FPS
    for wrong in (times + 0.5 / FPS, times + (COUNT - 9) / FPS, times - 1 / FPS):
        with pytest.raises(ValueError, match="expected a frame at"):
            index.find(wrong, FPS, "episode 3")
    with pytest.raises(ValueError, match=r"got 2 from step 0 to 1 \(30 fps against 15"):
        index.find(np.arange(10) / 15, 15, "episode 3")
    with pytest.raises(ValueError, match=r"episode 3.*30 fps against 60"):
        index.find(np.arange(10) / 60, 60, "episode 3")


def test_damage_names_the_file(tmp_path):
    path = tmp_path / "video.mp4"
    with pytest.raises(ValueError, match=r"video\.mp4, got no such file"):
        read_index(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        read_index(path)
    for content in (b"", b"no video " * 999):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"video\.mp4: expected a readable video"):
            read_index(path)


def test_damage_inside_names_the_frame_and_spares_the_others(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, range(60), FPS, "libx264", g="10")
    assert len(read_index(path).pts) == 60
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat")
    middle = start + (data.index(b"moov") - start) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    index, found, messages = read_index(path), [], []
    for number in range(60):
        try:
            found.append(number_of(decode(index, number)))
        except ValueError as error:
            messages.append(str(error).startswith(f"{path}: frame {number} does not decode"))
    assert all(messages) and 40 <= len(found) < 60 and found == sorted(found)
    assert found[:20] == list(range(20)) and found[-10:] == list(range(50, 60))
