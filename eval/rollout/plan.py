"""The plan of a run: its episodes, its share of them, and how they are run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.envs.contract import DEFAULT_EPISODES, Limits, Simulator
from eval.envs.registry import choose_simulator
from eval.policies.options import check_read, load_config
from eval.policies.scripted import replay_seeds
from eval.policies.spec import PolicySpec, fingerprint, options_group, parse_policy, trained
from eval.results.records import share
from eval.rollout.executors import default_workers
from selfflow_wm.cli import Shard


@dataclass(frozen=True)
class Job:
    """One episode to run."""

    task: str
    seed: int
    index: int
    video: bool


@dataclass(frozen=True)
class EpisodePlan:
    """Everything a run depends on."""

    tasks: tuple[str, ...]
    seeds: dict[str, list[int]]
    """Of the whole evaluation, even if this run does a share of it."""
    policy: PolicySpec
    checkpoint_sha256: str | None
    simulator: Simulator
    config: dict[str, Any]
    seed: int
    videos: int
    workers: int
    out: Path
    command: str
    shard: Shard | None = None
    retries: int = 0
    """How often an episode that crashed or hung is tried again."""
    limits: Limits = field(default_factory=Limits)
    executor: str = "processes"
    """`processes` or `ray`; like workers, retries and limits it changes no result."""
    batch_inference: int = 0
    """Samples per call of the process that holds the checkpoint; 0: every worker holds a copy."""
    videos_of: frozenset[int] = frozenset()
    """Seeds of further episodes to record besides the first `videos` of each task."""

    def settings(self) -> dict[str, Any]:
        """What must be equal to continue a run; the numbers of episodes and workers may change."""
        known = self.checkpoint_sha256 is not None
        return {
            "simulator": self.simulator.label,
            "protocol": self.simulator.protocol,
            "tasks": list(self.tasks),
            "policy": self.policy.kind,
            "policy_options": self.policy.options,
            "checkpoint_sha256": self.checkpoint_sha256,
            "replay": self.policy.path if self.policy.kind == "replay" else None,
            # A server that reports its checkpoint may move; any other is identified by its address.
            "server": self.policy.path if self.policy.kind == "remote" and not known else None,
            "seed": self.seed,
            "shard": self.shard_name,
            # One sample per call rounds as a model in the worker does; larger batches do not.
            "batch_inference": self.batch_inference if self.batch_inference > 1 else None,
            "versions": self.simulator.versions(),
        }

    def describe(self) -> dict[str, Any]:
        """What a report of the run needs besides its episodes, as JSON values (`plan.json`)."""
        return {
            "simulator": self.simulator.label,
            "simulator_note": self.simulator.note,
            "protocol": self.simulator.protocol,
            "policy": {
                "kind": self.policy.kind,
                "path": self.policy.path or None,
                "options": self.policy.options,
                "checkpoint_sha256": self.checkpoint_sha256,
                "training": trained(self.policy),
            },
            "versions": self.simulator.versions() | self.simulator.simulator_versions(),
            "config": self.config,
            "seed": self.seed,
            "seeds": self.seeds,
            "shard": self.shard_name,
            "command": self.command,
        }

    @property
    def shard_name(self) -> str | None:
        """`1/4`; None for a run of everything."""
        return None if self.shard is None else "{}/{}".format(*self.shard)

    def jobs(self) -> list[Job]:
        """Every episode of this run, task after task."""
        return [
            Job(task, seed, index, index < self.videos or seed in self.videos_of)
            for task, found in share(self.seeds, self.shard).items()
            for index, seed in found
        ]


def make_plan(args: Any, command: str) -> tuple[EpisodePlan, str]:
    """The plan for the parsed arguments of `python -m eval.simpler`, and a line on the simulator.

    `ValueError` for bad input.
    """
    config = load_config(args.overrides, command)
    # A replay starts where its demonstrations did.
    replay = args.policy.partition(":")[0] == "replay"
    simulator, why = choose_simulator(args, training=replay)
    tasks = simulator.parse_tasks(args.task)
    spec = parse_policy(args.policy, args.checkpoint, config, simulator.checkpoint)
    if spec.kind == "checkpoint":
        config["policy"] = spec.options
    _check_policy(spec, simulator, tasks, args)
    seeds = (
        _replayed(spec, tasks, args.episodes)
        if spec.kind == "replay"
        else {task: simulator.seeds(task, args.episodes, args.seed) for task in tasks}
    )
    jobs = sum(len(found) for found in seeds.values())
    out = args.out or _out(simulator, tasks, spec, args.shard)
    plan = EpisodePlan(
        tasks, seeds, spec, fingerprint(spec), simulator, config, args.seed, args.video,
        args.workers or min(default_workers(), jobs), out, command, args.shard, args.retries,
        Limits(args.reset_timeout, args.step_timeout), args.executor, args.batch_inference or 0,
        _parse_numbers(args.video_of, seeds),
    )  # fmt: skip
    return plan, why


def list_starts(args: Any, simulator: Simulator) -> str:
    """One line per start state of a run; the number of a cell that is drawn from a seed is the
    seed."""
    lines = []
    for task in simulator.parse_tasks(args.task):
        numbers = simulator.seeds(task, args.episodes, args.seed)
        kind = f"cells of {simulator.protocol}" if simulator.protocol else "seeds"
        lines.append(f"{task}: {len(numbers)} {kind}")
        lines += [simulator.describe_start(task, number) for number in numbers]
    return "\n".join(lines)


def _check_policy(
    spec: PolicySpec, simulator: Simulator, tasks: tuple[str, ...], args: Any
) -> None:
    """`ValueError` if the policy can't do the tasks, or options belong to another policy."""
    check_read(args.overrides, options_group(spec), args.policy)
    if spec.kind == "expert":
        simulator.require_expert(tasks)
    if args.batch_inference and (spec.kind != "checkpoint" or args.executor != "processes"):
        raise ValueError(
            "batch-inference: expected a checkpoint and processes of this machine, got --policy "
            f"{args.policy} --executor {args.executor}; leave --batch-inference out, or "
            "serve the checkpoint with python -m eval.serve"
        )


