"""Does Self-Flow help on the toy world? Twins over several seeds, at equal steps and equal compute.

    python -m benchmarks.claims --out runs/claims
    python -m benchmarks.claims model=small --out runs/claims --seeds 0 1 2 3 4 --jobs 2

Three arms for each seed: self_flow, flow_matching with as many steps, and flow_matching with as
many more steps as Self-Flow's teacher and projector cost in FLOPs (counted as --plan of
selfflow_wm.pretrain counts them, in OUT/plan.json; wall time is in each run's metrics.jsonl). The
learning rate stays at its peak, as in paper_625m, and what is judged is the EMA: so the arm at
equal steps is the beginning of the one at equal compute, and two runs make three arms. Twins of a
seed share initial weights, codecs, data and order. Then python -m selfflow_wm.evaluate measures
all of them: OUT/evaluation/results.html has one table with means and intervals over seeds.
OUT/curves.png has the held-out flow-matching loss of each mode against steps and compute, and
linear probes (OUT/probes) ask frozen features for the word on a sign, the limbs of a figure, the
contour of a melody.

Rerun the same command to resume where it stopped. KEY=VALUE words are for
all runs, as selfflow_wm.pretrain takes them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from benchmarks.claims_curves import write_curves
from benchmarks.claims_probes import probe_runs, show
from selfflow_wm.cli import Parser, at_least, exit_code
from selfflow_wm.commands.checkpoints import main as evaluate
from selfflow_wm.data import ModeSchedule
from selfflow_wm.pretraining.build import RESUMABLE, compose_config
from selfflow_wm.pretraining.codecs import planned_layout
from selfflow_wm.pretraining.plan import make_plan
from selfflow_wm.training import checkpoint
from selfflow_wm.training.config import current_record, make_objective

BASE = (
    "experiment=toy_multimodal",
    "optim.floor=1.0",
    "trainer.preview_every=0",
    "log.wandb=disabled",
)


class Stopped(Exception):
    """A run that stopped early; its state is saved."""


@dataclass(frozen=True)
class Job:
    """One training run, of one or two arms."""

    out: Path
    arms: Mapping[str, int]
    """Arm -> the step at which it is judged; the last is the run's end."""
    seed: int
    words: tuple[str, ...]

    def checkpoint(self, arm: str) -> Path:
        """The directory of the arm's checkpoint, whether or not it exists yet."""
        return checkpoint.step_directory(self.out / "checkpoints", self.arms[arm])

    def done(self) -> bool:
        """Whether the checkpoints of its arms are there."""
        return all(self.checkpoint(arm).is_dir() for arm in self.arms)

    def check(self) -> None:
        """ValueError when what lies in `out` was trained with other settings."""
        record = self.out / "run.json"
        if not ((self.out / "checkpoints").is_dir() and record.is_file()):
            return
        before, now = current_record(checkpoint.read_json(record)), _plain(self.words)
        differing = [
            key for key in before
            if key not in RESUMABLE and before[key] != now.get(key)
        ] + [
            f"trainer.{key}" for key in LEARNING
            if before["trainer"].get(key) != now["trainer"].get(key)
        ]  # fmt: skip
        if differing:
            raise ValueError(
                f"{self.out}: expected a run of the settings given, got one with other "
                f"{', '.join(differing)}; give another --out"
            )

    def run(self) -> None:
        """Train or resume; what it prints goes to run.log beside it. Stopped, or ValueError."""
        if self.done():
            return
        self.out.mkdir(parents=True, exist_ok=True)
        log = self.out / "run.log"
        with log.open("a") as file:
            code = subprocess.run(
                [sys.executable, "-m", "selfflow_wm.pretrain", *self.words],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            ).returncode
        if code == 2:
            raise ValueError(f"{self.out}: {log.read_text().strip().splitlines()[-1]}")
        if code or not self.done():
            raise Stopped(f"{self.out}: exit code {code}; see run.log there")
        print(f"trained {self.out}", flush=True)


LEARNING = ("accumulate", "ema_decay", "precision")
"""Of `trainer`, what a resumed run may change, but twins have to share."""


def _plain(words: Sequence[str]) -> dict[str, Any]:
    """A run's configuration, as its run.json has it."""
    plain = OmegaConf.to_container(compose_config(list(words)), resolve=True)
    return json.loads(json.dumps(plain))


def check_words(steps: int, seeds: Sequence[int], words: Sequence[str]) -> None:
    """ValueError for what would not compare the arms that are named, or leave none at `steps`."""
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds: expected different ones, got {list(seeds)}; leave one out")
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key in SEPARATE:
            raise ValueError(
                f"{word}: expected words that all runs share, got one of {', '.join(SEPARATE)}; "
                "use --seeds, --steps and --out"
            )
    config = compose_config([*BASE, f"trainer.export_every={steps}", *words])
    if config.optim.floor != 1:
        raise ValueError(
            f"optim.floor: expected 1, got {config.optim.floor:g}: with a rate that falls, the arm "
            "at equal steps, the beginning of the one at equal compute, would be judged at a "
            "higher rate than Self-Flow; leave it out"
        )
    every = config.trainer.export_every
    if every < 1 or steps % every:
        raise ValueError(
            f"trainer.export_every: expected a divisor of the {steps} steps at which arms are "
            f"judged, got {every}; leave it out or give one"
        )


