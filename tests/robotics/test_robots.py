"""Models of any robot, and of several: rows, masks, what is kept, what is refused."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.robots.synthetic import write
from robotics.data.windows import WindowDataset
from robotics.embodiment.tables import load_robot
from robotics.model.layout import robot_layout
from robotics.model.modes import MODES, camera_of, kind_of, robot_of, row
from robotics.model.world_model import WorldModel
from robotics.training.build import build, compose_config
from robotics.training.fit import backbone_arguments
from selfflow_wm.checkpoints import SHIPPED
from selfflow_wm.training import checkpoint
from tests.robotics.test_warm_start import media

TWO_ARMS = {
    "name": "two_arms",
    "rate": 20,
    "cameras": {
        "high": {"path": "observation/high", "size": [40, 48]},
        "wrist": {"path": "observation/wrist", "size": [40, 48], "view": "wrist"},
    },
    "instruction": "language_instruction",
    "state": {
        "left": {"path": "observation/state[0:6]", "kind": "joints"},
        "right": {"path": "observation/state[6:12]", "kind": "joints"},
        "right_gripper": {"path": "observation/state[12]", "kind": "gripper"},
    },
    "action": {
        "left": {"path": "action[0:6]", "kind": "joints", "mode": "absolute"},
        "right": {"path": "action[6:12]", "kind": "joints", "mode": "absolute"},
        "right_gripper": {"path": "action[12]", "kind": "gripper", "mode": "absolute"},
    },
    "window": {"horizon": 8, "video_offsets": [4, 8]},
}
"""A robot that no file of the project knows."""
WATCHER = {
    "name": "watcher",
    "rate": 10,
    "cameras": {
        "front": {"path": "observation/front", "size": [32, 48]},
        "side": {"path": "observation/side", "size": [32, 48], "present": "/meta/has_side"},
    },
}
"""Video alone: no state, no action, no instruction."""
WORDS = (
    "dataset.image_size=[32,48]",
    "codec.channels=16",
    "codec.fit_frames=40",
    "codec.fit_windows=30",
    "model.width=24",
    "model.heads=2",
    "model.single=2",
    "log.wandb=disabled",
    'dataset.train_split="train[:3]"',
    'dataset.validation_split="train[3:]"',
    "trainer.total_steps=2",
    "trainer.log_every=1",
    "trainer.validate_every=2",
    "trainer.validation_batches=1",
    "trainer.preview_every=2",
    "trainer.export_every=2",
)
SMALL = tuple(f"modes.{name}={{probability: 1, batch_size: 2}}" for name in MODES)


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """Data of both robots."""
    root = tmp_path_factory.mktemp("sets")
    for table in (TWO_ARMS, WATCHER):
        write(load_robot(table), root / table["name"], episodes=4, seconds=1.5)
    return root


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """The tables as files of a user's."""
    from omegaconf import OmegaConf

    root = tmp_path_factory.mktemp("tables")
    for table in (TWO_ARMS, WATCHER):
        OmegaConf.save(OmegaConf.create(table), root / f"{table['name']}.yaml")
    return root


def mixture(sets, tables, rt1):
    entries = [f"{name}: {{path: {sets / name}, spec: {tables / name}.yaml}}"
               for name in ("two_arms", "watcher")]  # fmt: skip
    return f"data={{embedded: {{path: {rt1}, spec: embedded}}, {', '.join(entries)}}}"


def started(*words):
    return build(compose_config([*WORDS, *words]))


@pytest.fixture(scope="module")
def run(sets, tables, rt1_directory, tmp_path_factory):
    """A trained run on all three."""
    out = tmp_path_factory.mktemp("run")
    found = started(*SMALL, mixture(sets, tables, rt1_directory), f"out={out}",
                    "layout.keypose=true", "model.vector_in=[state,text]")  # fmt: skip
    found.trainer.train()
    return found


def generators(count):
    return [torch.Generator().manual_seed(number) for number in range(count)]


