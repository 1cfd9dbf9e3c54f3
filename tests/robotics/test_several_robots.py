"""Several robots in one mixture: a batch holds one of them, each has its order and statistics."""

from __future__ import annotations

import json

import numpy as np
import pytest
from robot_sets import BRIDGE, DROID, VIDEO, bridge, droid
from robot_sets import video as write_video

from robotics.data.augment import Augment
from robotics.data.batches import ModeStream, fixed_batches, windows_drawn
from robotics.data.mixture import DatasetMixture
from robotics.data.windows import WindowDataset
from robotics.model.modes import robot_schedule

SHARES = {
    "policy": {"probability": 0.5, "batch_size": 4},
    "video": {"probability": 0.5, "batch_size": 3},
}
WEIGHTS = {"kitchen": 2.0, "office": 1.0, "droid": 3.0, "play": 2.0}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("robots")
    return {
        "kitchen": WindowDataset(bridge(root / "a"), (24, 32), spec=BRIDGE, progress=False),
        "office": WindowDataset(bridge(root / "b", (9, 8)), (24, 32), spec=BRIDGE, progress=False),
        "droid": WindowDataset(droid(root / "c"), (20, 20), spec=DROID, progress=False),
        "play": WindowDataset(write_video(root / "d"), (16, 16), spec=VIDEO, progress=False),
    }


@pytest.fixture(scope="module")
def mixture(parts):
    return DatasetMixture(parts, WEIGHTS)


class Plain:
    """Stands for a model: keeps the samples as they come."""

    def encode(self, samples, mode):
        return samples, mode.name


def stream(mixture, seed=1, **options):
    return ModeStream(mixture, Plain(), robot_schedule(SHARES, seed=seed), seed=seed, **options)


def test_a_mixture_knows_its_robots_and_keeps_each_to_itself(mixture, parts):
    assert mixture.robots == {
        "bridge_dataset": ["kitchen", "office"],
        "droid": ["droid"],
        "play_video": ["play"],
    }
    assert mixture.robot_shares() == {"bridge_dataset": 0.375, "droid": 0.375, "play_video": 0.25}
    two = mixture.of_robot("bridge_dataset")
    assert two.shares == {"kitchen": pytest.approx(2 / 3), "office": pytest.approx(1 / 3)}
    assert two.coder.action_names == parts["kitchen"].coder.action_names
    alone = mixture.of_robot("droid")
    expected = parts["droid"].statistics()["action"]
    np.testing.assert_allclose(alone.statistics()["action"].mean, expected.mean)
    assert set(two.statistics()) == {"state", "action"} and mixture.of_robot("play_video")
    with pytest.raises(ValueError, match="ask of_robot"):
        mixture.statistics()
    with pytest.raises(ValueError, match="expected a robot out of"):
        mixture.of_robot("nobody")
    first = len(parts["kitchen"])
    np.testing.assert_array_equal(
        mixture.batch([first + 2, 1])["state"],
        [parts["office"].states[2], parts["kitchen"].states[1]],
    )
    with pytest.raises(ValueError, match="a batch holds one robot"):
        mixture.batch([0, int(mixture.starts[2])])


def test_robots_are_drawn_by_share_among_those_that_can_train_the_mode(mixture):
    batches = stream(mixture)
    found = [batches.draw() for _ in range(900)]
    assert {draw.robot for draw in found if draw.mode.name == "policy"} == {
        "bridge_dataset", "droid",
    }  # fmt: skip
    video = [draw.robot for draw in found if draw.mode.name == "video"]
    for robot, share in mixture.robot_shares().items():
        assert abs(video.count(robot) / len(video) - share) < 0.08
    acting = [draw.robot for draw in found if draw.mode.name == "policy"]
    assert abs(acting.count("droid") / len(acting) - 0.5) < 0.08
    for draw in found[:40]:
        samples, mode = batches.encode(batches.read(draw), draw)
        assert samples["robot"] == draw.robot and mode == draw.mode.name
        assert len(samples["instruction"]) == len(draw.indices)
    only_video = mixture.of_robot("play_video")
    with pytest.raises(ValueError, match=r"data with action, got none of robot play_video.*=null"):
        stream(only_video)


