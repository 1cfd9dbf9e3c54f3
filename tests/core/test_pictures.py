"""Pictures as viewers show them: orientation, transparency, 16 bits, sizes that fill the memory."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ExifTags, Image

from selfflow_wm.codec.reconstruct import read_picture
from selfflow_wm.data.folders import ImageFolder

SIZE = (16, 24)
PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)


def shown(path, size=SIZE):
    """As training and as a condition image; the two have to agree."""
    trained = ImageFolder(path.parent, size)[0]["image"]
    assert np.array_equal(trained, read_picture(path, size).numpy())
    return trained


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_stand_upright(tmp_path, orientation):
    # Of the standard: 5 to 8 store columns as rows; which sides row 0 and column 0 then lie at.
    stored = PIXELS.transpose(1, 0, 2) if orientation > 4 else PIXELS
    stored = stored[::-1] if orientation in (3, 4, 6, 7) else stored
    stored = stored[:, ::-1] if orientation in (2, 3, 7, 8) else stored
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(shown(tmp_path / "a.png"), PIXELS)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(tmp_path, mode):
    alpha = np.zeros(SIZE, np.uint8)
    alpha[4:12] = 255
    colours = [PIXELS] if mode == "RGBA" else [PIXELS[..., :1]]
    Image.fromarray(np.dstack([*colours, alpha]), mode).save(tmp_path / "a.png")
    picture = shown(tmp_path / "a.png")
    assert (picture[:4] == 255).all() and (picture[12:] == 255).all()
    assert np.array_equal(picture[4:12], np.broadcast_to(colours[0], PIXELS.shape)[4:12])


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert np.array_equal(shown(tmp_path / "a.png"), PIXELS[..., [0, 0, 0]])


@pytest.mark.parametrize("most", [300, 100])
def test_sizes_that_could_fill_the_memory_are_skipped(tmp_path, monkeypatch, most):
    """Pillow warns of up to twice the limit, which is of threads together, and raises above."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(PIXELS[:4, :4]).save(tmp_path / "b.png")
    source = ImageFolder(tmp_path, (4, 4))
    with pytest.warns() if most == 300 else pytest.MonkeyPatch.context():
        assert np.array_equal(source[0]["image"], PIXELS[:4, :4])
    assert list(source.skipped) == [str(tmp_path / "a.png")]
