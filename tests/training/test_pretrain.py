"""Pretraining on made-up images, clips and sounds, end to end."""

from __future__ import annotations

import json
import re

import made_up
import numpy as np
import pytest
import torch
from made_up import FRAMES, KINDS, RATE, SAMPLES, SIZE, TINY, MadeUp
from PIL import Image
from scipy.io import wavfile

from selfflow_wm.codec.tae import make_decoder, make_encoder
from selfflow_wm.commands.sample import main as sample
from selfflow_wm.data import split_source
from selfflow_wm.data.folders import ImageFolder
from selfflow_wm.pretraining.build import build, compose_config
from selfflow_wm.pretraining.cli import main
from selfflow_wm.training import checkpoint
from selfflow_wm.training.config import CONFIG_DIR, make_objective
from selfflow_wm.training.model_files import load_model

WEIGHTS = sorted(path.stem for path in (CONFIG_DIR / "loss_weights").glob("*.yaml"))


def made(out, *words):
    return build(compose_config([*TINY, f"out={out}", *words]))


def test_every_mode_trains_and_the_checkpoint_has_its_codecs(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*TINY, f"out={out}"]) == 0
    said = capsys.readouterr().out
    assert "36 of image" in said and "SelfFlow, EMA" in said and "finished at step 6" in said
    saved = load_model(out / "checkpoint")
    assert saved.model.layout.names == ("image", "video", "audio") == tuple(saved.codecs)
    trained = checkpoint.load_tensors(out / "state/step_00000006/ema.safetensors")
    assert all(torch.equal(v, trained[k]) for k, v in saved.model.state_dict().items())
    assert saved.training["step"] == 6
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in rows if "validation/image/gen/image" in row)
    assert {"validation/video_audio/gen/audio", "validation/video_audio/gen/video"} <= last.keys()
    assert "validation/video_audio/gen/image" not in last  # the condition image is given

    # a model of several modalities makes one of them, and has to be told which
    common = ["--checkpoint", str(out / "checkpoint"), "--num", "2", "--steps", "1"]
    assert sample([*common, "--out", str(tmp_path / "images"), "--modality", "image"]) == 0
    with np.load(tmp_path / "images/samples.npz", allow_pickle=False) as file:
        assert file["arr_0"].shape == (2, SIZE, SIZE, 3)
    assert sample([*common, "--out", str(tmp_path / "clips"), "--modality", "video"]) == 0
    with np.load(tmp_path / "clips/samples.npz", allow_pickle=False) as file:
        assert file["arr_0"].shape == (2, FRAMES, SIZE, SIZE, 3)
    assert (tmp_path / "clips/videos/00001.mp4").stat().st_size > 0
    assert sample([*common, "--out", str(tmp_path / "sounds"), "--modality", "audio"]) == 0
    rate, sound = wavfile.read(tmp_path / "sounds/sounds/00001.wav")
    assert (rate, sound.shape) == (RATE, (SAMPLES, 1)) or sound.shape == (SAMPLES,)

    # video with its sound begins from a picture
    joint = [*common, "--out", str(tmp_path / "joint"), "--modality", "video_audio"]
    assert sample(joint) == 2
    assert "--images" in capsys.readouterr().err
    pictures = [tmp_path / "red.png", tmp_path / "blue.png"]
    for path in pictures:
        Image.new("RGB", (2 * SIZE, SIZE), path.stem).save(path)
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:50])
    assert sample([*joint, "--images", str(tmp_path / "cut.png")]) == 2
    assert "cut.png" in capsys.readouterr().err
    # the same place takes others then
    assert sample([*joint, "--images", *map(str, pictures)]) == 0
    with np.load(tmp_path / "joint/samples.npz", allow_pickle=False) as file:
        clips = file["arr_0"]
    with np.load(tmp_path / "joint/sound.npz", allow_pickle=False) as file:
        assert file["arr_0"].shape == (2, 1, SAMPLES)
    assert clips.shape == (2, FRAMES, SIZE, SIZE, 3)
    assert (tmp_path / "joint/videos/00001.mp4").stat().st_size > 0
    # the same pictures go on, others are refused
    assert sample([*joint, "--images", *map(str, pictures)]) == 0
    assert sample([*joint, "--images", str(pictures[0])]) == 2
    assert "images" in capsys.readouterr().err
    assert sample([*common, "--out", str(tmp_path / "any")]) == 2
    assert "--modality" in capsys.readouterr().err


