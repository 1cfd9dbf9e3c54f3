"""The simulator interface: the one class that a backend implements.

A simulator lives in its folder (or in another package) and is found by name alone, see
`eval.envs.registry`. Only `make_env` of `Simulator` has to be implemented; everything else has a
default that suits a simulator without an expert whose start states are drawn from seeds.

The environments that `make_env` returns are gymnasium's; besides `reset(seed=...)` and `step` they
have, unwrapped,

    robot                      the table of its robot: paths are keys of the observation, and what
                               `step` takes are the parts of its action, one after the other;
                               robotics.embodiment.control.tool_robot for an arm moved by its tool
    embodiment                 in place of it, the name of a shipped table whose robot it is, with
                               observations and actions of robotics.embodiment.control
    instruction                of the current sub-task
    is_final_subtask           whether a terminate ends the episode
    advance_to_next_subtask()  what a terminate does before the last one
    camera_image()             uint8 (H, W, 3), rendered now
    camera_images()            optional: several, by key of the observation
    start_simulator()          optional: start a child process, or raise
    cell, stand_ins            optional: name of the start state, and its stand-ins

and an `info` with "instruction", "subtask", "success", "stages" and "elapsed_steps".

Training and test seeds are disjoint: demonstrations come from `TRAIN_SEEDS`, evaluation from
`TEST_SEEDS`, and both `test_seed` and `train_seed` refuse to leave their range.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode

from eval.envs.tasks import TASKS, Task

TRAIN_SEEDS = range(0, 1_000_000)
"""Seeds demonstrations are collected from."""
TEST_SEEDS = range(1_000_000, 2_000_000)
"""Seeds evaluation is run on; never seen in training."""
SEED_STRIDE = 10_000
"""Episodes per `--seed`: seed s owns the test seeds [1_000_000 + s*10_000, +10_000)."""
DEFAULT_EPISODES = 20
"""Per task, unless a grid of start states defines the number."""
Row = dict[str, Any]
"""A line of `python -m eval.doctor`, see `row`."""


@dataclass(frozen=True)
class Limits:
    """Seconds after which a worker counts as hung. Generous: too low a limit costs an episode."""

    reset: float = 1200.0
    """From the start of an episode (including building the environment) to the end of its first
    step; also for a worker to get ready. SIMPLER's first image compiles shaders, 160 s on a busy
    machine."""
    step: float = 300.0
    """For each later step: rendering, policy and simulator together."""


class Cell(Protocol):
    """A start state of a simulator that enumerates its start states."""

    @property
    def name(self) -> str:
        """Unique within a task and protocol."""
        ...

    @property
    def start(self) -> str:
        """The name without the turn of a cell that is run more than once."""
        ...

    @property
    def variant(self) -> str:
        """The group of cells whose rate enters averages with equal weight; empty: no groups."""
        ...


def test_seed(seed: int, i: int) -> int:
    """Environment seed of episode `i` under `--seed seed`: 1_000_000 + seed*10_000 + i."""
    return _seed(TEST_SEEDS, seed, i)


def train_seed(seed: int, i: int) -> int:
    """Environment seed of the `i`-th collection attempt under `--seed seed`: seed*10_000 + i."""
    return _seed(TRAIN_SEEDS, seed, i)


def _seed(seeds: range, seed: int, i: int) -> int:
    blocks = len(seeds) // SEED_STRIDE
    if not 0 <= seed < blocks:
        raise ValueError(f"seed: expected 0 <= seed < {blocks}, got {seed}; choose a smaller seed")
    if not 0 <= i < SEED_STRIDE:
        raise ValueError(
            f"episodes: expected fewer than {SEED_STRIDE} per task and seed, got episode {i}; "
            "spread the episodes over several --seed values"
        )
    return seeds[seed * SEED_STRIDE + i]


# pytest would collect the public function as a test wherever it is imported.
test_seed.__test__ = False


class Flag(NamedTuple):
    """A command-line flag of a simulator, which changes one of its settings."""

    setting: str
    help: str
    value: str = ""
    """The value of the setting; empty: the argument of the flag."""


class Simulator:
    """A simulator with its settings, identified by one string that can be sent to workers.

    Settings are strings with defaults (`defaults`); `NAME?key=value&...` overrides them.
    `ValueError` for an unknown setting.
    """

    name: ClassVar[str] = ""
    """Its name in `--backend`."""
    title: str = ""
    """Its name in messages; empty: `name`."""
    advice: str = "install it, or choose another --backend"
    """What to do if it can't run."""
    defaults: ClassVar[Mapping[str, str]] = {}
    """Settings and their defaults; a key `protocol` means that it has grids of start states."""
    flags: ClassVar[Mapping[str, Flag]] = {}
    """Flags that set them, such as `--NAME-python`; `--protocol` is common to all."""
    labels: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Names in tables and records: label -> the settings it stands for. Empty: `name`."""
    tasks: Mapping[str, Task] = TASKS
    """Task by name, in the order of tables. Names are unique among simulators."""
    groups: Mapping[str, tuple[str, ...]] = {}
    """Names of groups of tasks, besides `all`."""
    expert_tasks: tuple[str, ...] | None = None
    """Tasks that its expert can solve; None: all."""
    checkpoint: str = "self_flow"
    """Name in `checkpoints/` of the policy that was trained in it."""
    packages: tuple[str, ...] = ("numpy", "gymnasium")
    """Distributions of this interpreter whose versions can change a result."""
    note: str = "not comparable with SIMPLER numbers"
    """A caveat shown with every number; may be empty."""
    training_starts: str = "training seeds 0 to 999,999; tests use 1,000,000 and up"
    """How the start states of demonstrations differ from those of tests."""

    def __init__(self, **settings: str) -> None:
        if not set(settings) <= set(self.defaults):
            keys = ", ".join(self.defaults)
            raise ValueError(
                f"backend: expected {self.name}{f'?key=value&... with keys {keys}' * bool(keys)}, "
                f"got the keys {', '.join(settings)}; leave others out"
            )
        self.settings: dict[str, str] = {**self.defaults, **settings}
        self.title = self.title or self.name

    # --- what it is called ---------------------------------------------------------------------
    @property
    def backend(self) -> str:
        """Name and settings, as `--backend` takes them."""
        changed = {k: v for k, v in self.settings.items() if v != self.defaults[k]}
        return self.name + ("?" + urlencode(changed) if changed else "")

    @property
    def label(self) -> str:
        """What tables and records call it under these settings."""
        fitting = (k for k, given in self.labels.items() if given.items() <= self.settings.items())
        return next(fitting, self.name)

    @property
    def protocol(self) -> str | None:
        """The grid of start states; None if there are no grids."""
        return self.settings.get("protocol")

    # --- the command line ----------------------------------------------------------------------
    @classmethod
    def add_arguments(cls, parser: Any) -> None:
        """Add its `flags` to an argparse parser."""
        for name, flag in cls.flags.items():
            kind: Any = {"action": "store_true"} if flag.value else {"metavar": "WORD"}
            parser.add_argument(name, help=flag.help, **kind)

    @classmethod
    def settings_from(cls, args: Any) -> dict[str, str]:
        """The settings that the given `flags` ask for."""
        words = {flag: getattr(args, name.strip("-").replace("-", "_"))
                 for name, flag in cls.flags.items()}  # fmt: skip
        return {flag.setting: flag.value or word for flag, word in words.items() if word}

    def words(self) -> list[str]:
        """Command-line arguments that select it with its settings."""
        found = ["--backend", self.name]
        if self.protocol is not None:
            found += ["--protocol", self.protocol]
        for name, flag in self.flags.items():
            value = self.settings[flag.setting]
            if value != self.defaults[flag.setting]:
                found += [name] if flag.value else [name, value]
        return found

    def available(self) -> tuple[bool, str]:
        """Whether tasks can run here, and a short reason."""
        return True, ""

    def require(self) -> None:
        """`ValueError` unless tasks can run here."""
        usable, why = self.available()
        if not usable:
            raise ValueError(
                f"backend: expected {self.title} to be able to run here, got none ({why}); "
                f"{self.advice}"
            )

    def with_protocol(self, protocol: str) -> Simulator:
        """The same simulator with another grid of start states; `ValueError` if it has no grids."""
        if "protocol" not in self.defaults:
            raise ValueError(
                f"protocol: expected none on {self.title}, whose starts are drawn "
                f"from seeds, got {protocol}; leave --protocol out, or add --backend "
                "simpler"
            )
        return type(self)(**{**self.settings, "protocol": protocol})

    def training(self) -> Simulator:
        """The same simulator with the start states of demonstrations, which are not tests."""
        return self

    # --- tasks and start states ----------------------------------------------------------------
    def parse_tasks(self, words: str) -> tuple[str, ...]:
        """Task names from a name, a comma-separated list, `all` or another of `groups`, no repeats.

        `ValueError` for an unknown name, and for tasks of two robots: a policy controls one robot,
        and no mean covers both.
        """
        groups = {"all": tuple(self.tasks), **self.groups}
        if words.strip() in groups:
            return groups[words.strip()]
        names = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
        unknown = [name for name in names if name not in self.tasks]
        if unknown or not names:
            known = [*self.tasks, *groups]
            near = [found for name in unknown for found in get_close_matches(name, known, 1)]
            remedy = (
                f"write {', '.join(near)}"
                if near
                else f"correct the spelling, give one of {', '.join(groups)} alone"
            )
            raise ValueError(
                f"task: expected a task of {self.title} ({', '.join(self.tasks)}), "
                f"got {', '.join(unknown) or repr(words)}; {remedy}, or choose the --backend "
                "that has it"
            )
        robots = {self.tasks[name].robot: name for name in names}
        if len(robots) > 1:
            raise ValueError(
                f"task: expected tasks of one robot, got {' and '.join(robots.values())} of "
                f"{' and '.join(robots)}; evaluate each in a run of its own"
            )
        return names

    def seeds(self, task: str, episodes: int | None, seed: int) -> list[int]:
        """The numbers of a run's episodes, each passed to the environment's `reset`.

        Args:
            task: its name.
            episodes: how many; None: the default.
            seed: of `--seed`, the block of test seeds.
        """
        return [test_seed(seed, i) for i in range(episodes or DEFAULT_EPISODES)]

    def cell(self, task: str, number: int) -> Cell | None:
        """The start state with this number, if start states are enumerated."""
        return None

    def describe_start(self, task: str, number: int) -> str:
        """A line describing that start state; works without the simulator installed."""
        return f"{number}\tseed {number}"

    def start(self, record: Mapping[str, Any]) -> tuple[str, str]:
        """Equal for episodes with the same start state, in any run: (source, start state)."""
        return self.label, str(record["seed"])

    # --- running -------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Prepare this process before the first environment is made.

        `ValueError` names what to install.
        """

    def make_env(self, task: Task, limits: Limits | None = None) -> Any:
        """An environment of `task` whose observations don't include the image.

        limits: how long a simulator in a child process may take to answer.
        """
        raise NotImplementedError

    def make_expert(self, env: Any) -> Any:
        """The privileged controller for `env`: `.reset()` and `.act() -> Action`."""
        raise ValueError(
            f"policy: expected a backend with an expert, got {self.backend}; "
            "use --backend mujoco, or another policy"
        )

    def require_expert(self, tasks: Sequence[str]) -> None:
        """`ValueError` for tasks that its expert can't solve."""
        able = tuple(self.tasks) if self.expert_tasks is None else self.expert_tasks
        if missing := [task for task in tasks if task not in able]:
            raise ValueError(
                f"task: expected tasks that the expert of {self.title} can do "
                f"({', '.join(able)}), got {', '.join(missing)}; leave them out"
            )

    # --- what a record of a run should hold ----------------------------------------------------
    def versions(self) -> dict[str, str]:
        """Versions of Python and of the packages that can change a result."""
        found = {"python": platform.python_version()}
        for package in (*self.packages, "torch"):
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = "absent"
        return found

    def simulator_versions(self) -> dict[str, str]:
        """Versions in a separate interpreter, as `simulator's NAME`."""
        return {}

    def installation(self) -> str:
        """What a positive control is valid for: the simulator, its interpreter, versions."""
        found = {name: text for name, text in self.versions().items() if name != "torch"}
        return " ".join([self.label, *(f"{name}={text}" for name, text in found.items())])

    # --- the doctor ----------------------------------------------------------------------------
    def check(self, render: bool = False) -> list[Row]:
        """What it lacks on this machine: a `row` for each check.

        render: also run the checks that take a minute.
        """
        return check_drawing(self)