def step_flops(words: Sequence[str]) -> float:
    """FLOPs of a mean step of the mixture, without codecs."""
    config = compose_config([*BASE, *words])
    config.out = "none"
    plain: Any = OmegaConf.to_container(config, resolve=True)
    with torch.device("meta"):
        objective = make_objective(config)
    mixture = ModeSchedule(plain["modes"], seed=plain["seed"])
    layout = planned_layout(plain)
    return make_plan(layout, plain["model"], objective, mixture, plain["trainer"]).mean_flops


def make_jobs(
    out: Path, seeds: Sequence[int], steps: int, cost: float, words: Sequence[str]
) -> list[Job]:
    """Every run, those of a seed together. cost: FLOPs of Self-Flow's step over the twin's."""
    more = round(steps * cost)
    arms = {
        "self_flow": {"self_flow": steps},
        "flow_matching": {"flow_matching": steps, "flow_matching_equal_compute": more},
    }
    jobs = []
    for seed in seeds:
        for objective, ends in arms.items():
            place = out / "runs" / f"{objective}-{seed}"
            separate = (
                f"objective={objective}", f"seed={seed}", f"out={place}",
                f"trainer.total_steps={max(ends.values())}",
            )  # fmt: skip
            exports = f"trainer.export_every={steps}"
            jobs.append(Job(place, ends, seed, (*BASE, exports, *words, *separate)))
    return jobs


def run(arguments: argparse.Namespace) -> int:
    """Train all, then evaluate all; the exit code."""
    a = arguments
    check_words(a.steps, a.seeds, a.overrides)
    flops = {name: step_flops([*a.overrides, f"objective={name}"]) for name in OBJECTIVES}
    cost = flops["self_flow"] / flops["flow_matching"]
    print(
        f"a step of self_flow costs {cost:.3f} of one of flow_matching: {a.steps} and "
        f"{round(a.steps * cost)} steps are equal compute",
        flush=True,
    )
    jobs = make_jobs(a.out, a.seeds, a.steps, cost, a.overrides)
    for job in jobs:
        job.check()
    plan = {
        "steps": a.steps, "equal_compute_steps": round(a.steps * cost), "flops_of_a_step": flops,
        "seeds": list(a.seeds), "words": list(a.overrides),
    }  # fmt: skip
    checkpoint.write_json(a.out / "plan.json", plan)
    with ThreadPoolExecutor(a.jobs) as pool:
        running = [pool.submit(job.run) for job in jobs]
        try:
            for future in running:
                future.result()
        except (Stopped, ValueError, KeyboardInterrupt) as error:
            for future in running:
                future.cancel()
            if isinstance(error, Stopped):
                print(f"{error}; rerun the same command to resume", file=sys.stderr)
                return 1
            raise
    drawn = write_curves(
        a.out / "curves.png", {(next(iter(job.arms)), job.seed): job.out for job in jobs}, cost
    )
    if not drawn:
        print(
            f"no curves: no validation in {a.steps} steps; set trainer.validate_every", flush=True
        )
    runs = {
        seed: {arm: job.checkpoint(arm) for arm in ARMS for job in jobs
               if job.seed == seed and arm in job.arms}
        for seed in a.seeds
    }  # fmt: skip
    words = [f"{arm}={arms[arm]}" for arm in ARMS for arms in runs.values()]
    words += ["--out", str(a.out / "evaluation"), "--samples", str(a.samples)]
    words += ["--steps", str(a.solver_steps), "--shift", str(a.shift)]
    code = evaluate(words + (["--recogniser", str(a.recogniser)] if a.recogniser else []))
    if code == 0 and a.probe_samples:
        show(probe_runs(a.out / "probes", runs, a.probe_samples))
    return code


SEPARATE = ("objective", "seed", "out", "trainer.total_steps")
"""Words that differ between the runs."""
OBJECTIVES = ("self_flow", "flow_matching")
ARMS = ("flow_matching", "flow_matching_equal_compute", "self_flow")
"""In the table, where differences are later minus earlier: self_flow minus its twins."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; exit code 0, 1 for a run that failed, 2 for misuse, 130 when interrupted."""
    parser = Parser(
        prog="python -m benchmarks.claims", description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n\n", 1)[1],
    )  # fmt: skip
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="runs/, evaluation/, probes/")
    add("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2], help="of training (0 1 2)")
    add("--steps", type=at_least(1), default=3000, help="of the arms at equal steps (3000)")
    add("--samples", type=at_least(1), default=256, help="of each mode to evaluate (256)")
    add("--solver-steps", type=at_least(1), default=25, help="of sampling (25)")
    add("--shift", type=at_least(0.01), default=3.0, help="of sampling's time grid (3.0)")
    add("--probe-samples", type=at_least(0), default=1500, metavar="N",
        help="labelled samples of each linear probe; 0: no probes (1500)")  # fmt: skip
    add("--recogniser", type=Path, metavar="DIR", help="see python -m selfflow_wm.evaluate")
    add("--jobs", type=at_least(1), default=1, help="runs at a time, a core each (1)")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="for all runs")
    arguments = parser.parse_intermixed_args(argv)
    return exit_code(lambda: run(arguments), resumable=True)


if __name__ == "__main__":
    raise SystemExit(main())
