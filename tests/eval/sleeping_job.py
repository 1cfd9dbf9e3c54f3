"""A job that never ends by itself; spawned processes import it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Setup:
    """Builds the runner; `note` gets the numbers of the worker and of what it started."""

    note: str

    def __call__(self, start: int = 0) -> Runner:
        return Runner(Path(self.note))


class Runner:
    """Starts a process in a session of its own, as a simulator is, and waits."""

    def __init__(self, note: Path) -> None:
        self._note = note

    def __call__(self, job: Any, beat: Callable[[], None]) -> None:
        child = subprocess.Popen(["sleep", "300"], start_new_session=True)
        partial = self._note.with_suffix(".partial")
        partial.write_text(f"{os.getpid()} {child.pid}")
        partial.replace(self._note)
        time.sleep(300)

    def close(self) -> None:
        """Nothing to do."""