@pytest.mark.parametrize("group", [None, 2])
def test_reading_follows_from_the_draw_alone_and_a_resumed_stream_goes_on(mixture, group):
    augment = Augment(0.8, 0.2, seed=5)
    straight = stream(mixture, augment=augment, group=group, accumulate=2)
    expected = [next(straight) for _ in range(12)]
    ahead = stream(mixture, augment=augment, group=group, accumulate=2)
    draws, states = [], []
    for _ in range(12):
        draws.append(ahead.draw())
        states.append(json.loads(json.dumps(ahead.state_dict())))
    for draw, (samples, _) in list(zip(draws, expected, strict=True))[::-1]:
        for name, values in ahead.read(draw).items():
            np.testing.assert_array_equal(values, samples[name])
    for first, second in zip(draws[::2], draws[1::2], strict=True):  # of one optimiser step
        assert first.robot == second.robot and first.mode == second.mode
    resumed = stream(mixture, augment=augment, group=group, accumulate=2)
    resumed.load_state_dict(states[6])
    for draw in draws[7:]:
        got = resumed.draw()
        assert got.robot == draw.robot and got.indices.tolist() == draw.indices.tolist()
    others = stream(mixture, group=group)
    with pytest.raises(ValueError, match="state of robots"):
        others.load_state_dict(states[0] | {"windows": {"a": {}, "b": {}}})


def test_readers_share_a_batch_of_one_robot(mixture):
    readers = [stream(mixture, rank=rank, world_size=3) for rank in range(3)]
    whole = stream(mixture)
    for _ in range(20):
        draws = [reader.draw() for reader in readers]
        assert len({draw.robot for draw in draws}) == 1
        assert len({json.dumps(reader.state_dict()) for reader in readers}) == 1
    del whole


def test_a_filter_reaches_every_robot(mixture):
    keep = np.arange(0, len(mixture), 2)
    batches = stream(mixture, keep=keep)
    sizes = dict.fromkeys(mixture.robots, 0)
    for name, one in batches.streams.items():
        sizes[name] = one.size
        mine = mixture.windows_of(name, keep)
        assert set(one.draw(200)[0].tolist()) == set(mine.tolist())
    assert sum(sizes.values()) == len(keep)
    np.testing.assert_array_equal(
        mixture.no_ops(1e-3, 1e-2),
        np.concatenate([part.no_ops(1e-3, 1e-2) for part in mixture.parts.values()]),
    )


def test_validation_has_batches_of_every_robot_that_has_what_the_mode_needs(mixture):
    groups = fixed_batches(mixture, Plain(), robot_schedule(SHARES), batches=2)
    seen = {name: [samples["robot"] for samples, _ in rows] for name, rows in groups.items()}
    assert seen == {
        f"{mode}/{robot}": [robot] * 2
        for mode in ("policy", "video")
        for robot in ("bridge_dataset", "droid", "play_video")
        if (mode, robot) != ("policy", "play_video")
    }


def test_cameras_are_augmented_each_by_its_own_draw(parts):
    dataset, augment = parts["droid"], Augment(0.5, 0.3, seed=2)
    samples = dataset.batch([0, 4])
    both = augment(samples, [1, 1], [0, 4])
    alone = {name: v for name, v in samples.items() if not name.endswith("/wrist")}
    one = augment(alone, [1, 1], [0, 4])
    np.testing.assert_array_equal(one["image/exterior"], both["image/exterior"])
    np.testing.assert_array_equal(one["video/exterior"], both["video/exterior"])
    wrist = {n.replace("wrist", "exterior"): v for n, v in samples.items() if n.endswith("/wrist")}
    as_first = augment(wrist | {"video_valid": samples["video_valid"]}, [1, 1], [0, 4])
    assert (as_first["image/exterior"] != both["image/wrist"]).any()


def test_an_absent_camera_stays_black(parts):
    dataset, augment = parts["kitchen"], Augment(0.5, 0.0, 0.5, seed=2)
    steps = np.arange(len(dataset))
    out = augment(dataset.batch(steps), np.zeros_like(steps), steps)
    assert not out["image/side"][~out["camera_valid/side"]].any()


def test_windows_expected_of_every_set_are_those_that_are_drawn(mixture):
    schedule, batches, count = robot_schedule(SHARES, seed=1), stream(mixture), 1500
    seen = dict.fromkeys(mixture.parts, 0)
    for _ in range(count):
        draw = batches.draw()
        one = mixture.of_robot(draw.robot)
        owner = np.searchsorted(one.starts, draw.indices, side="right") - 1
        for number, name in enumerate(one.parts):
            seen[name] += int((owner == number).sum())
    expected = windows_drawn(mixture, schedule, count)
    assert sum(expected.values()) == pytest.approx(count * 3.5)
    for name, windows in seen.items():
        assert windows == pytest.approx(expected[name], rel=0.12)
    lines = mixture.describe(expected)
    epochs = expected["droid"] / len(mixture.parts["droid"])
    assert f"{epochs:.3g} epochs" in lines[2] and lines[2].startswith("droid")
