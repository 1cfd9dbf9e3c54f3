"""The results of a stage, on disk after every entry."""

from __future__ import annotations

import json
import math
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfflow_wm.files import write_file


class OutOfTime(BaseException):
    """The stage's time is up, or the benchmark was told to stop; nothing may swallow it."""


class TooLong(BaseException):
    """One cell's time is up; a BaseException, so that no library takes it for its own failure."""


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all; what is no JSON, as text."""
    write_file(path, json.dumps(value, indent=1, default=str))


class Bench:
    """The results of one stage and what it may use.

    path: JSON file that is rewritten after every entry. out: directory for further files.
    deadline: seconds since the epoch at which the stage is cut. settings: tiny, device, words,
    resume. before: the results of the stages before it.
    """

    def __init__(
        self,
        path: Path,
        out: Path,
        deadline: float,
        settings: dict[str, Any],
        before: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.out, self.deadline, self.settings = path, out, deadline, settings
        self.before = before or {}
        self.found: dict[str, Any] = {
            "figures": {}, "tables": {}, "checks": [], "notes": [],
            "planned": [], "done": [], "failed": {}, "missed": [],
        }  # fmt: skip

    @property
    def tiny(self) -> bool:
        return bool(self.settings.get("tiny"))

    @property
    def device(self) -> str:
        return str(self.settings["device"])

    def left(self) -> float:
        """Seconds until the stage is cut."""
        return self.deadline - time.time()

    def flush(self) -> None:
        """Write what there is."""
        write_json(self.path, self.found)

    def figure(self, name: str, value: Any, unit: str = "", bar: str = "", ok: bool | None = None):
        """A headline: one number with its unit, and the bar that it is held against."""
        entry = {"value": plain(value), "unit": unit, "bar": bar, "ok": ok}
        self.found["figures"][name] = entry
        self.flush()

    def row(self, table: str, **columns: Any) -> None:
        """One row of a table."""
        values = {key: plain(value) for key, value in columns.items()}
        self.found["tables"].setdefault(table, []).append(values)
        self.flush()

    def check(self, name: str, difference: float, tolerance: float, note: str = "") -> bool:
        """Compare a measured difference with its tolerance; NaN fails."""
        ok = bool(difference <= tolerance)
        self.found["checks"].append(
            {
                "check": name,
                "difference": plain(difference),
                "tolerance": tolerance,
                "verdict": "ok" if ok else "FAILED",
                "note": note,
            }
        )
        self.flush()
        return ok

    def note(self, text: str) -> None:
        """A sentence for the report."""
        self.found["notes"].append(text)
        self.flush()

    # ---------------------------------------------------------------- cells

    def plan(self, names: Sequence[str]) -> None:
        """Announce cells, so that those that time cuts off can be named."""
        self.found["planned"] += names
        self.flush()

    def cell(
        self, name: str, work: Callable[[], Any], seconds: float = 0.0, most: float | None = None
    ) -> Any:
        """`work()`, or None where it fails, less than `seconds` are left or it takes over `most`.

        A failure is recorded and the next cell may follow, except where the CUDA context is lost.
        """
        if name not in self.found["planned"]:
            self.plan([name])
        if self.left() < seconds:
            self.found["missed"].append(name)
            self.flush()
            return None
        print(f"-- {name}, {self.left():.0f} s left", flush=True)
        try:
            with at_most(most):
                result = work()
        except TooLong:
            self.found["failed"][name] = f"took longer than {most:.0f} s; give more --minutes"
            self.flush()
            print(f"-- {name}: stopped after {most:.0f} s", flush=True)
            return None
        except Exception as error:
            self.found["failed"][name] = traceback.format_exc(limit=-6)
            self.flush()
            print(f"-- {name}: {type(error).__name__}: {error}", flush=True)
            if _context_lost(error):
                raise
            return None
        finally:
            free()
        self.found["done"].append(name)
        self.flush()
        return result


@contextmanager
def at_most(seconds: float | None) -> Iterator[None]:
    """Raise TooLong in the main thread when the block takes longer; None: as long as it likes.

    Like every signal it is seen between two instructions of Python: a kernel or a call of C ends
    first.
    """
    if seconds is None:
        yield
        return

    def stop(_number: int, _frame: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _context_lost(error: Exception) -> bool:
    text = str(error)
    return "CUDA error" in text and "out of memory" not in text


def free() -> None:
    """Free a cell's GPU memory and compiled graphs: torch keeps a limited number of graphs a class
    and silently runs uncompiled beyond it."""
    import gc
    import sys

    import torch

    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def plain(value: Any) -> Any:
    """JSON-able: numbers rounded to six digits, NaN and infinity as strings."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value
