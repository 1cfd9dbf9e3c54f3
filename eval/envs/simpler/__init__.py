"""SIMPLER behind the environment contract; the only package that imports SIMPLER or SAPIEN.

The simulator's pins are old (Python 3.11, numpy < 2), so it always runs in a child process, in an
interpreter of its own or, where SIMPLER is installed beside the harness, in the same one:

    harness: RemoteEnv (client) --pipes (wire)--> server -> Scene -> ManiSkill2_real2sim

`cells` holds the grids, `training` where demonstrations start, `adapters` the conversions, `expert`
the privileged control (with `motions`, and its plans in `drawers` and `objects`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from eval.envs.contract import Backend
from eval.envs.tasks import Task
from eval.rollout.watchdog import Limits

ROOT = Path(__file__).resolve().parents[3]
NAME = "simpler"
PACKAGES = ("numpy", "gymnasium")
DECISIVE = ("sapien", "mani_skill2_real2sim", "simpler_env", "numpy")
"""Distributions of the simulator's interpreter that can change outcomes."""
DEFAULTS = {"protocol": "vm", "python": "", "shader": "rasterised"}


def backend_name(protocol: str = "vm", python: str = "", shader: str = "rasterised") -> str:
    """The string that names SIMPLER with these settings, such as `simpler?protocol=va`."""
    given = {"protocol": protocol, "python": python, "shader": shader}
    changed = {key: value for key, value in given.items() if value != DEFAULTS[key]}
    return NAME + ("?" + urlencode(changed) if changed else "")


def settings(name: str) -> dict[str, str]:
    """`protocol`, `python` and `shader` of a backend's name; `ValueError` for another key."""
    base, _, query = name.partition("?")
    given = dict(parse_qsl(query))
    if base != NAME or not set(given) <= set(DEFAULTS):
        raise ValueError(
            f"backend: expected {NAME}?key=value&... with keys {', '.join(DEFAULTS)}; got "
            f"{name!r}; remedy: use --protocol and --simpler-python"
        )
    found = {**DEFAULTS, **given}
    if found["shader"] not in ("rasterised", "ray_traced"):
        raise ValueError(
            f"shader: expected rasterised or ray_traced; got {found['shader']!r}; "
            "remedy: choose one of these"
        )
    return found


def backend(name: str) -> Backend:
    """What results are labelled with under the settings in `name`."""
    found = settings(name)
    rendering = "ray traced" if found["shader"] == "ray_traced" else "rasterised"
    note = f"protocol {found['protocol']}, {rendering}"
    if found["shader"] == "rasterised":
        note += "; published drawer numbers are ray traced"
    if found["protocol"] == "train":
        note += "; where demonstrations start, no test"
    return Backend(name=name, simulator=f"simpler-{rendering.replace(' ', '-')}", note=note,
                   packages=PACKAGES, protocol=found["protocol"])  # fmt: skip


def installed() -> bool:
    """Whether SIMPLER could be imported in this interpreter (it is not imported)."""
    return importlib.util.find_spec("mani_skill2_real2sim") is not None


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
    """PYTHONPATH of the simulator's interpreter: this checkout, and what is set already.

    Where this package was installed by copying, the folder beside it is the site-packages of
    another Python, whose numpy must not come before the simulator's: then that interpreter has to
    have the package itself.
    """
    own = [str(root)] if (root / "pyproject.toml").is_file() else []
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])


def available(python: str = "") -> tuple[bool, str]:
    """Whether tasks can run on SIMPLER here, and why or why not, in a few words."""
    if python:
        return True, f"in {python}"
    if not installed():
        return False, "SIMPLER is not installed in this interpreter"
    return True, "SIMPLER is installed"


def require(python: str = "") -> None:
    """Raise `ValueError` unless tasks can be tried on SIMPLER here."""
    usable, why = available(python)
    if not usable:
        raise ValueError(
            f"backend: expected an interpreter with SIMPLER; got none ({why}); remedy: "
            "give --simpler-python PATH (python -m eval.doctor says what is missing there), or "
            "--backend mujoco"
        )


def make_env(name: str, task: Task, limits: Limits | None = None) -> Any:
    """The environment of `task` under the settings in `name`; `reset(seed=cell number)`."""
    from eval.envs.simpler.client import RemoteEnv, timeouts

    found = settings(name)
    require(found["python"])
    python = found["python"] or sys.executable
    seconds = timeouts(limits) if limits else None
    return RemoteEnv(task.name, found["protocol"], python, found["shader"], seconds)
