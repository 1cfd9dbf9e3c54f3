"""The numbers of a comparison: the content of `compare.json`."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from eval.envs.contract import without_turn
from eval.results.paired import RESAMPLES, Counts, bootstrap, describe, holm
from eval.results.real_robot import SCENES as REAL_SCENES
from eval.results.real_robot import against_real
from eval.results.results import latency, means_of, proportion, start_of, task_weights
from eval.results.runs import METRICS, Run, Start, check_comparable, flag, has_metric

SCHEMA_VERSION = 1
"""Of compare.json."""
_LEAST_IN_STRATUM = 5
"""Start states; resampling fewer says little about how much they could have varied."""


def compare(
    runs: Sequence[Run],
    metric: str = "success",
    tasks: Sequence[str] | None = None,
    allowed: Collection[str] = (),
    policies: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Compare runs pair by pair and side by side.

    Args:
        runs: at least two.
        metric: `success` (last step), `any_success`, or the name of a stage.
        tasks: None: those that all runs have.
        allowed: the `DIFFERENCES` to accept.
        policies: for each run, the policy of `real_robot.REAL` that it evaluates; or empty.
        seed: of the bootstrap.

    Returns:
        JSON-ready: `runs`, `pairs` (each with its `scopes`: tasks, then means), `curves`, `real`.

    Raises:
        ValueError: runs that must not be compared, or nothing to compare.
    """
    notes = check_comparable(runs, allowed)
    chosen = _tasks(runs, tasks, metric, notes)
    pairs = [_pair(a, b, chosen, metric, seed) for a, b in combinations(runs, 2)]
    if not any(scope["pairs"] for pair in pairs for scope in pair["scopes"]) and not allowed:
        raise ValueError(
            "runs: expected episodes from the same starts, got none in common; run them "
            "with the same --seed and --protocol"
        )
    _correct(pairs)
    notes += [note for pair in pairs for note in pair.pop("notes")]
    if policies and any(run.scenes.name != REAL_SCENES for run in runs):
        notes.append(
            "the real-robot numbers are of SIMPLER's scenes; these runs are of another simulator"
        )
    described = [_describe_run(run, chosen, metric) for run in runs]
    return {
        "schema_version": SCHEMA_VERSION,
        "metric": metric,
        "metric_name": METRICS.get(metric, f"stage {metric} reached"),
        "tasks": chosen,
        "allowed": sorted(allowed),
        "notes": notes,
        "difference": "rate of b minus rate of a",
        "bootstrap": {"resamples": RESAMPLES, "seed": seed},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "runs": described,
        "pairs": pairs,
        "curves": _curves(runs, described, chosen),
        "real": _real(described, policies, chosen, metric) if policies else None,
    }


def _tasks(
    runs: Sequence[Run], wanted: Sequence[str] | None, metric: str, notes: list[str]
) -> list[str]:
    common = [task for task in runs[0].tasks if all(task in run.tasks for run in runs)]
    left_out = sorted({task for run in runs for task in run.tasks} - set(common))
    if wanted is not None:
        if missing := [task for task in wanted if task not in common]:
            raise ValueError(
                f"task: expected tasks that all runs have ({', '.join(common) or 'none'}), got "
                f"{', '.join(missing)}; choose others, or run them"
            )
        common = list(wanted)
    elif left_out and common:
        notes.append(f"not in every run, left out: {', '.join(left_out)}")
    chosen = [task for task in common if all(has_metric(run, task, metric) for run in runs)]
    if not common or not chosen:
        stages = dict.fromkeys(
            stage for task in common for stage in runs[0].results["tasks"][task]["stages"]
        )
        raise ValueError(
            "runs: expected a task that all runs have, got none; compare runs of one task"
            if not common
            else f"metric: expected {', '.join([*METRICS, *stages])}, got {metric}; "
            "choose one of these"
        )
    if dropped := [task for task in common if task not in chosen]:
        notes.append(f"without the stage {metric}, left out: {', '.join(dropped)}")
    return chosen


