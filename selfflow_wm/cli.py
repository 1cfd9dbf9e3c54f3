"""What all commands share: flags of the same names, one-line errors that name the right form.

The convention is that of docs/reference/cli.md.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from selfflow_wm.defaults import DEVICE

if TYPE_CHECKING:
    import torch

_DISK = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST,
    errno.EISDIR, errno.ENOENT,
}  # fmt: skip
"""No right to a place, no room at it, or not the kind of thing there that has to be."""

_FULL = {errno.ENOSPC, errno.EDQUOT}

Shard = tuple[int, int]
"""(i, n): share i of n, counted from 1."""


class Parser(argparse.ArgumentParser):
    """argparse with an epilog kept as written and errors in one line, exit code 2, that name the
    right form where a wrong one was written.

    Args:
        renamed: old spelling of a flag -> today's. The old one still works and is not shown.
        training: KEY=VALUE words say what belongs to the run, so `--out X` is answered with
            `out=X`. In other commands `out=X` is answered with `--out X`.
    """

    def __init__(
        self, *, renamed: Mapping[str, str] | None = None, training: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs
        )
        self._renamed, self._training, self._words = dict(renamed or {}), training, []

    def add_shared(self, name: str, **changes: Any) -> None:
        """A flag that means the same in every command, out of `SHARED`; changes: what differs."""
        self.add_argument(f"--{name}", **{**SHARED[name], **changes})

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        return self._checked(*self.parse_known_args(self._taken(args), namespace))

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        return self._checked(*self.parse_known_intermixed_args(self._taken(args), namespace))

    def _taken(self, args: Sequence[str] | None) -> list[str]:
        self._words = []
        for word in sys.argv[1:] if args is None else args:
            flag, equals, value = word.partition("=")
            self._words.append(self._renamed.get(flag, flag) + equals + value)
        return self._words

    def _checked(self, namespace: argparse.Namespace, rest: Sequence[str]) -> argparse.Namespace:
        """`namespace`, if no word is left over or stands where a flag should."""
        if rest:
            flags = [word.partition("=")[0] for word in rest if word.startswith("-")]
            unknown = f"unknown flag {flags[0]}" if flags else f"unexpected {' '.join(rest)}"
            self.error(unknown)
        if not self._training:
            for action in self._actions:
                found = [] if action.option_strings else getattr(namespace, action.dest, None)
                for word in found if isinstance(found, list) else [found]:
                    if isinstance(word, str | Path) and self._as_flag(str(word)):
                        self.error(f"expected a flag, got {word}")
        return namespace

    def error(self, message: str) -> NoReturn:
        """One line on stderr and exit code 2."""
        remedies = filter(None, map(self._right_form, range(len(self._words))))
        usual = "" if "; " in message else f"; see {self.prog} --help"
        remedy = next((f"; {words}" for words in remedies), usual)
        sys.stderr.write(f"error: {message}{remedy}\n")
        raise SystemExit(2)

    def _right_form(self, place: int) -> str | None:
        """What to write for the word at `place`; None where its form is not wrong."""
        word = self._words[place]
        if not word.startswith("--"):
            flag = None if self._training else self._as_flag(word)
            return flag and f"write {flag}"
        flag, equals, value = word.partition("=")
        if flag in self._option_string_actions or flag == "--":
            return None
        if not equals:
            value = next(iter(self._words[place + 1 :]), "")
            value = "" if value.startswith("-") else value
        shown = [name for name, action in self._option_string_actions.items() if _is_shown(action)]
        if near := get_close_matches(flag, shown, n=1, cutoff=0.75):
            action = self._option_string_actions[near[0]]
            needed = "" if action.nargs == 0 else f" {value or action.metavar or 'VALUE'}"
            return f"did you mean {near[0]}{needed}?"
        if not self._training:
            return None
        value = value or "VALUE"
        return f"write {flag.removeprefix('--').replace('-', '_')}={value}"

    def _as_flag(self, word: str) -> str | None:
        """`--out X` for `out=X` where --out is a flag; else None."""
        key, equals, value = word.partition("=")
        flag = "--" + key.replace("_", "-")
        flag = self._renamed.get(flag, flag)
        action = self._option_string_actions.get(flag) if equals else None
        if action is None:
            return None
        return flag if action.nargs == 0 else f"{flag} {value}"


def _is_shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS


def unknown_word(what: str, word: str, known: Iterable[str]) -> str:
    """What is said of a word that is none of `known`, with the nearest of them. what: it names."""
    names = list(known)
    near = get_close_matches(word, names, n=1)
    remedy = f"write {near[0]}" if near else "choose one of them"
    return f"expected {what} out of {', '.join(names)}, got {word!r}; {remedy}"


def argument(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """`convert` as an argparse type: argparse hides the text of a `ValueError`."""

    def converted(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted


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
            raise argparse.ArgumentTypeError(f"expected {word} of at least {bound}, got {text!r}")
        return value

    return convert


def fraction(text: str) -> float:
    """An argparse type: a number in [0, 1]."""
    value = at_least(0.0)(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a number in [0, 1], got {text!r}")
    return value


def above_zero(text: str) -> float:
    """An argparse type: a number above 0."""
    value = at_least(0.0)(text)
    if not value:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def one_of(flag: str, value: str, known: Iterable[str]) -> None:
    """ValueError unless `value` is among `known`. For choices that argparse can't check
    because listing them takes torch."""
    if value not in (names := list(known)):
        near = get_close_matches(value, names, n=1)
        raise ValueError(
            f"{flag}: expected one of {', '.join(names)}, got {value!r}; write {flag} "
            f"{(near or names)[0]}"
        )


def parse_shard(text: str) -> Shard:
    """The share of `i/n`, such as 1/4; `ValueError` unless 1 <= i <= n."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        of = max(int(count), 1) if count.isdecimal() else 4
        remedy = f"1/{of}" if of == 1 else f"1/{of} or another, up to {of}/{of}"
        raise ValueError(
            f"expected share I of N as I/N, I from 1 to N, got {text!r}; write {remedy}"
        )
    return int(number), int(count)


