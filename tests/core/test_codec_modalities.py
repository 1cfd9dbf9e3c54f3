"""Video, audio and TAEF2 codecs: causal groups, an orthonormal transform, published weights."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

from selfflow_wm.codec import (
    MDCTCodec,
    PatchVideo,
    codec_from_config,
    codec_from_state,
    codec_kinds,
    latent_frames,
    pad_clip,
)
from selfflow_wm.codec.mdct import inverse_mdct, mdct
from selfflow_wm.codec.reconstruct import psnr
from selfflow_wm.codec.tae import make_decoder, make_encoder
from selfflow_wm.codec.weights import in_batches
from selfflow_wm.commands.reconstruct import main

SIZE = (16, 24)


def come_back(codec):
    config = json.loads(json.dumps(codec.config))
    back = codec_from_state(config, load(save(codec.state_dict())))
    assert back.hash() == codec.hash() and back.config == codec.config
    return back


def clips(count, frames, seed=0):
    """Smooth pictures that drift, with fine grain."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 8, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(frames, *SIZE), mode="trilinear")
    grain = 0.03 * torch.randn(smooth.shape, generator=generator)
    video = ((smooth + grain).clamp(0, 1) * 255).round().to(torch.uint8)
    return video.permute(0, 2, 3, 4, 1)


@pytest.fixture(scope="module")
def video():
    return PatchVideo(SIZE, frames=9, patch=4, channels=24).fit(clips(12, 9))


def test_the_time_grid_is_causal(video):
    assert [latent_frames(frames) for frames in (1, 4, 5, 8, 9, 49)] == [1, 1, 2, 2, 3, 13]
    assert video.grid == (3, 4, 6) and video.row().num_tokens == 72
    clip = clips(2, 9, seed=1)
    tokens = video.encode(clip)
    assert tokens.shape == (2, 72, 24)
    changed = clip.clone()
    changed[:, 5:] = 255 - changed[:, 5:]  # the third group
    assert torch.equal(video.encode(changed)[:, :48], tokens[:, :48])
    assert (video.encode(changed)[:, 48:] != tokens[:, 48:]).any()
    for bad in (8, 10):
        with pytest.raises(ValueError, match="4 k"):
            PatchVideo(SIZE, frames=bad, patch=4, channels=24)


def test_a_stream_gives_the_latents_of_the_clip(video):
    clip = clips(2, 9, seed=1)
    streamed = list(video.encode_stream(clip.split([3, 1, 5], dim=1)))
    assert torch.equal(torch.cat(streamed, dim=-2), video.encode(clip))
    frames = torch.cat(list(video.decode_stream(streamed)), dim=1)
    assert torch.equal(frames, video.decode(video.encode(clip)))
    with pytest.raises(ValueError, match="got 2 frames"):
        list(video.encode_stream([clip[:, :7]]))
    with pytest.raises(ValueError, match="pad_clip"):
        video.encode(clip[:, :5])


def test_video_reconstructs_and_its_latents_have_the_stated_scale(video):
    clip = clips(12, 9)
    # The best of its rank: what is lost in the groups is the tail of their singular values.
    groups = video._rows(clip[:, 1:].unflatten(1, (2, 4))).flatten(0, -2).double() / 127.5 - 1
    best = torch.linalg.svdvals(groups - groups.mean(0))[24:].square().sum()
    later = video._maps[1]
    error = (later.decode(later.encode(groups.float())).double() - groups).square().sum()
    torch.testing.assert_close(error, best, rtol=1e-4, atol=1e-6)
    assert psnr(clip.flatten(0, 1), video.decode(video.encode(clip)).flatten(0, 1)).mean() > 25
    tokens = video.encode(clip).view(12, 3, 24, 24)
    assert abs(float(tokens[:, 1:].square().mean()) - 1) < 0.05
    stills = video.encode_group()(clip.flatten(0, 1)[:, None])
    assert abs(float(stills.square().mean()) - 1) < 0.05
    still = PatchVideo(SIZE, frames=1, patch=4, channels=48).fit(clips(12, 5))
    first = clips(2, 9, seed=4)[:, :1]
    assert torch.equal(still.decode(still.encode(first)), first)
    torch.testing.assert_close(come_back(video).encode(clip), video.encode(clip))


def test_clips_that_fill_no_group_are_masked(video):
    padded, valid = pad_clip(clips(1, 9)[0, :6], 9)
    assert padded.shape[0] == 9 and torch.equal(padded[8], padded[5])
    tokens = video.token_valid(valid).view(3, 24)
    assert tokens.all(-1).tolist() == [True, True, False] and not tokens[2].any()
    assert video.token_valid(torch.ones(2, 9, dtype=torch.bool)).all()