def parse_settings(query: str) -> dict[str, str]:
    """Settings of `key=value&...`."""
    return dict(parse_qsl(query, keep_blank_values=True))


def without_turn(name: str) -> str:
    """A cell's name without the ` #2` of its second turn."""
    return name.partition(" #")[0]


def row(name: str, ok: bool, found: str, remedy: str = "") -> Row:
    """A line of the doctor: whether `name` is `ok`, what was `found`, and the `remedy` if not."""
    return {"name": name, "ok": ok, "found": found, "remedy": "" if ok else remedy, "note": False}


def check_drawing(
    simulator: Simulator, task: str = "", advice: str = "see the message"
) -> list[Row]:
    """Make the environment of a task (empty: the last one), reset it and render it."""
    name = f"{simulator.title} draws"
    try:
        simulator.prepare()
        env = simulator.make_env(simulator.tasks[task or list(simulator.tasks)[-1]])
        try:
            env.reset(seed=0)
            picture = env.unwrapped.camera_image()
        finally:
            env.close()
    except Exception as error:  # whatever it is, the other checks should still run
        return [row(name, False, f"{type(error).__name__}: {error}", advice)]
    size = f"{picture.shape[1]} x {picture.shape[0]}"
    return [row(name, int(picture.std()) > 0, size, "the picture is one colour")]
