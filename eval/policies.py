"""The policies `eval` can run: a checkpoint, an expert, random actions, a replay, a server.

A `PolicySpec` is the picklable description that travels to worker processes; `make_policy` builds
the policy there. `attach` gives privileged policies what the protocol does not: the environment.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eval.backends import make_expert
from eval.tasks import Task
from robotics.control import CONTROL_DIM, Action, Observation, Policy

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = ROOT / "checkpoints"
DEFAULT_CHECKPOINT = "self_flow"
DEFAULT_REPLAY = Path("data/embedded")
EXECUTED = "executed"
"""Folder beside a collected dataset that holds, per episode, what was really executed."""

_NOT_THE_TRAINING = {"step", "trainer", "resume", "device", "log"}
"""Keys of a checkpoint's training configuration that may differ within one training."""


@dataclass(frozen=True)
class PolicySpec:
    """Which policy to run, as strings and numbers."""

    kind: Literal["checkpoint", "expert", "random", "replay", "remote"]
    path: str = ""
    """Directory of the checkpoint or of the replayed dataset, address of the server."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the policy, from `configs/eval.yaml`."""
    address: str = ""
    """Where a process holds the checkpoint's model for all workers, see `eval.inference`; empty
    where each has its own."""


def parse_policy(
    words: str, checkpoint: str | None, options: dict[str, dict[str, Any]]
) -> PolicySpec:
    """The spec for `--policy words`; checks that the files it needs exist.

    Args:
        words: `checkpoint`, `expert`, `random`, `replay`, `replay:DIR` or `ws://HOST:PORT`.
        checkpoint: path or name of a checkpoint; None is the shipped one.
        options: groups `policy`, `random` and `remote` of `configs/eval.yaml`.
    """
    kind, _, rest = words.partition(":")
    if checkpoint is not None and kind != "checkpoint":
        raise ValueError(
            f"policy: expected --checkpoint only with --policy checkpoint; got --policy {words}; "
            "remedy: leave one of them out"
        )
    if kind == "checkpoint" and not rest:
        return PolicySpec("checkpoint", str(find_checkpoint(checkpoint)), options["policy"])
    if kind == "expert" and not rest:
        return PolicySpec("expert")
    if kind == "random" and not rest:
        return PolicySpec("random", options=options["random"])
    if kind == "replay":
        directory = Path(rest) if rest else DEFAULT_REPLAY
        if not (directory / EXECUTED).is_dir():
            raise ValueError(
                f"policy: expected a dataset made by eval.collect, with a folder {EXECUTED}/; "
                f"got {directory}; remedy: give it as replay:DIR, or collect one with "
                "python -m eval.collect"
            )
        return PolicySpec("replay", str(directory))
    if kind in ("ws", "wss") and rest.startswith("//"):
        return PolicySpec("remote", words, options["remote"])
    raise ValueError(
        f"policy: expected checkpoint, expert, random, replay[:DIR] or ws://HOST:PORT; got "
        f"{words!r}; remedy: choose one of these"
    )


def find_checkpoint(name: str | None) -> Path:
    """The checkpoint directory for a path, a name in `checkpoints/`, or None (the shipped one)."""
    wanted = name or DEFAULT_CHECKPOINT
    candidates = [CHECKPOINTS / wanted] if name is None else [Path(wanted), CHECKPOINTS / wanted]
    for path in candidates:
        if (path / "model.safetensors").is_file() and (path / "config.json").is_file():
            return path
    known = sorted(path.parent.name for path in CHECKPOINTS.glob("*/model.safetensors"))
    raise ValueError(
        "checkpoint: expected a directory with model.safetensors and config.json; got "
        f"{' or '.join(map(str, candidates))}; remedy: train one with python -m robotics.finetune, "
        + (f"or name one of: {', '.join(known)}" if known else "or run --policy expert")
    )


def fingerprint(spec: PolicySpec) -> str | None:
    """SHA-256 over the names and contents of a checkpoint's files; None for other policies.

    A server is asked for it; one that is not ours names none.
    """
    if spec.kind == "remote":
        from eval.remote.policy import served_sha256

        return served_sha256(spec.path, spec.options)
    if spec.kind != "checkpoint":
        return None
    digest = hashlib.sha256()
    for path in sorted(p for p in Path(spec.path).iterdir() if p.is_file()):
        if path.suffix in (".safetensors", ".json"):
            digest.update(path.name.encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def trained(spec: PolicySpec) -> dict[str, Any] | None:
    """How a checkpoint came about, as its config.json has it; None for other policies.

    {"step" (None where it was not recorded), "objective", "run" (directory of the training),
    "seed", "data", "id"}; checkpoints of one training share the `id`.
    """
    if spec.kind != "checkpoint":
        return None
    config = json.loads(Path(spec.path, "config.json").read_text()).get("training") or {}
    named = re.search(r"step_(\d+)$", Path(spec.path).name)
    step = config.get("step", int(named[1]) if named else None)
    same = {key: value for key, value in config.items() if key not in _NOT_THE_TRAINING}
    objective = config.get("objective") or {}
    return {
        "step": step,
        "objective": objective.get("_target_", "").rpartition(".")[2] or None,
        "run": config.get("out"),
        "seed": config.get("seed"),
        "data": config.get("data"),
        "id": hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16],
    }