def test_a_row_is_named_by_its_robot_kind_and_camera():
    name = row("video", "wrist", "two_arms")
    assert (robot_of(name), kind_of(name), camera_of(name)) == ("two_arms", "video", "wrist")
    assert (robot_of("state"), kind_of("state"), camera_of("state")) == (None, "state", None)
    for wrong in ("a.b", "a/b", "a:b", ""):
        with pytest.raises(ValueError, match="rename the camera"):
            row("image", wrong)


def test_each_robot_has_its_rows_and_all_share_the_blocks(run):
    names = run.model.layout.names
    assert [n for n in names if robot_of(n) == "two_arms"] == [
        f"two_arms:{n}"
        for n in ("image/high", "image/wrist", "state", "video/high", "video/wrist", "action")
    ]  # no key pose: joints are no place
    assert [n for n in names if robot_of(n) == "watcher"] == [
        f"watcher:{n}" for n in ("image/front", "image/side", "video/front", "video/side")
    ]
    assert "embedded:keypose" in names
    assert list(run.model.backbone.vector_in) == ["embedded:state", "two_arms:state", "text"]
    assert run.model.robot("two_arms").horizon == 8 and run.model.robot("embedded").horizon == 6
    assert run.model.robot("watcher").modes == ("video",)


def test_a_checkpoint_acts_for_each_of_its_robots_by_name(run, sets, tmp_path):
    world = WorldModel.load(run.trainer.out_dir)
    with pytest.raises(ValueError, match="embedded, two_arms, watcher.*name one: embedded"):
        world.robot()
    dataset = run.trainer.batches.streams["two_arms"].dataset
    samples = dataset.batch([0, 9])
    drawn = world.generate(samples, "joint", steps=1, generator=generators(2))
    assert drawn["action"].shape == (2, 8, 13)
    assert drawn["video/high"].shape == drawn["video/wrist"].shape == (2, 2, 32, 48, 3)
    with pytest.raises(ValueError, match="one of the model's robots"):
        world.generate(samples | {"robot": "spot"}, "joint")
    seen = run.trainer.batches.streams["watcher"].dataset.batch([0])
    assert set(world.generate(seen, "video", steps=1)) == {"video/front", "video/side"}
    with pytest.raises(ValueError, match="watcher was trained in .'video',."):
        world.generate(seen, "policy")
    with pytest.raises(ValueError, match="'spot'.*'embedded', 'two_arms', 'watcher'"):
        WorldModel.load(run.trainer.out_dir, embodiment="spot")
    again = WorldModel.load(world_saved(world, tmp_path))
    after = again.generate(samples, "joint", steps=1, generator=generators(2))
    assert all(np.array_equal(drawn[name], after[name]) for name in drawn)


def world_saved(world, tmp_path):
    world.save(tmp_path / "again")
    return tmp_path / "again"


def test_every_robot_is_validated_and_shown(run):
    out = Path(run.trainer.out_dir)
    shown = {path.name for path in (out / "previews").iterdir()}
    names = ("embedded", "two_arms", "watcher")
    assert shown == {f"step_00000002_{name}.{end}" for name in names for end in ("png", "mp4")}
    text = (out / "metrics.jsonl").read_text()
    for mode, word in (
        ("policy/embedded", "embedded:action"),
        ("policy/two_arms", "two_arms:action"),
        ("video/watcher", "watcher:video/side"),
    ):
        assert f"validation/{mode}/gen/{word}" in text
    assert "validation/policy/watcher" not in text
    for word in ("two_arms, 20 Hz", "20 Hz, 8 actions", "left: joints in rad, absolute, to the "
                 "model as delta", "wrist: wrist, 40 x 48 to 32 x 48"):  # fmt: skip
        assert word in run.description
    assert "steps have no instruction" in run.description


