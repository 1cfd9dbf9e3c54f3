"""The command lines: quick help, one convention, the right form for a wrong one."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from selfflow_wm import cli, commands
from selfflow_wm.commands import COMMANDS
from selfflow_wm.evaluate import SUBCOMMANDS
from selfflow_wm.evaluate import main as evaluate
from selfflow_wm.files import write_file

ROOT = Path(__file__).parents[2]
SLOW = {"torch", "hydra", "omegaconf", "wandb", "matplotlib", "mujoco", "transformers"}
"""Packages that take a good part of a second to import, or seconds."""

ASK = """\
import re
import runpy, sys
sys.argv = [sys.argv[1], *sys.argv[2:]]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported(module: str, *words: str) -> set[str]:
    """Top-level packages in memory once `python -m module words` has ended well."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, module, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_waits_for_nothing_slow(name):
    assert not imported(COMMANDS[name][0], "--help") & SLOW


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_what_evaluate_does_waits_for_nothing_slow(name):
    assert not imported("selfflow_wm.evaluate", name, "--help") & SLOW


def test_the_list_of_commands_waits_for_nothing_slow():
    assert not imported("selfflow_wm", "--help") & SLOW


def test_every_command_has_a_module_a_script_and_a_row_in_the_docs():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    named = {f"selfflow-{name}" for name in COMMANDS} | {"selfflow"}
    assert scripts == dict.fromkeys(sorted(named), "selfflow_wm.commands:script")
    page = (ROOT / "docs/reference/cli.md").read_text()
    for name, (module, _) in COMMANDS.items():
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
        assert f"| `selfflow-{name}` | `{module}` |" in page
    for name in SUBCOMMANDS:
        assert f"| `{name}` |" in page


def test_a_script_runs_the_command_of_its_name(monkeypatch, capsys):
    for words in (
        ["/somewhere/selfflow-sample", "--help"],
        ["/somewhere/selfflow", "sample", "-h"],
    ):
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            commands.script()
        assert stop.value.code == 0 and "--captions-file" in capsys.readouterr().out


def test_an_unknown_command_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["selfflow", "smaple"])
    with pytest.raises(SystemExit) as stop:
        commands.script()
    assert stop.value.code == 2 and capsys.readouterr().err.endswith("; write sample\n")
    assert evaluate(["curve"]) == 2
    assert capsys.readouterr().err.endswith("; write curves\n")


def parser(**options) -> cli.Parser:
    parser = cli.Parser(prog="cmd", renamed={"--num": "--samples"}, **options)
    parser.add_shared("out", required=False)
    parser.add_shared("samples", default=16)
    parser.add_shared("batch-size", default=4)
    parser.add_shared("shard")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("words", nargs="*")
    return parser


def refused(words: list[str], capsys: pytest.CaptureFixture[str], **options) -> str:
    with pytest.raises(SystemExit) as stop:
        parser(**options).parse_args(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    return error.strip()


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["out=runs/x"], "write --out runs/x"),
        (["a", "batch_size=8"], "write --batch-size 8"),
        (["num=8"], "write --samples 8"),
        (["quick=true"], "write --quick"),
        (["--otu", "x"], "did you mean --out x?"),
        (["--sample", "3"], "did you mean --samples 3?"),
        (["--batch_size=3"], "did you mean --batch-size 3?"),
        (["--otu"], "did you mean --out DIR?"),
        (["--unheard-of"], "see cmd --help"),
    ],
)
def test_a_command_of_flags_answers_with_the_right_flag(words, remedy, capsys):
    assert refused(words, capsys).endswith("; " + remedy)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--data", "data/x", "seed=1"], "write data=data/x"),
        (["--init=runs/a", "seed=1"], "write init=runs/a"),
        (["--trainer.total_steps", "5"], "write trainer.total_steps=5"),
        (["--total-steps", "5"], "write total_steps=5"),
        (["--quik"], "did you mean --quick?"),
    ],
)
def test_a_training_command_answers_with_the_right_word(words, remedy, capsys):
    assert refused(words, capsys, training=True).endswith("; " + remedy)
    assert parser(training=True).parse_args(["out=x"]).words == ["out=x"]


def test_words_that_only_look_like_flags_are_taken(tmp_path):
    given = parser().parse_args(["sf=runs/a", "runs/b=c", "--out", "out=x"])
    assert given.words == ["sf=runs/a", "runs/b=c"] and given.out == Path("out=x")


def test_an_old_spelling_works_and_is_not_shown():
    for words in (["--num", "3"], ["--num=3"]):
        assert parser().parse_args(words).samples == 3
        assert parser().parse_intermixed_args(words).samples == 3
    assert "--num" not in parser().format_help()


def test_shards_are_counted_from_one(capsys):
    assert parser().parse_args(["--shard", "4/4"]).shard == (4, 4)
    for wrong in ("0/4", "5/4", "1", "a/b", "-1/4"):
        assert "1/4" in refused([f"--shard={wrong}"], capsys)
    for wrong, right in (("3/2", "1/2"), ("0/2", "1/2"), ("2/1", "1/1"), ("1/0", "1/1")):
        assert f"write {right}" in refused([f"--shard={wrong}"], capsys)


def test_a_device_is_found_or_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.compute_device("auto").type == "cpu"
    for wrong in ("cuda", "warp"):
        with pytest.raises(ValueError, match=wrong):
            cli.compute_device(wrong)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cli.compute_device("auto").type == "cuda"
    assert str(cli.compute_device("cuda:1")) == "cuda:1"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys):
    taken = tmp_path / "file"
    taken.touch()
    for work in (
        lambda: write_file(tmp_path, "x"),
        lambda: write_file(taken / "inner", "x"),
        lambda: taken.mkdir(),
        lambda: Path("/proc/no_such/place").mkdir(),
    ):
        assert cli.exit_code(work) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("error: ") and "; choose" in error


def test_choices_that_take_long_to_know_are_checked_late():
    cli.one_of("--solver", "heun", ["euler", "heun"])
    with pytest.raises(ValueError, match="--solver heun$"):
        cli.one_of("--solver", "huen", ["euler", "heun"])


def test_the_defaults_for_acting_stand_in_one_place():
    from omegaconf import OmegaConf

    from selfflow_wm import defaults

    assert OmegaConf.load(ROOT / "configs/eval.yaml").policy.steps == defaults.POLICY_STEPS


OLDER = {
    "selfflow_wm.probe": "probe",
    "selfflow_wm.curves": "curves",
    "selfflow_wm.evaluation.distance": "distance",
    "selfflow_wm.evaluation.labelled": "labelled",
    "selfflow_wm.codec.reconstruct": "reconstruct",
    "selfflow_wm.data.toy": "toy",
    "selfflow_wm.metrics.train_recogniser": "recogniser",
}


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", OLDER)
def test_older_names_of_commands_still_run(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(module, run_name="__main__")
    assert stop.value.code == 0
    assert f"python -m selfflow_wm.evaluate {OLDER[module]} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sample", "--checkpoint a.pt --vae v --num 50000 --batch 64 --steps 250 --out b"),
        ("sample", "--checkpoint runs/media --modality video --shard 2/8 --out b"),
        ("checkpoints", "sf=runs/sf fm=runs/fm --out b --samples 256 --batch 4 --device cuda"),
        ("probe", "--data d --out b --checkpoint sf=runs/sf --checkpoint fm=runs/fm --limit 9"),
        ("distance", "a b --features image=inception:FILE --json c --samples 9"),
        ("recogniser", "--out b --size 48 48 --steps 8000 --batch 32 --test 1000"),
    ],
)
def test_lines_that_were_written_for_older_versions_are_understood(name, words):
    module = import_module(f"selfflow_wm.commands.{name}")
    given = module._parser().parse_args(words.split())
    assert str(given.out) in "bc"


def test_errors_are_worded_alike():
    """Expected A, got B; what to do: no second dialect comes back."""
    other = re.compile(r"; got |; remedy: |\"remedy: \w")
    for package in ("selfflow_wm", "robotics", "eval"):
        for path in (ROOT / package).rglob("*.py"):
            assert not other.search(path.read_text(encoding="utf-8")), path