def test_mdct_is_orthonormal_and_compact():
    blocks = torch.randn(2, 7, 16, dtype=torch.float64)
    coefficients = mdct(blocks)
    torch.testing.assert_close(inverse_mdct(coefficients), blocks)
    torch.testing.assert_close(coefficients.norm(), blocks.norm())
    time = torch.arange(20 * 64, dtype=torch.float64)
    tone = torch.sin(0.37 * time).view(20, 64)

    def share(transformed):
        energy = transformed[2:-2].square()
        return energy.sort(-1, descending=True).values[:, :6].sum() / energy.sum()

    # Far more compact than the same blocks without their overlap.
    assert share(mdct(tone)) > 0.998
    assert share(mdct(tone[:, None])[:, 0]) < 0.98


def tones(count, channels=1, samples=4000, rate=8000, seed=0):
    """Decaying chords with knocks."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / rate
    pitch = 100 * 2 ** (4 * torch.rand(count, channels, 3, 1, generator=generator))
    phase = 2 * math.pi * torch.rand(count, channels, 3, 1, generator=generator)
    chord = torch.sin(2 * math.pi * pitch * time + phase).sum(2) * torch.exp(-3 * time)
    knock = torch.zeros(count, channels, samples)
    knock[..., samples // 3 : samples // 3 + 8] = 1.0
    return 0.2 * chord + 0.2 * knock


def snr(clean, other):
    return float(10 * torch.log10(clean.square().sum() / (clean - other).square().sum()))


@pytest.mark.parametrize("channels", [1, 2])
def test_all_components_of_audio_are_exact(channels):
    codec = MDCTCodec(8000, 4000, hop=80, channels=80 * channels, audio_channels=channels)
    codec.fit(tones(8, channels), 8000)
    clip = tones(3, channels, seed=5)
    tokens = codec.encode(clip, 8000)
    assert tokens.shape == (3, 50, 80 * channels) and codec.grid == (50, 1, 1)
    assert snr(clip, codec.decode(tokens)) > 90
    assert codec.encode(torch.zeros(channels, 4000), 8000).abs().max() == 0
    torch.testing.assert_close(come_back(codec).encode(clip, 8000), tokens)


def test_few_components_of_audio_keep_the_tones():
    codec = MDCTCodec(8000, 4000, hop=80, channels=32).fit(tones(32), 8000)
    clip = tones(4, seed=5)
    assert snr(clip, codec.decode(codec.encode(clip, 8000))) > 15
    variance = codec.encode(tones(32), 8000).square().flatten(0, 1).mean(0)
    torch.testing.assert_close(variance.mean(), torch.tensor(1.0), rtol=1e-3, atol=0)


def test_other_audio_is_refused():
    codec = MDCTCodec(8000, 4000, hop=80, channels=8).fit(tones(4), 8000)
    with pytest.raises(ValueError, match="resample"):
        codec.encode(tones(1), 16000)
    with pytest.raises(ValueError, match="channels"):
        codec.encode(tones(1, channels=2), 8000)
    with pytest.raises(ValueError, match="32768"):
        codec.encode(torch.zeros(1, 4000, dtype=torch.int16), 8000)
    with pytest.raises(ValueError, match="fit"):
        MDCTCodec(8000, 4000, hop=80, channels=8).encode(tones(1), 8000)
    with pytest.raises(ValueError, match="even hop"):
        MDCTCodec(8000, 4000, hop=75, channels=8)
    assert codec.token_valid(torch.tensor([4000, 159])).sum(-1).tolist() == [50, 1]


def test_codecs_are_made_by_name():
    assert {"patch_pca", "tae_flux2", "sd_vae", "flux2_ae"} <= set(codec_kinds("image"))
    assert {"patch_video", "wan_video"} <= set(codec_kinds("video"))
    assert {"mdct", "oobleck_audio"} == set(codec_kinds("audio"))
    config = {"kind": "mdct", "sample_rate": 8000, "samples": 4000, "hop": 80, "channels": 8}
    assert codec_from_config(config).grid == (50, 1, 1)
    with pytest.raises(ValueError, match="hops"):
        codec_from_config(config | {"hops": 3})
    with pytest.raises(ValueError, match="kind"):
        codec_from_config({"kind": "wavelet"})


def test_batches_shrink_until_they_fit():
    sizes = []

    def work(rows):
        if len(rows) > 2:
            raise torch.cuda.OutOfMemoryError
        sizes.append(len(rows))
        return rows * 2

    rows = torch.arange(14.0).view(7, 2)
    assert torch.equal(in_batches(work, rows, budget=10), rows * 2)
    assert sizes == [2, 2, 2, 1]


def random_weights(folder):
    torch.manual_seed(0)
    for part, network in (("encoder", make_encoder()), ("decoder", make_decoder())):
        tensors = {name: value.half() for name, value in network.state_dict().items()}
        (folder / f"taef2_{part}.safetensors").write_bytes(save(tensors))


def test_tae_flux2_with_random_weights_comes_back(tmp_path):
    random_weights(tmp_path)
    config = {"kind": "tae_flux2", "image_size": [32, 48], "weights": str(tmp_path)}
    codec = codec_from_config(config)
    pictures = clips(1, 5)[0].repeat(1, 2, 2, 1)
    before = codec.hash()
    assert codec.encode(pictures).shape == (5, 6, 128) and codec.grid == (1, 2, 3)
    codec.fit(pictures)
    assert codec.hash() != before
    tokens = codec.encode(pictures)
    torch.testing.assert_close(tokens.flatten(0, 1).mean(0), torch.zeros(128), atol=1e-2, rtol=0)
    # The checkpoint is enough: the folder is not needed any more.
    for file in tmp_path.iterdir():
        file.unlink()
    back = come_back(codec)
    assert torch.equal(back.encode(pictures), tokens)
    assert torch.equal(back.decode(tokens), codec.decode(tokens))
    with pytest.raises(ValueError, match="nothing is downloaded"):
        codec_from_config(config)
    tensors = {name: value for name, value in codec.state_dict().items() if "pool" not in name}
    with pytest.raises(ValueError, match="another autoencoder"):
        codec_from_state(codec.config, tensors)


def test_clips_go_through_in_as_many_at_once_as_memory_allows(monkeypatch):
    pixels = clips(3, 5)
    codec = PatchVideo(SIZE, 5, 4, 12).fit(pixels)
    tokens, sizes = codec.encode(pixels), []
    whole, frames = codec.encode_group, codec.decode(tokens)

    def small():
        encode = whole()

        def work(group):
            if len(group) > 1:
                raise torch.cuda.OutOfMemoryError
            sizes.append(len(group))
            return encode(group)

        return work

    monkeypatch.setattr(codec, "encode_group", small)
    torch.testing.assert_close(codec.encode(pixels), tokens)
    assert sizes == [1] * 6  # three clips of two latent frames
    torch.testing.assert_close(codec.encode(pixels[0]), tokens[0])
    assert torch.equal(codec.decode(tokens[0]), frames[0])


def test_weights_are_found_in_the_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--someone--flux2-tiny"
    folder = model / "snapshots/0123abc/small"
    folder.mkdir(parents=True)
    random_weights(folder)
    config = {"kind": "tae_flux2", "image_size": [32, 48], "weights": "someone/flux2-tiny/small"}
    with pytest.raises(ValueError, match="in the hub's cache"):  # no branch says which snapshot
        codec_from_config(config)
    (model / "refs").mkdir()
    (model / "refs/main").write_text("0123abc")
    assert codec_from_config(config).channels == 128
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "other"))
    with pytest.raises(ValueError, match="nothing is downloaded"):
        codec_from_config(config)


def weights_folder():
    """Where TAEF2's weights lie: $SELFFLOW_WEIGHTS, or shared/weights beside the checkout."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "weights"
    for folder in (os.environ.get("SELFFLOW_WEIGHTS"), beside):
        if folder and (Path(folder) / "taef2_encoder.safetensors").is_file():
            return Path(folder)
    pytest.skip("no taef2_encoder.safetensors: set SELFFLOW_WEIGHTS to its folder")


def test_tae_flux2_reconstructs_photographs(tmp_path, capsys):
    folder = weights_folder()
    data = pytest.importorskip("skimage.data")
    Image.fromarray(np.ascontiguousarray(data.astronaut()[:192, 128:320])).save(tmp_path / "a.png")
    words = [str(tmp_path / "a.png"), "--size", "96", "96", "--out", str(tmp_path / "r.png")]
    assert main([*words, "--codec", "tae_flux2", "--weights", str(folder)]) == 0
    score = float(capsys.readouterr().out.split("mean: ")[1].split()[0])
    assert score > 25
    assert Image.open(tmp_path / "r.png").size == (288, 96)


def test_the_command_names_what_is_missing(tmp_path, capsys):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    words = [str(tmp_path / "a.png"), "--codec", "tae_flux2", "--weights", str(tmp_path / "no")]
    assert main(words) == 2
    assert "taef2_encoder.safetensors" in capsys.readouterr().err
    assert main([str(tmp_path / "b.png"), *words[1:]]) == 2
    assert "b.png" in capsys.readouterr().err