def test_pictures_of_a_camera_that_is_not_there_change_nothing(run):
    world = run.model.with_backbone(run.trainer.ema.model)
    samples = run.trainer.batches.streams["watcher"].dataset.batch([0, 5])
    assert samples["camera_valid/side"].all()

    def drawn(pictures, there):
        changed = samples | {"image/side": pictures, "camera_valid/side": np.array([there] * 2)}
        return world.generate(changed, "video", steps=2, generator=generators(2))["video/front"]

    others = 255 - samples["image/side"]
    assert np.array_equal(drawn(samples["image/side"], False), drawn(others, False))
    batch = world.encode(samples | {"camera_valid/side": np.array([False, True])}, MODES["video"])
    for kind in ("image", "video"):
        valid = batch.valid[f"watcher:{kind}/side"]
        assert not valid[0].any() and valid[1].any()


def test_the_tables_are_the_runs_own(run, sets, tables, rt1_directory):
    """The record and the checkpoint hold them, so that the files may change or go."""
    record = checkpoint.read_json(run.trainer.out_dir / "run.json")
    assert load_robot(record["data"]["two_arms"]["spec"]) == load_robot(TWO_ARMS)
    assert WorldModel.load(run.trainer.out_dir).robot("two_arms").robot == load_robot(TWO_ARMS)
    words = [*SMALL, "layout.keypose=true", "model.vector_in=[state,text]"]
    data = mixture(sets, tables, rt1_directory)
    again = started(*words, data, f"out={run.trainer.out_dir}")
    assert again.trainer.step == 2
    other = tables / "other.yaml"
    other.write_text((tables / "two_arms.yaml").read_text().replace("rate: 20", "rate: 10"))
    with pytest.raises(ValueError, match="other settings of data"):
        started(*words, data.replace("two_arms.yaml", "other.yaml"), f"out={run.trainer.out_dir}")


# ---------------------------------------------------------------- one robot


def test_without_actions_the_video_mode_alone_is_trained(sets, tables, tmp_path):
    words = [f"data={sets / 'watcher'}", f"spec={tables / 'watcher'}.yaml"]
    with pytest.raises(ValueError, match="robot watcher.*no action") as refused:
        started(*words, f"out={tmp_path / 'a'}")
    assert not (tmp_path / "a").exists()
    remedy = shlex.split(str(refused.value).rpartition("write ")[2])
    run = started(*words, *remedy, "modes.video.batch_size=2", f"out={tmp_path / 'b'}")
    run.trainer.train()
    assert run.model.layout.names == ("image/front", "image/side", "video/front", "video/side")
    assert "1 steps" not in run.description and "trained without" in run.description


def test_cameras_have_their_own_size_and_past(sets, tables, tmp_path):
    words = ["modes=policy_only", "modes.policy.batch_size=2", "dataset.history=2"]
    cameras = "dataset.cameras={high: {size: [32, 64]}, wrist: {size: [16, 32], history: 1}}"
    where = [f"data={sets / 'two_arms'}", f"spec={tables / 'two_arms'}.yaml", f"out={tmp_path}"]
    run = started(*words, cameras, *where, "dataset.history_stride=2")
    grids = {row.name: row.grid for row in run.model.layout.modalities}
    assert grids["image/high"] == (1, 2, 4) and grids["image/wrist"] == (1, 1, 2)
    assert grids["history/high"] == (2, 2, 4) and grids["history/wrist"] == (1, 1, 2)
    assert run.model.layout["history/wrist"].time_origin == -2
    batch = next(run.trainer.batches)
    batch.check(run.model.layout)
    one = run.model.robot()
    assert one.image_sizes == {"high": (32, 64), "wrist": (16, 32)}
    assert one.image_codec("high").hash() != one.image_codec("wrist").hash()


def test_one_camera_of_several_can_be_chosen(sets, tables, tmp_path):
    words = ["modes=policy_only", "modes.policy.batch_size=2", "dataset.cameras=[wrist]"]
    where = [f"data={sets / 'two_arms'}", f"spec={tables / 'two_arms'}.yaml", f"out={tmp_path}"]
    assert started(*words, *where).model.robot().cameras == ("wrist",)
    with pytest.raises(ValueError, match=r"'wrst'; write dataset.cameras=\[wrist\]"):
        started(*words[:2], "dataset.cameras=[wrst]", *where[:2], f"out={tmp_path / 'b'}")