def test_a_run_cut_in_two_ends_as_a_straight_one(tmp_path):
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    made(straight).trainer.train()
    made(cut).trainer.train(until=3)
    again = made(cut)
    assert again.trainer.step == 3
    again.trainer.train()
    for name in ("model", "ema", "objective", "optimizer", "rng"):
        a, b = (
            checkpoint.load_tensors(run / f"state/step_00000006/{name}.safetensors")
            for run in (straight, cut)
        )
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name


@pytest.mark.parametrize("name", WEIGHTS)
def test_presets_weigh_the_loss_of_each_modality(tmp_path, name):
    trainer = made(tmp_path, f"loss_weights={name}").trainer
    rows = {row.name: row.weight for row in trainer.model.layout.modalities}
    if name != "equal":
        assert sum(rows.values()) == pytest.approx(1.0)
        # The preset's own modality counts most against the other presets' weight of it.
        others = [
            compose_config([f"loss_weights={w}"]).loss_weights[name]
            for w in WEIGHTS
            if w != "equal"
        ]
        assert rows[name] == max(others)
    for _ in range(6):
        batch = next(trainer.batches)
        weighted, plain = (
            objective.loss(
                trainer.model, trainer.ema.model, batch, torch.Generator().manual_seed(0)
            ).total
            for objective in (trainer.objective, trainer.objective.objective)
        )
        generated = [rows[m] for m in batch.generated]
        assert float((weighted / plain).detach()) == pytest.approx(
            sum(generated) / len(generated), rel=1e-5
        )


def test_the_papers_laws_and_ratios_are_the_default(tmp_path):
    run = made(tmp_path)
    ratios = {row.name: row.mask_ratio for row in run.model.model.layout.modalities}
    assert ratios == {"image": 0.25, "video": 0.1, "audio": 0.5}
    laws = make_objective(compose_config([])).time_laws  # TINY is of the toy experiment
    assert (laws["image"].shift, laws["audio"].shift) == (4.63, 1.0)
    assert (laws["video"].share, laws["video"].low, laws["video"].law.shift) == (0.05, 0.95, 2.95)
    shares = compose_config([]).modes
    assert [(s.probability, s.batch_size) for s in (shares.image, shares.video, shares.audio)] == [
        (0.57, 38), (0.30, 8), (0.13, 16)
    ]  # fmt: skip


