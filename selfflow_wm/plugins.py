"""Parts that other packages add: named objects found by Python's entry points.

A package declares what it adds in its own pyproject.toml,

    [project.entry-points."selfflow_wm.backends"]
    mine = "my_package.simulator:MySimulator"

and whoever has it installed can give that name. A package that cannot be imported, or whose object
is of the wrong type, does not affect the others: one line on stderr names it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

BUILT_IN = "built in"

Check = Callable[[Any], str | None]
"""What is wrong with a loaded object, as `expected A, got B`; None where nothing is."""

_said: set[str] = set()
"""Warnings that this process has printed."""


class Plugins:
    """The objects of one entry point group.

    Args:
        group: the entry point group, such as `selfflow_wm.backends`.
        built_in: name -> `module:attribute` of this project, which win over others of the same
            name.
        what: what messages call one of them, such as `backend`.
        check: says what is wrong with an object of another package. It is called after the object
            has been imported, so it may import what it compares with.
        reserved: names of this project's own that are no entry points; they win as well.
    """

    def __init__(
        self,
        group: str,
        built_in: Mapping[str, str],
        what: str,
        check: Check | None = None,
        reserved: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.group, self.what = group, what
        self._built_in = {name: EntryPoint(name, at, group) for name, at in built_in.items()}
        self._check, self._reserved = check, reserved

    def names(self) -> tuple[str, ...]:
        """Every declared name, this project's first. Nothing is imported."""
        return tuple(self._entries())

    def usable(self) -> tuple[str, ...]:
        """Every name that can be loaded, this project's first; a warning names each that cannot.
        Imports what other packages declare, but nothing of this project."""
        others = [entry for name, entry in self._entries().items() if name not in self._built_in]
        return (*self._built_in, *self._all_of(others))

    def listing(self) -> dict[str, str]:
        """Usable name -> the distribution it comes from and its version, or `built in`."""
        entries = self._entries()
        return {name: _origin(entries[name]) for name in self.usable()}

    def help_line(self) -> str:
        """Every usable name in one line, with the distribution of those from elsewhere."""
        words = [
            name if origin == BUILT_IN else f"{name} ({origin})"
            for name, origin in self.listing().items()
        ]
        return ", ".join(words) or f"none (entry point group {self.group})"

    def load(self, name: str) -> Any:
        """The object called `name`; `ValueError` where there is none, importing it fails, or it is
        of the wrong type."""
        entries = self._entries()
        if name not in entries:
            usable = self.usable()
            near = get_close_matches(name, usable, 1)
            remedy = f"write {near[0]}" if near else "correct the spelling"
            raise ValueError(
                f"{self.what}: expected {' or '.join(usable) or 'an installed one'}, got "
                f"{name!r}; {remedy}, or install the package that adds it "
                f"(entry point group {self.group})"
            )
        return self._loaded(entries[name])

    def load_all(self) -> dict[str, Any]:
        """Name -> object of all that can be loaded; a warning names each that cannot."""
        return self._all_of(self._entries().values())

    def _all_of(self, entries: Iterable[EntryPoint]) -> dict[str, Any]:
        found = {}
        for entry in entries:
            try:
                found[entry.name] = self._loaded(entry)
            except ValueError as error:
                _warn(str(error))
        return found

    def _loaded(self, entry: EntryPoint) -> Any:
        where = f"{self.what}: {entry.name} of {_origin(entry)}"
        remedy = f"pip uninstall {entry.dist.name}, or repair it" if entry.dist else "repair it"
        try:
            found = entry.load()
        except (Exception, SystemExit) as error:  # whatever the package's own import raises
            raise ValueError(
                f"{where}: expected {entry.value} to import, got "
                f"{type(error).__name__}: {' '.join(str(error).split())}; {remedy}"
            ) from error
        problem = self._check(found) if self._check and entry.name not in self._built_in else None
        if problem:
            raise ValueError(f"{where}: {problem} at {entry.value}; {remedy}")
        return found

    def _entries(self) -> dict[str, EntryPoint]:
        """Name -> entry point: this project's, then others', the first of each name."""
        found = dict(self._built_in)
        others = list(entry_points(group=self.group))
        reserved = set(self._reserved()) if others else set()
        for entry in others:
            first = found.get(entry.name)
            if first is None and entry.name not in reserved:
                found[entry.name] = entry
            elif first is None or _origin(first) != _origin(entry) or first.value != entry.value:
                _warn(
                    f"{self.what}: expected a name of its own for {entry.value} of "
                    f"{_origin(entry)}, got {entry.name}, which is "
                    f"{_origin(first) if first else BUILT_IN}; ignored"
                )
        return found


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else BUILT_IN


def _warn(text: str) -> None:
    """One line on stderr, once, by the first process alone: not by its workers, nor by the other
    processes of a run."""
    worker = multiprocessing.parent_process() is not None
    if text in _said or worker or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    _said.add(text)
    sys.stderr.write(f"warning: {text}\n")


def subclass_of(place: str) -> Check:
    """A check for a subclass of `module:Class`, which is imported when there is one to check."""
    module, _, name = place.partition(":")

    def problem(found: Any) -> str | None:
        if isinstance(found, type) and issubclass(found, getattr(import_module(module), name)):
            return None
        return f"expected a subclass of {module}.{name}, got {_described(found)}"

    return problem


def class_with(*methods: str) -> Check:
    """A check for a class that has `methods`."""

    def problem(found: Any) -> str | None:
        if isinstance(found, type) and all(callable(getattr(found, m, None)) for m in methods):
            return None
        return f"expected a class with {', '.join(methods)}, got {_described(found)}"

    return problem


def file_path(found: Any) -> str | None:
    """A check for the path of a file that is there."""
    if not isinstance(found, str | os.PathLike):
        return f"expected the path of a yaml, got {_described(found)}"
    return None if Path(found).is_file() else f"expected a yaml that exists, got {found}"


def _described(found: Any) -> str:
    words = " ".join(repr(found).split())
    return f"{'class' if isinstance(found, type) else type(found).__name__} {words[:80]}"


def _own_files(group: str) -> Callable[[], Iterable[str]]:
    """Names of the yamls in configs/`group`."""
    folder = Path(__file__).resolve().parents[1] / "configs" / group
    return lambda: [path.stem for path in folder.glob("*.yaml")]


def _own_codecs() -> Iterable[str]:
    return import_module("selfflow_wm.codec").own_kinds()


OBJECTIVES = Plugins(
    "selfflow_wm.objectives", {}, "objective", class_with("loss"), _own_files("objective")
)
"""Classes with the methods of `objective.FlowMatching`; words of `objective=` beside those of
configs/objective."""
CODECS = Plugins(
    "selfflow_wm.codecs", {}, "codec", subclass_of("selfflow_wm.codec:Codec"), _own_codecs
)
"""Subclasses of `codec.Codec`, each under its `kind`."""
ROBOTS = Plugins("selfflow_wm.robots", {}, "spec", file_path, _own_files("robot"))
"""Paths of yamls like those of configs/robot; words of `spec=`."""


def listed() -> str:
    """Parts installed from other packages, for the help of the training commands."""
    return "".join(
        f"    {group.what:<12} {group.help_line()}\n" for group in (OBJECTIVES, ROBOTS, CODECS)
    )