def split_name(word: str) -> tuple[str, str]:
    """(NAME, PATH) of `[NAME=]PATH`; the name is empty where there is none. A `=` behind a `/` is
    the path's own. ValueError for a `=` with nothing before it."""
    name, equals, place = word.partition("=")
    if equals and not name:
        raise ValueError(f"expected NAME=PATH or PATH, got {word!r}; write a name, or leave out =")
    return (name, place) if equals and "/" not in name else ("", word)


SHARED: Mapping[str, Mapping[str, Any]] = {
    "out": dict(type=Path, required=True, metavar="DIR", help="where the results go"),
    "checkpoint": dict(
        required=True,
        metavar="WHICH",
        help="a name in checkpoints/, a checkpoint's directory, or a run's (its newest)",
    ),
    "device": dict(
        default=DEVICE,
        metavar="auto|cpu|cuda[:N]",
        help="where to compute; auto: the first GPU if there is one (%(default)s)",
    ),
    "seed": dict(type=at_least(0), default=0, metavar="S", help="of the noise (%(default)s)"),
    "steps": dict(type=at_least(1), metavar="K", help="of the solver (%(default)s)"),
    "shift": dict(
        type=above_zero, metavar="A", help="of the solver's time grid towards noise (%(default)s)"
    ),
    "samples": dict(type=at_least(1), metavar="N", help="how many (%(default)s)"),
    "batch-size": dict(
        type=at_least(1), metavar="B", help="samples at a time; changes no result (%(default)s)"
    ),
    "shard": dict(type=argument(parse_shard), metavar="I/N", help="only share I of N, from 1"),
}
"""The flags that mean the same in every command that has them, by name."""


def compute_device(name: str) -> torch.device:
    """The device called auto (the first GPU, or the CPU), cpu, cuda or cuda:N; ValueError for
    another word and for a GPU that is not there."""
    import torch  # only now: --help need not wait for it

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device: expected auto, cpu or cuda, got {name!r}; choose one") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: expected a CUDA GPU for {name!r}, found none; use cpu")
    return device


def exit_code(work: Callable[[], int | None], resumable: bool = False) -> int:
    """Do `work`; its exit code (None: 0), 2 for a `ValueError`, 1 for a `ConnectionError` and for a
    disk that may not or can't be written, 130 when interrupted.

    These are errors that the user can fix: one line on stderr, no traceback.
    resumable: say after an interruption that rerunning the same command resumes.
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
        place = error.filename2 or error.filename
        # Of a missing file without a name nobody knows whose fault it is.
        if error.errno not in _DISK or (error.errno == errno.ENOENT and not place):
            raise
        remedy = "make room there" if error.errno in _FULL else "check the path"
        sys.stderr.write(
            f"error: {error.strerror}{f': {place}' if place else ''}; choose another place, or "
            f"{remedy}\n"
        )
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(
            "interrupted; rerun the same command to resume\n" if resumable else "interrupted\n"
        )
        return 130


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit with its `exit_code`."""
    raise SystemExit(exit_code(main))


def perform(
    parser: Parser,
    work: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None,
    resumable: bool = False,
) -> int:
    """Parse `argv` (None: the command line's) and do `work` with the arguments; see `exit_code`."""
    arguments = parser.parse_args(argv)
    return exit_code(lambda: work(arguments), resumable)


def run_evaluate(name: str) -> NoReturn:
    """The sub-command `name` of `python -m selfflow_wm.evaluate`, for its older module."""
    raise SystemExit(import_module(f"selfflow_wm.commands.{name}").main())
