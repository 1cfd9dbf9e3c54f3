"""The interpreter that SIMPLER is installed in: its search path, versions and what it lacks."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from functools import lru_cache
from pathlib import Path

from eval.envs.contract import Row, row

ROOT = Path(__file__).resolve().parents[3]
PROBE = Path(__file__).with_name("probe.py")
DECISIVE = ("sapien", "mani_skill2_real2sim", "simpler_env", "numpy")
"""Distributions that can change outcomes."""


def check_interpreter(python: str) -> list[Row]:
    """Check `python` for what SIMPLER needs; `ValueError` if it is not an interpreter."""
    environment = {**os.environ, "PYTHONPATH": search_path()}
    try:
        done = subprocess.run(
            [python, str(PROBE)], capture_output=True, text=True, timeout=120, env=environment
        )
    except OSError as error:
        raise ValueError(
            f"simpler-python: expected an interpreter, got {python} ({error.strerror}); "
            "give the path of the python that SIMPLER is installed in"
        ) from None
    except subprocess.TimeoutExpired:
        found = f"{python} gave no answer in 120 s"
        return [row("interpreter", False, found, "run it by hand")]
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        words = f"{python} ended with code {done.returncode}: {last}"
        return [row("interpreter", False, words, "use Python 3.8 to 3.11")]


@lru_cache(maxsize=8)
def installed_versions(python: str) -> dict[str, str]:
    """Versions of `DECISIVE` in the interpreter `python`, absent ones left out; empty where it
    gives no answer."""
    code = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name + '=' + m.version(name))\n"
        "    except m.PackageNotFoundError: pass\n"
    )
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [python, "-c", code, *DECISIVE], capture_output=True, text=True, timeout=60, check=True
        )
        pairs = (line.partition("=") for line in done.stdout.split())
        return {name: version for name, _, version in pairs if version}
    return {}


def search_path(root: Path = ROOT) -> str:
    """PYTHONPATH of the simulator's interpreter: this checkout, and what is already set.

    If this package was installed by copying, its parent folder is the site-packages of another
    Python, whose numpy must not come before the simulator's: the package then has to be installed
    in that interpreter, too.
    """
    checkout = [str(root)] if (root / "pyproject.toml").is_file() else []
    return os.pathsep.join([*checkout, *filter(None, [os.environ.get("PYTHONPATH")])])
