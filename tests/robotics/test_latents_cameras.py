"""The latent cache of a robot with several cameras, and directories of version 1."""

from __future__ import annotations

import json
from zlib import crc32

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from benchmarks.robots.synthetic import write
from robotics.data.augment import Augment, apply
from robotics.data.cache import latents
from robotics.data.cache.latents import LatentCache
from robotics.data.sources import open_dataset
from robotics.embodiment.tables import load_robot
from robotics.training.build import build, compose_config
from robotics.training.encode import encode

ROBOT = {
    "name": "two_eyes",
    "rate": 10,
    "cameras": {
        "front": {"path": "observation/front", "size": [40, 48]},
        "side": {"path": "observation/side", "size": [32, 32], "present": "/meta/has_side"},
    },
    "instruction": "language_instruction",
    "state": {"arm": {"path": "observation/state[0:5]", "kind": "joints"}},
    "action": {"arm": {"path": "action[0:5]", "kind": "joints", "mode": "absolute"}},
    "window": {"horizon": 4, "video_offsets": [2, 4]},
}
SIZES = {"front": (32, 48), "side": (16, 32)}
WORDS = (
    "dataset.cameras={front: {size: [32, 48]}, side: {size: [16, 32]}}",
    "dataset.history=1",
    "codec.channels=16",
    "codec.fit_frames=40",
    "codec.fit_windows=30",
    "model.width=24",
    "model.heads=2",
    "model.single=2",
    "log.wandb=disabled",
    'dataset.train_split="train[:4]"',
    'dataset.validation_split="train[4:]"',
    "trainer.total_steps=2",
    "trainer.validation_batches=1",
    "device=cpu",
)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    root = tmp_path_factory.mktemp("eyes")
    write(load_robot(ROBOT), root / "data", episodes=5, seconds=1.2)
    OmegaConf.save(OmegaConf.create(ROBOT), root / "two_eyes.yaml")
    return [*WORDS, f"data={root / 'data'}", f"spec={root / 'two_eyes.yaml'}"]


@pytest.fixture(scope="module")
def cache(words, tmp_path_factory):
    out = tmp_path_factory.mktemp("latents")
    encode(compose_config(words), out, dtype="float32", progress=False)
    return out


def codecs(directory):
    return {name: latents.load_codec(directory, name).base for name in SIZES}


def test_every_camera_has_its_codec_and_size(cache):
    key = json.loads((cache / "key.json").read_text())
    assert {name: tuple(row["image_size"]) for name, row in key["cameras"].items()} == SIZES
    assert {name: found.image_size for name, found in codecs(cache).items()} == SIZES
    files = {name: [path.name for path in (cache / name).glob("*.npy")] for name in SIZES}
    assert files["front"] and sorted(files["front"]) == sorted(files["side"])


def test_a_run_trains_from_every_camera_s_latents_as_from_pixels(words, cache, tmp_path):
    runs = {
        name: build(compose_config([*words, *more, f"out={tmp_path / name}"]))
        for name, more in {"pixels": [], "cache": [f"latents={cache}"]}.items()
    }
    drawn = {name: run.trainer.batches for name, run in runs.items()}
    for _ in range(4):
        expected, got = next(drawn["pixels"]), next(drawn["cache"])
        assert list(got.latents) == list(expected.latents)
        assert {"image/side", "history/front", "history/side"} < set(got.latents)
        for name, value in expected.latents.items():
            assert torch.equal(got.latents[name], value), name
            assert torch.equal(got.valid[name], expected.valid[name]), name
    for run in runs.values():
        run.trainer.train_step()
    first, second = (run.trainer.model.parameters() for run in runs.values())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_episode_s_variant_is_one_transform_for_each_camera(words, tmp_path):
    augment = Augment(0.7, 0.3, seed=5)
    config = compose_config(words)
    options = {"dtype": "float32", "variants": 2, "augment": augment, "progress": False}
    counts = encode(config, tmp_path, **options)
    dataset = open_dataset(config, "train", SIZES)
    assert counts["frames"] == 2 * 2 * len(dataset)  # cameras, variants
    found = LatentCache(tmp_path, dataset, codecs(tmp_path), control_hz=10.0)
    source, steps = dataset.sources[0], np.array(dataset.episodes[0])
    for number, (name, codec) in enumerate(codecs(tmp_path).items()):
        drawn = augment.draw(1, crc32(source.name.encode()), 0, *([number] if number else []))
        frames = np.stack([apply(frame, *drawn) for frame in dataset.frames(steps, name)])
        expected = codec.encode(torch.as_tensor(frames)).numpy()
        got = found.latents(name, steps, np.ones(len(steps), int))
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_what_one_camera_lacks_is_encoded_again(words, cache, tmp_path):
    encode(compose_config(words), tmp_path, dtype="float32", progress=False)
    (lost, *_) = sorted((tmp_path / "side").glob("*.npy"))
    lost.unlink()
    counts = encode(compose_config(words), tmp_path, dtype="float32", progress=False)
    assert counts["written"] == 1
    for path in cache.glob("*/*.npy"):
        assert (tmp_path / path.relative_to(cache)).read_bytes() == path.read_bytes()


def test_latents_of_other_cameras_are_refused(words, cache, tmp_path):
    words = [*words[1:], "dataset.cameras=[front]", "dataset.image_size=[32,48]"]
    config = compose_config(words)
    with pytest.raises(ValueError, match=r"front, got those of front, side; .*cameras=.front,side"):
        encode(config, cache, dtype="float32", progress=False)
    with pytest.raises(ValueError, match="front, got those of front, side"):
        build(compose_config([*words, f"latents={cache}", f"out={tmp_path}"]))


def test_a_directory_of_version_1_trains_and_is_not_added_to(words, tmp_path):
    """It has no folders: codec and latents lie beside its key, which names no camera."""
    out = tmp_path / "old"
    more = ["dataset.cameras=[front]", "dataset.image_size=[32,48]"]
    config = compose_config([*words[1:], *more])
    encode(config, out, dtype="float32", progress=False)
    dataset = open_dataset(config, "train")
    codec = {"front": latents.load_codec(out, "front").base}
    expected = LatentCache(out, dataset, codec, control_hz=10.0).batch([0, 5])
    for path in list((out / "front").iterdir()):
        path.rename(out / path.name)
    (out / "front").rmdir()
    key = json.loads((out / "key.json").read_text())
    old = {**key.pop("cameras")["front"], **key, "version": 1}
    (out / "key.json").write_text(json.dumps(old))
    assert latents.load_codec(out, "front").base.hash() == codec["front"].hash()
    got = LatentCache(out, dataset, codec, control_hz=10.0).batch([0, 5])
    for name in ("image_latents/front", "video_latents/front", "history_latents/front"):
        np.testing.assert_array_equal(got[name], expected[name])
    with pytest.raises(ValueError, match="choose another --out"):
        encode(config, out, dtype="float32", progress=False)
    with pytest.raises(ValueError, match="got those of one camera; encode again"):
        encode(compose_config(words), out, dtype="float32", progress=False)
