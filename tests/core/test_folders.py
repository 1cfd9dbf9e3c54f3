"""Folders and tars of media: captions, damage, rates."""

from __future__ import annotations

import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from selfflow_wm.codec import PatchPCA
from selfflow_wm.data import ModeSchedule, SampleEncoder, SampleStream
from selfflow_wm.data.folders import AudioFolder, ImageFolder
from selfflow_wm.data.source import Part, split_source
from selfflow_wm.layout import Layout


def png(colour, size=(12, 8)):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "red_things").mkdir()
    (tmp_path / "a.png").write_bytes(png((10, 20, 30)))
    (tmp_path / "a.txt").write_text(" a caption, über \n", encoding="utf-8")
    (tmp_path / "b.png").write_bytes(png((40, 50, 60)))
    (tmp_path / "b.json").write_text(json.dumps({"caption": "from json"}))
    (tmp_path / "c.png").write_bytes(png((70, 80, 90)))
    (tmp_path / "red_things/d.png").write_bytes(png((255, 0, 0)))
    return tmp_path


def test_captions_come_from_sidecars_and_class_folders(pictures):
    source = ImageFolder(pictures, (4, 4))
    samples = [source[i] for i in range(len(source))]
    assert [s["caption"] for s in samples] == ["a caption, über", "from json", "", "red things"]
    assert samples[0]["image"].shape == (4, 4, 3) and samples[0]["image"].dtype == np.uint8
    assert samples[1]["image"][0, 0].tolist() == [40, 50, 60]


