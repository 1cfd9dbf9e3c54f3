"""Runs the tests marked gpu, if pytest is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.gpu.record import Bench

ROOT = Path(__file__).resolve().parents[2]


def marked_files() -> list[Path]:
    """Test files with a test marked gpu; the others may need packages that are not installed."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [file for file in files if "pytest.mark.gpu" in file.read_text()]


def run_marked(bench: Bench) -> None:
    """Run them and record how many passed, failed and were skipped."""
    files = marked_files()
    if importlib.util.find_spec("pytest") is None:
        bench.note("pytest is not installed: the tests marked gpu were not run")
        return
    if bench.device == "cpu":
        bench.note(f"{len(files)} files with tests marked gpu, not run without one")
        return
    if not files:
        bench.note("no test is marked gpu")
        return
    junit = bench.path.parent / "junit.xml"
    # pyproject.toml's own options ask for pytest-xdist and leave these tests out.
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    words += ["-o", "addopts=--import-mode=importlib", f"--junitxml={junit}", "--tb=short"]
    done = subprocess.run(
        [*words, *map(str, files)], cwd=ROOT, timeout=max(1.0, 0.6 * bench.left())
    )
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    if junit.is_file():
        for suite in ElementTree.parse(junit).getroot().iter("testsuite"):
            for name in counts:
                counts[name] += int(suite.get(name, 0))
    bad = counts["failures"] + counts["errors"] + (done.returncode not in (0, 1, 5))
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    note = f"{passed} passed, {counts['skipped']} skipped, pytest's status {done.returncode}"
    bench.check("tests marked gpu that failed", float(bad), 0.0, note)