def _replayed(spec: PolicySpec, tasks: tuple[str, ...], most: int | None) -> dict[str, list[int]]:
    seeds = {
        task: replay_seeds(Path(spec.path), task)[: most or DEFAULT_EPISODES] for task in tasks
    }
    if missing := [task for task, found in seeds.items() if not found]:
        raise ValueError(
            f"replay: expected collected episodes of {', '.join(missing)} in {spec.path}, "
            "got none; collect them, or choose another task"
        )
    return seeds


def _out(
    simulator: Simulator, tasks: tuple[str, ...], spec: PolicySpec, shard: Shard | None
) -> Path:
    """`runs/<tasks>-<policy>-<simulator>-<time>`, with the share."""
    groups = {"all": tuple(simulator.tasks), **simulator.groups}
    several = len(tasks) > 1
    name = next((w for w, group in groups.items() if several and tasks == group), "+".join(tasks))
    where = simulator.backend.partition("?")[0]
    where = "".join(c if c.isalnum() else "_" for c in where)
    part = "-{}of{}".format(*shard) if shard else ""
    return Path("runs", f"{name}-{spec.kind}-{where}-{time.strftime('%Y%m%d-%H%M%S')}{part}")


def _parse_numbers(text: str | None, seeds: dict[str, list[int]]) -> frozenset[int]:
    """Episode numbers from a comma-separated list; `ValueError` for one the run does not have."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    known = {str(seed) for found in seeds.values() for seed in found}
    if unknown := [word for word in words if word not in known]:
        raise ValueError(
            f"video-of: expected numbers of this run's episodes, {min(map(int, known))} to "
            f"{max(map(int, known))}, got {', '.join(unknown)}; use those that "
            "eval.compare prints, or a seed in episodes.jsonl"
        )
    return frozenset(map(int, words))