def test_a_kinds_weight_is_divided_among_its_cameras(run):
    rows = run.model.robot("two_arms").rows()
    layout = robot_layout({"x": rows}, text_length=8, weight={"video": 3.0, "action": 2.0})
    weights = {row.name: row.weight for row in layout.modalities}
    assert weights["video/high"] == weights["video/wrist"] == 1.5 and weights["action"] == 2.0
    size = {"width": 24, "vector_in": ["text", "state", "keypose"]}
    assert backbone_arguments(size, layout)["vector_in"] == ["text", "state"]
    with pytest.raises(ValueError, match=r"got proprio; write model.vector_in=\[state,text\]"):
        backbone_arguments(size | {"vector_in": ["proprio"]}, layout)


def test_the_texts_length_is_that_of_the_data(sets, tables, tmp_path, rt1_directory):
    words = ["modes=policy_only", "modes.policy.batch_size=2"]
    where = [f"data={sets / 'two_arms'}", f"spec={tables / 'two_arms'}.yaml"]
    found = started(*words, *where, f"out={tmp_path / 'a'}").model.layout.text_length
    texts = WindowDataset(sets / "two_arms", (32, 48), spec=TWO_ARMS, progress=False).instructions
    longest = max(len(text.encode()) for text in texts)
    assert longest <= found < longest + 16 and found % 16 == 0
    cut = started(*words, *where, "layout.text_length=9", f"out={tmp_path / 'b'}")
    assert "are cut after 9 bytes" in cut.description
    cut.trainer.train_step()


# ---------------------------------------------------------------- a start


def test_a_new_robot_joins_a_trained_checkpoint(sets, tables, tmp_path):
    """The shipped one goes on acting bit for bit until its blocks are trained."""
    words = ["modes=policy_only", "modes.policy.batch_size=2", "init=self_flow"]
    model = ["experiment=embedded", *(w for w in WORDS if not w.startswith(("model", "codec.ch")))]
    where = [f"data={sets / 'two_arms'}", f"spec={tables / 'two_arms'}.yaml"]
    window = ["dataset.horizon=null", "dataset.video_offsets=null"]
    words = [*model, *words, *where, *window]
    run = build(compose_config([*words, f"out={tmp_path / 'a'}"]))
    assert list(run.model.robots) == ["embedded", "two_arms"]
    table = (tmp_path / "a" / "init.txt").read_text()
    assert "embedded: kept" in table and "two_arms: new" in table
    samples = {
        "robot": "embedded",
        "image/head": np.full((1, 96, 128, 3), 99, np.uint8),
        "state": np.zeros((1, 8), np.float32),
        "instruction": ["open the drawer"],
    }
    worlds = WorldModel.load("self_flow"), WorldModel.load(tmp_path / "a" / "initial")
    for mode in MODES:
        more = {"action": np.zeros((1, 6, 8), np.float32), "action_valid": np.ones((1, 6), bool)}
        more["video/head"] = np.full((1, 2, 96, 128, 3), 77, np.uint8)
        more["video_valid"] = np.ones((1, 2), bool)
        before, after = (
            w.generate(samples | {"robot": r} | more, mode, steps=2, generator=generators(1))
            for w, r in zip(worlds, ("embedded", "embedded"), strict=True)
        )
        assert all(np.array_equal(before[name], after[name]) for name in before)
    assert worlds[1].robot("two_arms").modes == ("policy",)
    run.trainer.train()
    WorldModel.load(tmp_path / "a").generate(samples, "policy", steps=1)
    alone = build(compose_config([*words, "init_drop=true", f"out={tmp_path / 'b'}"]))
    assert list(alone.model.robots) == ["two_arms"] and "state" in alone.model.layout
    assert "left out (init_drop)" in (tmp_path / "b" / "init.txt").read_text()
    blocks = alone.model.backbone.single_blocks.state_dict()
    theirs = worlds[0].backbone.single_blocks.state_dict()
    assert all(torch.equal(blocks[name], theirs[name]) for name in theirs)


