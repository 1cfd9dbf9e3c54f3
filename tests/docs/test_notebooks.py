"""Notebooks run from top to bottom, at a tiny size and without a kernel."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY: dict[str, dict[str, Any]] = {
    "quickstart": {"DEMONSTRATIONS": 20, "STEPS": 10, "BATCH": 2, "EPISODES": 1, "FOLDER": "made"},
}
"""What takes the place of the variables in the cell tagged `parameters`."""


def cells(name: str) -> list[dict[str, Any]]:
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def shell(line: str, names: dict[str, Any]) -> None:
    """A `!command` with IPython's {variables}."""
    command = re.sub(r"\{(\w+)\}", lambda match: str(names[match[1]]), line.removeprefix("!"))
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def execute(cell: dict[str, Any], names: dict[str, Any]) -> None:
    """Run a cell: lines that begin with ! in a shell, anything else as Python."""
    source = "".join(cell["source"])
    if source.startswith("!"):
        shell(source, names)
    else:
        exec(compile(ast.parse(source), "cell", "exec"), names)


def test_every_notebook_is_tested() -> None:
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(TINY)


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    matplotlib.use("Agg")
    shown: list[str] = []
    display = types.ModuleType("IPython.display")
    display.Video = lambda path, **options: path  # type: ignore[attr-defined]
    display.display = shown.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    names: dict[str, Any] = {}
    for cell in cells(name):
        execute(cell, names)
        if "parameters" in cell["metadata"].get("tags", []):
            unknown = set(TINY[name]) - set(names)
            assert not unknown, "parameters that the notebook does not have"
            names |= TINY[name]
    assert shown and all(Path(video).stat().st_size > 1000 for video in shown)


@pytest.mark.parametrize("name", sorted(TINY))
def test_notebooks_are_stored_without_outputs(name: str) -> None:
    assert not [cell for cell in cells(name) if cell["outputs"] or cell["execution_count"]]
