"""Evaluations and collections in the fake environment, and what they leave behind."""

import json
from dataclasses import replace
from functools import partial

from eval.envs.registry import find_simulator
from eval.report.video import VideoWatcher
from eval.results.records import EpisodeLog
from eval.rollout.collect import collect
from eval.rollout.demonstrations import Perturbation
from eval.rollout.plan import make_plan
from eval.rollout.run import evaluate
from eval.simpler import build_parser
from robotics.data.rlds import EpisodeReader

FAKE = find_simulator("fake_env:make")
NOISE = Perturbation(0.004, 0.02, noise_probability=1.0, terminate_delay=0.5)


def gather(out, wanted, workers=0, perturbation=NOISE, simulator=FAKE, **more):
    return collect(
        wanted, out, simulator=simulator, perturbation=perturbation, workers=workers, **more
    )


def contents(out):
    return [
        ({name: list(images) for name, images in e.cameras.items()}, list(e.instructions),
         e.action.tobytes(), e.terminate.tobytes(), e.state.tobytes())
        for e in EpisodeReader(out)
    ]  # fmt: skip


def words(out, *more, backend="make", task="open_drawer_place,move_near", policy="expert"):
    named = [] if "--task" in more else ["--task", task]
    return [*named, "--policy", policy, "--backend", f"fake_env:{backend}", "--episodes",
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
