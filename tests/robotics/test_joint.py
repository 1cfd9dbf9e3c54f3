"""The paper's robot experiment in small: codecs of the frame and of the clip, shared times."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robotics.data.rlds.fake import fake_dataset
from robotics.data.windows import WindowDataset
from robotics.encode import main as encode
from robotics.finetune import main
from robotics.imagination import run as imagining
from robotics.imagination.scores import patch_side, video_scores
from robotics.imagine import main as imagine
from robotics.model.modes import MODES, by_row
from robotics.model.world_model import WorldModel
from robotics.training.build import build, compose_config
from robotics.training.fit import fit_world
from robotics.training.preview import Preview
from selfflow_wm.codec import PairedCodec, PatchPCA, PatchVideo, codec_from_state
from selfflow_wm.commands.probe import _named
from selfflow_wm.probing.sources import check_codec
from selfflow_wm.training.config import make_objective

SIZE = (32, 48)


def plain(*words):
    from omegaconf import OmegaConf

    return OmegaConf.to_container(compose_config([*words, "data=x", "out=x"]), resolve=True)


@pytest.fixture(scope="module")
def clips(rt1_directory):
    return WindowDataset(
        rt1_directory,
        SIZE,
        progress=False,
        horizon=4,
        video_offsets=(1, 2, 3, 4, 5),
        spec="embedded",
    )


@pytest.fixture(scope="module")
def joint(clips, joint_overrides):
    config = plain("experiment=rt1_small", *joint_overrides)
    torch.manual_seed(0)
    model = fit_world(clips, config, ("joint",))
    model.backbone.eval().requires_grad_(False)
    for parameter in model.backbone.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_the_sequence_is_frame_clip_and_actions(joint, clips):
    assert joint.layout.names == ("image/head", "video/head", "action")
    rows = {row.name: (row.grid, row.channels) for row in joint.layout.modalities}
    assert rows == {
        "image/head": ((1, 4, 6), 16), "video/head": ((2, 4, 6), 12), "action": ((4, 1, 1), 7)
    }  # fmt: skip
    # Five frames: the first alone, then a group of four, at the time of its last frame.
    assert joint.layout["video/head"].positions()[:, 0].unique().tolist() == [1.0, 5.0]
    samples = clips.batch(np.arange(12))
    batch = joint.encode(samples, MODES["joint"])
    batch.check(joint.layout)
    assert batch.given == {"image/head"} and batch.generated == ("video/head", "action")
    actions = joint.robot().normalizers["action"].normalise(samples["action"][..., :7])
    assert np.array_equal(batch.latents["action"].numpy(), actions)
    shown = samples["video_valid"]
    expected = np.stack([shown[:, 0], shown[:, 1:].all(1)], 1)
    assert np.array_equal(batch.valid["video/head"].unflatten(1, (2, 24)).all(-1).numpy(), expected)
    assert 0 < expected[:, 1].sum() < expected[:, 0].sum()


def test_video_and_actions_share_their_times_and_the_frame_has_its_own(joint, clips):
    objective = make_objective(compose_config(["experiment=rt1_small"]))
    objective.time_laws = by_row(objective.time_laws, joint.layout.names)
    objective.condition_noise = by_row(objective.condition_noise, joint.layout.names)
    batch = joint.encode(clips.batch(np.arange(40)), MODES["joint"])
    scene = objective.scene(joint.layout, batch, torch.Generator().manual_seed(0))
    times, slices = scene.views.student.per_token(), joint.layout.slices(batch.latents)
    pairs = scene.views.student.levels[:, :2]
    for name in ("video/head", "action"):
        mine = times[:, slices[name]]
        assert ((mine == pairs[:, :1]) | (mine == pairs[:, 1:])).all()
    frame = times[:, slices["image/head"]]
    assert (frame == frame[:, :1]).all() and frame.max() <= 0.2 and frame.std() > 0.02
    assert abs(float(frame.mean()) - 0.1) < 0.05


def test_it_acts_and_imagines_and_comes_back_from_disk(joint, clips, tmp_path):
    samples = clips.batch([0, 20])

    def drawn(world):
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        return world.generate(samples, "joint", steps=2, generator=generators)

    before = drawn(joint)
    assert before["action"].shape == (2, 4, 7)  # without the value that terminates
    assert before["video/head"].shape == (2, 5, *SIZE, 3)
    assert before["video/head"].dtype == np.uint8
    joint.save(tmp_path)
    after = drawn(WorldModel.load(tmp_path, embodiment="embedded"))
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_what_it_imagines_is_measured_with_its_actions(joint, rt1_directory, tmp_path, capsys):
    joint.save(tmp_path / "checkpoint")
    words = ["--checkpoint", str(tmp_path / "checkpoint"), "--data", str(rt1_directory)]
    words += ["--out", str(tmp_path / "out"), "--windows", "8", "--steps", "1", "--episode", "0"]
    assert imagine([*words, "--split", "train"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"joint", "copy", "joint - copy", "codec"} <= results["video"]["head"]["all"][
        "PSNR"
    ].keys()
    assert {"joint", "mean"} == results["action"].keys()
    assert results["videos"] == ["videos/episode_0000_joint.mp4"]
    assert "joint - copy" in capsys.readouterr().out


def test_episodes_shorter_than_the_clip_are_drawn_as_far_as_they_go(joint, tmp_path, capsys):
    joint.save(tmp_path / "run" / "checkpoint")
    data = fake_dataset(tmp_path / "data", (3, 1, 8))
    words = ["--checkpoint", str(tmp_path / "run"), "--data", str(data), "--windows", "0"]
    words += ["--out", str(tmp_path / "out"), "--steps", "1", "--split", "train"]
    assert imagine(words) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["ahead"] == {"0": 2, "2": 5} and len(results["strips"]) == 2
    assert "episode 1: nothing drawn" in capsys.readouterr().err
    page = (tmp_path / "out" / "index.html").read_text()
    assert "2 steps later in episode 0; 5 steps later in episode 2" in page


@pytest.mark.parametrize(("modes", "counted"), [(["joint"], True), (["joint", "inverse"], False)])
def test_actions_count_without_frames_where_no_mode_was_shown_them(joint, modes, counted):
    frames = np.zeros((2, 5, *SIZE, 3), np.uint8)
    shown = np.ones((2, 5), bool)
    shown[:, -1] = False  # as in every window of an episode that is shorter than the clip
    actions = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    joined = {"true image/head": frames[:, 0], "true video/head": frames, "true video_valid": shown}
    joined |= {"true action": actions, "true action_valid": np.ones((2, 4), bool)}
    joined |= {"codec/head": frames, **{f"video/head {m}": frames for m in modes}}
    joined["there/head"] = np.ones(2, bool)
    joined |= {f"action {m}": np.zeros_like(actions) for m in modes}
    rows = imagining._scores(joint.robot(), joined, np.arange(2), modes)["action"]
    assert (rows["joint"]["MSE"]["mean"] is not None) is counted


def test_what_the_codec_restores_is_not_spoiled_by_what_lies_after_the_end(joint, clips):
    end = clips.episodes[0][-1]
    samples = clips.batch([end - 3])  # three real frames, the last two of them in a broken group
    held = imagining._padded(samples, "head")
    assert samples["video_valid"][0].tolist() == [True, True, True, False, False]
    assert np.array_equal(held[0, :3], samples["video/head"][0, :3])
    assert (held[0, 3:] == samples["video/head"][0, 2]).all() and not samples["video/head"][
        0, 3:
    ].any()
    alone = clips.batch([end])
    assert (imagining._padded(alone, "head") == alone["image/head"][:, None]).all()


def test_previews_show_no_frames_that_never_were(joint, clips, tmp_path):
    import imageio.v3 as iio
    from PIL import Image

    preview = Preview(joint, clips, tmp_path, windows=12, steps=1)
    files = preview(joint.backbone, 3)
    assert [path.name for path in files] == ["step_00000003.png", "step_00000003.mp4"]
    picture = np.asarray(Image.open(tmp_path / "step_00000003.png"))
    valid = preview.samples["embedded"]["video_valid"]
    assert valid.any() and not valid.all()
    for row, column in np.ndindex(valid.shape):
        top, left = 2 * row * (SIZE[0] + 4), (1 + column) * (SIZE[1] + 4)
        tile = picture[top : top + SIZE[0], left : left + SIZE[1]]
        assert (tile == 255).all() != valid[row, column]
    clip = iio.imread(files[1], plugin="FFMPEG")
    assert len(clip) == 1 + valid.shape[1]  # windows from left to right, true above generated
    for row, column in np.ndindex(valid.shape):
        tile = clip[1 + column][: SIZE[0], row * (SIZE[1] + 4) :][:, : SIZE[1]]
        assert (tile.mean() > 250) != valid[row, column]  # H.264 is not exact


@pytest.mark.parametrize(
    ("size", "side"),
    [((96, 128), 16), ((48, 60), 12), ((128, 160), 16), ((30, 45), 15), ((7, 9), 1)],
)
def test_frames_are_judged_in_patches_that_tile_them(size, side):
    assert patch_side(*size) == side
    frames = np.zeros((2, 3, *size, 3), np.uint8)
    scores = video_scores(
        frames[:, 0], frames, np.ones((2, 3), bool), {"copy": frames, "same": frames}, np.arange(2)
    )
    assert scores["counts"]["patch"] == side and scores["counts"]["moving"] == 0


def test_a_pair_of_codecs_is_each_of_them():
    frames = torch.randint(0, 256, (12, 5, 16, 16, 3)).byte()
    image = PatchPCA((16, 16), 8, 12).fit(frames[:, 0])
    video = PatchVideo((16, 16), 5, 8, 10).fit(frames)
    pair = PairedCodec(image, video)
    assert torch.equal(pair.encode(frames, frames[:, 0]), video.encode(frames))
    assert torch.equal(pair.decode(pair.encode(frames)), video.decode(video.encode(frames)))
    again = codec_from_state(pair.config, pair.state_dict())
    assert again.hash() == pair.hash() and torch.equal(again.encode(frames), pair.encode(frames))
    with pytest.raises(ValueError, match="one of video"):
        PairedCodec(image, image)
    with pytest.raises(ValueError, match="one frame size"):
        PairedCodec(PatchPCA((8, 8), 8, 12), video)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modes=mixed"], "modes.forward: expected dataset.video"),
        (["+layout.rows={image:{channels:3}}"], "layout.rows.image: expected tokens of the codec"),
        (["codec.video.kind=patch_pca"], "codec.video"),
        (["latents=/nowhere"], "nowhere"),
    ],
)
def test_misuse_is_explained(joint_overrides, rt1_directory, tmp_path, words, message):
    words = [w for w in joint_overrides if not words[0].startswith("+layout.rows") or
             not w.startswith("layout.rows")] + [w.lstrip("+") for w in words]  # fmt: skip
    with pytest.raises(ValueError, match=message):
        build(
            compose_config(
                ["experiment=rt1_small", *words, f"data={rt1_directory}", f"out={tmp_path}"]
            )
        )


def test_nothing_is_imagined_in_silence(joint, tmp_path, capsys):
    (tmp_path / "file").touch()
    joint.save(tmp_path / "joint")
    only = joint.with_backbone(joint.backbone)
    only.robots = {"embedded": replace(joint.robot(), modes=("policy",))}
    only.save(tmp_path / "policy")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text('{"schema": 1, "kind": "backbone"}')
    for name, out, more, message in (
        ("policy", "out", ["--windows", "0"], "no frames to draw"),
        ("joint", "file", [], "expected a directory, got the file"),
        ("joint", "out", ["--device", "gpu"], "'gpu'"),
        ("bare", "out", [], "python -m robotics.finetune init="),
    ):
        words = ["--checkpoint", str(tmp_path / name), "--out", str(tmp_path / out), *more]
        assert imagine([*words, "--data", "/nowhere"]) == 2
        assert message in capsys.readouterr().err
    for wrong in (["--windows", "-1"], ["--steps", "0"]):
        with pytest.raises(SystemExit):
            imagine([*words, "--data", "/nowhere", *wrong])


def test_latents_of_clips_are_refused_before_the_data_is_opened(
    joint, clips, joint_overrides, rt1_directory, tmp_path, capsys
):
    words = ["--data", "/nowhere", "--out", str(tmp_path / "latents"), "experiment=rt1_small"]
    assert encode(words) == 2
    assert "got one of clips" in capsys.readouterr().err and not (tmp_path / "latents").exists()
    joint.save(tmp_path / "saved")
    config = ["experiment=rt1_small", *joint_overrides, f"data={rt1_directory}"]
    config += [f"out={tmp_path / 'run'}", f"init={tmp_path / 'saved'}", "latents=/elsewhere"]
    with pytest.raises(ValueError, match="got one of clips; train from the pixels"):
        build(compose_config(config))


def test_a_probe_knows_each_of_its_codecs(joint, tmp_path):
    joint.save(tmp_path / "run" / "checkpoint")
    path = _named([f"a={tmp_path / 'run'}"])["a"]
    codec = joint.robot().codecs["head"]
    codecs = {"image/head": codec.base, "video/head": codec.video}
    for name, codec in codecs.items():
        check_codec(path, SimpleNamespace(codec=codec.hash(), modality=name))
        with pytest.raises(ValueError, match=f"codec of {name}"):
            check_codec(path, SimpleNamespace(codec="ab" * 32, modality=name))


def test_the_papers_experiment_can_be_planned_without_weights(capsys):
    assert main(["--plan", "experiment=rt1_paper", "--gpus", "64"]) == 0
    printed = capsys.readouterr().out
    total = float(printed.split("parameters  ")[1].split("M")[0]) * 1e6
    assert total == pytest.approx(625e6, rel=0.03)
    assert "image/head 320 of 128, video/head 4160 of 48, action 6 of 7" in printed
    assert "100000 steps on 64 GPUs" in printed
    assert main(["--plan", "experiment=embedded"]) == 0
    assert "keypose 1 of 8" in capsys.readouterr().out
    assert main(["--plan", "experiment=rt1_paper", "layout.rows=null"]) == 2
    assert "codec.image" in capsys.readouterr().err


def test_what_is_published_of_the_experiment_is_in_its_configuration():
    config = compose_config(["experiment=rt1_paper", "objective=flow_matching"])
    make_objective(config)  # the vanilla arm differs in the objective alone
    assert list(config.dataset.video_offsets) == list(range(1, 50)) and config.dataset.horizon == 6
    assert config.noise.condition_noise == {"image": 0.2} and config.normalizer.kind == "quantiles"
    assert (config.trainer.total_steps, config.trainer.export_every) == (100_000, 10_000)
    ours = compose_config(["experiment=rt1_paper"]).objective
    assert (ours.gamma, ours.student_layer, ours.teacher_layer) == (0.8, 0.3, 0.7)
