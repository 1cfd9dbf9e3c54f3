"""`python -m selfflow_wm.sample`: the same images however the work is cut, resumed or sharded."""

import runpy
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from selfflow_wm.codec import PatchPCA
from selfflow_wm.commands.sample import main
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model import Backbone, SiT
from selfflow_wm.sampling import run
from selfflow_wm.sampling.conditions import Labels, noise_seed
from selfflow_wm.sampling.decode import vae_decoder
from selfflow_wm.sampling.run import Solve, shard_numbers, tile
from selfflow_wm.training.model_files import SavedModel, save_model

IMAGE = Modality("image", (1, 2, 2), 6)
LABELS = Layout((IMAGE,), text_length=1, vocabulary=5)
SIT = {"width": 24, "depth": 2, "heads": 2}
TEXT = Layout((IMAGE,), text_length=8)
BACKBONE = {"width": 24, "heads": 2, "double": 1, "single": 1}


def away_from_zero(model):
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            parameter.add_(0.1 * noise)
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Directories: "labels" (latents), "pictures" (with a codec), "text"."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sit = away_from_zero(SiT(LABELS, **SIT))
    pixels = torch.randint(0, 256, (20, 8, 8, 3), generator=torch.Generator().manual_seed(0))
    codec = PatchPCA((8, 8), patch=4, channels=6).fit(pixels.to(torch.uint8))
    save_model(folder / "labels", SavedModel(sit, SIT))
    save_model(folder / "pictures", SavedModel(sit, SIT, codec))
    save_model(folder / "text", SavedModel(away_from_zero(Backbone(TEXT, **BACKBONE)), BACKBONE))
    several = Layout((IMAGE, Modality("action", (2, 1, 1), 3)), text_length=8)
    save_model(folder / "several", SavedModel(Backbone(several, **BACKBONE), BACKBONE))
    return folder


def sampled(model, out, *flags, num=7, code=0):
    common = ["--checkpoint", str(model), "--out", str(out), "--num", str(num), "--steps", "2"]
    assert main([*common, *map(str, flags)]) == code


def latents(out):
    with np.load(out / "latents.npz", allow_pickle=False) as file:
        return file["arr_0"], file["arr_1"]