def _pair(a: Run, b: Run, tasks: Sequence[str], metric: str, seed: int) -> dict[str, Any]:
    """All scopes of two runs: each task, then the means."""
    outcomes: dict[str, dict[Start, tuple[bool, bool]]] = {}
    notes, disagreements = [], []
    for task in tasks:
        first, second = a.outcomes(task, metric), b.outcomes(task, metric)
        outcomes[task] = {
            start: (first[start], second[start]) for start in first if start in second
        }
        alone = len(first) + len(second) - 2 * len(outcomes[task])
        if alone:
            notes.append(f"{a.label}/{b.label}: {task}: {alone} unpaired episodes")
        disagreements += _disagreements(a, b, task, outcomes[task])
    counts = {task: _counts(found) for task, found in outcomes.items()}
    notes += [
        f"{a.label}/{b.label}: {task}: {found.pairs} pairs of {len(found.repeated.starts)} cells, "
        f"effective sample size {found.independent:.0f}"
        for task, found in counts.items()
        if found.repeated
    ]
    scopes = [
        {"scope": "task", "name": task, **describe(counts[task], seed)} for task in tasks
    ] + _mean_scopes(a, outcomes, counts, seed)
    return {
        "a": a.label, "b": b.label, "scopes": scopes, "disagreements": disagreements,
        "notes": notes,
    }  # fmt: skip


def _mean_scopes(
    a: Run,
    outcomes: dict[str, dict[Start, tuple[bool, bool]]],
    counts: dict[str, Counts],
    seed: int,
) -> list[dict[str, Any]]:
    """The means of `eval.results.results.means`, on the pairs; only `micro` has McNemar's test."""
    if not all(found.pairs for found in counts.values()):
        return []
    scopes = []
    if len(counts) > 1:
        every = Counts.of(
            [pair for found in outcomes.values() for pair in found.values()],
            [(task, without_turn(name)) for task, found in outcomes.items() for _, name in found],
        )
        together = describe(every, seed)
        low, high = bootstrap(counts, seed=seed)  # the tasks are fixed, not sampled
        together["bootstrap"] = {"low": low, "high": high}
        scopes.append({"scope": "micro", "name": f"all {every.pairs} pairs pooled", **together})
    for key, (name, weights) in task_weights(list(counts)).items():
        strata = {task: counts[task] for task in weights}
        scopes.append(_weighted(key, name, strata, weights, seed))
    variants = _variants(a, outcomes)
    if len(variants) > len(counts):
        sizes = {task: sum(name[0] == task for name in variants) for task in counts}
        weights = {name: 1 / sizes[name[0]] / len(counts) for name in variants}
        name = f"mean of {len(variants)} variants"
        name += f", then of {len(counts)} tasks" if len(counts) > 1 else ""
        scopes.append(_weighted("macro_variants", name, variants, weights, seed))
    return scopes


def _weighted(
    key: str, name: str, strata: dict[Any, Counts], weights: dict[Any, float], seed: int
) -> dict[str, Any]:
    def mean(rate: Any) -> float:
        return sum(weights[key] * rate(counts) / counts.pairs for key, counts in strata.items())

    rate_a = mean(lambda counts: counts.both + counts.only_a)
    rate_b = mean(lambda counts: counts.both + counts.only_b)
    enough = min(len(counts.starts()) for counts in strata.values()) >= _LEAST_IN_STRATUM
    low, high = bootstrap(strata, weights, seed) if enough else (None, None)
    return {
        "scope": key, "name": name, "pairs": sum(counts.pairs for counts in strata.values()),
        "rate_a": rate_a, "rate_b": rate_b, "difference": rate_b - rate_a, "interval": None,
        "bootstrap": {"low": low, "high": high} if enough else None, "mcnemar_p": None,
        "power": None,
    }  # fmt: skip


def _variants(
    run: Run, outcomes: dict[str, dict[Start, tuple[bool, bool]]]
) -> dict[tuple[str, str], Counts]:
    """Pairs by task and the variant of their cells; empty if a task has no variants."""
    groups: dict[tuple[str, str], dict[Start, tuple[bool, bool]]] = {}
    for task, found in outcomes.items():
        cells = [run.scenes.cell(task, record["seed"]) for record in run.episodes(task)]
        names = {cell.name: cell.variant for cell in cells if cell is not None}
        for start, pair in found.items():
            if not names.get(start[1]):
                return {}
            groups.setdefault((task, names[start[1]]), {})[start] = pair
    return {name: _counts(found) for name, found in groups.items()}


def _counts(outcomes: dict[Start, tuple[bool, bool]]) -> Counts:
    """Counts of a task's pairs; the turns of a cell share its start state."""
    return Counts.of(outcomes.values(), (without_turn(name) for _, name in outcomes))


