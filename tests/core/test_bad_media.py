"""Bad input that has to be told: damaged media, foreign captions, other rates, other grids."""

from __future__ import annotations

import io
import re
import tarfile

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from scipy.io import wavfile

from selfflow_wm.codec import MDCTCodec, PatchPCA, PatchVideo
from selfflow_wm.codec.reconstruct import read_picture
from selfflow_wm.data import MODES, SampleEncoder
from selfflow_wm.data.folders import AudioFolder, ImageFolder, VideoFolder, check_frame_rate
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.sampling.conditions import make_conditions
from selfflow_wm.sampling.decode import CodecDecoder
from selfflow_wm.videos import write_video


def tar_of(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def png(value):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (value,) * 3).save(stream, format="PNG")
    return stream.getvalue()


def test_damaged_members_of_a_tar_are_named_skipped_and_counted(tmp_path, capsys):
    names = {f"{n}.png": png(n) for n in range(4)}
    tar_of(tmp_path / "shard.tar", names | {"1.png": b"nothing", "2.png": png(2)[:20]})
    source = ImageFolder(tmp_path, (4, 4))
    assert [source[n]["image"][0, 0, 0] for n in range(4)] == [0, 3, 3, 3]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "shard.tar/1.png" in said[0]
    assert "shard.tar/2.png" in said[1] and "2 of 4" in said[1]


def test_captions_in_another_encoding_are_named(tmp_path):
    tar_of(tmp_path / "shard.tar", {"0.png": png(0), "0.txt": "größer".encode("latin-1")})
    with pytest.raises(ValueError, match=r"shard\.tar/0\.txt.*UTF-8.*iconv"):
        ImageFolder(tmp_path, (4, 4))
    lines = tmp_path / "captions.txt"
    lines.write_bytes("größer\n".encode("latin-1"))
    layout = Layout((Modality("image", (1, 2, 2), 3),))
    with pytest.raises(ValueError, match=r"captions\.txt.*UTF-8"):
        make_conditions(layout, None, lines, 0)


def test_caption_files_of_editors_that_begin_with_a_mark(tmp_path):
    lines = tmp_path / "captions.txt"
    lines.write_bytes("\ufeffred\nblue\n".encode())
    layout = Layout((Modality("image", (1, 2, 2), 3),))
    assert make_conditions(layout, None, lines, 0).captions == ("red", "blue")


@pytest.mark.parametrize("error", [OSError, SyntaxError, Image.DecompressionBombError])
def test_condition_pictures_that_cannot_be_read_are_named(tmp_path, monkeypatch, error):
    (tmp_path / "a.png").write_bytes(png(3))

    def broken(*_):
        raise error("broken")

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(ValueError, match=r"a\.png.*broken"):
        read_picture(tmp_path / "a.png", (4, 4))


@pytest.fixture(scope="module")
def codecs():
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 5, 8, 8, 3), generator=random).to(torch.uint8)
    sound = torch.randn(6, 1, 80, generator=random)
    return {
        "image": PatchPCA((8, 8), 4, 3).fit(pixels[:, 0]),
        "video": PatchVideo((8, 8), 5, 4, 4).fit(pixels),
        "audio": MDCTCodec(800, 80, 20, 4).fit(sound, 800),
    }


def test_samples_at_another_rate_are_refused_by_caption(codecs):
    layout = Layout(tuple(codec.row() for codec in codecs.values()))
    encoder = SampleEncoder(layout, codecs)
    sample = {"caption": "a hum", "audio": np.zeros((1, 80), np.float32), "sample_rate": 1600}
    with pytest.raises(ValueError, match=r"800 Hz.*1600 Hz.*'a hum'"):
        encoder([sample], MODES["audio"])
    with pytest.raises(ValueError, match=r"audio.*\(1, 80\)"):
        encoder([sample | {"sample_rate": 800, "audio": np.zeros((2, 80))}], MODES["audio"])


@pytest.mark.parametrize("name", ["image", "video", "audio"])
def test_a_codec_of_another_grid_is_refused(codecs, name):
    rows = [codec.row() for codec in codecs.values()]
    rows = [
        Modality(
            row.name, (row.grid[0], row.grid[1] + (row.name == name), row.grid[2]), row.channels
        )
        for row in rows
    ]
    with pytest.raises(ValueError, match=f"codec.{name}"):
        SampleEncoder(Layout(tuple(rows)), codecs)
    if name == "image":
        with pytest.raises(ValueError, match="image.*grid"):
            CodecDecoder(codecs["image"], rows[0])


