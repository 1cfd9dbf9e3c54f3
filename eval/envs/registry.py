"""Which simulator shows a task: the embedded MuJoCo one, SIMPLER, or a caller's own.

A backend is named by a string, so that it travels to worker processes and into records:
`mujoco`, `simpler` with its settings (`simpler?protocol=va`), or `module:factory` for any function
`factory(task: Task) -> gymnasium.Env` that keeps the same environment contract (its module may
also offer `Expert(env)`).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from typing import Any

from eval.envs.contract import Backend
from eval.envs.tasks import Task
from eval.rollout.watchdog import Limits

MUJOCO = Backend(
    name="mujoco",
    simulator="embedded-mujoco",
    note="not comparable with SIMPLER numbers",
    packages=("numpy", "gymnasium", "mujoco"),
)


def is_simpler(name: str) -> bool:
    """Whether a backend's name is SIMPLER's, with or without settings."""
    return name.partition("?")[0] == "simpler"


def resolve_backend(name: str) -> tuple[Backend, str]:
    """The backend to use for `auto`, `mujoco`, `simpler` or `module:factory`, and why.

    `auto` is SIMPLER where it is installed in this interpreter, and else the embedded simulator;
    settings (`auto?python=...`) are SIMPLER's. Raises `ValueError` when the named one cannot run
    here.
    """
    from eval.envs import simpler as simpler_backend

    if name.partition("?")[0] == "auto":
        wanted = "simpler" + name[len("auto") :]
        usable, why = simpler_backend.available(simpler_backend.settings(wanted)["python"])
        if usable:
            return simpler_backend.backend(wanted), f"backend: SIMPLER ({why})"
        return MUJOCO, f"backend: the embedded MuJoCo simulator ({why})"
    if name == "mujoco":
        return MUJOCO, "backend: the embedded MuJoCo simulator"
    if is_simpler(name):
        simpler_backend.require(simpler_backend.settings(name)["python"])
        found = simpler_backend.backend(name)
        return found, f"backend: SIMPLER ({found.note})"
    if ":" in name:
        _factory(name)
        return _custom(name), f"backend: {name}"
    raise ValueError(
        f"backend: expected auto, mujoco, simpler or module:factory; got {name!r}; "
        "remedy: leave --backend out"
    )


def make_env(backend: str, task: Task, limits: Limits | None = None) -> Any:
    """An environment of `task` in `obs_mode="state"`; pictures come from `camera_image()`.

    `limits`: how long a simulator in a process of its own may take for an answer.
    """
    if backend == "mujoco":
        import gymnasium

        import eval.envs.mujoco  # noqa: F401  (registers the environments)

        return gymnasium.make(task.env_id, obs_mode="state", disable_env_checker=True)
    if is_simpler(backend):
        from eval.envs import simpler as simpler_backend

        return simpler_backend.make_env(backend, task, limits)
    return _factory(backend)(task)


def make_expert(backend: str, env: Any) -> Any:
    """The privileged controller of `backend` for `env`: `.reset()` and `.act() -> Action`."""
    if backend == "mujoco":
        from eval.envs.mujoco.expert import Expert

        return Expert(env)
    if is_simpler(backend):
        from eval.envs.simpler import client

        return client.Expert(env)
    module = importlib.import_module(backend.partition(":")[0]) if ":" in backend else None
    if module is None or not hasattr(module, "Expert"):
        raise ValueError(
            f"policy: expected a backend with an expert; got {backend}; "
            "remedy: use --backend mujoco, or another policy"
        )
    return module.Expert(env)


def require_expert(backend: str, tasks: Sequence[str]) -> None:
    """`ValueError` for SIMPLER's tasks that no expert can do; others say so themselves."""
    if not is_simpler(backend):
        return
    from eval.envs.simpler.expert import TASKS

    if missing := [task for task in tasks if task not in TASKS]:
        raise ValueError(
            f"policy: expected tasks that SIMPLER's expert can do ({', '.join(TASKS)}); got "
            f"{', '.join(missing)}; remedy: leave them out, or choose another policy"
        )


def prepare_rendering(backend: str) -> None:
    """Choose MuJoCo's OpenGL library; `ValueError` names what to install where there is none."""
    if backend == "mujoco":
        from eval.envs.mujoco.gl import NoOpenGLError, ensure_gl

        try:
            ensure_gl()
        except NoOpenGLError as error:
            raise ValueError(str(error)) from None


def versions(backend: Backend) -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for package in (*backend.packages, "torch"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def simulator_versions(backend: Backend) -> dict[str, str]:
    """Versions in the simulator's own interpreter, as `simulator's NAME`; empty where it has
    none."""
    if not is_simpler(backend.name):
        return {}
    from eval.envs import simpler as simpler_backend

    python = simpler_backend.settings(backend.name)["python"] or sys.executable
    found = simpler_backend.installed_versions(python)
    return {f"simulator's {name}": version for name, version in found.items()}


def _custom(name: str) -> Backend:
    return Backend(name, name, "not comparable with SIMPLER numbers", ("numpy", "gymnasium"))


def _factory(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"backend: expected an importable module:factory; got {name!r} ({error}); "
            "remedy: check the spelling and PYTHONPATH"
        ) from None
