"""Files longer than a sample: every pass takes another part, and the sound of the same time."""

from __future__ import annotations

import io

import numpy as np
import pytest
from scipy.io import wavfile

from selfflow_wm.codec import MDCTCodec
from selfflow_wm.data.excerpts import read_clip, read_track, start_of
from selfflow_wm.data.folders import AudioFolder, VideoFolder
from selfflow_wm.data.source import Part, sample_at
from selfflow_wm.videos import write_video

FPS, RATE, FRAMES = 10, 8000, 60


def test_passes_begin_at_the_start_and_then_spread_over_the_file():
    starts = np.array([start_of(110, 10, lap) for lap in range(20)])
    assert starts[0] == 0 and starts.min() >= 0 and starts.max() <= 100
    gaps = np.diff(np.sort(np.append(starts, 100)))
    assert gaps.max() <= 10  # twenty random ones would leave about 18
    assert start_of(10, 10, 7) == start_of(4, 10, 3) == 0


def test_later_passes_over_sounds_read_other_parts(tmp_path):
    wavfile.write(tmp_path / "a.wav", RATE, np.arange(100, dtype=np.int16) * 100)
    source = AudioFolder(tmp_path, RATE, 10, 1)
    part = Part(source, [0])
    for lap in range(5):
        begin = start_of(100, 10, lap)
        wanted = np.arange(begin, begin + 10, dtype=np.float32) * 100 / 32768
        assert np.allclose(sample_at(source, 0, lap)["audio"][0], wanted)
        assert np.allclose(sample_at(part, 0, lap)["audio"][0], wanted)
    assert np.array_equal(source[0]["audio"], sample_at(source, 0, 0)["audio"])


@pytest.fixture
def video(tmp_path):
    """Frame n is of brightness 4 n; the sound rises by 200 Hz a second."""
    time = np.arange(FRAMES * RATE // FPS) / RATE
    sound = 0.5 * np.sin(2 * np.pi * (300 * time + 100 * time**2)).astype(np.float32)
    frames = (
        np.zeros((FRAMES, 16, 16, 3), np.uint8)
        + 4 * np.arange(FRAMES, dtype=np.uint8)[:, None, None, None]
    )
    write_video(tmp_path / "a.mp4", frames, FPS, sound, RATE)
    return tmp_path / "a.mp4"


def test_later_passes_over_videos_read_other_parts_and_their_sound(video):
    codec = MDCTCodec(RATE, 4000, 200, 4)
    source = VideoFolder(video.parent, (8, 8), 5, codec, fps=FPS)
    begins = []
    for lap in range(4):
        sample = sample_at(source, 0, lap)
        shown = sample["video"].mean((1, 2, 3)) / 4
        assert np.allclose(np.diff(shown), 1, atol=0.6)  # a lossy video
        begin = start_of(FRAMES, 5, lap)
        assert shown[0] == pytest.approx(begin, abs=0.6)
        spectrum = np.abs(np.fft.rfft(sample["audio"][0] * np.hanning(4000)))
        middle = begin / FPS + 0.25  # s; 0.5 s of sound
        assert spectrum.argmax() * RATE / 4000 == pytest.approx(300 + 200 * middle, abs=20)
        begins.append(begin)
    assert len(set(begins)) == 4


def test_sound_from_the_middle_is_the_sound_of_the_whole(video):
    import av

    data = io.BytesIO(video.read_bytes())
    _, whole = read_track(av, data, 0.0, 10**9)
    for start in (0.0, 1.3, 4.0):
        _, part = read_track(av, data, start, 2000)
        wanted = whole[0, round(start * RATE) :][:2000]
        lags = [np.dot(part[0, 200:1800], wanted[200 + lag : 1800 + lag]) for lag in range(-9, 10)]
        assert np.argmax(lags) == 9  # no shift
    _, later = read_track(av, data, -0.5, 2000)
    assert not later[0, :3900].any() and later.shape[1] >= 2000


def test_a_short_video_is_read_whole_at_every_pass(video):
    import av

    for lap in range(3):
        clip = read_clip(av, io.BytesIO(video.read_bytes()), FRAMES + 5, lap)
        assert len(clip.pictures) == FRAMES and clip.start == pytest.approx(0.0, abs=0.2)


HALVES = np.zeros((FRAMES, 16, 32, 3), np.uint8)
HALVES[:, :, :16], HALVES[:, :, 16:] = (240, 60, 60), (20, 20, 200)


def converted(path, *options):
    """Another video made of `path`."""
    import subprocess

    import imageio_ffmpeg

    out = path.with_name(f"b{options[-1]}")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path)]
    subprocess.run([*command, *options[:-1], str(out)], check=True)
    path.unlink()
    return out


