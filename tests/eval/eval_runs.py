"""Runs of `python -m eval.simpler` in the fake environment, and what they leave behind."""

import json
from dataclasses import replace
from functools import partial

from eval.report.video import VideoWatcher
from eval.results.records import EpisodeLog
from eval.rollout.plan import make_plan
from eval.rollout.run import evaluate
from eval.simpler import build_parser


def words(out, *more, backend="make", task="open_drawer_place,move_near", policy="expert"):
    return ["--task", task, "--policy", policy, "--backend", f"fake_env:{backend}", "--episodes",
            "6", "--video", "0", "--workers", "1", "--out", str(out), *more]  # fmt: skip


def plan_for(arguments):
    plan, _ = make_plan(build_parser().parse_intermixed_args(arguments), "command")
    return replace(plan, workers=0)


def run_here(arguments, on_episode=lambda record: None):
    """Without worker processes or output."""
    plan = plan_for(arguments)
    log = EpisodeLog(plan.out, plan.settings())
    try:
        evaluate(plan, log, partial(VideoWatcher, fps=6.0), on_episode)
    finally:
        log.close()
    return log


def lines(out):
    return [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]


def without_times(records):
    return {
        (r["task"], r["seed"]): {k: v for k, v in r.items() if k not in ("wall_s", "latency_ms")}
        for r in records
    }


def plain(records):
    """Without times and the history of tries."""
    return {
        key: {k: v for k, v in record.items() if not k.startswith("retr")}
        for key, record in without_times(records).items()
    }
