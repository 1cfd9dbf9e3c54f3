"""The plan of benchmarks.claims and its learning curves; no training."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf
from PIL import Image

from benchmarks.claims import check_words, make_jobs
from benchmarks.claims_curves import read_losses, write_curves
from selfflow_wm.pretraining.build import compose_config


def test_two_runs_make_three_arms_that_share_all_but_the_objective(tmp_path):
    jobs = make_jobs(tmp_path, [0, 7], 300, 1.25, ["trainer.export_every=100"])
    ours, twin = jobs[:2]
    assert [job.seed for job in jobs] == [0, 0, 7, 7]
    assert ours.arms == {"self_flow": 300}
    assert twin.arms == {"flow_matching": 300, "flow_matching_equal_compute": 375}
    configs = [compose_config(list(job.words)) for job in (ours, twin)]
    assert [config.trainer.total_steps for config in configs] == [300, 375]
    assert {config.optim.floor for config in configs} == {1.0}, "the shorter begins the longer"
    for name in ("model", "codec", "modes", "toy", "noise", "seed", "optim", "loss_weights"):
        assert configs[0][name] == configs[1][name], name
    assert not twin.done()
    twin.checkpoint("flow_matching").mkdir(parents=True)
    assert not twin.done()
    twin.checkpoint("flow_matching_equal_compute").mkdir(parents=True)
    assert twin.done()


def test_arms_are_judged_at_a_step_that_is_exported():
    check_words(3000, [0], [])
    check_words(3000, [0], ["trainer.export_every=500"])
    with pytest.raises(ValueError, match="3000"):
        check_words(3000, [0], ["trainer.export_every=700"])
    with pytest.raises(ValueError, match="trainer.export_every"):
        check_words(3000, [0], ["trainer.export_every=0"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.floor=0.1"], "optim.floor.*0.1"),
        (["objective=sra"], "objective=sra"),
        (["seed=3"], "seed=3"),
        (["trainer.total_steps=10"], "trainer.total_steps=10"),
    ],
)
def test_words_that_would_compare_something_else_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        check_words(3000, [0, 1], words)


def test_a_seed_counts_once():
    with pytest.raises(ValueError, match="--seeds"):
        check_words(3000, [0, 1, 0], [])


def test_runs_of_other_settings_are_not_taken_for_these(tmp_path):
    (job, *_) = make_jobs(tmp_path, [0], 300, 1.25, [])
    job.check()
    job.checkpoint("self_flow").mkdir(parents=True)
    config = OmegaConf.to_container(compose_config(list(job.words)), resolve=True)
    (job.out / "run.json").write_text(json.dumps(config))
    assert job.done()
    job.check()
    (longer, *_) = make_jobs(tmp_path, [0], 600, 1.25, [])
    longer.check()
    for word, key in (("optim.lr=1e-4", "optim"), ("trainer.ema_decay=0.9", "trainer.ema_decay")):
        (other, *_) = make_jobs(tmp_path, [0], 300, 1.25, [word])
        with pytest.raises(ValueError, match=key):
            other.check()


def test_curves_of_runs_without_validation_are_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
    assert not write_curves(tmp_path / "curves.png", {("self_flow", 0): tmp_path}, 1.3)
    assert not (tmp_path / "curves.png").exists()


def test_curves_are_of_the_held_out_loss_of_each_mode(tmp_path):
    runs = {}
    for number, key in enumerate((("self_flow", 0), ("self_flow", 1), ("flow_matching", 0))):
        runs[key] = tmp_path / str(number)
        runs[key].mkdir()
        rows = [{"step": 10, "loss": 5.0}]
        for step in (100, 200):
            row = {
                "validation/image/loss": 2.0 / (step + number),
                "validation/image/gen/image": 9.0,
            }
            rows.append({"step": step, **row, "validation/audio/loss": 1.0})
        (runs[key] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_losses(runs["flow_matching", 0]) == {
        "image": {100: 2.0 / 102, 200: 2.0 / 202},
        "audio": {100: 1.0, 200: 1.0},
    }
    assert write_curves(tmp_path / "curves.png", runs, 1.3)
    assert Image.open(tmp_path / "curves.png").size[0] > 300