@pytest.fixture
def halves(tmp_path):
    write_video(tmp_path / "a.mp4", HALVES, FPS)
    return tmp_path / "a.mp4"


def test_videos_stand_upright(halves):
    """As telephones record: a turn in the header."""
    whole = bytearray(halves.read_bytes())
    matrix = whole.index(b"tkhd") + 44
    turned = np.array([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], ">i4")  # 90 degrees clockwise
    whole[matrix : matrix + 36] = turned.tobytes()
    halves.write_bytes(whole)
    shown = VideoFolder(halves.parent, (32, 16), 5)[0]["video"].astype(int)
    assert np.allclose(shown[:, :14], (240, 60, 60), atol=6)
    assert np.allclose(shown[:, 18:], (20, 20, 200), atol=6)


@pytest.mark.parametrize("full", [False, True])
def test_colours_are_those_that_the_video_names(halves, full):
    words = ["-vf", f"scale=out_color_matrix=bt709:out_range={'full' if full else 'limited'}"]
    words += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    words += ["-color_range", "pc" if full else "tv", "-crf", "4", "-pix_fmt", "yuv420p"]
    path = converted(halves, *words, ".mp4")
    shown = VideoFolder(path.parent, (16, 32), 5)[0]["video"].astype(int)
    assert np.allclose(shown[:, :, :14], (240, 60, 60), atol=6)
    assert np.allclose(shown[:, :, 18:], (20, 20, 200), atol=6)


def test_videos_whose_headers_count_no_frames_give_other_parts_too(video):
    path = converted(video, "-c", "copy", ".mkv")
    source = VideoFolder(path.parent, (8, 8), 5)
    for lap in range(3):
        shown = sample_at(source, 0, lap)["video"].mean((1, 2, 3)) / 4
        assert shown[0] == pytest.approx(start_of(FRAMES, 5, lap), abs=2)  # of its sound's length
        assert len(shown) == 5 and np.allclose(np.diff(shown), 1, atol=0.6)


def test_a_video_shorter_than_its_sound_is_read_from_its_beginning(video):
    path = converted(video, "-vf", "trim=end_frame=8", "-c:a", "copy", ".mkv")
    shown = VideoFolder(path.parent, (8, 8), 5).at(0, 1)["video"].mean((1, 2, 3)) / 4
    assert shown[0] == pytest.approx(0, abs=0.6) and len(shown) == 5


def test_frames_at_an_uneven_rate_are_refused(video):
    """Every third of the first half: 40 frames in 6.4 s are 6.25 a second."""
    wanted = "select='not(mod(n,3))+gt(n,29)'"
    path = converted(video, "-vf", wanted, "-fps_mode", "vfr", ".mp4")
    with pytest.raises(ValueError, match=r"b\.mp4.*rate"):
        VideoFolder(path.parent, (8, 8), 5, fps=6.25)[0]
    assert VideoFolder(path.parent, (8, 8), 5)[0]["video"].shape == (5, 8, 8, 3)


def test_tracks_that_are_missing_are_named_and_titles_may_be_in_any_encoding(halves, capsys):
    path = converted(halves, "-metadata", "title=aXXe", "-c:v", "mpeg4", ".avi")
    path.write_bytes(path.read_bytes().replace(b"aXXe", b"a\xfc\xdfe"))
    assert VideoFolder(path.parent, (8, 8), 5)[0]["video"].shape == (5, 8, 8, 3)
    with pytest.raises(ValueError, match="got 1"):
        VideoFolder(path.parent, (8, 8), 5, MDCTCodec(RATE, 4000, 200, 4))[0]
    assert "b.avi" in capsys.readouterr().err
