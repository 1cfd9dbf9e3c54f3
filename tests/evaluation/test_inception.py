"""The network of FID, here of random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from selfflow_wm.commands.distance import main
from selfflow_wm.evaluation import distance
from selfflow_wm.evaluation.features import Context, make_extractors
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


def test_weights_are_of_this_network_or_refused(weights, tmp_path):
    for file, message in (
        (tmp_path / "no.pth", "nothing is downloaded"),
        (tmp_path / "b.npz", "expected a file of tensors"),
        (tmp_path / "other.safetensors", "another network"),
    ):
        if file.suffix == ".npz":
            np.savez(file, arr_0=np.zeros(1))
        elif file.suffix == ".safetensors":
            save_file({"a": torch.ones(1)}, file)
        with pytest.raises(ValueError, match=message):
            InceptionFeatures(file)


def test_the_command_says_fid(weights, pictures, tmp_path, capsys, monkeypatch):
    cut = distance.plug_in_distance  # of 2048 features: slow
    monkeypatch.setattr(distance, "plug_in_distance", lambda a, b: cut(a[:, :16], b[:, :16]))
    (tmp_path / "a").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture[: 20 - number]).save(tmp_path / f"a/{number}.png")
    words = [str(tmp_path / "a"), str(tmp_path / "a"), "--features", f"image=inception:{weights}"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out.startswith("FID ") and abs(float(said.out[4:].split(",")[0])) < 1e-2
    assert "2 against 2 pictures, Inception" in said.out and "covariance is singular" in said.err


def test_it_is_an_extractor_of_evaluate(weights, pictures):
    context = Context()
    made = make_extractors({"image": ("inception", str(weights))}, context)["image"]
    assert "Inception" in made.name and made(pictures[:2]).shape == (2, 2048)
    np.testing.assert_allclose(
        made(pictures[:1]), InceptionFeatures(weights)(pictures)[:1], rtol=1e-3, atol=1e-5
    )
    with pytest.raises(ValueError, match="inception:WEIGHTS"):
        make_extractors({"image": ("inception", None)}, context)
