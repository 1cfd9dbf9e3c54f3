"""The paper's robot experiment in small: codecs of the frame and of the clip, shared times."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robotics.dataset import WindowDataset
from robotics.embodiment import EMBODIMENTS
from robotics.finetune import build, compose_config, main
from robotics.modes import MODES
from robotics.preparation import fit_world
from robotics.world_model import WorldModel
from selfflow_wm.codec import PairedCodec, PatchPCA, PatchVideo, codec_from_state
from selfflow_wm.training.run import make_objective

SIZE = (32, 48)


def plain(*words):
    from omegaconf import OmegaConf

    return OmegaConf.to_container(compose_config([*words, "data=x", "out=x"]), resolve=True)


@pytest.fixture(scope="module")
def clips(rt1_directory):
    return WindowDataset(
        rt1_directory, SIZE, progress=False, horizon=4, video_offsets=(1, 2, 3, 4, 5)
    )


@pytest.fixture(scope="module")
def joint(clips, joint_overrides):
    config = plain("experiment=rt1_small", *joint_overrides)
    torch.manual_seed(0)
    model = fit_world(clips, config, ("joint",), EMBODIMENTS["embedded"])
    model.backbone.eval().requires_grad_(False)
    for parameter in model.backbone.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_the_sequence_is_frame_clip_and_actions(joint, clips):
    assert joint.layout.names == ("image", "video", "action")
    rows = {row.name: (row.grid, row.channels) for row in joint.layout.modalities}
    assert rows == {"image": ((1, 4, 6), 16), "video": ((2, 4, 6), 12), "action": ((4, 1, 1), 7)}
    # Five frames: the first alone, then a group of four, at the time of its last frame.
    assert joint.layout["video"].positions()[:, 0].unique().tolist() == [1.0, 5.0]
    samples = clips.batch(np.arange(12))
    batch = joint.encode(samples, MODES["joint"])
    batch.check(joint.layout)
    assert batch.given == {"image"} and batch.generated == ("video", "action")
    actions = joint.action.normalise(samples["action"])[..., :7]
    assert np.array_equal(batch.latents["action"].numpy(), actions)
    shown = samples["video_valid"]
    expected = np.stack([shown[:, 0], shown[:, 1:].all(1)], 1)
    assert np.array_equal(batch.valid["video"].unflatten(1, (2, 24)).all(-1).numpy(), expected)
    assert 0 < expected[:, 1].sum() < expected[:, 0].sum()


def test_video_and_actions_share_their_times_and_the_frame_has_its_own(joint, clips):
    objective = make_objective(compose_config(["experiment=rt1_small"]))
    batch = joint.encode(clips.batch(np.arange(40)), MODES["joint"])
    scene = objective.scene(joint.layout, batch, torch.Generator().manual_seed(0))
    times, slices = scene.views.student.per_token(), joint.layout.slices(batch.latents)
    pairs = scene.views.student.levels[:, :2]
    for name in ("video", "action"):
        own = times[:, slices[name]]
        assert ((own == pairs[:, :1]) | (own == pairs[:, 1:])).all()
    frame = times[:, slices["image"]]
    assert (frame == frame[:, :1]).all() and frame.max() <= 0.2 and frame.std() > 0.02
    assert abs(float(frame.mean()) - 0.1) < 0.05


def test_it_acts_and_imagines_and_comes_back_from_disk(joint, clips, tmp_path):
    samples = clips.batch([0, 20])

    def drawn(world):
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        return world.generate(samples, "joint", steps=2, generator=generators)

    before = drawn(joint)
    assert before["action"].shape == (2, 4, 8) and (before["action"][..., 7] == -1).all()
    assert before["video"].shape == (2, 5, *SIZE, 3) and before["video"].dtype == np.uint8
    joint.save(tmp_path)
    after = drawn(WorldModel.load(tmp_path, embodiment="embedded"))
    assert all(np.array_equal(before[name], after[name]) for name in before)


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


def test_the_papers_experiment_can_be_planned_without_weights(capsys):
    assert main(["--plan", "experiment=rt1_paper", "--gpus", "64"]) == 0
    said = capsys.readouterr().out
    total = float(said.split("parameters  ")[1].split("M")[0]) * 1e6
    assert total == pytest.approx(625e6, rel=0.03)
    assert "image 320 of 128, video 4160 of 48, action 6 of 7" in said
    assert "100000 steps on 64 GPUs" in said
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
