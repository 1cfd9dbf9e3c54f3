"""SIMPLER behind the environment contract; the only file that may import `simpler_env`.

This version only detects SIMPLER and says that it is not wired in: no number is ever shown as a
SIMPLER number.
"""

from __future__ import annotations

import importlib.util
from typing import Any, NoReturn

from eval.backends import Backend
from eval.tasks import Task

BACKEND = Backend(
    name="simpler",
    simulator="simpler",
    note="",
    packages=("numpy", "gymnasium", "simpler_env", "mani_skill2_real2sim", "sapien"),
)

IMPLEMENTED = False


def installed() -> bool:
    """Whether `simpler_env` could be imported here (it is not imported)."""
    return importlib.util.find_spec("simpler_env") is not None


def available() -> tuple[bool, str]:
    """Whether tasks can run on SIMPLER here, and why or why not, in a few words."""
    if not IMPLEMENTED:
        found = "installed" if installed() else "not installed"
        return False, f"SIMPLER is {found}; this version has no adapter for it"
    if not installed():
        return False, "simpler_env is not installed"
    return True, "simpler_env is installed"


def require() -> None:
    """Raise `ValueError` unless tasks can run on SIMPLER here."""
    usable, why = available()
    if not usable:
        raise ValueError(
            f"backend: expected a simulator this version can drive; got simpler ({why}); "
            "remedy: use --backend mujoco, the embedded simulator"
        )


def make_env(task: Task) -> NoReturn | Any:
    """Not wired in: always raises `ValueError`."""
    require()
    raise NotImplementedError(task.name)
