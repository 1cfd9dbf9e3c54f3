"""Published autoencoders as codecs, on tiny random networks: scaling, packing, streams."""

import json
import re
import sys

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file

from selfflow_wm.codec import codec_from_config, codec_from_state, pad_clip
from selfflow_wm.codec.autoencoders.tiles import Tiles
from selfflow_wm.codec.weights import find_weights

BLOCKS = dict(
    block_out_channels=(8, 8, 8, 8),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=1,
    norm_num_groups=4,
)


@pytest.fixture(scope="module")
def diffusers():
    import diffusers

    return diffusers


def saved(network, folder):
    network.eval().save_pretrained(folder)
    return network


def noise(*shape, seed=0):
    return torch.randint(
        0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def come_back(codec):
    config = json.loads(json.dumps(codec.config))
    back = codec_from_state(config, codec.state_dict())
    assert back.hash() == codec.hash() and back.config == codec.config
    return back


@pytest.fixture(scope="module")
def sd_folder(diffusers, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "sd"
    saved(diffusers.AutoencoderKL(latent_channels=4, shift_factor=0.25, **BLOCKS), folder)
    return folder


@pytest.mark.extra("diffusers")
def test_stable_diffusion_shifts_scales_and_packs(diffusers, sd_folder):
    codec = codec_from_config({"kind": "sd_vae", "image_size": [32, 48], "weights": str(sd_folder)})
    assert codec.grid == (1, 2, 3) and codec.channels == 16
    images = noise(2, 32, 48, 3)
    network = diffusers.AutoencoderKL.from_pretrained(sd_folder)
    planes = images.permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = (network.encode(planes).latent_dist.mean - 0.25) * 0.18215
        tokens = codec.encode(images)
        pixels = network.decode(expected / 0.18215 + 0.25).sample
    squares = expected.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5)  # b h w c p q
    torch.testing.assert_close(tokens, squares.reshape(2, 6, 16), atol=1e-5, rtol=1e-4)
    floor = (127.5 * (pixels + 1)).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert (codec.decode(tokens).int() - floor.int()).abs().max() <= 1
    torch.testing.assert_close(codec.encode(images[0]), tokens[0], atol=1e-5, rtol=1e-4)
    come_back(codec)


@pytest.mark.extra("diffusers")
def test_another_folder_with_the_same_weights_is_the_same_codec(sd_folder, tmp_path, monkeypatch):
    config = {"kind": "sd_vae", "image_size": [32, 32], "weights": str(sd_folder)}
    codec = codec_from_config(config)
    elsewhere = dict(codec.config, weights="/absent/sd")
    with pytest.raises(ValueError, match="/absent/sd"):
        codec_from_config(elsewhere)
    monkeypatch.setenv("SELFFLOW_WEIGHTS", str(sd_folder.parent))
    assert codec_from_config(elsewhere).hash() == codec.hash()
    # Other weights are refused, in whatever folder.
    other = tmp_path / "sd"
    other.mkdir()
    (other / "config.json").write_text((sd_folder / "config.json").read_text())
    (file,) = sd_folder.glob("*.safetensors")
    tensors = load_file(file)
    tensors["encoder.conv_in.weight"] += 0.1
    save_file(tensors, other / file.name, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="weights"):
        codec_from_config(dict(codec.config, weights=str(other)))
    assert codec_from_config(dict(config, weights=str(other))).hash() != codec.hash()


@pytest.mark.extra("diffusers")
def test_another_class_or_size_is_refused(sd_folder):
    for kind in ("flux2_ae", "sd_vae"):
        with pytest.raises(ValueError, match="AutoencoderKL" if kind != "sd_vae" else "divisible"):
            codec_from_config({"kind": kind, "image_size": [32, 40], "weights": str(sd_folder)})
    with pytest.raises(ValueError, match="dtype"):
        codec_from_config(
            {"kind": "sd_vae", "image_size": [32, 32], "weights": str(sd_folder), "dtype": "half"}
        )


@pytest.mark.extra("diffusers")
def test_bfloat16_is_near_and_another_codec(sd_folder):
    config = {"kind": "sd_vae", "image_size": [32, 32], "weights": str(sd_folder)}
    full, half = codec_from_config(config), codec_from_config(dict(config, dtype="bfloat16"))
    images = noise(2, 32, 32, 3)
    exact, near = full.encode(images), half.encode(images)
    assert near.dtype == torch.float32 and half.hash() != full.hash()
    error = (near - exact).norm() / exact.norm()
    assert 0 < error < 0.05


@pytest.mark.extra("diffusers")
def test_flux2_normalises_by_its_batch_norm(diffusers, tmp_path):
    torch.manual_seed(1)
    network = diffusers.AutoencoderKLFlux2(latent_channels=4, **BLOCKS)
    network.bn.running_mean.normal_()
    network.bn.running_var.uniform_(0.5, 2.0)
    saved(network, tmp_path / "flux2")
    codec = codec_from_config(
        {"kind": "flux2_ae", "image_size": [32, 48], "weights": str(tmp_path / "flux2")}
    )
    assert codec.grid == (1, 2, 3) and codec.channels == 16
    images = noise(2, 32, 48, 3)
    with torch.no_grad():
        raw = network.encode(images.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mode()
        packed = rearrange(raw, "b c (h p) (w q) -> b (c p q) h w", p=2, q=2)
        normal = torch.nn.functional.batch_norm(
            packed, network.bn.running_mean, network.bn.running_var, eps=1e-4
        )
        pixels = network.decode(raw).sample.permute(0, 2, 3, 1)
    tokens = codec.encode(images)
    torch.testing.assert_close(tokens, normal.flatten(2).mT, atol=1e-5, rtol=1e-4)
    expected = (127.5 * (pixels + 1)).round().clamp(0, 255)
    assert (codec.decode(tokens).float() - expected).abs().max() <= 1
    come_back(codec)


WAN = dict(
    base_dim=8,
    decoder_base_dim=8,
    z_dim=4,
    dim_mult=[1, 1, 1, 1],
    num_res_blocks=1,
    temperal_downsample=[False, True, True],
    is_residual=True,
    in_channels=12,
    out_channels=12,
    patch_size=2,
    scale_factor_spatial=16,
    latents_mean=[0.1, -0.2, 0.3, 0.0],
    latents_std=[1.5, 0.5, 2.0, 1.0],
)


@pytest.fixture(scope="module")
def wan(diffusers, tmp_path_factory):
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("weights") / "wan"
    network = saved(diffusers.AutoencoderKLWan(**WAN), folder)
    codec = codec_from_config(
        {"kind": "wan_video", "image_size": [32, 48], "frames": 9, "weights": str(folder)}
    )
    return codec, network


@pytest.mark.extra("diffusers")
def test_wan_in_groups_is_wan_of_the_whole_clip(wan):
    codec, network = wan
    assert codec.grid == (3, 2, 3) and codec.channels == 4
    clips = noise(2, 9, 32, 48, 3)
    mean, std = (torch.tensor(WAN[name]).view(1, 4, 1, 1, 1) for name in
                 ("latents_mean", "latents_std"))  # fmt: skip
    with torch.no_grad():
        raw = network.encode(rearrange(clips, "b t h w c -> b c t h w") / 127.5 - 1)
        raw = raw.latent_dist.mode()
        video = network.decode(raw).sample
    expected = rearrange((raw - mean) / std, "b c t h w -> b (t h w) c")
    tokens = codec.encode(clips)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-4)
    pixels = (127.5 * (rearrange(video, "b c t h w -> b t h w c") + 1)).round()
    assert (codec.decode(tokens).float() - pixels).abs().max() <= 1
    come_back(codec)


@pytest.mark.extra("diffusers")
def test_wan_streams_chunks_of_any_length(wan):
    codec, _ = wan
    clip = noise(13, 32, 48, 3, seed=3)
    streamed = list(codec.encode_stream(clip.split([2, 6, 5])))
    assert len(streamed) == 4
    whole = codec.encode(clip[:9])
    assert torch.equal(torch.cat(streamed[:3]), whole)
    # Causal: what comes later changes nothing.
    padded, valid = pad_clip(clip[:6], 9)
    assert torch.equal(codec.encode(padded)[:12], whole[:12])
    assert codec.token_valid(valid).tolist() == [True] * 12 + [False] * 6


@pytest.mark.extra("diffusers")
def test_wan_in_tiles_streams_and_is_the_crop_where_one_tile_lies_alone(wan):
    plain, _ = wan
    config = plain.config | {"image_size": [64, 112], "frames": 5}
    whole, tiled = (codec_from_config(config | {"tile": tile}) for tile in (None, 64))
    assert whole.hash() != tiled.hash()
    assert "tile" not in whole.identity()  # nor was it before there were tiles
    same = codec_from_config(config | {"tile": 128})
    clip = noise(5, 64, 112, 3, seed=5)
    assert torch.equal(same.encode(clip), whole.encode(clip))
    tokens = tiled.encode(clip)
    assert torch.equal(torch.cat(list(tiled.encode_stream(clip.split(2)))), tokens)
    crop = codec_from_config(config | {"image_size": [64, 64]})
    alone = rearrange(crop.encode(clip[:, :, :64]), "(t h w) c -> t h w c", t=2, h=4)
    left = rearrange(tokens, "(t h w) c -> t h w c", t=2, h=4)[:, :, :3]
    torch.testing.assert_close(left, alone[:, :, :3])  # tiles are columns 0 to 3 and 3 to 6
    assert tiled.decode(tokens).shape == clip.shape
    come_back(tiled)
    with pytest.raises(ValueError, match="divisible by 16"):
        codec_from_config(config | {"tile": 40})


@pytest.mark.parametrize(("grid", "size"), [((4, 7), 4), ((9, 5), 8), ((3, 3), None)])
def test_blended_tiles_of_a_local_function_are_it(grid, size):
    tiles = Tiles(grid, size)
    seen = torch.zeros(grid)
    for y, x in tiles.windows:
        seen[y.start : y.stop, x.start : x.stop] += 1
    assert seen.min() >= 1 and (size is None or len(tiles.windows) > 1)
    picture = torch.randn(2, 3, 2 * grid[0], 2 * grid[1])
    pooled = [torch.nn.functional.avg_pool2d(part, 2) for part in tiles.cut(picture, 2)]
    small = tiles.blend(pooled, 1)
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(picture, 2))
    grown = [part.repeat_interleave(2, -1).repeat_interleave(2, -2) for part in tiles.cut(small, 1)]
    expected = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(tiles.blend(grown, 2), expected)


