"""Reads finished runs and checks whether they may be compared."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eval.envs.contract import Simulator
from eval.envs.registry import recorded_simulator
from eval.results.records import SCHEMA_VERSION, Record, read_episodes, read_object
from eval.results.results import policy_line, stand_ins
from selfflow_wm.cli import one_of

DIFFERENCES = ("simulator", "protocol", "incomplete")
"""What `--allow` accepts."""
METRICS = {"success": "success at the last step", "any_success": "success at any step"}
_READ = ("simulator", "simulator_note", "policy", "versions", "seeds", "tasks", "command")
"""What a comparison reads of results.json."""
_FLAGS = {"success": "success", "any_success": "success_any"}

Start = tuple[str, str]
"""What the episodes of a pair share: where the start state comes from, and which one it is."""


@dataclass(frozen=True)
class Run:
    """A directory of `python -m eval.simpler`."""

    path: Path
    label: str
    """Unique among the runs that are compared."""
    results: dict[str, Any]
    records: dict[tuple[str, int], Record]

    @property
    def simulator(self) -> str:
        """Its label in results.json."""
        return self.results["simulator"]

    @property
    def protocol(self) -> str | None:
        """The grid of start states; None for simulators without one."""
        return self.results.get("protocol")

    @cached_property
    def scenes(self) -> Simulator:
        """The simulator itself."""
        return recorded_simulator(self.simulator, self.protocol)

    @property
    def tasks(self) -> list[str]:
        """In the order in which they were run."""
        return list(self.results["tasks"])

    @cached_property
    def policy(self) -> str:
        """The policy in one line."""
        return policy_line(self.results)

    @cached_property
    def training(self) -> dict[str, Any]:
        """How the checkpoint was trained (`eval.policies.spec.trained`); empty for other policies.

        For older runs, which do not record it, step and id come from the checkpoint's path.
        """
        policy = self.results["policy"]
        if policy["kind"] != "checkpoint":
            return {}
        if policy.get("training"):
            return policy["training"]
        path = Path(policy["path"])
        step = re.search(r"step_(\d+)$", path.name)
        return {"step": int(step[1]), "id": str(path.parent)} if step else {}

    def episodes(self, task: str) -> list[Record]:
        """The requested episodes of `task` that ended, in order, without crashed ones."""
        found = [self.records.get((task, seed)) for seed in self.results["seeds"][task]]
        return [record for record in found if record and record["status"] != "error"]

    def missing(self) -> tuple[int, int]:
        """The number of requested episodes that were never run, and of those that crashed."""
        wanted = [(task, seed) for task in self.tasks for seed in self.results["seeds"][task]]
        found = [self.records.get(key) for key in wanted]
        absent = sum(record is None for record in found)
        return absent, sum(bool(r) and r["status"] == "error" for r in found)

    def start(self, record: Record) -> Start:
        """Equal for episodes with the same start state; see `Simulator.start`."""
        return self.scenes.start(record)

    def outcomes(self, task: str, metric: str) -> dict[Start, bool]:
        """Whether the episode from each start state fulfils `metric` (see `flag`)."""
        return {self.start(r): flag(r, metric) for r in self.episodes(task)}


def flag(record: Record, metric: str) -> bool:
    """`success`, `any_success`, or whether a stage of that name was reached."""
    if metric in _FLAGS:
        return bool(record[_FLAGS[metric]])
    return bool(record["stages"].get(metric, False))


def parse_allowed(words: str) -> list[str]:
    """Names of `DIFFERENCES` from a comma-separated list."""
    names = [word.strip() for word in words.split(",") if word.strip()]
    for name in names:
        one_of("--allow", name, DIFFERENCES)
    return names


def has_metric(run: Run, task: str, metric: str) -> bool:
    """Whether `task` has `metric`: a success flag, or one of the task's stages."""
    return metric in _FLAGS or metric in run.results["tasks"][task]["stages"]


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Read at least two runs; `ValueError` if one is not a run or is given twice."""
    resolved = [path.resolve() for path in paths]
    if len(paths) < 2 or len(set(resolved)) < len(resolved):
        raise ValueError(
            f"runs: expected at least two different directories, got {' '.join(map(str, paths))}; "
            "give the --out directories of python -m eval.simpler"
        )
    return [_load(path, label) for path, label in zip(paths, _labels(resolved), strict=True)]


def _labels(paths: Sequence[Path]) -> list[str]:
    """The shortest trailing parts of the paths, of equal length, that distinguish them."""
    for length in range(1, max(len(path.parts) for path in paths)):
        labels = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]


def _load(path: Path, label: str) -> Run:
    files = path / "results.json", path / "episodes.jsonl"
    for file in files:
        if not file.is_file():
            raise ValueError(
                f"run: expected a directory of python -m eval.simpler, got {path} without "
                f"{file.name}; give its --out, or finish an interrupted run"
            )
    remedy = "rerun the run's command, which rewrites it"
    version = read_object(files[0], remedy, ["schema_version"])["schema_version"]
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{files[0]}: expected schema version {SCHEMA_VERSION}, got {version}; use the "
            "version of this package that wrote it"
        )
    results = read_object(files[0], remedy, _READ)
    return Run(path, label, results, read_episodes(files[1])[0])


def check_comparable(runs: Sequence[Run], allowed: Collection[str]) -> list[str]:
    """Refuse runs that must not be compared unless it is `allowed`; returns notes for the reader.

    Raises:
        ValueError: different simulators, protocols or start states, or missing episodes.
    """
    notes = []
    for kind, problem in _problems(runs):
        if kind not in allowed:
            raise ValueError(
                f"{kind}: {problem}; compare runs that share it, or add --allow {kind} to "
                "compare them anyway"
                if kind != "incomplete"
                else f"{kind}: {problem}; rerun the run's command with its --out, which "
                "runs what is missing, or add --allow incomplete"
            )
        notes.append(f"allowed ({kind}): {problem}")
    first = runs[0]
    for run in runs[1:]:
        theirs, ours = run.results["versions"], first.results["versions"]
        changed = [
            f"{name} {ours.get(name)}/{theirs.get(name)}"
            for name in dict.fromkeys([*ours, *theirs])
            if ours.get(name) != theirs.get(name)
        ]
        if changed:
            notes.append(f"{first.label}/{run.label}: different versions of {', '.join(changed)}")
        for task in [task for task in first.tasks if task in run.tasks]:
            one, other = (stand_ins(each.episodes(task)) for each in (first, run))
            if one != other:
                notes.append(
                    f"{task}: different stand-ins for meshes missing in SIMPLER's installation: "
                    f"{', '.join(one) or 'none'} in {first.label}, {', '.join(other) or 'none'} in "
                    f"{run.label}"
                )
        same = all(
            run.results["policy"].get(key) == first.results["policy"].get(key)
            for key in ("kind", "options", "checkpoint_sha256")
        )
        if same:
            notes.append(f"{first.label} and {run.label} are the same policy with the same options")
    return notes


def _problems(runs: Sequence[Run]) -> list[tuple[str, str]]:
    found = []
    for kind in ("simulator", "protocol"):
        values = {run.label: str(getattr(run, kind)) for run in runs}
        if len(set(values.values())) > 1:
            words = ", ".join(f"{label} on {value}" for label, value in values.items())
            found.append((kind, f"expected one {kind}, got {words}"))
    for run in runs:
        if run.results.get("shard"):
            words = f"expected complete runs, got {run.label}, share {run.results['shard']} of one"
            found.append(("incomplete", f"{words} (python -m eval.merge combines shares)"))
        absent, crashed = run.missing()
        if absent or crashed:
            words = f"expected every episode, got {run.label} with {absent} not run"
            found.append(("incomplete", f"{words} and {crashed} crashed"))
    found += _other_starts(runs)
    return found


def _other_starts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Start states of the same name with different instructions: not the same scene after all."""
    seen: dict[tuple[str, Start], tuple[str, str]] = {}
    for run in runs:
        for task in run.tasks:
            for record in run.episodes(task):
                words = record["instructions"][0][1]
                label, known = seen.setdefault((task, run.start(record)), (run.label, words))
                if known != words:
                    return [(
                        "simulator",
                        f"expected the same scene from the same start, got {task} seed "
                        f"{record['seed']} with {known!r} in {label} and {words!r} in {run.label}",
                    )]  # fmt: skip
    return []