def test_rows_of_another_robot_start_from_those_with_the_same_values(tmp_path, rt1_directory):
    """google_robot has embedded's vectors and, with init's codec, its pictures."""
    words = ["experiment=simpler", *(w for w in WORDS if not w.startswith(("model", "codec.ch")))]
    words += ["dataset.image_size=null", "modes=policy_only", "modes.policy.batch_size=2"]
    words += ["init=self_flow", f"data={rt1_directory}", f"out={tmp_path}"]
    run = build(compose_config(words))
    assert list(run.model.robots) == ["google_robot"]
    weights = WorldModel.load("self_flow").backbone.state_dict()
    found = WorldModel.load(tmp_path / "initial").backbone.state_dict()
    assert all(torch.equal(found[name], weights[name]) for name in found)


def test_every_camera_starts_from_pretrainings_pictures(sets, tables, tmp_path):
    source = media(tmp_path / "media")
    words = ["experiment=rt1_small", "modes.joint.batch_size=2", f"init={source}"]
    words += ["codec.image.patch=8", "codec.image.channels=16", "codec.video.patch=8"]
    words += ["codec.video.channels=12", "model.double=1", "model.text_patch=2"]
    words += ["dataset.video_offsets=[1,2,3,4,5]", f"out={tmp_path / 'run'}"]
    small = [w for w in WORDS if not w.startswith("codec.channels")]
    where = [f"data={sets / 'two_arms'}", f"spec={tables / 'two_arms'}.yaml"]
    run = build(compose_config([*words, *small, *where]))
    weights = checkpoint.load_tensors(source / "model.safetensors")
    found = run.model.backbone.state_dict()
    for camera in ("high", "wrist"):
        for part in ("embed.{}.project.weight", "head.{}.weight"):
            for kind in ("image", "video"):
                mine = found[part.format(f"{kind}/{camera}")]
                assert torch.equal(mine, weights[part.format(kind)])


# ---------------------------------------------------------------- what ships


def test_shipped_checkpoints_act_as_when_they_were_trained():
    """On fixed inputs and noise, against what the version that wrote them answered."""
    recorded = np.load(Path(__file__).with_name("shipped_actions.npz"))
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    state = draw.normal(size=(2, 8)).astype(np.float32)
    video = draw.integers(0, 256, (2, 2, 96, 128, 3), dtype=np.uint8)
    action = draw.normal(size=(2, 6, 8)).astype(np.float32)
    long = "close it, then put the apple into the very large bowl of the kitchen"
    samples = {
        "instruction": ["open the drawer", long],
        "image/head": image,
        "state": state,
        "video/head": video,
        "video_valid": np.array([[1, 1], [1, 0]], bool),
        "action": action,
        "action_valid": np.ones((2, 6), bool),
    }
    checked = 0
    for name in sorted(path.parent.name for path in SHIPPED.glob("*/config.json")):
        world = WorldModel.load(name)
        for mode in world.modes:
            found = world.generate(samples, mode, steps=2, generator=generators(2))
            for key in found.keys() & {"action", "keypose"}:
                expected = recorded[f"{name}/{mode}/{key}"]
                np.testing.assert_allclose(found[key], expected, rtol=1e-4, atol=1e-4)
                checked += 1
    assert checked == len(recorded.files)


def test_files_of_codecs_are_told_apart(run, tmp_path):
    saved = world_saved(run.model, tmp_path)
    files = {path.name for path in saved.glob("codec_*.safetensors")}
    assert len(files) == sum(len(robot.cameras) for robot in run.model.robots.values())
    two = run.model.robot("two_arms")
    names = {"a_b": two.codecs["high"], "a-b": two.codecs["wrist"]}
    alone = run.model.with_backbone(run.model.backbone)
    alone.robots = run.model.robots | {"two_arms": replace(two, codecs=names)}
    assert len({path.name for path in world_saved(alone, tmp_path / "x").glob("codec_*")}) == len(
        files
    )