@pytest.mark.extra("diffusers")
def test_oobleck_in_tiles_is_oobleck_of_the_whole_clip(diffusers, tmp_path, monkeypatch):
    torch.manual_seed(4)
    network = saved(
        diffusers.AutoencoderOobleck(
            encoder_hidden_size=8,
            downsampling_ratios=[2, 4],
            channel_multiples=[1, 2],
            decoder_channels=4,
            decoder_input_channels=4,
            audio_channels=2,
            sampling_rate=8000,
        ),
        tmp_path / "audio",
    )
    config = {"kind": "oobleck_audio", "samples": 2400, "weights": str(tmp_path / "audio")}
    codec = codec_from_config(config | {"scale": 0.5})
    assert codec.grid == (300, 1, 1) and codec.channels == 4 and codec.sample_rate == 8000
    waveform = torch.randn(2, 2, 2400) * 0.2
    with torch.no_grad():
        raw = network.encode(waveform).latent_dist.mode()
        audio = network.decode(raw).sample
    tokens = codec.encode(waveform, 8000)
    torch.testing.assert_close(tokens, 0.5 * raw.mT, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(codec.decode(tokens), audio, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(type(codec), "TILE", 70)
    torch.testing.assert_close(codec.encode(waveform, 8000), tokens, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(codec.decode(tokens), audio, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="resample"):
        codec.encode(waveform, 16000)
    come_back(codec)


def test_without_diffusers_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    (tmp_path / "config.json").write_text('{"latent_channels": 4}')
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"selfflow-wm\[diffusers\]"):
        codec_from_config({"kind": "sd_vae", "image_size": [32, 32], "weights": str(tmp_path)})


def test_missing_weights_name_the_places(tmp_path, monkeypatch):
    monkeypatch.delenv("SELFFLOW_WEIGHTS", raising=False)
    with pytest.raises(ValueError, match="SELFFLOW_WEIGHTS"):
        find_weights(tmp_path, "config.json")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        codec_from_config({"kind": "sd_vae", "image_size": [32, 32], "weights": str(tmp_path)})
