"""Cameras that stand in for another: one of them is drawn for every window."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from benchmarks.robots.synthetic import write
from robotics.data.views import Views
from robotics.data.windows import WindowDataset
from robotics.embodiment.tables import load_robot
from robotics.training.build import build, compose_config
from robotics.training.encode import encode

ROBOT = {
    "name": "two_sides",
    "rate": 10,
    "cameras": {
        "left": {"path": "observation/left", "size": [40, 48]},
        "right": {"path": "observation/right", "size": [32, 48], "instead_of": "left"},
        "wrist": {"path": "observation/wrist", "size": [32, 32]},
    },
    "instruction": "language_instruction",
    "state": {"arm": {"path": "observation/state[0:5]", "kind": "joints"}},
    "action": {"arm": {"path": "action[0:5]", "kind": "joints", "mode": "absolute"}},
    "window": {"horizon": 4, "video_offsets": [2, 4]},
}
SIZE = (32, 48)


def changed(camera, **entries):
    table = deepcopy(ROBOT)
    table["cameras"][camera] |= entries
    return table


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("sides") / "data"
    write(load_robot(ROBOT), root, episodes=5, seconds=1.2)
    return root


@pytest.fixture(scope="module", params=[True, False])
def windows(request, directory):
    options = {"history": 1, "seed": 3, "decoded": request.param, "progress": False}
    return WindowDataset(directory, SIZE, spec=ROBOT, **options)


def seen(dataset, batch, camera="left"):
    """Which camera each window's frames are all of."""
    steps = np.arange(len(dataset))
    index = {"image": (steps[:, None], np.ones((len(steps), 1), bool))}
    index |= {"video": dataset.video_steps(steps), "history": dataset.history_steps(steps)}
    found = []
    for row in steps:
        fits = []
        for name in dataset.views.names[camera]:
            same = True
            for kind, (places, valid) in index.items():
                got = batch[f"{kind}/{camera}"][row].reshape(-1, *SIZE, 3)
                there = np.flatnonzero(valid[row])
                for place in there:
                    expected = dataset.frames(places[row][place], name)
                    same &= np.array_equal(got[place], expected)
                got = np.delete(got, there, axis=0)
                same &= not got.any()
            if same:
                fits.append(name)
        assert len(fits) == 1
        found += fits
    return found


def test_one_of_the_cameras_gives_all_frames_of_a_window(windows):
    assert windows.cameras == ("left", "wrist")
    assert windows.views.names == {"left": ("left", "right"), "wrist": ("wrist",)}
    steps = range(len(windows))
    batch = windows.batch(steps)
    assert not any("right" in name for name in batch)
    first = seen(windows, batch)
    share = first.count("right") / len(first)
    assert 0.3 < share < 0.7
    again = windows.batch(steps)
    np.testing.assert_array_equal(again["video/left"], batch["video/left"])
    alone = np.concatenate([windows.batch([step])["image/left"] for step in steps])
    np.testing.assert_array_equal(alone, batch["image/left"])  # whatever else is in the batch
    later = seen(windows, windows.batch(steps, epochs=np.ones(len(windows), int)))
    assert 0.2 < np.mean([a != b for a, b in zip(first, later, strict=True)]) < 0.7
    for step in steps:
        np.testing.assert_array_equal(batch["image/wrist"][step], windows.frames(step, "wrist"))


def test_another_seed_draws_others(directory):
    one, two = (
        WindowDataset(directory, SIZE, spec=ROBOT, seed=seed, history=1, progress=False)
        for seed in (1, 2)
    )
    steps = range(len(one))
    assert seen(one, one.batch(steps)) != seen(two, two.batch(steps))


@pytest.mark.parametrize(
    ("table", "cameras", "expected"),
    [
        (ROBOT, ["left", "right"], {"left": ("left",), "right": ("right",)}),
        (ROBOT, ["right"], {"right": ("right",)}),
        (ROBOT, ["wrist"], {"wrist": ("wrist",)}),
        (changed("right", use=False), None, {"left": ("left",), "wrist": ("wrist",)}),
        (changed("right", instead_of=None), ["left"], {"left": ("left",)}),
    ],
)
def test_a_camera_that_is_named_or_unused_stands_in_for_none(directory, table, cameras, expected):
    dataset = WindowDataset(directory, SIZE, spec=table, cameras=cameras, progress=False)
    assert dataset.views.names == expected
    batch = dataset.batch([3, 7])
    for name in expected:
        np.testing.assert_array_equal(batch[f"image/{name}"], dataset.frames([3, 7], name))


def test_only_cameras_that_are_there_are_drawn(windows):
    robot, steps = load_robot(ROBOT), np.arange(60)
    there = {"left": steps % 2 == 0, "right": steps % 3 == 0}
    views = Views(robot, windows.cameras, windows.store, there, seed=0)
    drawn = views.draw(steps, np.zeros_like(steps))
    assert list(drawn) == ["left", "wrist"]
    left, right = there.values()
    assert set(drawn["left"][left & right]) == {0, 1}
    assert set(drawn["left"][left & ~right]) == {0}
    assert set(drawn["left"][~left & right]) == {1}
    (name, valid), *others = views.valid(steps).items()
    assert name == "left" and not others
    np.testing.assert_array_equal(valid, left | right)


def test_tables_with_a_wrong_place_are_refused():
    for other in ("nowhere", "right"):
        with pytest.raises(ValueError, match=r"cameras.right.instead_of: .*left, wrist, got"):
            load_robot(changed("right", instead_of=other))
    assert load_robot(load_robot(ROBOT).to_dict()) == load_robot(ROBOT)


def test_a_run_on_cached_latents_draws_the_same_cameras(directory, tmp_path):
    OmegaConf.save(OmegaConf.create(ROBOT), tmp_path / "two_sides.yaml")
    words = [
        f"data={directory}", f"spec={tmp_path / 'two_sides.yaml'}", "dataset.image_size=[32,48]",
        "codec.channels=16", "codec.fit_frames=40", "codec.fit_windows=30", "model.width=24",
        "model.heads=2", "model.single=2", "log.wandb=disabled", "trainer.total_steps=1",
        'dataset.train_split="train[:4]"', 'dataset.validation_split="train[4:]"',
        "trainer.validation_batches=1", "device=cpu",
    ]  # fmt: skip
    encode(compose_config(words), tmp_path / "latents", dtype="float32", progress=False)
    runs = [
        build(compose_config([*words, *more, f"out={tmp_path / name}"]))
        for name, more in {"pixels": [], "cache": [f"latents={tmp_path / 'latents'}"]}.items()
    ]
    assert runs[0].model.robot().cameras == ("left", "wrist")
    for _ in range(4):
        pixels, cached = (next(run.trainer.batches) for run in runs)
        for name, value in pixels.latents.items():
            assert torch.equal(cached.latents[name], value), name
