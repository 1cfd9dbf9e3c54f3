"""Progress: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

LINE_EVERY = 30.0
"""s between the lines of progress where there is no terminal."""


class Progress:
    """A bar with rate and time left on a terminal; elsewhere a line every `LINE_EVERY` s and at the
    end of what took longer; nothing when `quiet`. Also a context manager that closes itself.

    Args:
        total: units of work in all; may be set again once more is known.
        done: of these, what an earlier run did. The rate is of this process alone.
        description: what is done, a participle or a noun: "sampling", "episodes".
        unit: the name of one unit.
        quiet: show nothing (the other processes of a run).
        console: a rich `Console` that the caller prints to as well; None: standard output.
        transient: take the bar away at the end, and write no lines.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        *,
        description: str = "training",
        unit: str = "step",
        quiet: bool = False,
        console: Any = None,
        transient: bool = False,
    ) -> None:
        self.total, self.begun_at, self.done = total, done, done
        self.description, self.unit = description, unit
        self.begun = self._printed = time.monotonic()
        self._line_of: int | None = None
        self._note = ""
        terminal = sys.stdout.isatty() if console is None else console.is_terminal
        self._console, self._lines = console, not (quiet or terminal or transient)
        self._bar = _bar(self, console, transient) if terminal and not quiet else None

    def rate(self, done: int | None = None) -> float:
        """Units per second since this process began."""
        done = self.done if done is None else done
        return (done - self.begun_at) / max(1e-9, time.monotonic() - self.begun)

    def advance(self, done: int, note: str | None = None) -> None:
        """`done` units are done now. note: text shown beside (None: as before)."""
        self.done = done
        self._note = self._note if note is None else note
        if self._bar is not None:
            self._bar.start()  # only now: a bar above an error about the input would confuse
            row = self._bar.task_ids[0]
            self._bar.update(row, total=self.total, completed=done, note=self._note)
        elif time.monotonic() - self._printed >= LINE_EVERY:
            self._line()

    def add(self, count: int = 1, note: str | None = None) -> None:
        """`count` more units are done."""
        self.advance(self.done + count, note)

    def report(self, done: int, values: Mapping[str, float]) -> None:
        """Show the progress now, with those of `values` that are finite."""
        self.advance(done, "  ".join(f"{k} {v:.4g}" for k, v in values.items() if math.isfinite(v)))
        if self._bar is None and self._line_of != done:
            self._line()

    def _line(self) -> None:
        if not self._lines:
            return
        self._printed, self._line_of = time.monotonic(), self.done
        left = clock((self.total - self.done) / max(self.rate(), 1e-9))
        words = [f"{self.description}  {self.done}/{self.total}", f"{left} left", self.rates()]
        text = "  ".join([*words, self._note]).rstrip()
        if self._console is None:
            print(text, flush=True)
        else:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def rates(self) -> str:
        """`2.35 step/s`, or `3.2 episode/min` where that is less than one a second."""
        rate = self.rate()
        if rate >= 1 or rate <= 0:
            return f"{rate:.2f} {self.unit}/s"
        return f"{60 * rate:.1f} {self.unit}/min"

    def close(self) -> None:
        """Restore the terminal; without one, print a last line if the work took long."""
        if self._bar is not None:
            self._bar.stop()
        elif self._line_of not in (None, self.done):
            self._line()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _bar(progress: Progress, console: Any, transient: bool) -> Any:
    from rich import progress as rich

    class Rate(rich.ProgressColumn):
        def render(self, task: Any) -> str:
            return progress.rates()

    bar = rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        Rate(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[note]}"),
        console=console,
        transient=transient,
        speed_estimate_period=600,  # a unit can take minutes: look far back for the time left
    )
    bar.add_task(progress.description, total=progress.total, completed=progress.begun_at, note="")
    return bar


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