def test_a_run_can_start_from_a_checkpoint(tmp_path):
    main([*TINY, f"out={tmp_path / 'a'}", "trainer.total_steps=2"])
    source = tmp_path / "a/checkpoint"
    run = made(tmp_path / "b", f"init={source}")
    first = load_model(source)
    for a, b in zip(run.model.model.parameters(), first.model.parameters(), strict=True):
        assert torch.equal(a, b) and a.requires_grad
    assert {n: c.hash() for n, c in run.model.codecs.items()} == {
        n: c.hash() for n, c in first.codecs.items()
    }
    with pytest.raises(ValueError, match=r"image.*'patch': 2"):
        made(tmp_path / "c", f"init={source}", "codec.image.patch=2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.video=null"], "modes.video.*data"),
        (["+data.noise=here"], "noise"),
        (["data=/nowhere"], "nowhere"),
        (["modes.image.batch_size=0"], "batch_size >= 1"),
        (["layout.rows.image.grid=[1,4,4]"], r"codec\.image.*\(1, 4, 4\)"),
        (["layout.rows.audio=null"], "modes.audio.*layout"),
        (["codec.video=null"], "codec.video"),
        (["codec.audio.sample_rate=1600"], "codec.audio.*1600 Hz.*800"),
        (["codec.image.image_size=[16,16]"], "codec.image"),
        (["layout.text_length=2"], "at most 2 bytes"),
        (["experiment=embedded"], "robotics.finetune"),
        (["experiment=nothing"], "experiment"),
        (["loss_weights=loud"], "loud"),
        (["trainer.total_steps=abc"], "trainer.total_steps.*number"),
        (["optim.lr=fast"], "optim.lr.*number"),
        (["modes.image.batch_size=two"], "modes.image.*batch_size"),
    ],
)
def test_misuse_is_explained_in_one_line(tmp_path, capsys, words, message):
    import re

    assert main([*TINY, f"out={tmp_path}", *words]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert "Traceback" not in said


def test_the_configuration_can_be_printed(capsys):
    assert main(["--config", "experiment=toy_multimodal", "data=x", "out=y"]) == 0
    assert "caption_dropout" in capsys.readouterr().out


def test_the_toy_experiment_takes_media_folders_and_leaves_the_joint_mode_out(tmp_path, capsys):
    made_of = tmp_path / "media"
    for kind in ("image", "audio"):
        (made_of / kind).mkdir(parents=True)
    random = np.random.default_rng(0)
    for n in range(4):
        picture = random.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(picture).save(made_of / f"image/{n}.png")
        wavfile.write(made_of / f"audio/{n}.wav", 800, random.normal(size=800).astype(np.float32))
    words = [word for word in TINY if not word.startswith(("data=", "modes"))]
    words += ["modes=multimodal", "modes.video=null", "layout.rows.video=null", f"data={made_of}"]
    words += [f"modes.{kind}.batch_size=2" for kind in ("image", "audio")]
    assert main([*words, f"out={tmp_path / 'run'}", "trainer.total_steps=1"]) == 0
    said = capsys.readouterr().out
    assert "3 of image, 3 of audio" in said and "video_audio" not in said
    assert main([*words, f"out={tmp_path / 'b'}", "~modes.audio.probability"]) == 2
    assert "modes.audio" in capsys.readouterr().err


def test_the_remedy_for_data_that_is_missing_goes_all_the_way(tmp_path, capsys):
    data = "{image: {_target_: made_up.MadeUp, kind: image}}"
    words = [word for word in TINY if not word.startswith(("data=", "modes"))]
    words += ["modes=multimodal", f"data={data}", f"out={tmp_path}"]
    for _ in range(2):
        assert main(words) == 2
        said = capsys.readouterr().err
        words += said.split("leave the mode out with ")[1].split()
    build(compose_config(words))


def test_held_out_files_that_cannot_be_read_are_said_to_be_held_out(tmp_path, capsys):
    (tmp_path / "image").mkdir()
    for n in range(9):
        Image.new("RGB", (SIZE, SIZE), (n, n, n)).save(tmp_path / f"image/{n}.png")
    words = [word for word in TINY if not word.startswith(("data=", "modes", "codec.v", "codec.a"))]
    words = [*words[:1], "only=image", "modes.image.batch_size=2", f"data={tmp_path}", *words[1:]]
    held_out = split_source(ImageFolder(tmp_path / "image", (SIZE, SIZE)), 0.1)[1]
    (tmp_path / f"image/{held_out.numbers[0]}.png").write_bytes(b"x")
    assert main([*words, f"out={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert "data.image" in said and "held_out=" in said and "got 1 " in said


class Loud(MadeUp):
    """One of its samples is at another rate."""

    def __getitem__(self, index):
        return super().__getitem__(index) | ({"sample_rate": 1600} if index == 14 else {})


def test_a_sample_that_does_not_fit_ends_the_run_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(made_up, "Loud", Loud, raising=False)
    words = ["data.audio._target_=made_up.Loud", "modes.image=null", "modes.video=null"]
    words += ["modes.video_audio=null", "modes.audio.batch_size=36", "fit_samples=1"]
    words += ["layout.rows.image=null", "layout.rows.video=null"]
    assert main([*TINY, *words, f"out={tmp_path}"]) == 1
    said = capsys.readouterr().err
    assert re.search("data.audio.*800 Hz.*1600 Hz", said)
    assert "Traceback" not in said


def test_captions_that_are_too_long_are_told_before_training(tmp_path, capsys):
    (tmp_path / "image").mkdir()
    for n in range(3):
        Image.new("RGB", (SIZE, SIZE), (n, n, n)).save(tmp_path / f"image/{n}.png")
        (tmp_path / f"image/{n}.txt").write_text("ü" * 30 * n, encoding="utf-8")
    words = [word for word in TINY if not word.startswith("data=")]
    words += [f"modes.{kind}=null" for kind in KINDS[1:]]
    words += ["layout.rows={image: {weight: 1.0}}", "layout.text_length=64", f"data={tmp_path}"]
    assert main([*words, f"out={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert "data.image" in said and "64 bytes" in said and "1 longer ones of 3" in said
    assert "2.png" in said and "layout.text_length=120" in said


def test_another_codec_takes_the_place_of_the_one_there_and_is_fitted(tmp_path, capsys):
    torch.manual_seed(0)
    for part, network in (("encoder", make_encoder()), ("decoder", make_decoder())):
        checkpoint.save_tensors(tmp_path / f"taef2_{part}.safetensors", network.state_dict())
    source = "{image: {_target_: made_up.MadeUp, kind: image, size: 16}}"
    words = ["modes.video=null", "modes.audio=null", "layout.rows.video=null", "model.width=24"]
    words += ["layout.rows.audio=null", "modes.image.batch_size=4", "model.heads=2", "device=cpu"]
    codec = f"codec.image={{kind: tae_flux2, image_size: [16, 16], weights: {tmp_path}}}"
    common = [*words, f"data={source}", codec]
    saved = build(compose_config([*common, f"out={tmp_path / 'a'}"])).model
    assert saved.codecs["image"].kind == "tae_flux2" and saved.model.layout["image"].channels == 128
    pictures = np.stack([MadeUp("image", size=16)[n]["image"] for n in range(40)])
    tokens = saved.codecs["image"].encode(torch.from_numpy(pictures))
    assert tokens.var(0).mean() == pytest.approx(1.0, abs=0.1)
    # and a run starts from such a checkpoint, wherever the weights came from
    again = build(compose_config([*common, f"out={tmp_path / 'b'}", f"init={tmp_path}/a/initial"]))
    assert again.model.codecs["image"].hash() == saved.codecs["image"].hash()
    # or from a run, of which the newest checkpoint is meant
    (tmp_path / "a/initial").rename(tmp_path / "a/checkpoint")
    words = ["loss_weights=audio", "layout.rows.image.mask_ratio=0.5", f"init={tmp_path}/a"]
    changed = build(compose_config([*common, f"out={tmp_path / 'c'}", *words])).model.model
    assert changed.layout["image"].weight == 0.196 and changed.layout["image"].mask_ratio == 0.5
    assert all(torch.equal(v, changed.state_dict()[k]) for k, v in saved.model.state_dict().items())
    words = ["layout.text_length=9", "model.width=48", f"init={tmp_path}/a"]
    other = compose_config([*common, f"out={tmp_path / 'd'}", *words])
    with pytest.raises(ValueError, match="layout.text_length=9, model.width=48.*64, 24"):
        build(other)


def test_a_run_recorded_with_earlier_names_goes_on(tmp_path):
    made(tmp_path).trainer.train(until=2)
    record = checkpoint.read_json(tmp_path / "run.json")
    earlier = {"codec": "codecs", "loss_weights": "weights"}
    before = {earlier.get(key, key): value for key, value in record.items()}
    assert before.keys() != record.keys()
    checkpoint.write_json(tmp_path / "run.json", before)
    with pytest.raises(ValueError, match=r"other settings of codec;"):
        made(tmp_path, "codec.image.channels=4")
    assert made(tmp_path).trainer.step == 2
    assert checkpoint.read_json(tmp_path / "run.json") == record
