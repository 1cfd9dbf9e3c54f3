"""I3D as TorchScript and VideoMAE as extractors, here of a known function and of random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from selfflow_wm.commands.distance import main
from selfflow_wm.evaluation import video_features
from selfflow_wm.evaluation.features import Context, make_extractors
from selfflow_wm.evaluation.video_features import I3DFeatures, VideoMAEFeatures

NEEDS = "NOT CHECKED: VideoMAE needs the extra evaluation: pip install 'selfflow-wm[evaluation]'"


class Known(torch.nn.Module):
    """The call of StyleGAN-V's I3D: the mean colour of the first frame and the last, scaled."""

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False,
        return_features: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        assert x.dtype == torch.float32 and rescale and resize and return_features
        if x.shape[2] < 3:
            raise RuntimeError("Kernel size can't be greater than actual input size")
        ends = torch.stack([x[:, :, 0], x[:, :, -1]], 1).mean([3, 4])
        return ends.flatten(1) / 127.5 - 1.0


@pytest.fixture(scope="module")
def i3d(tmp_path_factory):
    path = tmp_path_factory.mktemp("i3d") / "i3d.pt"
    torch.jit.script(Known()).save(str(path))
    return path


@pytest.fixture(scope="module")
def videos():
    return np.random.default_rng(0).integers(0, 200, (40, 4, 6, 8, 3), dtype=np.uint8)


def test_i3d_is_called_as_it_was_made(i3d, videos, monkeypatch):
    extract = I3DFeatures(i3d)
    wanted = videos[:, [0, -1]].mean((2, 3)).reshape(40, 6) / 127.5 - 1
    np.testing.assert_allclose(extract(videos), wanted, atol=1e-6)
    monkeypatch.setattr(video_features, "I3D_VALUES", videos[0].size * 3)
    np.testing.assert_allclose(extract(videos), wanted, atol=1e-6)
    network, sizes = extract.network, []

    def small(x, **flags):
        sizes.append(len(x))
        if len(x) > 1:
            raise RuntimeError("CUDA out of memory, as TorchScript says it")
        return network(x, **flags)

    monkeypatch.setattr(extract, "network", small)
    np.testing.assert_allclose(extract(videos[:5]), wanted[:5], atol=1e-6)
    assert sizes == [3, 1, 1, 1, 1, 1]
    assert make_extractors({"video": ("i3d", str(i3d))}, Context())["video"].name == extract.name


def test_the_command_says_fvd(i3d, videos, tmp_path, capsys):
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    np.savez(a, arr_0=videos)
    np.savez(b, arr_0=videos + np.uint8(51))
    words = ["--features", f"video=i3d:{i3d}", "--resamples", "0"]
    assert main([str(a), str(a), *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("FVD ") and "40 against 40 videos, I3D" in out
    assert abs(float(out[4:].split(",")[0])) < 1e-6
    assert main([str(a), str(b), *words]) == 0
    # six features, each (51 / 127.5) larger
    assert float(capsys.readouterr().out[4:].split(",")[0]) == pytest.approx(0.96, abs=1e-4)
    (tmp_path / "other.pt").write_bytes(b"PK nothing of the sort")
    for feature, more, message in (
        (f"i3d:{i3d}", ["--frames", "2"], "Kernel size can't be greater"),
        (f"i3d:{tmp_path / 'no.pt'}", [], "nothing is downloaded"),
        (f"i3d:{tmp_path / 'other.pt'}", [], "expected TorchScript"),
        ("i3d", [], "expected i3d:FILE"),
        ("videomae", [], "expected videomae:DIR"),
        (f"videomae:{tmp_path}", [], "expected a model's directory with config.json"),
    ):
        assert main([str(a), str(b), "--features", f"video={feature}", *more]) == 2
        said = capsys.readouterr()
        assert message in said.err and said.err.count("\n") == 1 and not said.out, said


def save_videomae(path, tuned, image_size=16, **settings):
    transformers = pytest.importorskip("transformers", reason=NEEDS)
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=image_size, patch_size=8, num_frames=4, hidden_size=12, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=16, use_mean_pooling=tuned,
    )  # fmt: skip
    kind = "VideoMAEForVideoClassification" if tuned else "VideoMAEModel"
    model = getattr(transformers, kind)(config).eval()
    model.save_pretrained(path)
    normal = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (path / "preprocessor_config.json").write_text(json.dumps(normal | settings))
    return model


@pytest.mark.parametrize("tuned", [False, True])
def test_videomae_is_the_mean_of_its_tokens(tmp_path, tuned):
    model = save_videomae(tmp_path, tuned)
    videos = np.random.default_rng(1).integers(0, 256, (3, 7, 16, 20, 3), dtype=np.uint8)
    extract = VideoMAEFeatures(tmp_path)
    assert "4 frames spread evenly" in extract.name and "mean over tokens" in extract.name
    # Wider by four: two columns go on each side. Frames 0, 2, 4 and 6 of seven.
    pixels = torch.from_numpy(videos[:, ::2, :, 2:18]).float().permute(0, 1, 4, 2, 3) / 255
    mean, std = (torch.tensor(x)[:, None, None] for x in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    with torch.no_grad():
        body = model.videomae if tuned else model
        wanted = body((pixels - mean) / std).last_hidden_state.mean(1)
        wanted = model.fc_norm(wanted) if tuned else wanted
    np.testing.assert_allclose(extract(videos), wanted, atol=1e-5)
    assert extract(videos[:, :2, :9, :11]).shape == (3, 12)
    made = make_extractors({"video": ("videomae", str(tmp_path))}, Context())["video"]
    assert made.name == extract.name


def test_videomae_whose_weights_are_not_whole_is_refused(tmp_path, videos, capsys):
    from safetensors.torch import load_file, save_file

    save_videomae(tmp_path / "a", False)
    tensors = load_file(tmp_path / "a/model.safetensors")
    name = next(iter(tensors))
    fewer = {n: x for n, x in tensors.items() if n != name}
    save_file(fewer, tmp_path / "a/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"got 1 missing or of other shapes"):
        VideoMAEFeatures(tmp_path / "a")
    (tmp_path / "a/model.safetensors").rename(tmp_path / "a/pytorch_model.bin")
    with pytest.raises(ValueError, match="pickled weights are not read"):
        VideoMAEFeatures(tmp_path / "a")
    save_videomae(tmp_path / "b", False)
    (tmp_path / "b/preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="expected image_mean and image_std"):
        VideoMAEFeatures(tmp_path / "b")
    (tmp_path / "b/config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="expected a model of type videomae, got vit"):
        VideoMAEFeatures(tmp_path / "b")
    save_videomae(tmp_path / "c", False)
    np.savez(tmp_path / "v.npz", arr_0=videos)
    file = str(tmp_path / "v.npz")
    capsys.readouterr()
    assert main([file, file, "--features", f"video=videomae:{tmp_path / 'c'}"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("FVD ") and said.out.count("\n") == 1 and not said.err, said
