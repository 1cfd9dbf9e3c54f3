"""What the training commands answer to words that they cannot take."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from robotics.finetune import main as finetune
from robotics.training.build import compose_config as finetune_config
from selfflow_wm.pretraining.build import compose_config as pretrain_config
from selfflow_wm.pretraining.cli import main as pretrain
from selfflow_wm.training import config as configuration
from selfflow_wm.training.config import PROGRAMS, current_word, options

TOY = "experiment=toy_multimodal"
COMPOSE = {"finetune": finetune_config, "pretrain": pretrain_config}
EARLIER = [
    (command, chosen, keys.split())
    for line in (Path(__file__).parent / "earlier_words.txt").read_text().splitlines()
    for start, keys in [line.split(":")]
    for command, _, chosen in [start.partition(" ")]
]
"""Before the folders of configs/ had their present names: command, words that choose files, and the
keys that are there then (beyond those without any words)."""


USELESS = [
    ("pretrain", f"modes={name}") for name in ("joint_only", "mixed", "policy_only")
] + [("finetune", f"modes={name}") for name in ("multimodal", "multimodal_joint")] + [
    ("pretrain", "layout=robot")
]  # fmt: skip
"""Of those, what no run could start with; now refused with words that it can start with."""


def answered(command, words):
    """The configuration of `words`, or of what their refusal says to write instead of one."""
    try:
        return COMPOSE[command](words)
    except ValueError as error:
        remedy = str(error).rpartition("; write ")[2]
        group = remedy.partition("=")[0]
        return COMPOSE[command]([remedy if word.startswith(group) else word for word in words])


def keys_of(config, prefix=""):
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")


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
    with pytest.raises(ValueError, match="write codec.image.channels=3$"):
        pretrain_config([TOY, "codec.image.channel=3"])


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


def test_the_commands_show_help_before_they_load_torch():
    entries = "finetune, imagine, encode, inspect, convert"
    program = (
        f"import sys; from robotics import {entries}; import selfflow_wm.pretrain; "
        "print([name for name in ('torch', 'hydra', 'tensorflow_datasets') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr


@pytest.mark.parametrize(("command", "chosen", "keys"), EARLIER)
def test_earlier_words_have_the_keys_that_they_had(command, chosen, keys):
    found = OmegaConf.to_container(answered(command, chosen.split()), resolve=True)
    if (command, chosen) not in USELESS:
        assert {current_word(key) for key in keys} <= set(keys_of(found))


@pytest.mark.parametrize(
    ("command", "keys"), [(command, keys) for command, chosen, keys in EARLIER if not chosen]
)
def test_every_earlier_key_can_be_set(command, keys):
    config = COMPOSE[command]([])
    values = {key: OmegaConf.select(config, current_word(key)) for key in keys}
    plain = {
        key: OmegaConf.to_container(value) if OmegaConf.is_list(value) else value
        for key, value in values.items()
        if value is not None
        and not OmegaConf.is_dict(value)
        and not key.startswith(("objective.time_laws.", "objective.condition_noise."))  # noise.*
    }
    assert len(plain) > 80
    assert (
        COMPOSE[command]([f"{key}={json.dumps(value)}" for key, value in plain.items()]) == config
    )


@pytest.mark.parametrize(
    ("word", "now"),
    [
        ("~codecs.audio", "~codec.audio"),
        ("++codecs.image={kind: sd_vae}", "++codec.image={kind: sd_vae}"),
        ("codecs=small", "codec=small"),
        ("weights.image=${weights.video}", "loss_weights.image=${loss_weights.video}"),
        ("codec.image.weights=codecs/x", "codec.image.weights=codecs/x"),
        ("data={codecs: {path: weights}}", "data={codecs: {path: weights}}"),
        ("optim.lr=1e-3", "optim.lr=1e-3"),
        ("layout.proprio=false", "layout.state=false"),
        ("model.vector_in=[proprio,text]", "model.vector_in=[state,text]"),
    ],
)
def test_an_earlier_word_is_read_as_today_s(word, now):
    assert current_word(word) == now


def test_earlier_and_present_words_choose_the_same():
    words = ["loss_weights=audio", "codec=published_multimodal", "layout=published"]
    earlier = ["weights=audio", "codecs=published", "optim=adamw", "trainer=default", words[2]]
    assert pretrain_config(words) == pretrain_config(earlier)


@pytest.mark.parametrize("group", ["experiment", "codec", "layout", "modes"])
@pytest.mark.parametrize("command", PROGRAMS)
def test_a_file_of_the_other_command_is_refused_by_name(command, group):
    others = [name for name, own in options(group).items() if own not in ("", command)]
    assert others
    for name in others:
        with pytest.raises(ValueError, match=f"'{name}'") as refused:
            COMPOSE[command]([f"{group}={name}"])
        *program, remedy = str(refused.value).rpartition("write ")[2].split()
        meant = command if not program else program[-1].rpartition(".")[2]
        assert (meant != command) == (group == "experiment")
        assert "command" not in COMPOSE[meant]([remedy])


@pytest.mark.parametrize(
    ("command", "word", "remedy"),
    [
        ("finetune", "robot=bridge", "write spec=bridge"),
        ("finetune", "only=image", "leave it out"),
        ("pretrain", "augment=crop_colour", "leave it out"),
        ("finetune", "dataset=mixture_template", "write dataset=windows"),
    ],
)
def test_a_folder_without_use_for_the_command_is_refused(command, word, remedy):
    with pytest.raises(ValueError, match=f"{word.partition('=')[0]}.*{remedy}$"):
        COMPOSE[command]([word])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("codecs: {image: {patch: 8}}", "section codec,"),
        ("layout: {proprio: true}", "expected layout.state, got layout.proprio"),
        ("defaults: [{override /codec: patch_pca}]", "command: finetune"),
    ],
)
def test_what_a_file_of_one_s_own_gets_wrong_is_named(text, expected, tmp_path, monkeypatch):
    shutil.copytree(configuration.CONFIG_DIR, tmp_path / "configs")
    monkeypatch.setattr(configuration, "CONFIG_DIR", tmp_path / "configs")
    (tmp_path / "configs/experiment/mine.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(ValueError, match=expected):
        pretrain_config(["experiment=mine"])


@pytest.mark.parametrize(("command", "main"), [("finetune", finetune), ("pretrain", pretrain)])
def test_help_names_every_experiment_codec_and_objective(command, main, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = set(re.findall(r"\w+", capsys.readouterr().out))
    for group in ("experiment", "codec", "objective", "modes", "model"):
        own = {name for name, of in options(group).items() if of in ("", command)}
        assert own <= shown, group


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("finetune", ["+objective=self_flow"]),
        ("finetune", ["++objective=self_flow"]),
        ("finetune", ["objectiv=a"]),
        ("finetune", ["objectiv=self_flo"]),
        ("pretrain", ["experimen=toy"]),
    ],
)
def test_the_remedy_for_a_word_is_a_word_that_works(command, words):
    with pytest.raises(ValueError) as refused:
        COMPOSE[command](words)
    COMPOSE[command]([str(refused.value).rpartition("; write ")[2]])


def test_an_experiment_of_the_other_command_is_answered_before_missing_data(capsys):
    for main, name in ((pretrain, "embedded"), (finetune, "toy_multimodal")):
        assert main([f"experiment={name}"]) == 2
        assert f"experiment={name}" in capsys.readouterr().err


def test_data_that_lacks_a_kind_is_answered_with_the_place(tmp_path, capsys):
    words = ["trainer.total_steps=1", "device=cpu", f"out={tmp_path / 'run'}"]
    assert pretrain([*words, f"data={tmp_path}"]) == 2
    assert f"{tmp_path / 'image'}," in capsys.readouterr().err
    assert pretrain([*words, f"data={tmp_path / 'none'}"]) == 2
    assert f"mkdir -p {tmp_path / 'none' / 'image'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "named"),
    [("optim.lr=-1", "optim.lr: "), ("trainer.log_every=0", "trainer.log_every: "),
     ("objective.gamma=-1", "objective: "), ("out=/etc/passwd", "out=/etc/passwd: "),
     ("out=/proc/no_such", "out=/proc/no_such: ")],
)  # fmt: skip
def test_what_a_part_refuses_is_one_line(tmp_path, capsys, word, named):
    words = [TOY, "device=cpu", "fit_samples=16", f"out={tmp_path / 'run'}"]
    assert pretrain([*words, word]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"pretrain: {named}") and error.count("\n") == 1
