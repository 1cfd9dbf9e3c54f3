"""From pretraining to a policy: what is loaded, added and dropped, and what is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robotics.data.rlds.fake import fake_dataset
from robotics.finetune import main
from robotics.model.world_model import WorldModel
from robotics.training.build import build, compose_config
from robotics.training.fit import unfitted_codecs
from robotics.training.start import adopt, codec_differences
from selfflow_wm.codec import MDCTCodec, PatchPCA, PatchVideo
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model import Backbone
from selfflow_wm.pretraining.build import compose_config as pretraining_config
from selfflow_wm.pretraining.codecs import make_codecs
from selfflow_wm.training import checkpoint
from selfflow_wm.training.model_files import SavedModel, load_model, save_model
from selfflow_wm.training.transfer import differing_shape

MODEL = dict(width=24, heads=2, double=1, single=2, skip=True, stem=True, text_patch=2)
SIZE = (16, 24)


def media(directory, image_patch=8, **model):
    """A checkpoint such as pretraining on images, clips and sounds writes; nothing was trained."""
    generator = torch.Generator().manual_seed(0)

    def frames(*shape):
        return torch.randint(0, 256, (*shape, *SIZE, 3), generator=generator).byte()

    image = PatchPCA(SIZE, image_patch, 16).fit(frames(40))
    video = PatchVideo(SIZE, 9, 8, 12).fit(frames(20, 9))
    audio = MDCTCodec(800, 800, 80, 8).fit(torch.randn(20, 1, 800, generator=generator), 800)
    codecs = {"image": image, "video": video, "audio": audio}
    layout = Layout(tuple(codec.row() for codec in codecs.values()), text_length=32)
    torch.manual_seed(3)
    network = Backbone(layout, **MODEL | model)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    arguments = MODEL | model
    save_model(directory, SavedModel(network, arguments, None, {"step": 7}, codecs))
    return directory


@pytest.fixture
def words(joint_overrides, rt1_directory):
    return [*joint_overrides, "experiment=rt1_small", f"data={rt1_directory}"]


def started(words, out, source, *more):
    return build(compose_config([*words, f"out={out}", f"init={source}", *more]))


def test_pretraining_becomes_a_policy(words, tmp_path, capsys, windows):
    source, out = media(tmp_path / "media"), tmp_path / "run"
    assert main([*words, f"out={out}", f"init={source}"]) == 0
    printed = capsys.readouterr().out
    table = (out / "init.txt").read_text()
    assert table in printed and "selfflow_wm.pretrain, step 7" in table and "audio" in table

    theirs, ours = load_model(source).model, WorldModel.load(out / "initial").backbone
    shared = [name for name, _ in ours.named_parameters() if "blocks" in name]
    shared += ["level.linear1.weight", "text.merge.weight", "modulation.main.linear.weight"]
    shared += ["embed.image.project.weight", "head.video.weight", "embed.video.stem.0.weight"]
    state = ours.state_dict()
    for name in shared:
        mine = name.replace(".image.", ".image/head.").replace(".video.", ".video/head.")
        assert torch.equal(state[mine], theirs.state_dict()[name]), name
    assert ours.layout.names == ("image/head", "video/head", "action")
    assert ours.layout["action"].channels == 7

    loaded = checkpoint.read_json(out / "run.json")["loaded"]
    counts = {
        outcome: sum(part[outcome][1] for part in loaded["parts"].values())
        for outcome in ("loaded", "resized", "added", "dropped")
    }
    here = sum(p.numel() for p in ours.parameters())
    there = sum(p.numel() for p in theirs.parameters())
    assert counts["loaded"] + counts["resized"] + counts["added"] == here
    audio = sum(p.numel() for n, p in theirs.named_parameters() if ".audio." in n)
    assert (
        counts["dropped"]
        == audio
        == there
        - counts["loaded"]
        - sum(
            theirs.state_dict()[f"{n}.position"].numel()
            for n in ("embed.image", "embed.video", "text")
        )
    )
    assert loaded["parts"]["action"]["added"][1] == sum(
        p.numel() for n, p in ours.named_parameters() if ".action." in n
    )
    assert "the checkpoint's, patch_pca" in loaded["codecs"]["image/head"]
    assert "the checkpoint's, patch_video" in loaded["codecs"]["video/head"]

    world = WorldModel.load(out / "checkpoint", embodiment="embedded")
    drawn = world.generate(windows.batch([0, 9]), "joint", steps=2)
    assert drawn["action"].shape == (2, 4, 7)
    assert drawn["video/head"].shape == (2, 5, 32, 48, 3)


def test_student_and_teacher_start_alike_and_from_the_checkpoint(words, tmp_path):
    run = started(words, tmp_path / "run", media(tmp_path / "media"))
    student, teacher = run.trainer.model.state_dict(), run.trainer.ema.model.state_dict()
    assert all(torch.equal(student[name], teacher[name]) for name in student)
    assert all(p.requires_grad for p in run.trainer.model.parameters())


def test_a_codec_that_does_not_fit_is_fitted_anew_and_its_projection_with_it(words, tmp_path):
    source = media(tmp_path / "media", image_patch=4)
    run = started(words, tmp_path / "run", source)
    loaded = checkpoint.read_json(tmp_path / "run/run.json")["loaded"]
    assert loaded["codecs"]["image/head"] == "new: patch 8, the checkpoint's 4"
    assert loaded["parts"]["image/head"]["loaded"] == [0, 0]
    assert loaded["parts"]["image"]["dropped"][0] == loaded["parts"]["image/head"]["added"][0]
    assert loaded["parts"]["video/head"]["loaded"][0] > 0
    base = run.model.robot().image_codec("head")
    assert base.hash() != load_model(source).codecs["image"].hash() and base.patch == 8


def test_a_codec_is_adopted_at_other_sizes_only():
    images = torch.randint(0, 256, (30, 16, 16, 3)).byte()
    found = PatchPCA((16, 16), 4, 8).fit(images)
    same = adopt(PatchPCA((16, 16), 4, 8), found)
    assert same is found
    larger = adopt(PatchPCA((8, 32), 4, 8), found)
    tile = torch.cat([images[:1, :8], images[:1, :8]], dim=2)[0]
    assert torch.allclose(larger.encode(tile)[:4], found.encode(images[0])[:4], atol=1e-5)
    with pytest.raises(ValueError, match="whitening 1.0, the checkpoint's 0.5"):
        adopt(PatchPCA((16, 16), 4, 8, whitening=1.0), found)
    placed = PatchPCA((16, 16), 4, 8, per_position=True).fit(images)
    with pytest.raises(ValueError, match=r"image_size \[8, 32\]"):
        adopt(PatchPCA((8, 32), 4, 8, per_position=True), placed)
    with pytest.raises(ValueError, match="has none"):
        adopt(found, None)


def test_tiles_and_sizes_do_not_change_what_a_token_means():
    def codec(**values):
        return SimpleNamespace(identity=lambda: {"kind": "wan_video"} | values)

    theirs = codec(image_size=[192, 320], frames=17, weights_sha256="a")
    ours = codec(image_size=[256, 320], frames=49, weights_sha256="a", tile=128)
    assert codec_differences(ours, theirs) == []
    assert codec_differences(codec(weights_sha256="b"), codec(weights_sha256="a")) == [
        "weights_sha256 b, the checkpoint's a"
    ]


def test_another_shape_is_refused_with_the_keys_that_differ(words, tmp_path, capsys):
    source = media(tmp_path / "media", width=36, single=3)
    assert main([*words, f"out={tmp_path / 'run'}", f"init={source}"]) == 2
    printed = capsys.readouterr().err
    assert "expected a backbone with width 24, single 2, got width 36, single 3" in printed
    assert "model.width=36 model.single=3" in printed and "heads" not in printed
    assert main([*words, f"out={tmp_path / 'run'}", "init=/nowhere"]) == 2
    assert "/nowhere" in capsys.readouterr().err


def test_another_data_set_brings_its_own_statistics(
    tiny_overrides, rt1_directory, tmp_path, windows
):
    """The same layout on other data: all weights and the codec, and not the statistics."""
    words = [*tiny_overrides, "modes=policy_only", "modes.policy.batch_size=4", "seed=1"]
    words += ["trainer.total_steps=1", "trainer.validation_batches=1"]
    split = ['dataset.train_split="train[:3]"', 'dataset.validation_split="train[3:]"']
    main([*words, *split, f"data={rt1_directory}", f"out={tmp_path / 'a'}"])
    other = fake_dataset(tmp_path / "data", (10, 14, 9, 11), shard_episodes=2)
    run = build(
        compose_config(
            [*words, *split, f"data={other}", f"out={tmp_path / 'b'}",
             f"init={tmp_path / 'a/checkpoint'}"]
        )
    )  # fmt: skip
    before = WorldModel.load(tmp_path / "a/checkpoint")
    weights = before.backbone.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in run.trainer.model.state_dict().items())
    robot, old = run.model.robot(), before.robot()
    assert robot.codecs["head"].hash() == old.codecs["head"].hash()
    found = run.trainer.batches.windows.dataset.statistics()
    for group in ("state", "action"):
        assert robot.normalizers[group].statistics == found[group]
        assert found[group] != old.normalizers[group].statistics
    batch = next(run.trainer.batches)
    assert batch.latents["action"].shape[1:] == (6, 8)


def test_a_run_brings_its_projector_and_a_checkpoint_does_not(words, tmp_path):
    source = tmp_path / "a"
    main([*words, f"out={source}", "trainer.total_steps=2"])
    trained = checkpoint.load_tensors(
        checkpoint.latest_step(source / "state") / "objective.safetensors"
    )

    def projector(name, place, *more):
        run = started(words, tmp_path / name, place, *more)
        note = checkpoint.read_json(tmp_path / name / "run.json")["loaded"]["projector"]
        return run.trainer.extra.state_dict(), note

    kept, note = projector("b", source)
    assert all(torch.equal(kept[name], trained[name]) for name in trained)
    assert "the run's" in note and "step_00000002" in note
    new, note = projector("c", source / "checkpoint")
    assert note.startswith("new") and not torch.equal(
        new["projector.0.weight"], trained["projector.0.weight"]
    )
    assert "student_layer 2 and there 0.3" in projector("d", source, "objective.student_layer=2")[1]
    assert projector("e", source, "objective=flow_matching")[1] == "none"


def test_what_was_loaded_stays_on_record_when_a_run_goes_on(words, tmp_path):
    source, out = media(tmp_path / "media"), tmp_path / "run"
    started(words, out, source).trainer.train(until=2)
    before = json.loads((out / "run.json").read_text())["loaded"]
    again = started(words, out, source)
    assert again.trainer.step == 2 and "written" not in before
    assert json.loads((out / "run.json").read_text())["loaded"] == before
    assert "audio" in again.description
    fresh = build(compose_config([*words, f"out={out}", "resume=false"]))
    assert "loaded" not in json.loads((out / "run.json").read_text())
    assert fresh.trainer.step == 0


def test_a_world_model_lends_its_weights_to_another_layout(
    tiny_overrides, joint_overrides, rt1_directory, tmp_path
):
    """From frames coded relative to the current one, with proprioception, to a codec of clips."""
    split = ['dataset.train_split="train[:4]"', 'dataset.validation_split="train[4:]"']
    common = [f"data={rt1_directory}", "trainer.total_steps=1", "trainer.validation_batches=1"]
    main([*tiny_overrides, *split, *common, "modes=policy_only", f"out={tmp_path / 'a'}"])
    words = [*joint_overrides, "modes=joint_only", "modes.joint.batch_size=2", *common]
    run = started(words, tmp_path / "b", tmp_path / "a", "layout.keypose=true")
    loaded = checkpoint.read_json(tmp_path / "b/run.json")["loaded"]["parts"]
    names = run.model.layout.names
    assert names == ("image/head", "state", "keypose", "video/head", "action")
    assert loaded["state"]["loaded"][0] == loaded["keypose"]["added"][0] == 5
    assert loaded["video/head"]["loaded"] == [0, 0] and loaded["action"]["resized"][0] == 1
    assert np.isfinite(float(run.trainer.train_step() or 0.0))


def test_toy_pretraining_fits_the_small_twin():
    """Same blocks and text tokens, and codecs whose tokens mean the same."""
    ours = compose_config(["experiment=rt1_small"])
    theirs = pretraining_config(["experiment=toy_multimodal"])
    assert differing_shape(ours.model, theirs.model) == []
    asked = unfitted_codecs(ours.codec, ours.dataset.image_size, len(ours.dataset.video_offsets))
    found = make_codecs(theirs.codec, ["image", "video"])
    assert {name: codec_differences(asked[name], found[name]) for name in found} == {
        "image": [],
        "video": [],
    }


def test_a_layout_of_class_labels_is_refused(words, tmp_path):
    layout = Layout((Modality("image", (1, 2, 3), 16),), text_length=1, vocabulary=11)
    network = Backbone(layout, **MODEL)
    save_model(tmp_path / "labels", SavedModel(network, MODEL))
    with pytest.raises(ValueError, match="captions of 257 ids"):
        started(words, tmp_path / "run", tmp_path / "labels")