def test_tars_hold_pictures_and_captions_by_key(tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name, data in (
            ("x/000.png", png((1, 2, 3))), ("x/000.txt", b"first"),
            ("x/001.json", b'{"text": "second"}'), ("x/001.png", png((4, 5, 6))),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    source = ImageFolder(tmp_path, (4, 4))
    assert [source[i]["caption"] for i in range(2)] == ["first", "second"]
    assert [source[i]["image"][0, 0, 0] for i in range(2)] == [1, 4]
    (tmp_path / "broken.tar").write_bytes(b"not a tar" * 100)
    with pytest.raises(ValueError, match=r"broken\.tar"):
        ImageFolder(tmp_path, (4, 4))


def test_links_are_followed_and_hidden_files_left_out(pictures, capsys):
    """As data sets are put together, and as other programs leave their traces."""
    elsewhere = pictures.parent / f"{pictures.name}_elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.png").write_bytes(png((1, 1, 1)))
    (pictures / "blue_things").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(pictures)
    (pictures / "z.png").symlink_to(pictures / "gone.png")
    (pictures / ".cache").mkdir()
    for name in (".cache/c.png", "._a.png", ".DS_Store"):
        (pictures / name).write_bytes(b"")
    source = ImageFolder(pictures, (4, 4))
    captions = [caption for _, caption in source.captions()]
    assert captions == ["a caption, über", "from json", "blue things", "", "red things", ""]
    assert source[2]["image"][0, 0, 0] == 1 and not capsys.readouterr().err
    assert source[5]["caption"] == captions[0]
    assert "z.png" in capsys.readouterr().err


def test_files_of_other_sorts_are_counted(pictures, capsys):
    for name in ("e.tif", "f.TIF", "notes.csv"):
        (pictures / name).write_bytes(b"")
    with tarfile.open(pictures / "s.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("0.left.png"))
    assert len(ImageFolder(pictures, (4, 4))) == 4
    said = capsys.readouterr().err
    for count in ("2 of .tif", "1 of .csv", "1 of .left.png", "4 of .bmp"):
        assert count in said
    with pytest.raises(ValueError, match=r"4 of \.png, 2 of \.tif"):
        AudioFolder(pictures, 800, 80, 1)


def test_captions_of_editors_and_of_metadata_beside_them(tmp_path):
    (tmp_path / "a.png").write_bytes(png((1, 2, 3)))
    (tmp_path / "a.txt").write_bytes("\ufeffa caption".encode())
    (tmp_path / "b.png").write_bytes(png((1, 2, 3)))
    (tmp_path / "b.json").write_bytes('\ufeff{"caption": "from json"}'.encode())
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name, data in (("0.png", png((4, 5, 6))), ("0.txt", b"text"), ("0.json", b"{}")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    source = ImageFolder(tmp_path, (4, 4))
    assert [caption for _, caption in source.captions()] == ["a caption", "from json", "text"]


def test_a_class_folder_in_another_encoding_is_named(tmp_path):
    folder = os.fsencode(tmp_path) + "/größe".encode("latin-1")
    os.mkdir(folder)
    with open(folder + b"/a.png", "wb") as file:
        file.write(png((1, 2, 3)))
    with pytest.raises(ValueError, match="UTF-8.*rename"):
        ImageFolder(tmp_path, (4, 4))


def test_a_state_goes_on_with_its_own_files_alone(tmp_path):
    """Another file may leave the number of training samples as it is, and move the split."""
    codec = PatchPCA((4, 4), 2, 3)
    encoder = SampleEncoder(Layout((codec.row(),)), {"image": codec})
    mixture = ModeSchedule({"image": {"probability": 1.0, "batch_size": 2}})

    def state_of(count):
        for n in range(count):
            (tmp_path / f"{n:02d}.png").write_bytes(png((n, n, n)))
        training, _ = split_source(ImageFolder(tmp_path, (4, 4)), 0.3)
        return SampleStream({"image": training}, encoder, mixture)

    state = json.loads(json.dumps(state_of(15).state_dict()))
    state_of(15).load_state_dict(state)
    more = state_of(16)
    assert more.state_dict()["made_for"]["samples"] == state["made_for"]["samples"]
    with pytest.raises(ValueError, match="files"):
        more.load_state_dict(state)
    del state["made_for"]["files"]  # as older versions wrote it
    more.load_state_dict(state)


def test_an_unreadable_picture_is_named_and_the_next_stands_in(pictures, capsys):
    (pictures / "b.png").write_bytes(png((40, 50, 60))[:40])
    source = ImageFolder(pictures, (4, 4))
    assert source[1]["image"][0, 0].tolist() == [70, 80, 90]
    said = capsys.readouterr().err
    assert "b.png" in said and "1 of 4" in said
    assert source[1]["image"][0, 0].tolist() == [70, 80, 90]
    assert not capsys.readouterr().err and list(source.skipped) == [str(pictures / "b.png")]


def test_no_held_out_sample_stands_in_for_one_of_training(pictures):
    (pictures / "b.png").write_bytes(b"x")
    source = ImageFolder(pictures, (4, 4))
    assert len(source) == 4
    training, held_out = Part(source, [1, 3]), Part(source, [0, 2])
    shown = [training[0], training[1], source[3]]
    assert [one["image"][0, 0].tolist() for one in shown] == [[255, 0, 0]] * 3
    assert held_out[1]["image"][0, 0].tolist() == [70, 80, 90]
    (pictures / "red_things/d.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="got 2"):
        Part(ImageFolder(pictures, (4, 4)), [1, 3])[1]


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="got 1"):
        ImageFolder(tmp_path, (4, 4))[0]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"\xff\xfe caption", r"a\.txt.*UTF-8"),
        ("b.json", b"{", r"b\.json.*JSON"),
        ("b.json", b'{"caption": 3}', r"b\.json.*string"),
        ("b.json", rb'{"caption": "half \ud83d"}', r"b\.json.*string"),
    ],
)
def test_captions_that_cannot_be_read_are_named(pictures, name, data, message):
    (pictures / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        ImageFolder(pictures, (4, 4))


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"\.png"):
        ImageFolder(tmp_path, (4, 4))


def test_waves_are_scaled_and_cut_and_never_resampled(tmp_path):
    half = np.full((50, 2), 16384, np.int16)
    wavfile.write(tmp_path / "a.wav", 8000, half)
    (tmp_path / "a.txt").write_text("hum")
    sample = AudioFolder(tmp_path, 8000, 40, 2)[0]
    assert sample["audio"].shape == (2, 40) and sample["audio"].dtype == np.float32
    assert np.all(sample["audio"] == 0.5) and sample["sample_rate"] == 8000
    assert sample["caption"] == "hum"
    with pytest.raises(ValueError, match=r"a\.wav.*16000 Hz.*8000 Hz"):
        AudioFolder(tmp_path, 16000, 40, 2)[0]
    with pytest.raises(ValueError, match=r"a\.wav.*expected 1.*got 2"):
        AudioFolder(tmp_path, 8000, 40, 1)[0]
    (tmp_path / "0.wav").write_bytes(b"RIFF damaged")
    source = AudioFolder(tmp_path, 8000, 40, 2)
    assert source[0]["caption"] == "hum" and len(source.skipped) == 1
