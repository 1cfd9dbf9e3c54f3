"""What a run is to do: its episodes, which share of them, and how they are run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.envs.contract import Backend
from eval.envs.registry import simulator_versions, versions
from eval.policies.spec import PolicySpec, trained
from eval.rollout.watchdog import Limits

Shard = tuple[int, int]
"""(i, n): share i of n, counted from 1."""


@dataclass(frozen=True)
class Job:
    """One episode to run."""

    task: str
    seed: int
    index: int
    film: bool


def parse_shard(text: str) -> Shard:
    """The share of `i/n`, such as 1/4; `ValueError` unless 1 <= i <= n."""
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise ValueError(
            f"shard: expected i/n with i from 1 to n; got {text!r}; remedy: e.g. 1/4 to 4/4"
        )
    return int(number), int(count)


def parse_films(text: str | None, seeds: dict[str, list[int]]) -> frozenset[int]:
    """Numbers of episodes from a comma list; `ValueError` for one that no task of the run has."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    known = {str(seed) for found in seeds.values() for seed in found}
    if unknown := [word for word in words if word not in known]:
        raise ValueError(
            f"film: expected numbers of this run's episodes, {min(map(int, known))} to "
            f"{max(map(int, known))}; got {', '.join(unknown)}; remedy: take those that "
            "eval.compare prints, or seed in episodes.jsonl"
        )
    return frozenset(map(int, words))


def share(seeds: dict[str, list[int]], shard: Shard | None) -> dict[str, list[tuple[int, int]]]:
    """(index, seed) of each task's episodes that fall to `shard`; all of them for None.

    Which one an episode falls to depends on its task's place and its index alone, so that asking
    for more episodes later moves none; tasks are staggered, so that shares are of like size.
    """
    number, count = shard or (1, 1)
    return {
        task: [pair for pair in enumerate(found) if (place + pair[0]) % count == number - 1]
        for place, (task, found) in enumerate(seeds.items())
    }


@dataclass(frozen=True)
class Plan:
    """Everything that a run depends on."""

    tasks: tuple[str, ...]
    seeds: dict[str, list[int]]
    """Of the whole evaluation, also where this run does a share of it."""
    policy: PolicySpec
    checkpoint_sha256: str | None
    backend: Backend
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
    """Samples per call of the one process that holds the checkpoint; 0: each worker holds it."""
    films: frozenset[int] = frozenset()
    """Seeds of episodes to film beside the first `videos` of each task."""

    def settings(self) -> dict[str, Any]:
        """What two runs must share to count as one; more episodes or workers may come later."""
        known = self.checkpoint_sha256 is not None
        return {
            "simulator": self.backend.simulator,
            "protocol": self.backend.protocol,
            "tasks": list(self.tasks),
            "policy": self.policy.kind,
            "policy_options": self.policy.options,
            "checkpoint_sha256": self.checkpoint_sha256,
            "replay": self.policy.path if self.policy.kind == "replay" else None,
            # A server that names its checkpoint may move; one that does not is known by its place.
            "server": self.policy.path if self.policy.kind == "remote" and not known else None,
            "seed": self.seed,
            "shard": self.shard_name,
            # One sample a call rounds as a worker's own model does; others differently.
            "batch_inference": self.batch_inference if self.batch_inference > 1 else None,
            "versions": versions(self.backend),
        }

    def describe(self) -> dict[str, Any]:
        """What a report of the run needs besides its episodes; JSON values (`plan.json`)."""
        return {
            "simulator": self.backend.simulator,
            "simulator_note": self.backend.note,
            "protocol": self.backend.protocol,
            "policy": {
                "kind": self.policy.kind,
                "path": self.policy.path or None,
                "options": self.policy.options,
                "checkpoint_sha256": self.checkpoint_sha256,
                "training": trained(self.policy),
            },
            "versions": versions(self.backend) | simulator_versions(self.backend),
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
            Job(task, seed, index, index < self.videos or seed in self.films)
            for task, found in share(self.seeds, self.shard).items()
            for index, seed in found
        ]
