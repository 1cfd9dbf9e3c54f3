"""Parts of other packages that are broken, of the wrong type, or take a name that is taken."""

import pytest

from selfflow_wm.plugins import Plugins, class_with, file_path, subclass_of

MODULE = """
from collections import OrderedDict
NUMBER = 5
def function():
    pass
class WithLoss:
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