@pytest.fixture(scope="module")
def straight(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight")
    sampled(models / "labels", out, "--batch", 7)
    return latents(out)


def same(got, expected):
    np.testing.assert_allclose(got[0], expected[0], atol=1e-5)
    np.testing.assert_array_equal(got[1], expected[1])


def test_every_image_is_its_own(straight):
    arrays, labels = straight
    assert arrays.shape == (7, 4, 6) and arrays.dtype == np.float32
    assert labels.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert all(np.abs(arrays[i] - arrays[j]).max() > 0.1 for i in range(7) for j in range(i))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batch_size_changes_nothing(models, straight, tmp_path, batch):
    sampled(models / "labels", tmp_path, "--batch", batch)
    same(latents(tmp_path), straight)


def test_shards_make_the_same_images_in_any_order(models, straight, tmp_path, capsys):
    for shard in ("3/3", "1/3"):
        sampled(models / "labels", tmp_path, "--shard", shard, "--batch", 2)
        assert not (tmp_path / "latents.npz").exists()
    assert "other shards" in capsys.readouterr().out
    sampled(models / "labels", tmp_path, "--shard", "2/3")
    same(latents(tmp_path), straight)


def test_ranks_are_shards(models, straight, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        sampled(models / "labels", tmp_path)
    assert len(list((tmp_path / "parts").iterdir())) == 2
    same(latents(tmp_path), straight)


def test_shares_cover_every_image_once():
    shares = [shard_numbers(10, number, 4) for number in range(1, 5)]
    assert [n for share in shares for n in share] == list(range(10))
    assert {len(share) for share in shares} == {2, 3}
    for number in (0, 5):
        with pytest.raises(ValueError, match=str(number)):
            shard_numbers(10, number, 4)


def test_an_interrupted_run_goes_on(models, straight, tmp_path, monkeypatch, capsys):
    made, original = [], run.sample_images

    def interrupted(model, conditions, numbers, *args, **kwargs):
        if len(made) >= 4:
            raise KeyboardInterrupt
        made.extend(numbers)
        return original(model, conditions, numbers, *args, **kwargs)

    monkeypatch.setattr(run, "sample_images", interrupted)
    sampled(models / "labels", tmp_path, "--batch", 2, code=130)
    assert made == [0, 1, 2, 3]
    # A writer that crashed leaves a file that counts for nothing.
    (tmp_path / "parts" / ".part_00000004_00000005.npz.tmp-x").write_bytes(b"half")
    monkeypatch.setattr(run, "sample_images", original)
    sampled(models / "labels", tmp_path, "--batch", 3)
    assert "3 samples made, 4 " in capsys.readouterr().out
    same(latents(tmp_path), straight)
    sampled(models / "labels", tmp_path, num=9)
    assert "2 samples made, 7 " in capsys.readouterr().out
    same([array[:7] for array in latents(tmp_path)], straight)


@pytest.mark.parametrize("solver", ["euler", "heun", "euler_maruyama"])
def test_solvers_and_guidance_keep_images_apart(models, straight, tmp_path, solver):
    flags = ["--solver", solver, "--guidance", 2.5, "--guidance-interval", "0.1,1"]
    sampled(models / "labels", tmp_path / "a", "--batch", 7, *flags)
    sampled(models / "labels", tmp_path / "b", "--batch", 2, "--shard", "2/2", *flags)
    sampled(models / "labels", tmp_path / "b", "--batch", 3, "--shard", "1/2", *flags)
    same(latents(tmp_path / "b"), latents(tmp_path / "a"))
    assert np.abs(latents(tmp_path / "a")[0] - straight[0]).max() > 1e-3


def test_other_settings_do_not_mix(models, tmp_path, capsys):
    sampled(models / "labels", tmp_path, num=1)
    for flags in (["--seed", 1], ["--classes", "2"], ["--shift", 2.0], ["--precision", "bfloat16"]):
        sampled(models / "labels", tmp_path, *flags, num=1, code=2)
        assert "settings" in capsys.readouterr().err
    sampled(models / "pictures", tmp_path, num=1, code=2)


def test_pictures_and_their_grid(models, tmp_path):
    sampled(models / "pictures", tmp_path, "--classes", "3,1", num=5)
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as file:
        pictures, labels = file["arr_0"], file["arr_1"]
    assert pictures.shape == (5, 8, 8, 3) and pictures.dtype == np.uint8
    assert labels.tolist() == [3, 1, 3, 1, 3]
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape == (16, 24, 3)
    np.testing.assert_array_equal(grid, tile(pictures))
    np.testing.assert_array_equal(grid[8:, 8:16], pictures[4])
    assert not (tmp_path / "latents.npz").exists()


def test_captions_are_used_in_turn(models, tmp_path):
    lines = tmp_path / "captions.txt"
    lines.write_text("cat\ndog\n")
    sampled(models / "text", tmp_path / "a", "--captions-file", lines, num=3)
    lines.write_text("cat\ncow\n")
    sampled(models / "text", tmp_path / "b", "--captions-file", lines, num=3)
    a, b = (np.load(tmp_path / name / "latents.npz")["arr_0"] for name in "ab")
    np.testing.assert_allclose(a[[0, 2]], b[[0, 2]], atol=1e-5)
    assert np.abs(a[1] - b[1]).max() > 1e-4
    sampled(models / "text", tmp_path / "none", num=2)


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        ("labels", ["--classes", "4"], "0..3"),
        ("labels", ["--classes", "cat"], "0..3"),
        ("labels", ["--captions-file", "x.txt"], "--classes"),
        ("text", ["--classes", "1"], "--captions-file"),
        ("text", ["--captions-file", "missing.txt"], "missing.txt"),
        ("text", ["--captions-file", "FILE:a\n\nb\n"], "line 2"),
        ("text", ["--captions-file", "FILE:a\nmuch too long\n"], "line 2: expected at most 8"),
        ("text", ["--captions-file", "FILE:"], "lines.txt"),
        ("several", [], "several"),
        ("nothing", [], "nothing"),
        ("labels/model.safetensors", [], "1152"),
        ("pictures", ["--vae", "x"], "--vae"),
        ("labels", ["--device", "warp"], "warp"),
        ("labels", ["--num", "0"], "--samples"),
        ("labels", ["--shard", "0/3"], "0/3"),
        ("labels", ["--guidance-interval", "0.7,0.2"], "0.7,0.2"),
        ("labels", ["--solver", "magic"], "magic"),
    ],
)
def test_bad_input_is_one_line(models, tmp_path, capsys, model, flags, message):
    if flags and flags[-1].startswith("FILE:"):
        (tmp_path / "lines.txt").write_text(flags[-1].removeprefix("FILE:"))
        flags = [flags[0], str(tmp_path / "lines.txt")]
    argv = ["--checkpoint", str(models / model), "--out", str(tmp_path / "out"), *flags]
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_broken_part_is_named(models, tmp_path, capsys):
    sampled(models / "labels", tmp_path, num=1)
    (part,) = (tmp_path / "parts").iterdir()
    part.write_bytes(b"broken")
    sampled(models / "labels", tmp_path, num=1, code=2)
    assert part.name in capsys.readouterr().err
    part.unlink()
    sampled(models / "labels", tmp_path, num=1)


