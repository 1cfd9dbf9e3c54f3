"""Fréchet distances of two sets of media on the command line."""

from __future__ import annotations

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from selfflow_wm.commands.distance import main
from selfflow_wm.evaluation.distance import describe, measure
from selfflow_wm.evaluation.media_sets import Cut, open_archive, open_sets

RATE = 8000


class Means:
    """An extractor as a user would write one: a few means of a sample."""

    def __init__(self, context):
        self.name, self.seen = "means", []

    def __call__(self, samples):
        self.seen.append(samples.shape)
        return samples.reshape(len(samples), -1, 3).mean(1, dtype=np.float64)


@pytest.fixture(autouse=True)
def mine(monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(Means=Means))


def archive(path, array):
    np.savez(path, arr_0=array)
    return str(path)


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape, dtype=np.uint8)


def waves(folder, array, rate=RATE):
    folder.mkdir()
    for number, wave in enumerate(array):
        wavfile.write(folder / f"{number:03d}.wav", rate, wave.T.astype(np.float32))
    return str(folder)


def refused(capsys, *words):
    """The one line on stderr."""
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("error: ") and not said.out, said
    return said.err


def test_pictures_of_a_folder_against_the_same_in_an_archive(tmp_path, capsys):
    pictures, folder = pixels(40, 6, 8, 3), tmp_path / "a"
    folder.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
    other = archive(tmp_path / "b.npz", pictures)
    words = ["--features", "image=mine.Means", "--json", str(tmp_path / "new/result.json")]
    assert main([str(folder), other, *words]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Fréchet distance ") and said.out.count("\n") == 1
    assert "40 against 40 pictures, means" in said.out and "extrapolated" in said.out
    result = json.loads((tmp_path / "new/result.json").read_text())
    assert abs(result["value"]) < 1e-9 and result["counts"] == [40, 40] and result["width"] == 3
    assert result["low"] <= result["unbiased"] <= result["high"] and not said.err
    # 10 more in each of three colours: the square of the distance of the means.
    shifted = archive(tmp_path / "c.npz", pictures + np.uint8(10))
    assert main([str(folder), shifted, *words, "--resamples", "0"]) == 0
    result = json.loads((tmp_path / "new/result.json").read_text())
    assert result["value"] == pytest.approx(300.0) and result["unbiased"] is None
    assert "extrapolated" not in capsys.readouterr().out


def test_pictures_keep_their_sizes_and_a_damaged_one_is_named(tmp_path, capsys):
    for number, size in enumerate([(4, 4), (6, 2), (6, 2), (4, 4)]):
        Image.fromarray(pixels(*size, 3)).save(tmp_path / f"{number}.png")
    words = [str(tmp_path), str(tmp_path), "--features", "image=mine.Means"]
    assert main(words) == 0
    [media, _], _ = open_sets("image", (tmp_path, tmp_path), Cut())
    assert [one.shape for one in media.samples()] == [(4, 4, 3), (6, 2, 3), (6, 2, 3), (4, 4, 3)]
    capsys.readouterr()
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:50])
    assert "2.png: expected pictures" in refused(capsys, *words)


def test_archives_are_read_a_sample_at_a_time(tmp_path, monkeypatch):
    videos, sizes = pixels(5, 4, 6, 8, 3), []
    frombuffer = np.frombuffer
    monkeypatch.setattr(np, "frombuffer", lambda d, t: sizes.append(len(d)) or frombuffer(d, t))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", arr_0=videos)
        read = list(open_archive(tmp_path / "a.npz", "video"))
        np.testing.assert_array_equal(np.stack(read), videos)
    assert sizes == [4 * 6 * 8 * 3] * 10


def test_videos_and_sounds_are_cut_alike(tmp_path, capsys):
    short, long = pixels(5, 4, 6, 8, 3), pixels(7, 9, 6, 8, 3)
    a, b = (archive(tmp_path / f"{n}.npz", x) for n, x in (("a", short), ("b", long)))
    words = [a, b, "--features", "video=mine.Means"]
    assert re.search(r"b\.npz.*4.*got 9.*--frames 4", refused(capsys, *words))
    assert "frames 5, got 4" in refused(capsys, *words, "--frames", "5")
    assert main([*words, "--frames", "3"]) == 0
    assert "5 against 7 videos" in capsys.readouterr().out
    [_, media], cut = open_sets("video", (tmp_path / "a.npz", tmp_path / "b.npz"), Cut(3))
    assert cut == Cut(3, (6, 8))
    np.testing.assert_array_equal(next(media.samples()), long[0, :3])
    larger = archive(tmp_path / "c.npz", pixels(5, 4, 12, 16, 3))
    assert "(12, 16)" in refused(capsys, a, larger, "--features", "video=mine.Means")
    sounds = np.random.default_rng(0).standard_normal((6, 2, 900)).astype(np.float32)
    folder, file = waves(tmp_path / "w", sounds), archive(tmp_path / "s.npz", sounds[:, :, :800])
    [media, same], _ = open_sets(
        "audio", (tmp_path / "w", tmp_path / "s.npz"), Cut(None, None, None, RATE)
    )
    for one, other, wave in zip(media.samples(), same.samples(), sounds, strict=True):
        np.testing.assert_allclose(one, wave[:, :800].mean(0), atol=1e-6)
        np.testing.assert_allclose(one, other, atol=1e-6)
    words = [folder, file, "--features", "audio=toy"]
    assert main([*words, "--sample-rate", str(RATE)]) == 0
    said = capsys.readouterr()
    assert (
        abs(float(said.out.split()[2].strip(","))) < 1e-6 and "covariance is singular" in said.err
    )
    assert "--sample-rate" in refused(capsys, *words)
    said = refused(capsys, *words, "--sample-rate", "16000")
    assert "000.wav" in said and "16000 Hz" in said
    words += ["--sample-rate", str(RATE), "--samples"]
    assert re.search(r"s\.npz.*900.*got 800", refused(capsys, *words, "900"))
    words[1] = folder
    assert re.search(r"000\.wav.*1000.*got 900", refused(capsys, *words, "1000"))
    assert "--samples" in refused(capsys, *words[:-1])


