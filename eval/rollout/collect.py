"""Collecting a set of demonstrations: which attempts to make, in one run or in shares."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from eval.envs.contract import Limits, Simulator, train_seed
from eval.policies.scripted import EXECUTED, executed_path
from eval.results.records import check_unused, differences, read_object, share, write_json
from eval.rollout.demonstrations import CollectSetup, Perturbation, episode_key
from eval.rollout.executors import make_pool
from eval.rollout.workers import Outcome
from selfflow_wm.cli import Shard
from selfflow_wm.files import atomic_directory, check_out, locked

MAX_FAILURES = (20, 3)
"""A task is given up after 20 + 3 failures per requested episode: its expert is broken."""
SHARE = "share.json"
"""File in a share of a collection that describes the whole collection."""


class Schedule:
    """Which attempts to make: for each task, seeds in order until enough of them succeeded.

    A share makes every n-th attempt until it has its part of the successes.

    There are never more attempts in flight than successes missing, so the episodes kept are the
    first `wanted` successes in the order of seeds, whatever the number of workers.
    """

    def __init__(
        self,
        wanted: dict[str, int],
        seed: int,
        out: Path,
        done: set[str],
        shard: Shard | None = None,
    ) -> None:
        self._seeds = {task: _attempts(seed, place, shard) for place, task in enumerate(wanted)}
        ranges = {task: range(count) for task, count in wanted.items()}
        wanted = {task: len(those) for task, those in share(ranges, shard).items()}
        self.wanted = wanted
        self.kept = dict.fromkeys(wanted, 0)
        self.failed = dict.fromkeys(wanted, 0)
        self.errors: list[str] = []
        self.resumed = 0
        """Attempts of earlier runs."""
        self.reused = 0
        """Those of them that were kept."""
        self.current = ""
        """Task of the latest attempt."""
        self._out, self._done = out, done
        self._in_flight = dict.fromkeys(wanted, 0)

    def next_job(self) -> tuple[str, int] | None:
        """The next (task, seed); task after task, since a new task needs a new environment."""
        for task in self.wanted:
            while self._open(task):
                seed = next(self._seeds[task])
                if episode_key(task, seed) not in self._done:
                    self._in_flight[task] += 1
                    return task, seed
                self.resumed += 1
                kept = executed_path(self._out, task, seed).exists()
                self.reused += kept
                self._count(task, kept)
        return None

    def record(self, outcome: Outcome) -> None:
        """Count the outcome of an attempt."""
        task, seed = outcome.job
        self._in_flight[task] -= 1
        if outcome.error:
            self.errors.append(f"{task} seed {seed}: {outcome.error}")
        self.current = task
        self._count(task, outcome.error is None and outcome.value["kept"])

    @property
    def short(self) -> list[str]:
        """Tasks that were given up."""
        return [task for task in self.wanted if self.kept[task] < self.wanted[task]]

    def _open(self, task: str) -> bool:
        few, share = MAX_FAILURES
        missing = self.wanted[task] - self.kept[task] - self._in_flight[task]
        return missing > 0 and self.failed[task] < few + share * self.wanted[task]

    def _count(self, task: str, kept: bool) -> None:
        (self.kept if kept else self.failed)[task] += 1


def _attempts(seed: int, place: int, shard: Shard | None) -> Iterator[int]:
    """Training seeds, in order, of the task at this position; for a share, only the share's."""
    number, count = shard or (1, 1)
    return (train_seed(seed, i) for i in itertools.count((number - 1 - place) % count, count))


