"""Codecs: optimality and scale of PCA, the meaning of zero, round trips, fingerprints."""

import json

import pytest
import torch
from safetensors.torch import load, save

from selfflow_wm.codec import (
    PatchPCA,
    ResidualCodec,
    codec_from_state,
    encode_text,
    shortened,
)

SIZE = (16, 24)


def images(count=40, seed=0):
    """Smooth random pictures with some fine grain."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")
    grain = 0.05 * torch.randn(smooth.shape, generator=generator)
    return ((smooth + grain).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


@pytest.fixture(scope="module")
def codec():
    return PatchPCA(SIZE, patch=4, channels=12).fit(images())


def patches_of(pictures):
    rows = pictures.unfold(1, 4, 4).unfold(2, 4, 4)  # (B, h, w, c, p, q)
    return rows.permute(0, 1, 2, 4, 5, 3).reshape(len(pictures), -1, 48).double() / 127.5 - 1


def test_all_components_reconstruct_exactly():
    codec = PatchPCA(SIZE, patch=4, channels=48).fit(images())
    pictures = images(3, seed=9)
    assert torch.equal(codec.decode(codec.encode(pictures)), pictures)


def test_reconstruction_is_the_best_of_its_rank(codec):
    pictures = images()
    patches = patches_of(pictures).flatten(0, 1)
    centred = patches - patches.mean(0)
    singular = torch.linalg.svdvals(centred)
    best = singular[12:].square().sum()
    # Through the latents, before rounding to pixels.
    latents = codec.encode(pictures)
    pixels = latents.double() @ codec._decode_weight.double() + codec._decode_bias.double()
    error = (pixels / 127.5 - 1 - patches_of(pictures)).square().sum()
    torch.testing.assert_close(error, best, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_latents_have_the_stated_scale(whitening):
    pictures = images()
    codec = PatchPCA(SIZE, patch=4, channels=12, whitening=whitening).fit(pictures)
    latents = codec.encode(pictures).flatten(0, 1)
    variance = latents.var(0, correction=0)
    torch.testing.assert_close(latents.mean(0), torch.zeros(12), atol=1e-3, rtol=0)
    torch.testing.assert_close(variance.mean(), torch.tensor(1.0), rtol=1e-3, atol=0)
    expected = codec._std ** (2 - 2 * whitening)
    torch.testing.assert_close(variance, expected / expected.mean(), rtol=1e-2, atol=1e-4)
    covariance = torch.cov(latents.T) - torch.diag(torch.cov(latents.T).diag())
    assert covariance.abs().max() < 1e-2


def test_tokens_are_row_major_and_leading_shapes_are_kept(codec):
    pictures = images(6)
    latents = codec.encode(pictures)
    assert codec.grid == (1, 4, 6) and latents.shape == (6, 24, 12)
    stacked = codec.encode(pictures.view(2, 3, *SIZE, 3))
    assert torch.equal(stacked.flatten(0, 1), latents)
    torch.testing.assert_close(codec.encode(pictures[0]), latents[0])
    changed = pictures.clone()
    changed[:, 4:8, 8:12] = 255 - changed[:, 4:8, 8:12]
    moved = (codec.encode(changed) - latents).abs().sum((0, 2)) > 1e-3
    assert moved.nonzero().flatten().tolist() == [1 * 6 + 2]


def test_fitting_again_gives_the_same_codec(codec):
    again = PatchPCA(SIZE, patch=4, channels=12).fit(images())
    assert again.hash() == codec.hash()
    assert PatchPCA(SIZE, patch=4, channels=12).fit(images(seed=1)).hash() != codec.hash()
    assert PatchPCA(SIZE, 4, 12, whitening=0.4).fit(images()).hash() != codec.hash()
    few = PatchPCA(SIZE, patch=4, channels=12).fit(images(), max_patches=200)
    assert few.hash() == PatchPCA(SIZE, 4, 12).fit(images(), max_patches=200).hash()


def scene(count=20):
    """A still background with one moving patch: reference frames and two future frames."""
    reference = images(count, seed=2)
    frames = reference[:, None].repeat(1, 2, 1, 1, 1)
    frames[:, :, 4:8, 8:12] = images(count, seed=3)[:, None, 4:8, 8:12]
    return reference, frames


def test_residual_zero_repeats_the_reference(codec):
    reference, frames = scene()
    residual = ResidualCodec(codec, frames=2).fit(frames, reference)
    assert residual.grid == (2, 4, 6)
    still = residual.encode(reference[:, None].repeat(1, 2, 1, 1, 1), reference)
    assert still.shape == (20, 48, 12)
    assert still.abs().max() < 1e-4
    decoded = residual.decode(torch.zeros(20, 48, 12), reference)
    assert torch.equal(decoded[:, 1], codec.decode(codec.encode(reference)))
    # The moving patch has unit scale.
    latents = residual.encode(frames, reference).view(20, 2, 24, 12)
    assert abs(float(latents[:, :, 8].square().mean()) - 1) < 0.3


def test_residual_round_trip_is_that_of_the_base(codec):
    reference, frames = scene()
    residual = ResidualCodec(codec, frames=2).fit(frames, reference)
    known = codec.encode(reference)
    latents = residual.encode(frames, reference_latents=known)
    torch.testing.assert_close(latents, residual.encode(frames, reference))
    decoded = residual.decode(latents, reference_latents=known)
    plain = codec.decode(codec.encode(frames))
    assert (decoded.int() - plain.int()).abs().max() <= 1
    with pytest.raises(ValueError, match="either"):
        residual.encode(frames)


def test_residual_scales_survive_stillness(codec):
    reference, _ = scene(4)
    residual = ResidualCodec(codec, frames=1).fit(reference[:, None], reference)
    assert residual.encode(reference[:, None], reference).isfinite().all()


def test_saved_codecs_come_back(codec):
    reference, frames = scene()
    residual = ResidualCodec(codec, frames=2).fit(frames, reference)
    for one in (codec, residual):
        config, data = json.loads(json.dumps(one.config)), save(one.state_dict())
        back = codec_from_state(config, load(data))
        assert back.hash() == one.hash() and back.config == one.config
    torch.testing.assert_close(back.encode(frames, reference), residual.encode(frames, reference))
    with pytest.raises(ValueError, match="scale"):
        codec_from_state(
            config, codec.state_dict() | {"base." + k: v for k, v in codec.state_dict().items()}
        )
    with pytest.raises(ValueError, match="kind"):
        codec_from_state({"kind": "wavelet"}, {})
    with pytest.raises(ValueError, match="shape"):
        codec_from_state(codec.config | {"channels": 11}, codec.state_dict())


def test_wrong_frames_are_refused(codec):
    with pytest.raises(ValueError, match="uint8"):
        codec.encode(images(1).float())
    with pytest.raises(ValueError, match="resize"):
        codec.encode(images(1)[:, :12])
    with pytest.raises(ValueError, match="fit"):
        PatchPCA(SIZE, 4, 12).encode(images(1))
    with pytest.raises(ValueError, match="divisible"):
        PatchPCA(SIZE, 5, 12)
    with pytest.raises(ValueError, match="more images"):
        PatchPCA(SIZE, 4, 48).fit(images(1))


def test_text_bytes():
    texts = ["open top drawer", "", "pick Apfelschorle für 1 €"]
    ids, mask = encode_text(texts, max_length=48)
    assert ids.shape == mask.shape == (3, 48)
    read = [bytes(i for i in row[keep] if i < 256) for row, keep in zip(ids, mask, strict=True)]
    assert [text.decode() for text in read] == texts
    assert mask[1].tolist().count(True) == 1 and ids[1, 0] == 256
    with pytest.raises(ValueError, match="text_length"):
        encode_text(["x" * 49], max_length=48)
    with pytest.raises(ValueError, match="sequence"):
        encode_text("open", max_length=48)


def test_shortened_texts_fit_and_keep_whole_characters():
    text = " öffne die Schublade "
    for length in range(1, 30):
        cut = shortened(text, length)
        assert len(cut.encode()) <= length and text.strip().startswith(cut)
        encode_text([cut], max_length=length)
    assert shortened(text, 30) == text.strip()


def test_centring_by_place_takes_a_still_scene_to_zero():
    generator = torch.Generator().manual_seed(3)
    scene = torch.randint(60, 200, (1, *SIZE, 3), generator=generator, dtype=torch.uint8)
    pictures = scene.repeat(64, 1, 1, 1)
    pictures[torch.arange(64), torch.arange(64) % SIZE[0], 1] = 255  # one pixel that moves
    codec = PatchPCA(SIZE, patch=4, channels=12, per_position=True).fit(pictures)
    plain = PatchPCA(SIZE, patch=4, channels=12).fit(pictures)
    quiet = codec.grid[2] - 1  # the last patch of the first row, where nothing moves
    assert codec.encode(pictures)[:, quiet].abs().max() < 1e-3
    assert plain.encode(pictures)[:, quiet].abs().max() > 0.1
    torch.testing.assert_close(codec.encode(pictures).flatten(0, 1).mean(0), torch.zeros(12),
                               atol=1e-3, rtol=0)  # fmt: skip
    again = PatchPCA.from_state(codec.config, codec.state_dict())
    assert again.hash() == codec.hash() != plain.hash()
    error = (codec.decode(codec.encode(pictures)).float() - pictures.float()).square().mean()
    coarse = (plain.decode(plain.encode(pictures)).float() - pictures.float()).square().mean()
    assert error < 0.5 * coarse