def test_videos_of_a_folder(tmp_path, capsys):
    from selfflow_wm.videos import write_video

    (tmp_path / "videos").mkdir()
    for number in range(3):
        video = np.full((6, 32, 48, 3), 60 * number, np.uint8)
        write_video(tmp_path / f"videos/{number}.mp4", video, 8)
    one = archive(tmp_path / "a.npz", pixels(4, 5, 16, 16, 3))
    words = [one, str(tmp_path / "videos"), "--features", "video=mine.Means"]
    assert main(words) == 0
    assert "4 against 3 videos" in capsys.readouterr().out
    [_, media], _ = open_sets("video", (tmp_path / "a.npz", tmp_path / "videos"), Cut())
    for number, clip in enumerate(media.samples()):
        assert clip.shape == (5, 16, 16, 3) and abs(clip.mean() - 60 * number) < 5
    assert re.search(r"0\.mp4.*12.*got 8", refused(capsys, *words, "--fps", "12"))
    archive(tmp_path / "a.npz", pixels(4, 7, 16, 16, 3))
    assert re.search(r"0\.mp4.*7.*got 6", refused(capsys, *words))
    (tmp_path / "videos/1.mp4").write_bytes(b"no video")
    assert "1.mp4" in refused(capsys, *words, "--frames", "3")


def test_what_does_not_fit_is_explained_in_a_line(tmp_path, capsys):
    pictures = archive(tmp_path / "p.npz", pixels(4, 6, 8, 3))
    videos = archive(tmp_path / "v.npz", pixels(4, 5, 6, 8, 3))
    one = archive(tmp_path / "one.npz", pixels(1, 6, 8, 3))
    mine = ["--features", "image=mine.Means"]
    (tmp_path / "text.npz").write_text("no archive")
    cut = tmp_path / "cut.npz"
    cut.write_bytes((tmp_path / "p.npz").read_bytes()[:-200])
    np.savez(tmp_path / "named.npz", other=pixels(4, 6, 8, 3))
    (tmp_path / "empty").mkdir()
    for words, message in (
        ([pictures, str(tmp_path / "nothing.npz"), *mine], "nothing.npz"),
        ([pictures, str(tmp_path / "text.npz"), *mine], "text.npz"),
        ([pictures, str(tmp_path / "named.npz"), *mine], "arr_0"),
        ([pictures, str(cut), *mine], "cut.npz"),
        ([pictures, str(tmp_path / "empty"), *mine], "empty"),
        ([pictures, videos, *mine], "uint8 (N, H, W, 3), got uint8 (4, 5, 6, 8, 3)"),
        ([videos, videos, "--features", "audio=toy"], "float (N, A, S)"),
        ([one, pictures, *mine], "one.npz"),
        ([pictures, pictures, "--features", "image=best"], "['inception', 'toy']"),
        ([pictures, pictures, "--features", "smell=best"], "smell"),
        ([pictures, pictures, "--features", "image=toy"], "image=toy"),
        ([videos, videos, "--features", "video=toy"], "video=toy"),
        ([pictures, pictures, "--features", "image=inception"], "inception:WEIGHTS"),
        ([pictures, pictures, *mine, "--frames", "3"], "--frames"),
        ([pictures, pictures, *mine, "--resamples", "1"], "--resamples"),
        ([pictures, pictures, *mine, "--json", str(tmp_path)], "--out"),
    ):
        assert message in refused(capsys, *words), words


def test_damage_inside_an_archive_is_named(tmp_path, capsys):
    path = tmp_path / "a.npz"
    archive(path, pixels(200, 6, 8, 3))
    data = bytearray(path.read_bytes())
    data[5000] ^= 255
    path.write_bytes(data)
    said = refused(capsys, str(path), str(path), "--features", "image=mine.Means")
    assert "a.npz" in said and "sample" in said


def test_distances_of_known_features():
    random = np.random.default_rng(0)
    a = random.standard_normal((4000, 3))
    assert measure("FID", a, a + [3.0, 0.0, 0.0], "x", 0).value == pytest.approx(9.0, abs=1e-6)
    assert measure("FID", a, 2 * a, "x", 0).value == pytest.approx(3.0, rel=0.1)  # (2 - 1)^2 each
    found = measure("FID", a, random.standard_normal((4000, 3)), "x", 20)
    assert found.low is not None and found.low < 0.01 and found.value < 0.02
    few = measure("FID", a[:5], a[:5], "x", 20)
    assert few.unbiased is None and describe(few, "pictures").startswith("FID ")
    wide = measure("FID", random.standard_normal((20, 2)), random.standard_normal((20, 2)), "x")
    assert wide.unbiased is not None
