"""Evaluation of two barely trained models, end to end."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from selfflow_wm.commands.checkpoints import main
from selfflow_wm.data.toy import ToyConfig
from selfflow_wm.evaluation import checkpoints, page, run, summary
from selfflow_wm.evaluation.metrics import METRICS
from selfflow_wm.intervals import paired_difference
from selfflow_wm.metrics.recogniser import Recogniser, save_recogniser, word_accuracy
from selfflow_wm.pretraining.build import build, compose_config

SMALL = (
    "experiment=toy_multimodal",
    "toy.world.height=32",
    "toy.world.width=32",
    "codec.image.patch=8",
    "codec.video.patch=8",
    "toy.world.frames=5",
    "codec.audio.samples=3200",
    "codec.video.channels=64",
    "model.width=24",
    "model.heads=2",
    "model.single=2",
    "fit_samples=8",
    "trainer.total_steps=2",
    "trainer.export_every=1",
    "trainer.validation_batches=1",
    "device=cpu",
    "log.wandb=disabled",
    *(f"modes.{kind}.batch_size=2" for kind in ("image", "video", "audio", "video_audio")),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs a (Self-Flow, seeds 0 and 1), b (its twin), one without audio, and a reader."""
    root = tmp_path_factory.mktemp("runs")
    for name, words in {
        "a": (),
        "a1": ("seed=1",),
        "b": ("objective=flow_matching",),
        "b1": ("objective=flow_matching", "seed=1"),
        "silent": ("modes.audio=null", "modes.video_audio=null", "layout.rows.audio=null"),
    }.items():
        build(compose_config([*SMALL, f"out={root / name}", *words])).trainer.train()
    torch.manual_seed(0)
    score = word_accuracy(["a"], ["a"])
    save_recogniser(root / "reader", Recogniser(32, 24), ToyConfig(32, 32), {"all": score})
    return root


def evaluate(made, out, *words, samples=10):
    options = ["--out", str(out), "--samples", str(samples), "--steps", "2", "--batch", "4"]
    return main([*words, *options, "--recogniser", str(made / "reader")])


def test_two_runs_side_by_side_and_again_without_work(made, tmp_path, monkeypatch, capsys):
    runs = [str(made / "a"), str(made / "b")]
    assert evaluate(made, tmp_path, *runs) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["schema"] == 1 and results["samples"] == 10
    assert [one["label"] for one in results["checkpoints"]] == ["self_flow", "flow_matching"]
    rows = {row["name"]: row for row in results["metrics"]}
    for name in ("word_accuracy", "object_error", "limb_error", "strikes_right", "contacts_heard"):
        assert set(rows[name]["checkpoints"]) == {"self_flow", "flow_matching"}
    assert rows["object_error"]["true"]["count"] == rows["limb_error"]["true"]["count"] == 5
    assert "toy recogniser" in rows["frechet_image"]["true"]["features"]
    assert (
        rows["frechet_image"]["checkpoints"]["self_flow"]["value"]
        > (rows["frechet_image"]["true"]["value"])
    )
    assert {(d["a"], d["b"]) for d in results["differences"]} == {("self_flow", "flow_matching")}
    text = (tmp_path / "results.html").read_text()
    assert "data:video/mp4" in text and "data:audio/wav" in text and "{{" not in text
    assert all((tmp_path / "pictures" / f"{mode}.png").is_file() for mode in results["modes"])
    film = (tmp_path / "films" / "video_audio_0_self-flow.mp4").read_bytes()
    assert b"mp4a" in film and b"avc1" in film
    assert "mp4a" not in str((tmp_path / "films" / "video_0_true.mp4").read_bytes())

    def refuse(*_args, **_options):
        raise AssertionError("nothing is missing")

    monkeypatch.setattr(run.Maker, "__call__", refuse)
    assert evaluate(made, tmp_path, *runs) == 0
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["metrics"] == results["metrics"]
    capsys.readouterr()
    assert evaluate(made, tmp_path, *runs, "--seed", "1") == 2
    assert "seed" in capsys.readouterr().err


def test_samples_do_not_depend_on_what_was_there(made, tmp_path):
    words = [str(made / "a"), "--modes", "image"]
    assert evaluate(made, tmp_path / "whole", *words, samples=12) == 0
    for samples in (5, 12):
        assert evaluate(made, tmp_path / "grown", *words, samples=samples) == 0
    tables = [json.loads((tmp_path / n / "results.json").read_text()) for n in ("whole", "grown")]
    for a, b in zip(tables[0]["metrics"], tables[1]["metrics"], strict=True):
        for label, value in a["checkpoints"].items():
            assert b["checkpoints"][label]["value"] == pytest.approx(value["value"], abs=0.05)


