"""FID by its own network, here of random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from selfflow_wm.evaluation import fid as command
from selfflow_wm.evaluation.features import Context, make_extractors
from selfflow_wm.evaluation.fid import fid, main
from selfflow_wm.evaluation.inception import Inception, InceptionFeatures, _MixedE


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    state = {name: value.contiguous() for name, value in Inception().state_dict().items()}
    classifier = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    save_file(state | classifier, path)  # as it is passed around: with its classifier
    return path


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)


def test_the_network_has_the_size_of_fids():
    with torch.device("meta"):
        network = Inception()
    # Inception v3 without its second head, less the classifier of 1000 classes
    assert sum(p.numel() for p in network.parameters()) == 23_834_568 - (2048 * 1000 + 1000)


def test_pools_leave_the_padding_out_and_the_last_block_takes_the_maximum():
    block, x = _MixedE(8, maximum=False).eval(), torch.ones(1, 8, 3, 3)
    seen = []
    block.branch_pool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block(x)
    torch.testing.assert_close(seen[0], x)  # with the padding, corners would be 4/9
    block.maximum, spot = True, F.pad(torch.ones(1, 8, 1, 1), (1, 1, 1, 1))
    block(spot)
    torch.testing.assert_close(seen[1], x)


def test_equal_sets_have_distance_zero_from_a_folder_or_an_archive(
    weights, pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command, "fid", lambda a, b: fid(a[:, :16], b[:, :16]))  # of 2048: slow
    (tmp_path / "a").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"a/{number}.png")
    np.savez(tmp_path / "b.npz", arr_0=pictures)
    words = [str(tmp_path / "a"), str(tmp_path / "b.npz"), "--weights", str(weights)]
    assert main(words) == 0
    said = capsys.readouterr()
    assert abs(float(said.out.split("FID ")[1].split(",")[0])) < 1e-2
    assert "2 against 2 pictures" in said.out and "covariance is singular" in said.err
    for wrong, message in (
        ([*words[:3], str(tmp_path / "no.pth")], "nothing is downloaded"),
        ([*words[:3], str(tmp_path / "b.npz")], "expected a file of tensors"),
        ([words[0], str(tmp_path / "c.npz"), *words[2:]], "or an .npz with arr_0"),
    ):
        assert main(wrong) == 2
        assert message in capsys.readouterr().err
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    assert main([*words[:3], str(tmp_path / "other.safetensors")]) == 2
    assert "another network" in capsys.readouterr().err


def test_distances_of_known_features():
    random = np.random.default_rng(0)
    a = random.standard_normal((4000, 3))
    assert fid(a, a + [3.0, 0.0, 0.0]) == pytest.approx(9.0, abs=1e-6)
    assert fid(a, 2 * a) == pytest.approx(3.0, rel=0.1)  # (2 - 1)^2 in each direction
    with pytest.raises(ValueError, match="two pictures or more"):
        fid(a[:1], a)


def test_it_is_an_extractor_of_evaluate(weights, pictures):
    context = Context(None, None, "")  # pyright: ignore[reportArgumentType]
    made = make_extractors({"image": ("inception", str(weights))}, context)["image"]
    assert "Inception" in made.name and made(pictures[:2]).shape == (2, 2048)
    np.testing.assert_allclose(
        made(pictures[:1]), InceptionFeatures(weights)(pictures)[:1], rtol=1e-3, atol=1e-5
    )
    with pytest.raises(ValueError, match="inception:WEIGHTS"):
        make_extractors({"image": ("inception", None)}, context)