def test_random_labels_follow_the_image_and_the_seed():
    labels = Labels(tuple(range(10)), seed=0, random=True)
    many = labels.labels(range(500))
    assert np.bincount(many, minlength=10).min() > 20
    np.testing.assert_array_equal(labels.labels([7, 3]), many[[7, 3]])
    other = Labels(tuple(range(10)), seed=1, random=True).labels(range(500))
    assert (other != many).mean() > 0.5


def test_no_two_images_start_from_one_noise():
    # Seeds that agree in their low 32 bits are one seed to torch's CPU generator.
    assert len({noise_seed(3, n) for n in range(100_000)}) == 100_000
    assert all(0 <= noise_seed(3, n) < 2**32 for n in (0, 10**6))
    assert noise_seed(3, 0) != noise_seed(4, 0)


def test_only_what_differs_is_asked_of_the_sampler():
    assert Solve(steps=3).options() == {"steps": 3, "shift": 1.0}
    asked = Solve(solver="heun", guidance=2.0, guidance_interval=(0.1, 0.9)).options()
    assert asked["solver"] == "heun" and asked["guidance"] == 2.0
    assert asked["guidance_interval"] == (0.1, 0.9)


class FakeVAE:
    """Each latent pixel's first three channels as eight by eight pixels."""

    config = SimpleNamespace(
        latent_channels=4, block_out_channels=(1, 1, 1, 1), scaling_factor=0.18215
    )
    device = torch.device("cpu")

    @classmethod
    def from_pretrained(cls, path, **options):
        assert options == {"local_files_only": True, "use_safetensors": True}
        return cls()

    def to(self, **options):
        assert options["dtype"] == torch.float32
        return self

    def eval(self):
        return self

    def requires_grad_(self, flag):
        return self

    def decode(self, latents):
        pixels = latents[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2)
        return SimpleNamespace(sample=pixels)


@pytest.fixture
def vae_folder(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"latent_channels": 4, "block_out_channels": [1, 1, 1, 1]}'
    )
    (tmp_path / "model.safetensors").write_bytes(save({"x": torch.zeros(1)}))
    return tmp_path


def test_latents_of_stable_diffusion_are_unpatched_and_scaled(vae_folder, monkeypatch):
    diffusers = ModuleType("diffusers")
    diffusers.AutoencoderKL = FakeVAE
    monkeypatch.setitem(sys.modules, "diffusers", diffusers)
    with pytest.raises(ValueError, match="config.json"):
        vae_decoder(vae_folder / "no", Modality("image", (1, 2, 2), 16), "cpu")
    decode = vae_decoder(vae_folder, Modality("image", (1, 2, 3), 16), "cpu")
    grid = torch.linspace(-0.9, 0.9, 4 * 4 * 6).reshape(1, 4, 4, 6)  # (B, c, H, W) in latents
    patches = grid.unfold(2, 2, 2).unfold(3, 2, 2)  # (B, c, h, w, p, q)
    tokens = patches.permute(0, 2, 3, 1, 4, 5).reshape(1, 6, 16) * 0.18215
    expected = (127.5 * (grid[:, :3] + 1)).permute(0, 2, 3, 1)
    pixels = decode(tokens)
    assert pixels.shape == (1, 32, 48, 3) and pixels.dtype == torch.uint8
    assert torch.equal(pixels[:, ::8, ::8], pixels[:, 7::8, 7::8])
    difference = expected - pixels[:, ::8, ::8]
    assert (difference >= -1e-3).all() and (difference < 1.001).all()
    with pytest.raises(ValueError, match="another autoencoder"):
        vae_decoder(vae_folder, Modality("image", (1, 2, 2), 12), "cpu")


def test_without_diffusers_the_remedy_is_named(models, vae_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    (vae_folder / "config.json").write_text('{"latent_channels": 6}')
    sampled(models / "labels", tmp_path, "--vae", str(vae_folder), code=2)
    assert "selfflow-wm[diffusers]" in capsys.readouterr().err


def test_the_entry_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sample", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("selfflow_wm.sample", run_name="__main__")
    assert stop.value.code == 0 and "--captions-file" in capsys.readouterr().out