def _disagreements(
    a: Run, b: Run, task: str, outcomes: dict[Start, tuple[bool, bool]]
) -> list[dict[str, Any]]:
    """Start states from which only one of the runs succeeded, with the videos there are."""
    first, second = ({run.start(r): r for r in run.episodes(task)} for run in (a, b))
    return [
        {
            "task": task, "start": start[1], "a": won, "b": not won,
            "video_a": first[start].get("video"), "video_b": second[start].get("video"),
            "seed_a": first[start]["seed"], "seed_b": second[start]["seed"],
        }
        for start, (won, other) in outcomes.items()
        if won != other
    ]  # fmt: skip


def _correct(pairs: list[dict[str, Any]]) -> None:
    """Holm's correction, over the pairs of runs for the pooled tests and over pairs and tasks for
    the tests of tasks; `holm_p` is None if there was only one test."""
    for kinds in (("task",), ("micro",)):
        tested = [
            scope
            for pair in pairs
            for scope in pair["scopes"]
            if scope["scope"] in kinds and scope["mcnemar_p"] is not None
        ]
        adjusted = holm([scope["mcnemar_p"] for scope in tested])
        for scope, value in zip(tested, adjusted, strict=True):
            scope["holm_p"] = value if len(tested) > 1 else None
    for pair in pairs:
        for scope in pair["scopes"]:
            scope.setdefault("holm_p", None)


def _describe_run(run: Run, tasks: Sequence[str], metric: str) -> dict[str, Any]:
    """The numbers of one run: all its episodes, paired or not."""
    rows, episodes = {}, []
    for task in tasks:
        records = run.episodes(task)
        episodes += records
        starts = [start_of(record) for record in records]
        summary = run.results["tasks"][task]
        rows[task] = {
            "rate": proportion((flag(record, metric) for record in records), starts),
            "stages": {
                stage: proportion((flag(record, stage) for record in records), starts)
                for stage in summary["stages"]
            },
            "mean_steps": sum(r["steps"] for r in records) / len(records) if records else None,
            "latency_ms": latency(records),
        }
    absent, crashed = run.missing()
    return {
        "label": run.label, "path": str(run.path), "simulator": run.simulator,
        "simulator_note": run.results["simulator_note"], "protocol": run.protocol,
        "policy": run.policy, "options": run.results["policy"]["options"],
        "checkpoint_sha256": run.results["policy"]["checkpoint_sha256"],
        "training": run.training or None, "not_run": absent, "crashed": crashed,
        "command": run.results["command"], "tasks": rows,
        "means": {
            key: {"name": name, **mean}
            for key, (name, mean) in means_of({t: row["rate"] for t, row in rows.items()}).items()
        },
        "pooled": proportion(
            (flag(record, metric) for record in episodes),
            ((record["task"], start_of(record)) for record in episodes),
        ),
        "latency_ms": latency(episodes),
    }  # fmt: skip


def _curves(
    runs: Sequence[Run], described: Sequence[dict[str, Any]], tasks: Sequence[str]
) -> list[dict[str, Any]]:
    """Runs of at least two checkpoints of one training with the same policy options, by step."""
    trainings: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for run, row in zip(runs, described, strict=True):
        step = run.training.get("step")
        if step is not None:
            options = json.dumps(row["options"], sort_keys=True)
            trainings.setdefault((str(run.training["id"]), options), {})[step] = row
    curves = []
    for (number, _), points in trainings.items():
        if len(points) < 2:
            continue
        ordered = dict(sorted(points.items()))
        training = next(iter(ordered.values()))["training"]
        curves.append({
            "training": number, "run": training.get("run"), "objective": training.get("objective"),
            "points": [
                {
                    "step": step, "label": row["label"], "pooled": row["pooled"],
                    "tasks": {task: row["tasks"][task]["rate"] for task in tasks},
                }
                for step, row in ordered.items()
            ],
        })  # fmt: skip
    return curves


def _real(
    described: Sequence[dict[str, Any]], policies: Sequence[str], tasks: Sequence[str], metric: str
) -> list[dict[str, Any]]:
    if metric != "success":
        raise ValueError(
            f"against-real: expected the metric success, which is what was published, got {metric};"
            " leave --metric out"
        )
    rates: dict[str, dict[str, float]] = {}
    for task in tasks:
        for run, policy in zip(described, policies, strict=True):
            if (rate := run["tasks"][task]["rate"]["rate"]) is not None:
                rates.setdefault(task, {})[policy] = rate
    return against_real(rates)
