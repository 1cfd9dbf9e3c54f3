"""Parts of other packages that are broken, of the wrong type, or take a name that is taken."""

import pytest

from robotics.embodiment.tables import load_robot
from robotics.finetune import main as finetune
from selfflow_wm.codec import PatchPCA, codec_from_config, codec_kinds
from selfflow_wm.plugins import Plugins, class_with, file_path, listed, subclass_of

MODULE = """
from collections import OrderedDict
NUMBER = 5
def function():
    pass
class WithLoss:
    def __init__(self, gamma=0.5, made=object()):
        pass
    def loss(self):
        pass
MISSING = "/no/such/robot.yaml"
FOUND = __file__
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`install(group, {name: attribute})`: an installed distribution that adds these."""

    def install(group, added):
        info = tmp_path / "their_package-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.2\n")
        lines = [f"{name} = their_parts:{attribute}" for name, attribute in added.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        (tmp_path / "their_parts.py").write_text(MODULE)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr("selfflow_wm.plugins._said", set())

    return install


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (class_with("loss"), "WithLoss", ["NUMBER", "function", "OrderedDict"]),
        (subclass_of("collections:OrderedDict"), "OrderedDict", ["NUMBER", "function", "WithLoss"]),
        (file_path, "FOUND", ["NUMBER", "function", "MISSING"]),
    ],
)
def test_what_is_of_the_wrong_type_is_refused_by_name_and_hides_nothing(
    install, capsys, check, good, bad
):
    group = Plugins("some.group", {}, "thing", check)
    install("some.group", {"good": good} | {f"bad{i}": value for i, value in enumerate(bad)})
    assert list(group.load_all()) == ["good"] == list(group.listing())
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == len(bad)
    for i, line in enumerate(warnings):
        assert line.startswith("warning: ") and f"bad{i}" in line and "their-package" in line
        with pytest.raises(ValueError, match=f"bad{i} of their-package 1.2: expected .*, got .*; "):
            group.load(f"bad{i}")
    with pytest.raises(ValueError, match="write good"):
        group.load("god")


def test_a_name_of_this_project_cannot_be_taken(install, capsys):
    group = Plugins("some.group", {"json": "json:loads"}, "thing", None, lambda: ["ours"])
    install("some.group", {"json": "NUMBER", "ours": "NUMBER", "theirs": "NUMBER"})
    assert group.names() == ("json", "theirs")
    assert group.load_all()["theirs"] == 5
    assert group.load("json") is not None and group.load("json") != 5
    first, second = capsys.readouterr().err.splitlines()
    assert "json" in first and "ours" in second


def test_workers_repeat_no_warning(install, capsys, monkeypatch):
    install("some.group", {"bad": "no_such"})
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Plugins("some.group", {}, "thing").load_all() == {}
    assert not capsys.readouterr().err


def test_broken_objectives_leave_the_commands_as_they_were(install, capsys):
    install(
        "selfflow_wm.objectives",
        {"number": "NUMBER", "gone": "no_such", "self_flow": "WithLoss", "mine": "WithLoss"},
    )
    for word, status in (("self_flow", 0), ("mine", 0), ("number", 2), ("gon", 2)):
        assert finetune(["--config", f"objective={word}"]) == status
        out, err = capsys.readouterr()
        if word == "self_flow":
            assert "their_parts" not in out
            assert err.count("warning: ") == 3 == err.count("\n"), "each once, and nothing else"
            assert ".py:" not in err
        elif word == "mine":
            assert "_target_: their_parts.WithLoss" in out and not err
        elif word == "number":
            assert "number of their-package 1.2" in err and "their_parts:NUMBER" in err
        else:
            assert "gone" not in err and "mine" in err
    assert "mine (their-package 1.2)" in listed() and "gone" not in listed()
    assert "self_flow (" not in listed()


def test_codecs_of_the_wrong_type_are_refused_and_kinds_kept(install, capsys):
    install("selfflow_wm.codecs", {"number": "NUMBER", "patch_pca": "WithLoss"})
    assert "number" not in codec_kinds() and "patch_pca" in codec_kinds("image")
    with pytest.raises(ValueError, match="number of their-package 1.2: expected a subclass"):
        codec_from_config({"kind": "number"})
    made = codec_from_config({"kind": "patch_pca", "image_size": [8, 8], "patch": 4, "channels": 4})
    assert isinstance(made, PatchPCA)
    assert capsys.readouterr().err.count("\n") == 2


def test_a_spec_that_is_not_there_is_named_with_who_adds_it(install):
    install("selfflow_wm.robots", {"theirs": "MISSING"})
    with pytest.raises(ValueError, match="their-package 1.2.*/no/such/robot.yaml"):
        load_robot("theirs")
    with pytest.raises(ValueError) as refused:
        load_robot("theis")
    assert "'theirs'" not in str(refused.value)
