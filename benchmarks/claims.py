"""Does Self-Flow help on the toy world? Twins over several seeds, at equal steps and equal compute.

    python -m benchmarks.claims --out runs/claims
    python -m benchmarks.claims model=small --out runs/claims --seeds 0 1 2 3 4 --jobs 2

Three arms for each seed: self_flow, flow_matching with as many steps, and flow_matching with as
many more steps as Self-Flow's teacher and projector cost in FLOPs (counted as --plan of
selfflow_wm.pretrain counts them; wall time is in each run's metrics.jsonl). Twins of a seed share
initial weights, codecs, data and order. Then python -m selfflow_wm.evaluate measures all of them:
OUT/evaluation/results.html has one table with means and intervals over seeds. Last, linear probes
of each (OUT/probes): the word on a sign, the limbs of a figure, the contour of a melody.

Everything goes on where it stopped when the same command is given again. KEY=VALUE words are for
all runs, as selfflow_wm.pretrain takes them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from benchmarks.claims_probes import probe_runs, show
from selfflow_wm.cli import Parser, at_least, exit_code
from selfflow_wm.data import Mixture
from selfflow_wm.evaluation.cli import main as evaluate
from selfflow_wm.pretraining.build import compose_config
from selfflow_wm.pretraining.codecs import planned_layout
from selfflow_wm.pretraining.plan import make_plan
from selfflow_wm.training import checkpoint
from selfflow_wm.training import run as core

BASE = ("experiment=toy_multimodal", "trainer.preview_every=0", "log.wandb=disabled")


class Stopped(Exception):
    """A run that did not come to its end; its state is saved."""


@dataclass(frozen=True)
class Job:
    """One training run."""

    arm: str
    seed: int
    out: Path
    steps: int
    words: tuple[str, ...]

    def done(self) -> bool:
        """Whether its last checkpoint is there."""
        return checkpoint.step_directory(self.out / "checkpoints", self.steps).is_dir()

    def run(self) -> None:
        """Train, or go on; what it prints goes to run.log beside it. Stopped, or ValueError."""
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


def step_flops(words: Sequence[str]) -> float:
    """FLOPs of a mean step of the mixture, without codecs."""
    config = compose_config([*BASE, *words])
    config.out = "none"
    plain: Any = OmegaConf.to_container(config, resolve=True)
    with torch.device("meta"):
        objective = core.make_objective(config)
    mixture = Mixture(plain["modes"], seed=plain["seed"])
    layout = planned_layout(plain)
    return make_plan(layout, plain["model"], objective, mixture, plain["trainer"]).mean_flops


def make_jobs(out: Path, seeds: Sequence[int], steps: int, words: Sequence[str]) -> list[Job]:
    """Every run, the arms of a seed together."""
    cost = {name: step_flops([*words, f"objective={name}"]) for name in ARMS}
    more = round(steps * cost["self_flow"] / cost["flow_matching"])
    print(
        f"a step of self_flow costs {cost['self_flow'] / cost['flow_matching']:.3f} of one of "
        f"flow_matching: {steps} and {more} steps are equal compute",
        flush=True,
    )
    jobs = []
    for seed in seeds:
        for arm, objective, count in (
            ("self_flow", "self_flow", steps),
            ("flow_matching", "flow_matching", steps),
            ("flow_matching_equal_compute", "flow_matching", more),
        ):
            place = out / "runs" / f"{arm}-{seed}"
            own = (f"objective={objective}", f"seed={seed}", f"trainer.total_steps={count}")
            jobs.append(Job(arm, seed, place, count, (*BASE, *words, *own, f"out={place}")))
    return jobs


ARMS = ("self_flow", "flow_matching")


def run(arguments: argparse.Namespace) -> int:
    """Train all, then evaluate all; the exit code."""
    a = arguments
    jobs = make_jobs(a.out, a.seeds, a.steps, a.overrides)
    with ThreadPoolExecutor(a.jobs) as pool:
        running = [pool.submit(job.run) for job in jobs]
        try:
            for future in running:
                future.result()
        except (Stopped, ValueError, KeyboardInterrupt) as error:
            for future in running:
                future.cancel()
            if isinstance(error, Stopped):
                print(f"{error}; the same command goes on", file=sys.stderr)
                return 1
            raise
    jobs.sort(key=lambda job: ORDER[job.arm])
    words = [f"{job.arm}={job.out}" for job in jobs]
    words += ["--out", str(a.out / "evaluation"), "--samples", str(a.samples)]
    words += ["--steps", str(a.solver_steps)]
    code = evaluate(words + (["--recogniser", str(a.recogniser)] if a.recogniser else []))
    if code == 0 and a.probe_samples:
        runs = {seed: {job.arm: job.out for job in jobs if job.seed == seed} for seed in a.seeds}
        show(probe_runs(a.out / "probes", runs, a.probe_samples))
    return code


ORDER = {"flow_matching": 0, "flow_matching_equal_compute": 1, "self_flow": 2}
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
    add("--probe-samples", type=at_least(0), default=1500, metavar="N",
        help="labelled samples of each linear probe; 0: no probes (1500)")  # fmt: skip
    add("--recogniser", type=Path, metavar="DIR", help="see python -m selfflow_wm.evaluate")
    add("--jobs", type=at_least(1), default=1, help="runs at a time, a core each (1)")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="for all runs")
    arguments = parser.parse_intermixed_args(argv)
    return exit_code(lambda: run(arguments), resumable=True)


if __name__ == "__main__":
    raise SystemExit(main())
