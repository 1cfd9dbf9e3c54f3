"""What the training commands answer to words that they cannot take."""

import re
import shlex

import pytest

from robotics.finetune import main as finetune
from robotics.training.build import compose_config as finetune_config
from selfflow_wm.pretraining.build import compose_config as pretrain_config
from selfflow_wm.pretraining.cli import main as pretrain

TOY = "experiment=toy_multimodal"


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["objectiv=self_flow"], "objective=self_flow"),
        (["+objectiv=self_flow"], "objective=self_flow"),
        (["objective=self_flo"], "objective=self_flow"),
        (["total_steps=10"], "trainer.total_steps=10"),
        (["trainer.total_step=10"], "trainer.total_steps=10"),
        (["+trainer.total_step=10"], "trainer.total_steps=10"),
        (["++trainer.total_stpes=10"], "trainer.total_steps=10"),
        (["objective.gama=0.5"], "objective.gamma=0.5"),
        (["+dataset.histroy=3"], "dataset.history=3"),
        (["~modes.forwad"], "~modes.forward"),
        (["experiment=embeded"], "experiment=embedded"),
        (["layout.rows.image.channels=8"], "'layout.rows={image: {channels: 8}}'"),
    ],
)
def test_the_remedy_for_a_typo_works(words, remedy):
    with pytest.raises(ValueError) as refused:
        finetune_config(words)
    assert str(refused.value).endswith(f"write {remedy}")
    finetune_config(shlex.split(remedy))


def test_the_groups_of_pretraining_are_known_too():
    with pytest.raises(ValueError, match="write only=image$"):
        pretrain_config([TOY, "only=imag"])
    with pytest.raises(ValueError, match="write codecs.image.channels=3$"):
        pretrain_config([TOY, "codecs.image.channel=3"])


def test_what_is_read_may_be_added():
    assert finetune_config(["+model.rope_theta=100"]).model.rope_theta == 100
    with pytest.raises(ValueError, match="model.depth"):
        finetune_config(["+model.depth=3"])


@pytest.mark.parametrize("words", [["seed=0,1"], ["-m", "seed=0,1"], ["--multirun", "seed=0,1"]])
def test_a_sweep_is_answered_with_a_loop(words, capsys):
    assert finetune([*words, "out=runs/x", "data=some data"]) == 2
    loop = re.search(r"for .*done", capsys.readouterr().err)
    assert loop is not None
    heads, line = loop[0].split("; do ")
    assert heads == "for seed in 0 1"
    assert shlex.split(line.removesuffix("; done"))[3:] == [
        "data=some data",
        "seed=$seed",
        "out=runs/x-$seed",
    ]


def test_a_sweep_over_two_keys_has_two_loops(capsys):
    assert pretrain([TOY, "objective=self_flow,flow_matching", "optim.lr=1e-3,2e-3"]) == 2
    error = capsys.readouterr().err
    assert "for objective in self_flow flow_matching; do for optim_lr in 1e-3 2e-3; do" in error
    assert error.strip().endswith("; done; done")


@pytest.mark.parametrize("flag", ["--out", "--batch-size"])
def test_a_flag_is_answered_with_the_word(flag, capsys):
    with pytest.raises(SystemExit) as stop:
        finetune([f"{flag}=x", "data=y"])
    assert stop.value.code == 2
    assert f"write {flag[2:].replace('-', '_')}=x" in capsys.readouterr().err


@pytest.mark.parametrize("command", [finetune, pretrain])
def test_help_leaves_with_0(command, capsys):
    with pytest.raises(SystemExit) as stop:
        command(["--help"])
    assert stop.value.code == 0 and "KEY=VALUE" in capsys.readouterr().out
