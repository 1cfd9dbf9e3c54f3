"""The installed package: whole, and its scripts work from any directory."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("selfflow_wm", "robotics", "eval", "configs", "checkpoints")

pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path, code: int = 0) -> str:
    """Output of a command in an environment that knows nothing of this checkout."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def files() -> list[str]:
    """Everything that belongs to the source, relative to its root."""
    try:
        words = ["git", "ls-files", "-co", "--exclude-standard"]
        found = run(*words, cwd=ROOT).splitlines()
    except (FileNotFoundError, AssertionError):
        pytest.skip("needs git and a checkout, to know what belongs to the source")
    return [name for name in found if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(files, tmp_path_factory) -> Path:
    """Built of a copy: setuptools leaves directories in what it builds."""
    source = tmp_path_factory.mktemp("source")
    for name in files:
        if name.startswith(PACKAGES) or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run(*pip, "-w", out, source, cwd=out)
    [found] = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory) -> Path:
    """The folder of the scripts, installed into an environment that borrows our dependencies."""
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", "--no-index",
        wheel, cwd=home)  # fmt: skip
    [packages] = home.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import eval, selfflow_wm; print(selfflow_wm.__file__)", cwd=home)
    assert where.startswith(str(home))
    return home / "bin"


def test_the_wheel_holds_every_file_that_the_code_reads(files, wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    wanted = {name for name in files if name.split("/")[0] in PACKAGES and not name.endswith(".md")}
    assert len(wanted) > 100 and not wanted - held


@pytest.fixture(params=["empty", "with modules of the same names"])
def directory(request, tmp_path) -> Path:
    """Where a user stands."""
    if request.param != "empty":
        for name in ("eval.py", "robotics.py", "selfflow_wm.py"):
            (tmp_path / name).write_text("raise SystemExit('the wrong module was imported')\n")
        (tmp_path / "configs").mkdir()
        (tmp_path / "checkpoints").mkdir()
    return tmp_path


def test_scripts_work_from_any_directory(scripts, directory):
    assert "selfflow-eval" not in run(scripts / "selfflow-evaluate", "--help", cwd=directory)
    run(scripts / "selfflow-evaluate", "toy", "--out", "sheet.png", "--rows", "1", cwd=directory)
    assert (directory / "sheet.png").stat().st_size > 1000
    words = ["--task", "move_near", "--episodes", "2", "--workers", "2", "--video", "1"]
    said = run(scripts / "selfflow-eval", *words, "--out", "out", cwd=directory)
    assert "report" in said
    assert (directory / "out/report.html").stat().st_size > 1000
    assert (directory / "out/results.json").is_file()