def test_seeds_are_averaged_by_arm(made, tmp_path):
    words = [str(made / name) for name in ("b", "b1", "a", "a1")]
    assert evaluate(made, tmp_path, *words, "--modes", "audio") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    arms = {(one["metric"], one["name"]): one for one in results["arms"]}
    (row,) = [r for r in results["metrics"] if r["name"] == "strikes_right"]
    values = [row["checkpoints"][f"self_flow seed {seed}"]["value"] for seed in (0, 1)]
    assert arms["strikes_right", "self_flow"]["value"] == pytest.approx(np.mean(values))
    assert {(d["a"], d["b"]) for d in results["arm_differences"]} == {
        ("flow_matching", "self_flow")
    }
    assert "Over seeds of training" in (tmp_path / "results.html").read_text()


def test_a_curve_has_every_step(made, tmp_path):
    assert evaluate(made, tmp_path, str(made / "a"), "--curve", "--modes", "audio") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [one["step"] for one in results["checkpoints"]] == [1, 2]
    assert "Against the step of training" in (tmp_path / "results.html").read_text()


def test_a_missing_modality_is_noted_and_refused_when_asked_for(made, tmp_path, capsys):
    runs = [str(made / "a"), f"quiet={made / 'silent'}"]
    assert evaluate(made, tmp_path, *runs, "--modes", "image", "audio") == 2
    said = capsys.readouterr().err
    assert re.search("image, audio.*image, video", said)
    assert evaluate(made, tmp_path, *runs) == 0
    assert "quiet was not trained in audio" in (tmp_path / "results.html").read_text()


def edit(source, target, change):
    """A copy of a checkpoint with another config.json."""
    target.mkdir(parents=True)
    for file in (source / "checkpoint").iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "config.json").read_text())
    change(config)
    (target / "config.json").write_text(json.dumps(config))
    return str(target)


def test_what_does_not_fit_is_explained(made, tmp_path, capsys):
    def other_data(config):
        config["training"]["data"]["image"] = "photos"

    def larger_world(config):
        for source in config["training"]["data"].values():
            source["world"]["height"] = 48

    def other_codec(config):
        config["layout"]["modalities"][0]["grid"] = [1, 2, 8]

    cases = {
        "data": (other_data, "photos"),
        "size": (larger_world, "image_size (48, 32)"),
        "grid": (other_codec, "(1, 2, 8)"),
    }
    for name, (change, message) in cases.items():
        path = edit(made / "a", tmp_path / name, change)
        assert evaluate(made, tmp_path / "out", path) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1, said
    for words, message in (
        (["/nowhere"], "/nowhere"),
        ([str(made / "a"), str(made / "a/checkpoint")], "twice"),
        ([str(made / "a"), "--features", "image=nothing.Here"], "--features image=nothing.Here"),
        ([str(made / "a"), "--features", "smell=toy"], "smell"),
        ([str(made / "a"), "--modes", "poem"], "poem"),
        ([f"true={made / 'a'}"], "got 'true' beside 'the true samples'"),
        ([f"x.1={made / 'a'}", f"x-1={made / 'b'}"], "got 'x-1' beside 'x.1'"),
    ):
        assert evaluate(made, tmp_path / "out", *words) == 2
        assert message in capsys.readouterr().err
    other = checkpoints.find_checkpoints([str(made / "a")])[0]
    assert other.world.height == 32 and other.objective == "self_flow"


(CONTACTS,) = [metric for metric in METRICS if metric.name == "contacts_heard"]


class Mean:
    """An extractor as a user would write one."""

    def __init__(self, context):
        self.name = f"mean colour {context.argument}"

    def __call__(self, samples):
        return samples.reshape(len(samples), -1, 3).mean(1)


def test_extractors_can_be_named_on_the_command_line(made, tmp_path, monkeypatch):
    monkeypatch.setitem(
        __import__("sys").modules, "mine", __import__("types").SimpleNamespace(Mean=Mean)
    )
    words = [str(made / "a"), "--modes", "image", "--features", "image=mine.Mean:disk"]
    assert evaluate(made, tmp_path, *words) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["settings"]["features"]["image"] == "mean colour disk"


def cells(text, title):
    """Of the row of a metric in the first table: heading -> text."""
    table = text[text.index("<table>") : text.index("</table>")]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]
    (row,) = [row for row in rows if row[0].startswith(title)]
    return dict(zip(rows[0], row, strict=True))


def test_differences_stand_under_their_own_heading(made, tmp_path):
    words = [f"quiet={made / 'silent'}", *(str(made / name) for name in ("a", "a1", "b", "b1"))]
    assert evaluate(made, tmp_path, *words, "--modes", "image") == 0
    text = (tmp_path / "results.html").read_text()
    assert "2 euler steps of the ODE on a time grid shifted by 3.0" in text
    assert "of 10 samples against 10 other true renderings" in text
    assert "2 principal directions" in text
    row = cells(text, "words read right")
    assert list(row)[-3:] == [
        "self_flow minus quiet", "flow_matching minus quiet", "flow_matching minus self_flow",
    ]  # fmt: skip
    assert evaluate(made, tmp_path, *words) == 0
    row = cells((tmp_path / "results.html").read_text(), "clips with as many strikes")
    assert row["quiet"] == row["self_flow minus quiet"] == row["flow_matching minus quiet"] == "–"
    assert "[" in row["flow_matching minus self_flow"]