def collect(
    wanted: dict[str, int],
    out: Path,
    *,
    simulator: Simulator,
    perturbation: Perturbation,
    seed: int = 0,
    shard: Shard | None = None,
    workers: int = 1,
    executor: str = "processes",
    retries: int = 0,
    limits: Limits | None = None,
    on_attempt: Callable[[Schedule], None] = lambda schedule: None,
) -> Schedule:
    """Collect `wanted[task]` successful episodes of each task into the dataset at `out`.

    Continues an earlier run there that was interrupted or smaller.

    Args:
        wanted: episodes of the whole set, even if this run collects a share of it.
        shard: collect one share, for `merge_collections`; None: everything.
        workers, executor, retries, limits: see `eval.rollout.workers`; they change no episode.
        on_attempt: called after every attempt.

    Raises:
        ValueError: `out` holds other data, or data collected under other settings.
    """
    from robotics.data.rlds import EpisodeWriter
    from robotics.data.rlds.schema import rt1_features

    check_out(out)
    for task in wanted:
        train_seed(seed, wanted[task] - 1)
    if simulator.training().backend != simulator.backend:
        raise ValueError(
            f"backend: expected training starts ({simulator.training().backend}), got "
            f"{simulator.backend}, which are its tests; give --backend "
            f"{simulator.name} alone"
        )
    simulator.require_expert(list(wanted))
    provenance = _provenance(simulator, perturbation, shard)
    simulator.prepare()
    setup = CollectSetup(
        str(out), simulator.backend, perturbation, provenance, next(iter(wanted)), limits
    )
    pool = make_pool(executor, setup, workers, limits=limits or Limits(), retries=retries)
    # Now: tensorflow-datasets replaces the import statement while it loads, and a progress bar that
    # is drawn in another thread meanwhile could not import.
    rt1_features()
    writer = EpisodeWriter(out, provenance=provenance)
    with _alone(out):
        (out / EXECUTED).mkdir(exist_ok=True)
        if shard:
            write_json(out / SHARE, {"shard": list(shard), "seed": seed, "wanted": wanted})
        schedule = Schedule(wanted, seed, out, writer.done(), shard)
        with pool:
            for outcome in pool.run(schedule.next_job):
                schedule.record(outcome)
                on_attempt(schedule)
        if sum(schedule.kept.values()):
            writer.finalize()
        return schedule


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """`ValueError` where another process is collecting into `out`."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(out / ".staging" / "collecting", wait=False))
        except BlockingIOError:
            raise ValueError(
                f"out: expected a directory no other run is writing, got {out}; "
                "wait for that run, or choose another --out"
            ) from None
        yield


def _provenance(
    simulator: Simulator, perturbation: Perturbation, shard: Shard | None
) -> dict[str, Any]:
    versions = simulator.versions()
    provenance: dict[str, Any] = {
        "simulator": simulator.label,
        "policy": "scripted expert",
        "position_noise": perturbation.position_noise,
        "rotation_noise": perturbation.rotation_noise,
        "noise_probability": perturbation.noise_probability,
        "terminate_delay": perturbation.terminate_delay,
        "versions": {k: v for k, v in versions.items() if k not in ("python", "torch")},
    }
    if simulator.protocol is not None:
        provenance["starts"] = simulator.training_starts
    if shard:
        provenance["shard"] = "{}/{}".format(*shard)
    return provenance


def is_collection(path: Path) -> bool:
    """Whether demonstrations were collected into this directory."""
    return (path / "collection-train.json").is_file()


def merge_collections(out: Path, paths: Sequence[Path]) -> tuple[dict[str, int], int]:
    """Combine the shares of one collection in `out` into the set one run would have collected.

    That is, for each task, the first successes in the order of seeds. If some shares succeeded more
    often than others, attempts between theirs are missing; the shares' command without `--shard`
    and with this `--out` makes them and then packs the set.

    Args:
        out: must be empty or not exist yet.
        paths: directories that `collect` wrote, each with a different shard.

    Returns:
        Number of episodes of each task, and the number of missing attempts.

    Raises:
        ValueError: shares of different collections, a share given twice, or `out` in use.
    """
    from robotics.data.rlds import EpisodeWriter

    check_unused(out)
    whole, provenance, attempts = _read_shares(paths)
    with atomic_directory(out) as partial:
        writer = EpisodeWriter(partial, provenance=provenance)
        (partial / EXECUTED).mkdir()
        needed: dict[Path, list[str]] = {path: [] for path in paths}
        kept, missing = dict.fromkeys(whole["wanted"], 0), 0
        for place, (task, wanted) in enumerate(whole["wanted"].items()):
            few, part = MAX_FAILURES
            failures = absent = 0
            for seed in _attempts(whole["seed"], place, None):
                if kept[task] + absent == wanted or failures == few + part * wanted:
                    break
                key = episode_key(task, seed)
                if key not in attempts:
                    absent += 1
                    continue
                path, success = attempts[key]
                needed[path].append(key)
                if success:
                    kept[task] += 1
                    source, copy = (executed_path(d, task, seed) for d in (path, partial))
                    shutil.copy2(source, copy)
                else:
                    failures += 1
            missing += absent
        for path, keys in needed.items():
            writer.copy_from(EpisodeWriter(path), keys)
        if not missing:
            writer.finalize()
    return kept, missing


def _read_shares(
    paths: Sequence[Path],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, tuple[Path, bool]]]:
    """The whole collection, its provenance, and attempt -> (share, success)."""
    from robotics.data.rlds import EpisodeWriter

    whole: dict[str, Any] | None = None
    provenance: Any = None
    attempts: dict[str, tuple[Path, bool]] = {}
    seen: dict[int, Path] = {}
    for path in paths:
        remedy = "name directories that eval.collect --shard wrote"
        if not (path / SHARE).is_file():
            raise ValueError(f"merge: expected a share of a collection, got {path}; {remedy}")
        found = read_object(path / SHARE, remedy, ("shard", "seed", "wanted"))
        number, count = found["shard"]
        this = {"seed": found["seed"], "wanted": found["wanted"], "shares": count}
        if any((path / ".staging").rglob("*.tfrecord")):
            EpisodeWriter(path).finalize()  # packs what an interrupted run left
        collection = read_object(path / "collection-train.json", remedy, ("episodes", "discarded"))
        origin = {k: v for k, v in collection["provenance"].items() if k != "shard"}
        if whole is not None and (this, origin) != (whole, provenance):
            found = differences({**whole, **provenance}, {**this, **origin})
            old, new = (", ".join(f"{name}={pair[i]}" for name, *pair in found) for i in (0, 1))
            raise ValueError(
                f"merge: expected shares of one collection, got {old} in {paths[0]} and {new} in "
                f"{path}; merge shares of one command"
            )
        if number in seen:
            raise ValueError(
                f"merge: expected each share once, got {number}/{count} in {seen[number]} and in "
                f"{path}; name each share once"
            )
        whole, provenance, seen[number] = this, origin, path
        attempts |= dict.fromkeys(collection["episodes"], (path, True))
        attempts |= dict.fromkeys(collection["discarded"], (path, False))
    assert whole is not None, "the command line asks for one path at least"
    return whole, provenance, attempts
