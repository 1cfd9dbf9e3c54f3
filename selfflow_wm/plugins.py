"""Parts that other packages add: named objects found by Python's entry points.

A package declares what it adds in its own pyproject.toml,

    [project.entry-points."selfflow_wm.backends"]
    mine = "my_package.simulator:MySimulator"

and whoever has it installed can give that name. Nothing is imported before its name is asked for,
and a package that cannot be imported does not affect the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

BUILT_IN = "built in"


class Plugins:
    """The objects of one entry point group.

    Args:
        group: the entry point group, such as `selfflow_wm.backends`.
        built_in: name -> `module:attribute` of this project, which win over others of the same
            name.
        what: what messages call one of them, such as `backend`.
    """

    def __init__(self, group: str, built_in: Mapping[str, str], what: str) -> None:
        self.group, self.what = group, what
        self._built_in = {name: EntryPoint(name, at, group) for name, at in built_in.items()}

    def names(self) -> tuple[str, ...]:
        """Every name, this project's first."""
        return tuple(self._entries())

    def listing(self) -> dict[str, str]:
        """Name -> the distribution it comes from and its version, or `built in`."""
        return {
            name: f"{entry.dist.name} {entry.dist.version}" if entry.dist else BUILT_IN
            for name, entry in self._entries().items()
        }

    def help_line(self) -> str:
        """Every name in one line, with the distribution of those from elsewhere."""
        words = [
            name if origin == BUILT_IN else f"{name} ({origin})"
            for name, origin in self.listing().items()
        ]
        return ", ".join(words) or f"none (entry point group {self.group})"

    def load(self, name: str) -> Any:
        """The object called `name`; `ValueError` where there is none or importing it fails."""
        entries = self._entries()
        if name not in entries:
            raise ValueError(
                f"{self.what}: expected {' or '.join(entries) or 'an installed one'}, got "
                f"{name!r}; correct the spelling, or install the package that adds it "
                f"(entry point group {self.group})"
            )
        entry = entries[name]
        try:
            return entry.load()
        except Exception as error:  # whatever the package's own import raises
            origin = entry.dist.name if entry.dist else BUILT_IN
            raise ValueError(
                f"{self.what}: expected {name} from {entry.value} to import, got "
                f"{type(error).__name__}: {' '.join(str(error).split())}; repair or "
                f"uninstall it ({origin})"
            ) from error

    def load_all(self) -> dict[str, Any]:
        """Name -> object of all that can be imported; a warning names each that cannot."""
        found = {}
        for name in self._entries():
            try:
                found[name] = self.load(name)
            except ValueError as error:
                warnings.warn(str(error), stacklevel=2)
        return found

    def _entries(self) -> dict[str, EntryPoint]:
        others = {entry.name: entry for entry in entry_points(group=self.group)}
        return {**self._built_in, **{n: e for n, e in others.items() if n not in self._built_in}}


OBJECTIVES = Plugins("selfflow_wm.objectives", {}, "objective")
"""Classes with the methods of `objective.FlowMatching`; words of `objective=` beside those of
configs/objective."""
CODECS = Plugins("selfflow_wm.codecs", {}, "codec")
"""Subclasses of `codec.Codec`, each under its `kind`."""
ROBOTS = Plugins("selfflow_wm.robots", {}, "spec")
"""Paths of yamls like those of configs/robot; words of `spec=`."""


def listed() -> str:
    """Parts installed from other packages, for the help of the training commands."""
    return "".join(
        f"    {group.what:<12} {group.help_line()}\n" for group in (OBJECTIVES, ROBOTS, CODECS)
    )