def test_seeds_in_which_a_metric_is_undefined_are_told():
    assert page.fewer([0, 2], [0, 1, 2]) == " (seeds 0, 2)" and page.fewer([1], [1]) == ""


def test_an_interval_without_width_is_no_evidence():
    better = {"higher_is_better": True}
    assert page.verdict({"value": 0.1, "low": 0.05, "high": 0.15}, better) == "success"
    assert page.verdict({"value": -0.1, "low": -0.15, "high": -0.05}, better) == "failure"
    assert page.verdict(summary.over_seeds([0.1, 0.1, 0.1]), better) == "soft"


def test_shares_of_the_same_samples_differ_with_an_interval_of_their_own():
    (metric,) = [m for m in METRICS if m.name == "strikes_right"]

    def columns(right):
        return {metric.name: np.array(right, float), f"{metric.name}/of": np.ones(len(right))}

    same = summary.paired(metric, columns([1, 1, 1, 1]), columns([1, 1, 1, 1]))
    assert same["value"] == 0 and same["low"] < -0.4 and same["high"] > 0.4
    found = summary.paired(metric, columns([1, 0, 0, 1, 0]), columns([1, 1, 1, 0, 1]))
    assert found["value"] == pytest.approx(0.4)  # three gained, one lost
    assert (found["low"], found["high"]) == paired_difference(3, 1, 5)


def test_checkpoints_that_share_codecs_and_not_modes(made, tmp_path):
    words = [*SMALL, f"init={made / 'a' / 'checkpoint'}", "modes.video_audio=null"]
    build(compose_config([*words, f"out={tmp_path / 'run'}"])).trainer.train()
    runs = [f"apart={tmp_path / 'run'}", str(made / "a")]
    assert evaluate(made, tmp_path / "out", *runs, samples=4) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (row,) = [row for row in results["metrics"] if row["name"] == "contacts_heard"]
    assert len(row["codecs"]) == 1 and set(row["checkpoints"]) == {"self_flow"}


def test_a_checkpoint_that_is_replaced_meanwhile_is_refused(made, tmp_path):
    path = edit(made / "a", tmp_path / "run", lambda config: None)
    (entry,) = checkpoints.find_checkpoints([path])
    checkpoints.open_checkpoint(entry, "cpu")
    for file in (made / "b" / "checkpoint").iterdir():
        (tmp_path / "run" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="step 2"):
        checkpoints.open_checkpoint(entry, "cpu")


class Flat:
    """An extractor of one number, without its axis."""

    name = "flat"

    def __call__(self, samples):
        return samples.mean((1, 2, 3))


def test_features_of_another_shape_are_refused():
    judge = run.Judge(ToyConfig(32, 32), Recogniser(32, 24), {"image": Flat()})
    asked = judge.asked("image", range(3))
    with pytest.raises(ValueError, match=r"flat.*\(3, D\).*\(3,\)"):
        judge("image", run.true_samples("image", asked), asked)


def test_chance_of_a_match_is_that_of_another_films_sound():
    world = ToyConfig(48, 48, frames=17, fps=12.5, sample_rate=8000)
    judge = run.Judge(world, Recogniser(48, 24), {})
    asked = judge.asked("video_audio", range(8))
    (other,) = judge.asked("video_audio", [8])
    makes = {run.UNRELATED: run.with_other_sound(world)}
    makes[run.TRUE] = lambda mode, some, numbers: run.true_samples(mode, some)
    found = {}
    for name, make in makes.items():
        arrays = make("video_audio", asked, range(8))
        columns = run.measure("video_audio", arrays, asked, judge.recogniser, world)
        found[name] = summary.describe(CONTACTS, columns)["value"]
    assert (make_audio := makes[run.UNRELATED]("video_audio", asked[7:], [7])["audio"]).any()
    assert np.array_equal(make_audio[0], other.audio)
    assert found[run.TRUE] == 1 > found[run.UNRELATED] > 0.2


def test_chance_stands_on_the_page(made, tmp_path):
    assert evaluate(made, tmp_path, str(made / "a"), "--modes", "video_audio", samples=4) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["name"] for row in results["metrics"] if "unrelated" in row} == {
        "contacts_heard", "offset_ms",
    }  # fmt: skip
    assert (
        "with the sound of another film, which is chance" in (tmp_path / "results.html").read_text()
    )
