"""RLDS to LeRobot and back, through LeRobot's library where it is installed, else a stand-in."""

from __future__ import annotations

import builtins
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robotics.convert import main
from robotics.data import lerobot as lerobot_data
from robotics.data.images import decode_image
from robotics.data.rlds.reader import EpisodeReader

EXACT = ("world_vector", "rotation_delta", "gripper", "terminate", "tool_pose", "gripper_closed")


class StandIn:
    """What is used of LeRobotDataset, as its documentation and source (0.4.4) have it."""

    stores: dict = {}

    def __init__(self, repo_id, root):
        self.episodes, self.features, self.fps = self.stores[root.name.strip(".")]
        self.num_episodes = len(self.episodes)
        ends = np.cumsum([len(episode) for episode in self.episodes])
        self.meta = SimpleNamespace(
            episodes=[
                {"dataset_from_index": end - len(episode), "dataset_to_index": end}
                for end, episode in zip(ends, self.episodes, strict=True)
            ]
        )

    @classmethod
    def create(cls, repo_id, fps, features, root, use_videos):
        root.mkdir(parents=True)  # refuses one that is there
        made = cls.__new__(cls)
        made.root, made.features, made.fps, made.episodes, made.frames = root, features, fps, [], []
        return made

    def add_frame(self, frame):
        assert set(frame) == {*self.features, "task"}
        for name, feature in self.features.items():
            assert isinstance(frame[name], np.ndarray), name
            assert frame[name].shape == feature["shape"], name
            wanted = "uint8" if feature["dtype"] in ("image", "video") else feature["dtype"]
            assert frame[name].dtype == wanted, name
        self.frames.append(dict(frame))

    def save_episode(self):
        self.episodes.append(self.frames)
        self.frames = []

    def finalize(self):
        name = self.root.name.removeprefix(".").removesuffix(".partial")
        self.stores[name] = (self.episodes, self.features, self.fps)
        (self.root / "meta").mkdir()
        info = {"codebase_version": "v3.0", "fps": self.fps}
        (self.root / "meta" / "info.json").write_text(json.dumps(info))

    def __getitem__(self, index):
        frame = [frame for episode in self.episodes for frame in episode][index]
        row = {"task": frame["task"]}
        for name, feature in self.features.items():
            value = torch.as_tensor(np.array(frame[name]))
            if feature["dtype"] in ("image", "video"):
                value = value.permute(2, 0, 1).float() / 255
            row[name] = value[0] if feature["shape"] == (1,) else value
        return row


@pytest.fixture(params=["stand-in", pytest.param("lerobot", marks=pytest.mark.extra("lerobot"))])
def library(request, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if request.param == "stand-in":
        monkeypatch.setattr(lerobot_data, "load_lerobot", lambda: StandIn)


@pytest.fixture
def there(library, rt1_directory, tmp_path):
    """The data set of the other tests, its first two episodes as LeRobot's."""
    out = tmp_path / "there"
    words = ["rlds-to-lerobot", str(rt1_directory), str(out), "--split", "train[:2]"]
    assert main(words) == 0
    return out


def ordered(directory):
    """Episodes of a conversion by their keys."""
    shards = json.loads((directory / "collection-train.json").read_text())["shards"]
    keys = [key for shard in shards for key in shard["keys"]]
    episodes = dict(zip(map(int, keys), EpisodeReader(directory), strict=True))
    return [episodes[number] for number in sorted(episodes)]


def test_numbers_survive_the_round_trip_and_images_within_the_codecs_error(
    there, rt1_directory, tmp_path
):
    assert main(["lerobot-to-rlds", str(there), str(tmp_path / "back")]) == 0
    before, after = EpisodeReader(rt1_directory, "train[:2]")[:], ordered(tmp_path / "back")
    assert [len(episode) for episode in after] == [len(episode) for episode in before]
    for old, new in zip(before, after, strict=True):
        for name in (*EXACT, "reward"):
            np.testing.assert_array_equal(getattr(new, name), getattr(old, name), err_msg=name)
        np.testing.assert_array_equal(new.actions(), old.actions())
        np.testing.assert_array_equal(new.proprio(), old.proprio())
        assert list(new.instruction) == list(old.instruction) and len(set(new.instruction)) == 2
        assert new.success == old.success and new.terminate.sum() == old.terminate.sum()
        for a, b in zip(new.images, old.images, strict=True):
            error = np.abs(decode_image(a).astype(int) - decode_image(b))
            assert error.mean() < 1.0 and error.max() <= 12
    info = json.loads((tmp_path / "back" / "collection-train.json").read_text())
    assert info["provenance"]["fps"] == 3


def test_a_conversion_overwrites_nothing(there, rt1_directory, capsys):
    assert main(["rlds-to-lerobot", str(rt1_directory), str(there)]) == 2
    assert "expected a new directory" in capsys.readouterr().err


def test_other_names_are_a_specification(there, tmp_path, capsys):
    spec = tmp_path / "mine.yaml"
    spec.write_text("extends: lerobot\ncameras: {wrist: observation.images.wrist}\n")
    words = ["lerobot-to-rlds", str(there), str(tmp_path / "x"), "--spec", str(spec)]
    assert main(words) == 2
    assert "'observation.images.wrist' for image" in capsys.readouterr().err
    spec.write_text("extends: lerobot\nfilters: [{path: /next.success, keep: [true]}]\n")
    assert main(words) == 0
    kept = ordered(tmp_path / "x")
    assert len(kept) == 1 and kept[0].success


def test_what_is_no_lerobot_data_set_is_refused(tmp_path, rt1_directory, capsys):
    assert main(["lerobot-to-rlds", str(tmp_path), str(tmp_path / "x")]) == 2
    assert "meta/info.json" in capsys.readouterr().err
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"codebase_version": "v2.1"}')
    assert main(["lerobot-to-rlds", str(tmp_path), str(tmp_path / "x")]) == 2
    assert "format v3, got v2.1" in capsys.readouterr().err


def test_a_missing_library_names_its_extra(rt1_directory, tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("lerobot"):
            raise ImportError("No module named 'lerobot'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    words = ["rlds-to-lerobot", str(rt1_directory), str(tmp_path / "x"), "--split", "train[:1]"]
    assert main(words) == 1
    assert "selfflow-wm[lerobot]" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
