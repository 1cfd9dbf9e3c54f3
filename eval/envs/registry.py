"""Which simulators there are, by name: this project's, installed packages', a caller's own.

A simulator is named by a string, so that it travels to worker processes and into records: its name
in `SIMULATORS`, with settings where it has some (`simpler?protocol=va`), or `module:factory` for
any function `factory(task: Task) -> gymnasium.Env` whose environments keep the contract of
`eval.envs.contract` (its module may also offer `Expert(env)`).
"""

from __future__ import annotations

import importlib
from typing import Any

from eval.envs.contract import Limits, Simulator, parse_settings
from eval.envs.tasks import TASKS, Task
from selfflow_wm.plugins import Plugins

AUTO = "auto"
SIMULATORS = Plugins(
    "selfflow_wm.backends",
    {"simpler": "eval.envs.simpler:Simpler", "mujoco": "eval.envs.mujoco:Mujoco"},
    "backend",
)
"""Name -> a subclass of `Simulator`. `auto` takes the first of `AUTOMATIC` that can run here."""
AUTOMATIC = ("simpler", "mujoco")


def find_simulator(words: str) -> Simulator:
    """The simulator named by `NAME`, `NAME?key=value&...` or `module:factory`, installed or not.

    `ValueError` for a name or a setting that there is not, or a factory that cannot be imported.
    """
    name, _, query = words.partition("?")
    if ":" in name:
        return FactorySimulator(words)
    return SIMULATORS.load(name)(**parse_settings(query))


def choose_simulator(args: Any) -> tuple[Simulator, str]:
    """The simulator that a command line asks for, able to run here, and why it was taken.

    args: parsed, with `backend`, the flags of `add_arguments` and perhaps `protocol`.

    Raises:
        ValueError: it cannot run here, or flags of another simulator are among the words.
    """
    name = args.backend.partition("?")[0]
    asked = {key: found for key, kind in _kinds().items() if (found := kind.settings_from(args))}
    if name == AUTO and len(asked) == 1:
        (name,) = asked
    if others := [key for key in asked if key != name]:
        raise ValueError(
            f"backend: expected flags of {others[0]} only with that simulator, got --backend "
            f"{args.backend}; add --backend {others[0]}"
        )
    query = parse_settings(args.backend.partition("?")[2])
    skipped = ""
    if name == AUTO:
        for name in AUTOMATIC:
            usable, why = SIMULATORS.load(name)(
                **(query if name == AUTOMATIC[0] else {})
            ).available()
            if usable:
                break
            skipped = f" ({why})"
        query = query if name == AUTOMATIC[0] else {}
    settings = {**query, **asked.get(name, {})}
    found = SIMULATORS.load(name)(**settings) if ":" not in name else find_simulator(name)
    if protocol := getattr(args, "protocol", None):
        found = found.with_protocol(protocol)
    found.require()
    note = skipped or (f" ({found.note})" if found.settings else "")
    return found, f"backend: {found.title or found.backend}{note}"


def find_starts(args: Any) -> Simulator:
    """The simulator whose start states a command line asks to be listed; it need not be installed.

    `auto` is the first that has grids of them.
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
        f"{SIMULATORS.help_line()}, or module:factory for your own",
    )
    for kind in _kinds().values():
        kind.add_arguments(parser)


def recorded_simulator(label: str, protocol: str | None) -> Simulator:
    """The simulator that a record was made in; a plain one where it is not installed here."""
    for kind in _kinds().values():
        if found := kind.recorded(label, protocol):
            return found
    return RecordedSimulator(label)


def find_task(name: str) -> Task | None:
    """The task called `name` in any simulator; None where no installed one has it."""
    if name in TASKS:
        return TASKS[name]
    return next((kind.tasks[name] for kind in _kinds().values() if name in kind.tasks), None)


def parse_task_names(words: str) -> list[str]:
    """Task names from a comma list or a word for several, whichever simulator has them."""
    for kind in _kinds().values():
        if words.strip() in kind.groups:
            return list(kind.groups[words.strip()])
    return list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))


def _kinds() -> dict[str, type[Simulator]]:
    return SIMULATORS.load_all()


class RecordedSimulator(Simulator):
    """Stands for a simulator that is not installed where its records are read."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = label

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

    def make_env(self, task: Task, limits: Limits | None = None) -> Any:
        return self._factory(task)

    def make_expert(self, env: Any) -> Any:
        if not hasattr(self._module, "Expert"):
            return super().make_expert(env)
        return self._module.Expert(env)