def make_policy(spec: PolicySpec, embodiment: str) -> Policy:
    """Build the policy for environments of `embodiment`; a mismatch raises `ValueError`."""
    if spec.kind == "checkpoint":
        from robotics.policy import CheckpointPolicy

        world: Any = spec.path
        if spec.address:
            from eval.inference import SharedWorld

            world = SharedWorld(spec.address)
        return CheckpointPolicy(world, embodiment=embodiment, threads=1, **spec.options)
    if spec.kind == "remote":
        from eval.remote.policy import RemotePolicy

        return RemotePolicy(spec.path, embodiment=embodiment, **spec.options)
    if spec.kind == "random":
        return RandomPolicy(**spec.options)
    if spec.kind == "replay":
        return ReplayPolicy(Path(spec.path), embodiment)
    return ExpertPolicy()


def attach(policy: Policy, env: Any, task: Task, backend: str) -> None:
    """Show a privileged policy the environment it is about to act in; others are left alone."""
    if isinstance(policy, ExpertPolicy | ReplayPolicy):
        policy.attach(env, task, backend)


class ExpertPolicy:
    """The simulator's scripted controller; reads privileged state, never an observation."""

    needs_observation = False

    def __init__(self) -> None:
        self._expert: Any = None

    def attach(self, env: Any, task: Task, backend: str) -> None:
        """Act in `env` from now on."""
        self._expert = make_expert(backend, env)

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode."""
        self._expert.reset()

    def instruct(self, instruction: str) -> None:
        """Nothing to do: the expert reads the sub-task from the environment."""

    def act(self, observation: Observation | None) -> Action:
        """The expert's action at the present state."""
        return self._expert.act()


class RandomPolicy:
    """Uniform actions within small bounds, seeded per episode; never terminates.

    Args:
        translation: bound on each Δxyz, m.
        rotation: bound on each axis-angle component, rad.
    """

    needs_observation = False

    def __init__(self, translation: float = 0.02, rotation: float = 0.1) -> None:
        self._bounds = np.array([translation] * 3 + [rotation] * 3 + [1.0])
        self._rng = np.random.default_rng(0)

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode with its own stream of random numbers."""
        self._rng = np.random.default_rng(seed)

    def instruct(self, instruction: str) -> None:
        """Nothing to do."""

    def act(self, observation: Observation | None) -> Action:
        """A random action."""
        control = self._rng.uniform(-1.0, 1.0, CONTROL_DIM) * self._bounds
        return Action(control.astype(np.float32), False)


class ReplayPolicy:
    """Repeats what was executed when a demonstration was collected, from the same seed.

    The dataset's own actions are the expert's, which differ from the perturbed ones that moved
    the robot; those are kept beside it by `eval.collect` (see `executed_path`).
    """

    needs_observation = False

    def __init__(self, directory: Path, embodiment: str) -> None:
        self._directory = directory
        self._embodiment = embodiment
        self._task: Task | None = None
        self._control = np.zeros((0, CONTROL_DIM), np.float32)
        self._terminate = np.zeros(0, bool)
        self._step = 0

    def attach(self, env: Any, task: Task, backend: str) -> None:
        """Replay episodes of `task` from now on."""
        self._task = task
        for seed in replay_seeds(self._directory, task.name)[:1]:
            self.reset("", seed)  # so that another robot's data are refused before an episode

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Load what was executed for this task and seed."""
        assert self._task is not None and seed is not None
        path = executed_path(self._directory, self._task.name, seed)
        if not path.is_file():
            raise ValueError(
                f"replay: expected an executed episode {path}; got no such file; "
                "remedy: replay a seed that was collected"
            )
        with np.load(path, allow_pickle=False) as arrays:
            self._control, self._terminate = arrays["control"], arrays["terminate"]
            recorded = str(arrays["embodiment"])
        if recorded != self._embodiment:
            raise ValueError(
                f"replay: expected an episode of embodiment {self._embodiment}; got {recorded}; "
                "remedy: replay it on the simulator it was collected in"
            )
        self._step = 0

    def instruct(self, instruction: str) -> None:
        """Nothing to do."""

    def act(self, observation: Observation | None) -> Action:
        """The next executed action; standing still once they are used up."""
        if self._step >= len(self._control):
            return Action(np.zeros(CONTROL_DIM, np.float32), True)
        action = Action(self._control[self._step], bool(self._terminate[self._step]))
        self._step += 1
        return action


def executed_path(directory: Path, task: str, seed: int) -> Path:
    """`DIR/executed/<task>-<seed>.npz`: control (T, 7) float32, terminate (T,) bool, embodiment."""
    return directory / EXECUTED / f"{task}-{seed}.npz"


def replay_seeds(directory: Path, task: str) -> list[int]:
    """Seeds of `task` that can be replayed, in ascending order."""
    return sorted(
        int(path.stem.rpartition("-")[2])
        for path in (directory / EXECUTED).glob(f"{task}-*.npz")
        if path.stem.rpartition("-")[0] == task
    )
