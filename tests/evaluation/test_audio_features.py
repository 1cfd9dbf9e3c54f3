"""CLAP as an extractor, here of random weights."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from selfflow_wm.commands.distance import main
from selfflow_wm.evaluation.audio_features import ClapFeatures
from selfflow_wm.evaluation.features import Context, make_extractors

NEEDS = "NOT CHECKED: CLAP needs the extra evaluation: pip install 'selfflow-wm[evaluation]'"
RATE = 8000


@pytest.fixture(scope="module", params=["rand_trunc", "fusion"])
def clap(tmp_path_factory, request):
    """(directory, model) of a CLAP of one second at 8 kHz, with and without fusion."""
    transformers = pytest.importorskip("transformers", reason=NEEDS)
    path = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    fused = request.param == "fusion"
    audio = dict(
        spec_size=32, num_mel_bins=16, window_size=4, patch_size=4, patch_stride=[4, 4],
        hidden_size=16, patch_embeds_hidden_size=8, depths=[1, 1], num_attention_heads=[2, 2],
        num_hidden_layers=2, aff_block_r=2, enable_fusion=fused,
        fusion_type="aff_2d" if fused else None,
    )  # fmt: skip
    text = dict(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=16,
    )  # fmt: skip
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=12)
    model = transformers.ClapModel(config).eval()
    model.save_pretrained(path)
    transformers.ClapFeatureExtractor(
        feature_size=16, sampling_rate=RATE, hop_length=250, max_length_s=1, fft_window_size=512,
        frequency_max=4000, truncation=request.param,
    ).save_pretrained(path)  # fmt: skip
    return path, model


@pytest.fixture(scope="module")
def sounds():
    return np.random.default_rng(0).uniform(-1, 1, (6, 12000)).astype(np.float32)


def test_clap_gives_the_embedding_of_the_beginning(clap, sounds):
    path, model = clap
    extract = ClapFeatures(path, RATE)
    assert "first 1 s" in extract.name
    features = extract(sounds)
    assert features.shape == (6, 12)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, rtol=1e-5)
    # The same whatever else is in the batch, whenever it is asked, and after the first second.
    sounds = np.concatenate([sounds[:, :RATE], 0 * sounds[:, RATE:]], 1)
    np.testing.assert_allclose(extract(sounds[2:4]), features[2:4], atol=1e-5)
    spectrogram = extract.prepare(
        sounds[0, :RATE].astype(np.float64), sampling_rate=RATE, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = model.audio_model(
            spectrogram["input_features"].float(), is_longer=torch.zeros(1, 1, dtype=torch.bool)
        )
        wanted = model.audio_projection(hidden.pooler_output)[0]
    np.testing.assert_allclose(features[0], wanted / wanted.norm(), atol=1e-5)
    assert np.abs(features[0] - features[1]).max() > 1e-4
    context = Context(sample_rate=RATE)
    assert make_extractors({"audio": ("clap", str(path))}, context)["audio"].name == extract.name


def test_the_command_says_fad_and_wants_the_models_rate(clap, sounds, tmp_path, capsys):
    path, _ = clap
    np.savez(tmp_path / "a.npz", arr_0=sounds[:, None])
    (tmp_path / "b").mkdir()
    for number, wave in enumerate(sounds):
        wavfile.write(tmp_path / f"b/{number}.wav", RATE, np.stack([wave, wave], 1))
    words = [str(tmp_path / "a.npz"), str(tmp_path / "b"), "--features", f"audio=clap:{path}"]
    capsys.readouterr()
    assert main([*words, "--sample-rate", str(RATE)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("FAD ") and "6 against 6 sounds, CLAP" in said.out
    assert abs(float(said.out[4:].split(",")[0])) < 1e-5
    assert said.out.count("\n") == 1 and "covariance is singular" in said.err
    assert said.err.count("\n") == 1, said.err
    words[1] = words[0]
    assert main(words) == 2
    assert f"say --sample-rate {RATE}" in capsys.readouterr().err
    assert main([*words, "--sample-rate", "16000"]) == 2
    assert f"ffmpeg -i IN -ar {RATE} OUT" in capsys.readouterr().err


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="expected clap:DIR, got no directory"):
        ClapFeatures(None, RATE)
    with pytest.raises(ValueError, match="expected a model's directory with config.json"):
        ClapFeatures(tmp_path, RATE)
    (tmp_path / "config.json").write_text('{"model_type": "clap"}')
    with pytest.raises(ValueError, match="pickled weights are not read"):
        ClapFeatures(tmp_path, RATE)
    (tmp_path / "model.safetensors").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install \"selfflow-wm\[evaluation\]\""):
        ClapFeatures(tmp_path, RATE)
