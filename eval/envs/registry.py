"""Finds simulators by name: this project's, those of installed packages, or a caller's factory.

A simulator is identified by a string, which can be sent to workers and recorded: its name in
`SIMULATORS`, optionally with settings (`simpler?protocol=va`), or `module:factory` for any function
`factory(task: Task) -> gymnasium.Env` whose environments satisfy the contract of
`eval.envs.contract` (its module may also define `Expert(env)`).
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from eval.envs.contract import Limits, Simulator, parse_settings
from eval.envs.tasks import TASKS, Task
from selfflow_wm.plugins import Plugins, subclass_of

AUTO = "auto"
SIMULATORS = Plugins(
    "selfflow_wm.backends",
    {"mujoco": "eval.envs.mujoco:Mujoco", "simpler": "eval.envs.simpler:Simpler"},
    "backend",
    subclass_of("eval.envs.contract:Simulator"),
)
"""Name -> a subclass of `Simulator`. `auto` takes the first of `AUTOMATIC` that can run here."""
AUTOMATIC = ("simpler", "mujoco")


def find_simulator(words: str) -> Simulator:
    """The simulator called `NAME`, `NAME?key=value&...` or `module:factory`, installed or not.

    `ValueError` for an unknown name or setting, or a factory that can't be imported.
    """
    name, _, query = words.partition("?")
    if ":" in name:
        return FactorySimulator(words)
    return SIMULATORS.load(name)(**parse_settings(query))


def choose_simulator(args: Any, *, training: bool = False) -> tuple[Simulator, str]:
    """The simulator that a command line asks for, which can run here, and why it was chosen.

    args: parsed, with `backend`, the flags of `add_arguments` and perhaps `protocol`.
    training: use the start states of demonstrations; any other `protocol` is an error.

    Raises:
        ValueError: it can't run here, or flags of another simulator were given.
    """
    name, reason = args.backend.partition("?")[0], ""
    asked = {key: found for key, kind in _kinds().items() if (found := kind.settings_from(args))}
    if name == AUTO:
        name, reason = (next(iter(asked)), "") if asked else _automatic()
    if others := [key for key in asked if key != name]:
        raise ValueError(
            f"backend: expected flags of {others[0]} only with that simulator, got --backend "
            f"{args.backend}; add --backend {others[0]}"
        )
    found = find_simulator(name if args.backend == AUTO else args.backend)
    if name in asked:
        found = type(found)(**{**found.settings, **asked[name]})
    protocol = getattr(args, "protocol", None)
    if protocol:
        found = found.with_protocol(protocol)
    if training:
        found = found.training()
        if protocol not in (None, found.protocol):
            raise ValueError(
                f"protocol: expected {found.protocol} with --policy replay, got {protocol}; "
                "leave --protocol out"
            )
    found.require()
    reason = reason or (found.note if found.settings else "")
    return found, f"backend: {found.title}" + f" ({reason})" * bool(reason)


def _automatic() -> tuple[str, str]:
    """The first of `AUTOMATIC` that can run here, and why not an earlier one."""
    reason = ""
    for name in AUTOMATIC:
        usable, why = SIMULATORS.load(name)().available()
        if usable:
            return name, reason
        reason = why
    return AUTOMATIC[-1], reason


def find_starts(args: Any) -> Simulator:
    """The simulator whose start states a command line lists; it need not be installed.

    `auto` is the first one that has grids of start states.
    """
    if args.backend == AUTO:
        found = next(kind() for kind in _kinds().values() if "protocol" in kind.defaults)
    else:
        found = find_simulator(args.backend)
    return found.with_protocol(args.protocol) if args.protocol else found


def add_arguments(parser: Any) -> None:
    """`--backend`, and the flags of each simulator."""
    parser.add_argument(
        "--backend",
        default=AUTO,
        metavar="NAME",
        help="the simulator: auto (default: SIMPLER where it can run, else mujoco), "
        f"{SIMULATORS.help_line()}, or module:factory",
    )
    for kind in _kinds().values():
        kind.add_arguments(parser)


class OneTask(argparse.Action):
    """`--task`, once: a second one would silently replace the first."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        first = getattr(namespace, "_task_given", None)
        if first is not None:
            parser.error(
                f"argument --task: expected it once, got {first} and {values}; "
                f"write --task {first},{values}"
            )
        namespace.task = namespace._task_given = values


def recorded_simulator(label: str, protocol: str | None) -> Simulator:
    """The simulator that a record was made in; a placeholder if it is not installed here."""
    for kind in _kinds().values():
        if label in (*kind.labels, kind.name):
            grid = {"protocol": protocol} if protocol and "protocol" in kind.defaults else {}
            return kind(**kind.labels.get(label, {}), **grid)
    return RecordedSimulator(label)


def find_task(name: str) -> Task | None:
    """The task called `name` in any simulator; None if no installed one has it."""
    if name in TASKS:
        return TASKS[name]
    return next((kind.tasks[name] for kind in _kinds().values() if name in kind.tasks), None)


def parse_task_names(words: str) -> list[str]:
    """Task names from a comma-separated list or a group name of any simulator."""
    for kind in _kinds().values():
        if words.strip() in kind.groups:
            return list(kind.groups[words.strip()])
    return list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))


def _kinds() -> dict[str, type[Simulator]]:
    return SIMULATORS.load_all()


class RecordedSimulator(Simulator):
    """Stands for a simulator that is not installed here when its records are read."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.title = self._label = label

    @property
    def label(self) -> str:
        return self._label


class FactorySimulator(Simulator):
    """`module:factory`: a function that makes environments of the shared tasks."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = self.title = words
        module, _, attribute = words.partition(":")
        try:
            self._module = importlib.import_module(module)
            self._factory = getattr(self._module, attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"backend: expected an importable module:factory, got {words!r} ({error}); "
                "check the spelling and PYTHONPATH"
            ) from None

    @property
    def backend(self) -> str:
        return self._words

    @property
    def label(self) -> str:
        return self._words

    def words(self) -> list[str]:
        return ["--backend", self._words]

    def make_env(self, task: Task, limits: Limits | None = None) -> Any:
        return self._factory(task)

    def make_expert(self, env: Any) -> Any:
        if not hasattr(self._module, "Expert"):
            return super().make_expert(env)
        return self._module.Expert(env)
