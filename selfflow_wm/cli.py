"""What the command lines share: one-line errors, value checks, progress."""

from __future__ import annotations

import argparse
import errno
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import torch

_DISK = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR,
}  # fmt: skip
"""No right to a place, no room at it, or no directory where one has to be."""


class Parser(argparse.ArgumentParser):
    """argparse with an epilog kept as written and errors in one line, exit code 2."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        """One line on stderr and exit code 2."""
        sys.stderr.write(f"error: {message}; remedy: see {self.prog} --help\n")
        raise SystemExit(2)


def at_least(bound: int | float) -> Callable[[str], Any]:
    """An argparse type: a finite number of `bound`'s type, not below it."""
    kind = type(bound)

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not bound <= value < float("inf"):
            word = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {word} of at least {bound}; got {text!r}")
        return value

    return convert


def fraction(text: str) -> float:
    """An argparse type: a number in [0, 1]."""
    value = at_least(0.0)(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a number in [0, 1]; got {text!r}")
    return value


def split_name(word: str) -> tuple[str, str]:
    """(NAME, PATH) of `[NAME=]PATH`; the name is empty where there is none. A `=` behind a `/` is
    the path's own. ValueError for a `=` with nothing before it."""
    name, equals, place = word.partition("=")
    if equals and not name:
        raise ValueError(f"expected NAME=PATH or PATH, got {word!r}; write a name, or leave out =")
    return (name, place) if equals and "/" not in name else ("", word)


def compute_device(name: str) -> torch.device:
    """The device called cpu, cuda or cuda:N; ValueError for another word and for a GPU that is not
    there."""
    import torch  # only now: --help need not wait for it

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device: expected cpu or cuda, got {name!r}; choose one") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: expected a CUDA GPU for {name!r}, found none; use cpu")
    return device


LINE_EVERY = 30.0
"""s between the lines of progress in a log file."""


def progress_bar(console: Any) -> Any:
    """A rich progress display with rate, ETA and a `note` field per row.

    Where there is no terminal (a log file), a plain line at an update every `LINE_EVERY` s.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    class Rate(ProgressColumn):
        def render(self, task: Any) -> str:
            return _per_minute(task)

    class Display(Progress):
        said = time.monotonic()

        def update(self, task_id: Any, *args: Any, **fields: Any) -> None:
            super().update(task_id, *args, **fields)
            row, now = self._tasks[task_id], time.monotonic()
            if self.console.is_terminal or row.finished or now - self.said < LINE_EVERY:
                return
            self.said = now
            seconds = row.time_remaining
            left = "" if seconds is None else f"{seconds / 60:.0f} min left"
            words = [f"{row.description} {row.completed:g}/{row.total:g}", _per_minute(row), left]
            words.append(row.fields["note"])
            self.console.print(", ".join(filter(None, words)), highlight=False, markup=False)

    return Display(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        # Episodes come every few seconds to minutes: look far back for the rate.
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        speed_estimate_period=600,
    )


def _per_minute(task: Any) -> str:
    """Of what this process has done itself, not of what was there before."""
    speed = task.finished_speed or task.speed
    return f"{60 * speed:.1f}/min" if speed else ""


def exit_code(work: Callable[[], int | None], resumable: bool = False) -> int:
    """Do `work`; its exit code (None: 0), 2 for a `ValueError`, 1 for a `ConnectionError` and for a
    disk that may not or can't be written, 130 when interrupted.

    A `ValueError` is the user's to mend, a connection or a disk may be: one line on stderr.
    resumable: say after an interruption that the same command goes on.
    """
    try:
        return work() or 0
    except ValueError as error:
        sys.stderr.write("error: " + " ".join(str(error).split()) + "\n")
        return 2
    except ConnectionError as error:
        sys.stderr.write("error: " + " ".join(str(error).split()) + "\n")
        return 1
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = f": {error.filename}" if error.filename else ""
        sys.stderr.write(
            f"error: {error.strerror}{where}; remedy: choose another place, or make room there\n"
        )
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(
            "interrupted; the same command goes on\n" if resumable else "interrupted\n"
        )
        return 130


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit with its `exit_code`."""
    raise SystemExit(exit_code(main))