def test_damaged_videos_and_other_rates_of_their_sound(tmp_path, codecs, capsys):
    frames = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    audio = np.sin(np.arange(8000) / 9).astype(np.float32)
    write_video(tmp_path / "a.mp4", frames, 9, audio, 8000)
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: len(whole) // 3])
    write_video(tmp_path / "c.mp4", frames, 9)
    source = VideoFolder(tmp_path, (8, 8), 5)
    assert source[0]["video"].shape == (5, 8, 8, 3)
    assert np.array_equal(source[1]["video"], source[2]["video"])
    assert re.search(r"b\.mp4.*1 of 9 frames.*1 of 3", capsys.readouterr().err)
    with_sound = VideoFolder(tmp_path, (8, 8), 5, codecs["audio"])
    with pytest.raises(ValueError, match=r"a\.mp4.*800 Hz.*8000 Hz"):
        with_sound[0]
    wanted = MDCTCodec(8000, 800, 200, 4)
    sample = VideoFolder(tmp_path, (8, 8), 5, wanted)[0]
    assert sample["audio"].shape == (1, 800) and sample["sample_rate"] == 8000
    assert VideoFolder(tmp_path, (8, 8), 5, fps=9)[0]["video"].shape == (5, 8, 8, 3)
    with pytest.raises(ValueError, match=r"a\.mp4.*16 frames.*got 9.*-r 16"):
        VideoFolder(tmp_path, (8, 8), 5, fps=16)[0]


def test_frame_rates_are_compared_within_a_hundredth():
    check_frame_rate("a.mp4", 29.97, 30.0)
    check_frame_rate("a.mp4", None, None)
    for rate in (25.0, 12.5, None):
        with pytest.raises(ValueError, match=r"a\.mp4.*30 frames"):
            check_frame_rate("a.mp4", rate, 30.0)


def test_a_damaged_wave_is_named(tmp_path, capsys):
    wavfile.write(tmp_path / "b.wav", 800, np.zeros(80, np.float32))
    (tmp_path / "a.wav").write_bytes(b"RIFF....")
    assert AudioFolder(tmp_path, 800, 80, 1)[0]["audio"].shape == (1, 80)
    assert "a.wav" in capsys.readouterr().err


def test_a_wave_that_was_cut_off_is_skipped_and_one_of_unknown_length_is_not(tmp_path, capsys):
    ramp = np.arange(80, dtype=np.int16)
    wavfile.write(tmp_path / "z.wav", 800, ramp)
    whole = (tmp_path / "z.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[:144])  # 50 samples are left
    streamed = whole[:4] + b"\xff" * 4 + whole[8:40] + b"\xff" * 4 + whole[44:]
    (tmp_path / "b.wav").write_bytes(streamed)
    source = AudioFolder(tmp_path, 800, 80, 1)
    assert np.array_equal(source[0]["audio"][0] * 32768, ramp)
    assert np.array_equal(source[1]["audio"][0] * 32768, ramp)
    assert re.search(r"a\.wav.*144 of 204 bytes.*1 of 3", capsys.readouterr().err)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "nan"), (np.inf, "inf"), (2e4, "20000")])
def test_samples_that_are_no_sound_are_named(tmp_path, capsys, value, message):
    sound = np.full(80, 0.5, np.float32)
    wavfile.write(tmp_path / "b.wav", 800, sound)
    sound[40] = value
    wavfile.write(tmp_path / "a.wav", 800, sound)
    assert (AudioFolder(tmp_path, 800, 40, 1).at(0, 1)["audio"] == 0.5).all()
    said = capsys.readouterr().err
    assert re.search(rf"a\.wav.*\b{message}\b.*\[-1, 1\]", said), said


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_compressed_sounds_that_were_cut_off_are_skipped(tmp_path, suffix):
    hum = 0.5 * np.sin(np.arange(40000) / 10)
    soundfile.write(tmp_path / f"b.{suffix}", hum, 8000)
    whole = (tmp_path / f"b.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(whole[: len(whole) // 2])
    source = AudioFolder(tmp_path, 8000, 8000, 1)
    assert np.abs(source[0]["audio"] - hum[:8000]).mean() < 0.05
    assert list(source.skipped) == [str(tmp_path / f"a.{suffix}")]
