"""The example package, installed and used from an empty directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a module where the example is installed; the finished process."""
    folder = tmp_path_factory.mktemp("example")
    site, source = folder / "site", folder / "source"
    subprocess.run(
        ["cp", "-r", str(ROOT / "examples" / "selfflow_wm_example"), str(source)], check=True
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
         "--no-build-isolation", "--target", str(site), str(source)], check=True,
    )  # fmt: skip
    paths = [str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]

    def start(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )  # fmt: skip

    start.folder = folder
    return start


def test_help_lists_what_is_installed(run):
    shown = run("eval.simpler", "--help").stdout
    for name in (
        "point (selfflow-wm-example 0.1.0)",
        "constant (selfflow-wm-example 0.1.0)",
        "speed (selfflow-wm-example 0.1.0)",
    ):
        assert name in " ".join(shown.split())


def test_its_parts_run(run):
    words = ["--task", "reach", "--episodes", "3", "--workers", "1", "--video", "1"]
    for policy in ("expert", "constant://0.01,0,0"):
        done = run("eval.simpler", "--backend", "point", "--policy", policy, *words, "--out",
                   policy[:6])  # fmt: skip
        assert done.returncode == 0, done.stderr
    task = json.loads((run.folder / "expert" / "results.json").read_text())["tasks"]["reach"]
    assert task["success_last_step"]["rate"] == 1.0
    assert task["metrics"]["steps to success"] == task["mean_steps"]
    task = json.loads((run.folder / "consta" / "results.json").read_text())["tasks"]["reach"]
    assert task["success_last_step"]["rate"] == 0.0 and "metrics" not in task


def test_its_demonstrations_are_replayed(run):
    done = run("eval.collect", "--backend", "point", "--task", "reach", "--episodes", "2",
               "--workers", "1", "--position-noise", "0.005", "--out", "demos")  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run("eval.simpler", "--backend", "point", "--task", "reach", "--policy", "replay:demos",
               "--video", "0", "--workers", "1", "--out", "replay")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((run.folder / "replay" / "results.json").read_text())
    assert found["tasks"]["reach"]["success_last_step"]["count"] == 2


def test_the_doctor_looks_at_it(run):
    done = run("eval.doctor", "--only", "point")
    assert done.returncode == 0, done.stdout
    assert "320 x 256" in done.stdout
