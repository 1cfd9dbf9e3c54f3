"""Several data sets as one: shares, epochs, readers, resumption, pooled statistics, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from robotics.data.mixture import DatasetMixture, pooled, shuffled
from robotics.data.rlds.fake import fake_dataset
from robotics.data.sources import check_conventions, parse_mixture, to_plain
from robotics.data.streams import BLOCK, MixtureStream
from robotics.data.windows import WindowDataset
from robotics.embodiment.normalize import Quantiles
from robotics.finetune import main
from robotics.training.build import build, compose_config

SIZE = (32, 48)
WEIGHTS = {"one": 3.0, "two": 1.0}


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    path = tmp_path_factory.mktemp("mixture")
    lengths = {"one": (12, 9, 8), "two": (15, 11, 10, 14)}
    return {name: fake_dataset(path / name, values) for name, values in lengths.items()}


@pytest.fixture(scope="module")
def parts(directories):
    return {n: WindowDataset(d, SIZE, progress=False) for n, d in directories.items()}


@pytest.fixture(scope="module")
def mixture(parts):
    return DatasetMixture(parts, WEIGHTS)


def test_windows_of_a_mixture_are_those_of_its_sets_in_the_order_asked_for(mixture, parts):
    first = len(parts["one"])
    indices = [first + 3, 0, len(mixture) - 1, 5, first]
    batch = mixture.batch(indices)
    for row, index in enumerate(indices):
        part, place = ("two", index - first) if index >= first else ("one", index)
        for name, value in parts[part].sample(place).items():
            np.testing.assert_array_equal(
                batch[name] if name == "robot" else batch[name][row], value
            )
    assert set(batch) == set(parts["one"].batch([0]))
    assert mixture.num_episodes == 7
    starts = [e.start for e in parts["one"].episodes] + [
        first + e.start for e in parts["two"].episodes
    ]
    assert sorted(set(mixture.episode_start)) == starts and len(mixture.episode_start) == len(
        mixture
    )
    for wrong in ([-1], [len(mixture)], []):
        with pytest.raises(ValueError, match="indices in 0"):
            mixture.batch(wrong)


@pytest.mark.parametrize("group", [None, 2])
def test_sets_are_drawn_by_weight_and_each_goes_through_its_own_epochs(mixture, parts, group):
    stream = MixtureStream(mixture, 1, group=group)
    indices, epochs = stream.draw(4 * BLOCK)
    of_two = indices >= len(parts["one"])
    for block in range(4):  # to a rounding, not just on average
        assert of_two[block * BLOCK : (block + 1) * BLOCK].sum() in (250, 249, 251)
    assert 100 < of_two[:BLOCK][::2].sum() < 150  # mixed, not one set after the other
    for start, rows in ((0, ~of_two), (len(parts["one"]), of_two)):
        size = len(parts["one"] if start == 0 else parts["two"])
        local = indices[rows] - start
        for epoch in range(3):
            assert sorted(local[epochs[rows] == epoch]) == list(range(size))
    other = MixtureStream(mixture, 2, group=group).draw(50)[0]
    assert (other != indices[:50]).any()


def test_a_resumed_mixture_equals_a_straight_one(mixture):
    sizes = [7, BLOCK, 1, 64]
    for stop in range(len(sizes) + 1):
        straight, first, second = (MixtureStream(mixture, 5) for _ in range(3))
        expected = [straight.draw(size) for size in sizes]
        for size in sizes[:stop]:
            first.draw(size)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        for size, drawn in zip(sizes[stop:], expected[stop:], strict=True):
            np.testing.assert_array_equal(second.draw(size), drawn)
    state = first.state_dict()
    with pytest.raises(ValueError, match="same sets, weights and seed"):
        MixtureStream(DatasetMixture(mixture.parts, WEIGHTS | {"two": 2}), 5).load_state_dict(state)
    with pytest.raises(ValueError, match="same sets, weights and seed"):
        MixtureStream(mixture, 6).load_state_dict(state)


@pytest.mark.parametrize("group", [None, 1])
def test_readers_share_every_set_without_overlap(mixture, parts, group):
    readers = [MixtureStream(mixture, 3, rank=r, world_size=3, group=group) for r in range(3)]
    draws = [reader.draw(60) for reader in readers]
    indices, epochs = (np.stack(values, axis=1) for values in zip(*draws, strict=True))
    sets = indices >= len(parts["one"])
    assert (sets == sets[:, :1]).all()
    for start, part, rows in ((0, "one", ~sets), (len(parts["one"]), "two", sets)):
        local = indices[rows][epochs[rows] == 0] - start
        assert len(set(local)) == len(local)
        if (epochs[rows] == 1).any():
            assert sorted(local) == list(range(len(parts[part])))
    assert len({json.dumps(reader.state_dict()) for reader in readers}) == 1


def test_a_filter_reaches_each_set(mixture, parts):
    keep = np.arange(0, len(mixture), 3)
    stream = MixtureStream(mixture, 0, keep)
    assert set(stream.draw(400)[0]) == set(keep.tolist())
    with pytest.raises(ValueError, match="two: expected at least one window"):
        MixtureStream(mixture, 0, np.arange(len(parts["one"])))


def test_pooled_statistics_are_those_of_what_is_drawn():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 2)), 5 + 3 * rng.normal(size=(40, 2))
    alone = pooled([a], [1.0])
    exact = Quantiles.of(a)
    for name in ("q01", "q99", "mean", "std", "min", "max"):
        np.testing.assert_allclose(getattr(alone, name), getattr(exact, name), rtol=1e-9)
    by_size = pooled([a, b], [300 / 340, 40 / 340])
    exact = Quantiles.of(np.concatenate([a, b]))
    for name in ("q01", "q99", "mean", "std", "min", "max"):
        np.testing.assert_allclose(getattr(by_size, name), getattr(exact, name), rtol=1e-9)
    weighted = pooled([a, b], [0.25, 0.75])
    drawn = np.concatenate([a[rng.integers(300, size=50_000)], b[rng.integers(40, size=150_000)]])
    exact = Quantiles.of(drawn)
    for name in ("q01", "mean", "std"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(exact, name), atol=0.1)
    assert weighted.count == 340 and not np.allclose(weighted.mean, by_size.mean, atol=0.5)


def test_a_shuffle_of_a_mixture_brings_heavy_sets_first(mixture, parts):
    heavy = DatasetMixture(parts, {"one": 1.0, "two": 99.0})
    order = shuffled(heavy, np.random.default_rng(0))
    assert sorted(order) == list(range(len(heavy)))
    assert (order[:20] >= len(parts["one"])).sum() >= 18
    plain = shuffled(parts["one"], np.random.default_rng(0))
    np.testing.assert_array_equal(plain, np.random.default_rng(0).permutation(len(parts["one"])))


def test_what_data_may_be(tmp_path, directories):
    assert parse_mixture("some/directory") is None
    file = tmp_path / "sets.yaml"
    file.write_text("a: {path: x, weight: 2}\nb: {path: y, spec: bridge}\n")
    entries = parse_mixture(file)
    assert [e.weight for e in entries.values()] == [2.0, 1.0] and entries["b"].spec == "bridge"
    assert parse_mixture(to_plain(entries)) == entries
    assert list(parse_mixture([{"path": "p/x"}, {"path": "p/y"}])) == ["x", "y"]
    template = parse_mixture("configs/dataset/mixture_template.yaml")
    assert template["kitchen"].train_split == "train[:95%]"
    for wrong, message in (
        ([{"path": "p/x"}, {"path": "q/x"}], "more than once"),
        ({"a": {"weight": 1}}, "expected a path"),
        ({"a": {"path": "x", "wieght": 1}}, "wieght"),
        ({"a": {"path": "x", "weight": 0}}, "weight above 0"),
        ({"a": "x"}, "expected a directory, a yaml"),
        ({}, "at least one data set"),
        ("nowhere.yaml", "not there"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_mixture(wrong)


def test_sets_of_one_robot_that_mean_something_else_are_refused_in_words(parts):
    entries = parse_mixture({"a": {"path": "x", "spec": "rt1"}, "b": {"path": "y"}})
    check_conventions(entries)
    named = {"extends": "rt1", "name": "rt1"}
    for change, message in (
        ({"rate": 5}, "robot rt1 of one control rate, got a 3 Hz, b 5 Hz"),
        ({"embodiment": "other"}, "data.b: .*another embodiment: google_robot against other"),
        (
            {"action": {"gripper": {"mode": "absolute", "continuous": True}}},
            "another action.gripper: .* pulse against .* absolute, any width",
        ),
        (
            {"action": {"rotation": {"form": "axis_angle"}}},
            "action.rotation: .*roll.* against .*rx",
        ),
        ({"action": {"position": {"frame": "tool"}}}, "axes of the base against .* of the tool"),
        ({"state": {"gripper": None}}, "state.gripper: gripper .*against none"),
        ({"terminate": None}, "terminate: predicted against not predicted"),
    ):
        with pytest.raises(ValueError, match=message):
            check_conventions(entries, named | change)
    check_conventions(entries, named | {"rate": 5}, mixed_rates=True)
    # Units, senses and paths are the recording's own: the model gets the same of both.
    same = {"position": {"unit": "mm"}, "gripper": {"open": 1, "closed": -1}}
    check_conventions(entries, named | {"action": same, "cameras": {"head": {"path": "a/b"}}})
    # Another name is another robot, which has its own normaliser.
    check_conventions(entries, named | {"name": "mine", "rate": 5, "terminate": None})
    check_conventions(parse_mixture({"a": {"path": "x", "embodiment": "other"}}))
    with pytest.raises(ValueError, match="data.b: .*expected one of"):
        check_conventions(parse_mixture({"b": {"path": "x", "spec": "no_such"}}))
    with pytest.raises(ValueError, match="weights above 0"):
        DatasetMixture(parts, WEIGHTS | {"one": 0})
    with pytest.raises(ValueError, match="a weight for each"):
        DatasetMixture(parts, {"one": 1})


def test_sets_opened_differently_are_no_mixture(parts, directories):
    for options, message in (
        ({"horizon": 3}, "same cameras, image sizes, horizon"),
        ({"spec": {"extends": "rt1", "name": "rt1", "terminate": None}}, "data.two: .*terminate"),
    ):
        other = WindowDataset(directories["two"], SIZE, progress=False, **options)
        with pytest.raises(ValueError, match=message):
            DatasetMixture({"one": parts["one"], "two": other}, WEIGHTS)


def test_a_run_trains_on_a_mixture_and_resumes(directories, tiny_overrides, tmp_path, capsys):
    one, two = directories.values()
    data = f"data={{a: {{path: {one}, weight: 3}}, b: {{path: {two}, train_split: 'train[:3]'}}}}"
    words = [*tiny_overrides, data, "modes=policy_only", "modes.policy.batch_size=6"]
    words += ["dataset.train_split='train[:2]'", "dataset.validation_split='train[2:]'"]
    words += ["trainer.validation_batches=1", "trainer.total_steps=4", f"out={tmp_path / 'run'}"]
    words += ["decoded=false", "group_episodes=2", "trainer.log_every=1"]
    run = build(compose_config(words))
    assert "a   75.0%  2 episodes, 21 windows, 0.857 epochs" in run.description
    assert "b   25.0%  3 episodes, 40 windows, 0.15 epochs" in run.description
    assert isinstance(run.trainer.batches.windows, MixtureStream)
    statistics = run.trainer.batches.windows.dataset.statistics()
    assert run.model.robot().normalizers["action"].statistics == statistics["action"]
    run.trainer.train(until=2)
    again = build(compose_config(words))
    assert again.trainer.step == 2 and again.trainer.batches.windows.drawn == 12
    assert main([*words, data.replace("weight: 3", "weight: 2")]) == 2
    assert "other settings of data" in capsys.readouterr().err
    assert main([*words, data.replace("path: ", "path: /nowhere")]) == 2
    assert main([*words, "latents=x", f"out={tmp_path / 'other'}"]) == 2
