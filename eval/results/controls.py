"""Which positive controls have passed on this installation, and a warning if none has.

A policy that scores 0 can't be distinguished from a broken pipeline until something else has
succeeded through the same code: the expert, or a replayed demonstration. Passed controls are stored
in the user's cache, per simulator, versions and task; see `path`.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

from eval.envs.contract import Simulator
from eval.results.records import write_json
from selfflow_wm.files import locked

SCHEMA_VERSION = 1
KINDS = ("expert", "replay")
"""Policies whose success is a control."""


def path() -> Path:
    """`$XDG_CACHE_HOME/selfflow_wm/controls.json`; the cache is `~/.cache` by default."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore relative paths.
    root = Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache"
    return root / "selfflow_wm" / "controls.json"


def passed(where: str) -> dict[str, dict[str, Any]]:
    """Controls that passed on the installation `where`: task -> {"kind", "rate", "written"}."""
    return _read().get(where, {})


def remember(results: dict[str, Any], where: str) -> None:
    """Store the tasks in which a control succeeded; several runs may end at the same time."""
    rows = {
        task: {
            "kind": results["policy"]["kind"],
            "count": summary["success_last_step"]["count"],
            "of": summary["success_last_step"]["of"],
            "written": results["written"],
        }
        for task, summary in results["tasks"].items()
        if summary["success_last_step"]["count"]
    }
    if rows:
        with locked(path().with_suffix(".lock")):
            known = _read()
            known[where] = {**known.get(where, {}), **rows}
            write_json(path(), {"schema_version": SCHEMA_VERSION, "installations": known})


def check(results: dict[str, Any], simulator: Simulator) -> list[str]:
    """After a run: store a control that passed, and return warnings about zeros without a control.

    A cache that can't be written is one more warning, not an error.
    """
    control = results["policy"]["kind"] in KINDS
    zeros = [
        task
        for task, summary in results["tasks"].items()
        if summary["success_last_step"]["of"] and not summary["success_last_step"]["count"]
    ]
    if control:
        lines = [
            f"{task}: the control itself never succeeded; until it does, no policy's 0 means "
            "anything here"
            for task in zeros
        ]
        try:
            remember(results, simulator.installation())
        except OSError as error:
            lines.append(f"controls are not remembered: {path()}: {error.strerror}")
        return lines
    known = passed(simulator.installation()) if zeros else {}
    return [_warning(task, simulator) for task in zeros if not _covered(task, simulator, known)]


def _has_expert(task: str, simulator: Simulator) -> bool:
    return simulator.expert_tasks is None or task in simulator.expert_tasks


def _covered(task: str, simulator: Simulator, known: dict[str, Any]) -> bool:
    """A task that the expert can't do is covered by any other task's control."""
    return task in known or (bool(known) and not _has_expert(task, simulator))


def _warning(task: str, simulator: Simulator) -> str:
    words = [
        f"{task}: 0% here may mean a broken pipeline: no positive control has passed on "
        "this installation."
    ]
    able = simulator.expert_tasks or ()
    if _has_expert(task, simulator):
        words.append("Run one: " + _command(task, simulator))
    elif able:
        words.append(
            "There is no expert for this task; one that takes the same way through the code: "
            + _command(able[0], simulator)
        )
    return " ".join(words)


def _command(task: str, simulator: Simulator) -> str:
    words = ["python", "-m", "eval.simpler", "--task", task, "--policy", "expert"]
    return shlex.join([*words, *simulator.words(), "--episodes", "5"])


def _read() -> dict[str, dict[str, Any]]:
    """A missing, damaged or foreign file holds no controls: it is only a cache."""
    try:
        stored = json.loads(path().read_text())
        known = stored["installations"] if stored["schema_version"] == SCHEMA_VERSION else {}
        return known if isinstance(known, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
