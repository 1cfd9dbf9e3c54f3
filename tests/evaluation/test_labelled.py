"""Labelled latents of the toy world, and the linear probes of benchmarks.claims on them."""

from __future__ import annotations

import pytest
import torch

from benchmarks.claims_probes import over_runs, probe_runs, summarise
from selfflow_wm.commands.labelled import main
from selfflow_wm.commands.probe import main as probe
from selfflow_wm.data import MODES
from selfflow_wm.data.toy import ToyWorld
from selfflow_wm.data.toy.source import as_sample
from selfflow_wm.evaluation.checkpoints import find_checkpoints, open_checkpoint
from selfflow_wm.evaluation.labelled import BATCH, SPLIT, labelled_latents, write_labelled
from selfflow_wm.pretraining.build import build, compose_config
from selfflow_wm.training import checkpoint

WORDS = (
    "experiment=toy_multimodal",
    "toy.world.height=32",
    "toy.world.width=32",
    "codec.image.patch=8",
    "codec.video.patch=8",
    "toy.world.frames=5",
    "codec.video.channels=64",
    "data={image: ${toy.sources.image}, video: ${toy.sources.video}}",
    "layout.rows.audio=null",
    "modes.audio=null",
    "modes.video_audio=null",
    "model.width=24",
    "model.heads=2",
    "model.single=2",
    "fit_samples=8",
    "modes.image.batch_size=2",
    "modes.video.batch_size=2",
    "trainer.total_steps=1",
    "trainer.validation_batches=1",
    "device=cpu",
    "log.wandb=disabled",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    build(compose_config([*WORDS, f"out={out}"])).trainer.train()
    return out


def test_rows_are_renderings_and_their_labels(trained):
    [entry] = find_checkpoints([str(trained)])
    count = BATCH + 3  # into a second batch
    found = labelled_latents(entry, "figure", "limbs", count)
    _, encoder = open_checkpoint(entry, "cpu")
    world = ToyWorld(entry.world)
    for number in (0, count - 1):
        made = world.sample("figure", world.seed(SPLIT, number))
        expected = encoder([as_sample(made, entry.world)], MODES["video"]).latents["video"]
        torch.testing.assert_close(found["latents"][number], expected[0], atol=1e-4, rtol=1e-4)
    limbs = [world.sample("figure", world.seed(SPLIT, n)).truth.limbs for n in range(count)]
    names = sorted({str(value) for value in limbs})
    assert [names[i] for i in found["labels"]] == [str(value) for value in limbs]


def test_the_file_is_what_a_probe_takes(trained, tmp_path, capsys):
    file = tmp_path / "signs.safetensors"
    assert main([str(trained), "sign=color", "--samples", "60", "--out", str(file)]) == 0
    assert len(checkpoint.load_tensors(file)["latents"]) == 60
    words = ["--data", str(file), "--out", str(tmp_path / "probe"), "--levels", "0"]
    assert probe([*words, "--layers", "1", "--checkpoint", f"a={trained / 'checkpoint'}"]) == 0
    capsys.readouterr()
    for what, said in (
        ("sign", "KIND=LABEL"),
        ("tap=color", "tap"),
        ("sign=limbs", "limbs"),
        ("sound=contour", "audio"),
    ):
        assert main([str(trained), what, "--out", str(tmp_path / "no")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_latents_of_another_codec_are_refused(trained, tmp_path, capsys):
    file, arm = tmp_path / "signs.safetensors", f"a={trained / 'checkpoint'}"
    assert main([str(trained), "sign=color", "--samples", "60", "--out", str(file)]) == 0
    tensors = checkpoint.load_tensors(file)
    tensors["codec"][0] += 1
    write_labelled(file, tensors)
    capsys.readouterr()
    words = ["--data", str(file), "--out", str(tmp_path / "probe"), "--levels", "0"]
    assert probe([*words, "--layers", "1", "--checkpoint", arm]) == 2
    said = capsys.readouterr().err
    assert "codec of image" in said and said.count("\n") == 1
    assert not (tmp_path / "probe").exists()


def test_claims_probe_what_the_models_have_and_as_many_samples_as_asked(trained, tmp_path, capsys):
    runs = {0: {"sf": trained / "checkpoint"}}
    found = probe_runs(tmp_path, runs, 60)
    assert {row["question"] for row in found} == {"sign-word", "figure-limbs"}  # without sound
    assert probe_runs(tmp_path, runs, 60) == found
    with pytest.raises(ValueError, match="seed_0"):
        probe_runs(tmp_path, runs, 70)
    assert "data_sha256" in capsys.readouterr().err


def rows(accuracies):
    """arm -> accuracy of layers 1 and 2; the choosing split prefers layer 1."""
    return [
        {"checkpoint": arm, "level": 0.0, "layer": layer, "accuracy": value, "chance": 0.1,
         "choose_accuracy": 1 - layer / 10}
        for arm, values in accuracies.items() for layer, value in enumerate(values, 1)
    ]  # fmt: skip


def test_probes_are_averaged_over_seeds():
    tables = {
        0: rows({"fm": (0.5, 0.9), "sf": (0.6, 0.1)}),
        1: rows({"fm": (0.3, 0.9), "sf": (0.6, 0.1)}),
    }
    fm, sf, difference = summarise(tables)
    assert (fm["arm"], fm["value"], fm["layers"]) == ("fm", pytest.approx(0.4), [1, 1])
    assert sf["value"] == pytest.approx(0.6) and sf["low"] == pytest.approx(0.6)
    assert (difference["arm"], difference["minus"]) == ("sf", "fm")
    assert difference["value"] == pytest.approx(0.2)
    assert difference["low"] < 0 < difference["high"]  # two seeds say little
    first = over_runs(tables)[0]
    assert (first["checkpoint"], first["layer"]) == ("fm", 1)
    assert [first[name] for name in ("low", "accuracy", "high")] == [0.3, pytest.approx(0.4), 0.5]
