"""The latent cache: equal to the pixels, resumable, shared by ranks, refused when stale."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from robotics.data.augment import Augment, apply
from robotics.data.batches import ModeStream
from robotics.data.cache import latents
from robotics.data.cache.latents import LatentCache
from robotics.data.frame_store import FrameStore
from robotics.data.rlds.fake import fake_dataset
from robotics.data.windows import WindowDataset
from robotics.encode import main
from robotics.model.modes import robot_schedule
from robotics.training.build import build, compose_config
from robotics.training.encode import encode

SIZE = (32, 48)
SPLITS = ('dataset.train_split="train[:5]"', 'dataset.validation_split="train[5:]"')
SHARES = {
    "policy": {"probability": 1, "batch_size": 5},
    "joint": {"probability": 2, "batch_size": 4},
}


@pytest.fixture(scope="module")
def config(rt1_directory, tiny_overrides):
    return compose_config([*tiny_overrides, *SPLITS, f"data={rt1_directory}", "device=cpu"])


@pytest.fixture(scope="module")
def caches(config, tmp_path_factory):
    """One directory for every way of storing the same latents."""
    root = tmp_path_factory.mktemp("latents")
    for dtype in latents.DTYPES:
        encode(config, root / dtype, dtype=dtype, progress=False)
    encode(
        config,
        root / "variants",
        dtype="float32",
        variants=3,
        augment=Augment(0.7, 0.3, seed=5),
        progress=False,
    )
    return root


@pytest.fixture
def copied(caches, tmp_path):
    """A cache that may be damaged."""
    return shutil.copytree(caches / "float32", tmp_path / "copied")


def opened(directory, dataset, **changes):
    codecs = {name: latents.load_codec(directory, name).base for name in dataset.cameras}
    return LatentCache(directory, dataset, codecs, **{"control_hz": 3.0, **changes})


def streams(world, dataset, cache, seed=1):
    mixture = robot_schedule(SHARES, seed=seed)
    return [
        ModeStream(dataset, world, mixture, seed=seed, latents=source) for source in (None, cache)
    ]


@pytest.mark.parametrize("split", ["train", "train[1:5]"])
@pytest.mark.parametrize("dtype", latents.DTYPES)
def test_batches_from_the_cache_are_those_from_pixels(world, rt1_directory, caches, dtype, split):
    dataset = WindowDataset(rt1_directory, SIZE, split=split, progress=False, spec="embedded")
    codecs = {"head": latents.load_codec(caches / dtype, "head")}
    world.robots = {"embedded": replace(world.robot(), codecs=codecs)}
    pixels, cached = streams(world, dataset, opened(caches / dtype, dataset))
    for _ in range(8):
        expected, got = next(pixels), next(cached)
        assert expected.given == got.given and list(expected.latents) == list(got.latents)
        for name, value in expected.latents.items():
            if dtype == "float32":
                assert torch.equal(got.latents[name], value), name
            else:
                # a difference of two numbers of at most `size`, each off by half a float16 step
                size = max(float(v.abs().max()) for v in expected.latents.values())
                torch.testing.assert_close(got.latents[name], value, rtol=0, atol=size * 2e-2)
            assert torch.equal(got.valid[name], expected.valid[name])
        assert torch.equal(got.text_ids, expected.text_ids)
    assert pixels.state_dict() == cached.state_dict()


def test_half_precision_rounds_and_nothing_else(caches, windows):
    full, half = (opened(caches / dtype, windows) for dtype in ("float32", "float16"))
    steps, variants = np.arange(len(windows)), np.zeros(len(windows), int)
    stored = full.latents("head", steps, variants).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(half.latents("head", steps, variants), stored)


def test_training_reads_no_pixels(world, windows, caches, monkeypatch):
    cache = opened(caches / "float32", windows)
    stream = ModeStream(windows, world, robot_schedule(SHARES, seed=1), latents=cache)
    monkeypatch.setattr(FrameStore, "_copy", lambda *_: 1 / 0)
    for _ in range(3):
        next(stream)


def test_a_run_trains_from_the_cache_as_from_pixels(config, tiny_overrides, caches, tmp_path):
    words = ["modes=policy_only", "modes.policy.batch_size=4", "trainer.validation_batches=1"]
    runs = []
    for name, more in {"pixels": [], "cache": [f"latents={caches / 'float32'}"]}.items():
        chosen = compose_config(
            [
                *tiny_overrides,
                *SPLITS,
                *words,
                *more,
                f"data={config.data}",
                f"out={tmp_path / name}",
            ]
        )
        runs.append(build(chosen))
    assert len({run.model.robot().codecs["head"].hash() for run in runs}) == 1
    for run in runs:
        run.trainer.train_step()
        run.trainer.train_step()
    first, second = (run.trainer.model.parameters() for run in runs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_variants_are_consistent_in_a_window_and_drawn_anew(caches, windows, world):
    cache = opened(caches / "variants", windows, seed=2)
    codec = latents.load_codec(caches / "variants", "head").base
    steps = np.arange(len(windows))
    batch = cache.batch(steps, np.zeros_like(steps))
    index, valid = windows.video_steps(steps)
    every = [
        cache.latents("head", np.arange(len(windows)), np.full(len(windows), k)) for k in range(3)
    ]
    seen = set()
    for step in steps:
        matching = [
            k for k in range(3) if np.array_equal(batch["image_latents/head"][step], every[k][step])
        ]
        assert len(matching) == 1
        seen.update(matching)
        for frame in np.flatnonzero(valid[step]):
            future = every[matching[0]][index[step, frame]]
            np.testing.assert_array_equal(batch["video_latents/head"][step, frame], future)
    assert seen == {0, 1, 2}
    other = cache.batch(steps, np.ones_like(steps))["image_latents/head"]
    assert not np.array_equal(other, batch["image_latents/head"])
    again = cache.batch(steps, np.zeros_like(steps))["image_latents/head"]
    np.testing.assert_array_equal(again, batch["image_latents/head"])
    # and they are what the key says: that augmentation of the frames, one draw an episode
    assert not np.array_equal(every[0], every[1])
    plain = codec.encode(torch.as_tensor(windows.frames(steps))).numpy()
    assert not np.allclose(every[0], plain, atol=1e-3)


def test_an_interrupted_encoding_goes_on_where_it_was(config, caches, tmp_path, monkeypatch):
    out = tmp_path / "out"
    calls = []

    def failing(*arguments):
        calls.append(1)
        if len(calls) > 4:  # in the second shard
            raise KeyboardInterrupt
        return encoded(*arguments)

    encoded = latents._encoded
    with monkeypatch.context() as patch:
        patch.setattr(latents, "_encoded", failing)
        with pytest.raises(KeyboardInterrupt):
            encode(config, out, dtype="float32", progress=False)
    assert len(list(out.glob("head/*.npy"))) == 1 and not list(out.glob("head/.*.tmp"))
    counts = encode(config, out, dtype="float32", progress=False)
    assert (counts["written"], counts["skipped"]) == (1, 1)
    assert_same(out, caches / "float32")


def test_ranks_share_the_work(config, caches, tmp_path, windows):
    out = tmp_path / "out"
    first = encode(config, out, dtype="float32", shard=(1, 2), progress=False)
    with pytest.raises(ValueError, match="not finished"):
        opened(out, windows)
    second = encode(config, out, dtype="float32", shard=(2, 2), progress=False)
    assert first["written"] == second["written"] == 1
    assert first["frames"] + second["frames"] == len(windows)
    assert_same(out, caches / "float32")


def assert_same(a, b):
    names = sorted(str(path.relative_to(a)) for path in a.glob("*/*.npy"))
    assert names == sorted(str(path.relative_to(b)) for path in b.glob("*/*.npy")) and names
    for name in [*names, "key.json"]:
        assert (a / name).read_bytes() == (b / name).read_bytes()


def test_stale_latents_are_refused(copied, windows, world, rt1_directory, tmp_path):
    with pytest.raises(ValueError, match=r"control_hz 5.0, got control_hz 3.0; encode again"):
        opened(copied, windows, control_hz=5.0)
    other = latents.load_codec(copied, "head")
    other._scale = other._scale * 2  # of the video residual alone: the image's latents stay
    opened(copied, windows)
    other.base._set(
        other.base._mean.double() + 1, other.base._basis.double(), other.base._std.double()
    )
    with pytest.raises(
        ValueError, match="expected latents with codec .*, got codec .*encode again"
    ):
        LatentCache(copied, windows, {"head": other.base}, control_hz=3.0)
    changed = WindowDataset(fake_dataset(tmp_path / "new", (9, 8)), SIZE, progress=False)
    with pytest.raises(ValueError, match="got none of 1 of them.*the data .* changed"):
        opened(copied, changed)
    with pytest.raises(ValueError, match="expected a latent cache with key.json"):
        LatentCache(tmp_path, windows, {"head": other.base}, control_hz=3.0)
    with pytest.raises(ValueError, match="expected a latent cache with codec"):
        latents.load_codec(tmp_path, "head")


def test_damaged_latents_are_refused(copied, windows):
    path = sorted(copied.glob("head/*.npy"))[0]
    np.save(path, np.load(path)[:, :-1])
    with pytest.raises(ValueError, match="delete the file and encode again"):
        opened(copied, windows)
    path.unlink()
    with pytest.raises(ValueError, match="not finished"):
        opened(copied, windows)
    key = json.loads((copied / "key.json").read_text())
    (copied / "key.json").write_text(json.dumps(key | {"version": 99}))
    with pytest.raises(ValueError, match="version 2, got 99"):
        opened(copied, windows)


def test_a_directory_of_other_settings_is_not_mixed_up(config, copied):
    with pytest.raises(ValueError, match="other dtype"):
        encode(config, copied, dtype="float16", progress=False)
    with pytest.raises(ValueError, match="add --augment"):
        encode(config, copied, variants=2, progress=False)
    with pytest.raises(ValueError, match="encoded whole"):
        encode(config, copied, split="train[:50%]", progress=False)
    with pytest.raises(ValueError, match="from 1 to 2"):
        encode(config, copied, shard=(3, 2), progress=False)


def test_augmentation_and_a_cache_exclude_each_other(world, windows, caches):
    with pytest.raises(ValueError, match="Encode augmented variants"):
        ModeStream(
            windows,
            world,
            robot_schedule(SHARES),
            augment=Augment(0.9),
            latents=opened(caches / "float32", windows),
        )


def test_latents_beyond_half_precision_are_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "selfflow_wm.codec.PatchPCA.encode", lambda self, x: torch.full((len(x), 6, 8), 1e6)
    )
    with pytest.raises(ValueError, match="--dtype float32"):
        encode(config, tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").glob("head/*.npy"))


def test_the_command_line(world, rt1_directory, tiny_overrides, tmp_path, capsys, windows):
    world.save(tmp_path / "checkpoint")
    arguments = ["--data", str(rt1_directory), "--out", str(tmp_path / "out"), *tiny_overrides]
    arguments += ["--checkpoint", str(tmp_path / "checkpoint")]
    assert main(arguments) == 0
    assert f"{len(windows)} frames" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "0 shards written, 2 there already" in capsys.readouterr().out
    cache = LatentCache(
        tmp_path / "out", windows, {"head": world.robot().image_codec("head")}, control_hz=3.0
    )
    assert cache.batch([0, 3])["video_latents/head"].shape == (2, 2, 6, 16)
    augmented = [*arguments[:3], str(tmp_path / "b"), *tiny_overrides]
    assert main([*augmented, "--variants", "2", "--augment", "crop_colour"]) == 0
    assert json.loads((tmp_path / "b/key.json").read_text())["augment"]["crop"] == 0.92
    capsys.readouterr()
    assert main([*arguments, "--dtype", "float32"]) == 2
    assert "other dtype" in capsys.readouterr().err


def test_an_episode_of_a_variant_is_one_transform(config, caches, windows):
    """The stored variant equals the transform drawn for it, on every frame of every episode."""
    from zlib import crc32

    directory = caches / "variants"
    codec, cache = latents.load_codec(directory, "head").base, opened(directory, windows)
    augment, source = Augment(0.7, 0.3, seed=5), windows.sources[0]
    for number, episode in enumerate(windows.episodes[:2]):
        drawn = augment.draw(1, crc32(source.name.encode()), number)
        frames = np.stack([apply(frame, *drawn) for frame in windows.frames(np.array(episode))])
        got = cache.latents("head", np.array(episode), np.ones(len(episode), int))
        expected = codec.encode(torch.as_tensor(frames)).numpy()
        np.testing.assert_allclose(got, expected, atol=1e-5)
