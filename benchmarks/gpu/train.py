"""Stage train: collect demonstrations, train twins side by side on one card, evaluate them.

The recipe is a file of benchmarks/gpu/recipes. What is left in --out, as train-*.tar: every
run's weights in float16 (what is evaluated), its curves, configuration and seed, and every episode
of its evaluation. --resume continues from them: finished runs are not trained again and finished
episodes not played again. A run with steps left continues from its weights with a new optimiser, on
demonstrations collected again from their seeds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import archive, recipe
from benchmarks.gpu.recipe import Job
from benchmarks.gpu.record import Bench
from benchmarks.gpu.runner import ROOT

CLOSING = 12.0
"""s of the stage's time for packing the results."""
PATIENCE = 20.0
"""s that an interrupted command has to save its state."""


def run(bench: Bench) -> None:
    """See the module."""
    words = recipe.load(bench.settings["words"], bench.tiny)
    bench.found["recipe"] = words
    study = Study(bench, words)
    jobs = recipe.jobs(words)
    bench.plan(["demonstrations", *(f"train {j.name}" for j in jobs)])
    bench.plan([f"evaluate {job.name}" for job in jobs])
    if bench.settings.get("resume"):
        archive.unpack(Path(bench.settings["resume"]), study.kept)
    try:
        to_train = [job for job in jobs if study.steps_left(job)]
        if to_train and bench.cell("demonstrations", study.collect) is None:
            return
        if not to_train:
            bench.found["done"].append("demonstrations")
            bench.note("every run was finished before: nothing is trained again")
        study.train(jobs, to_train)
        study.bring_back()
        for job in jobs:
            bench.cell(f"evaluate {job.name}", lambda job=job: study.evaluate(job), 3)
            study.bring_back()
    finally:
        study.end()
        study.bring_back()
        study.report(jobs)


class Study:
    """The folders and processes of one recipe.

    kept: what comes back: runs/<job> and evaluations/<job>. data, work: what does not.
    """

    def __init__(self, bench: Bench, words: dict[str, Any]) -> None:
        self.bench, self.recipe = bench, words
        root = bench.path.parent / "train"
        self.kept, self.data, self.work = root / "kept", root / "data", root / "runs"
        for folder in (self.kept, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        shares, total = words["shares"], sum(words["shares"].values())
        seconds, now = bench.left() - CLOSING, time.time()
        self.until = {
            "collect": now + seconds * shares["collect"] / total,
            "train": now + seconds * (shares["collect"] + shares["train"]) / total,
            "evaluate": now + seconds,
        }

    # ---------------------------------------------------------------- processes

    def start(self, name: str, module: str, words: list[str]) -> subprocess.Popen[bytes]:
        """`python -m module words`, its output in the stage's log."""
        print(f"-- python -m {module} {' '.join(words)}", flush=True)
        # Processes fill the cores: one that takes more threads is in the others' way.
        environment = {"OMP_NUM_THREADS": "1"} | os.environ
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words], cwd=ROOT, env=environment
        )
        self.processes[name] = process
        return process

    def finish(self, name: str, until: float) -> int:
        """The exit status of a process, which is interrupted at `until`."""
        process = self.processes[name]
        try:
            return process.wait(max(0.1, until - time.time()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        try:
            return process.wait(max(0.1, min(PATIENCE, self.bench.left() - 2)))
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def end(self) -> None:
        """Interrupt whatever still runs; a moment for it to save."""
        running = [p for p in self.processes.values() if p.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        limit = time.time() + 3
        for process in running:
            try:
                process.wait(max(0.1, limit - time.time()))
            except subprocess.TimeoutExpired:
                process.kill()

    # ---------------------------------------------------------------- demonstrations

    def collect(self) -> bool:
        """Collect the demonstrations in growing parts, until all are there or the time is up."""
        done = 0.0
        for share in self.recipe["collect"]["parts"]:
            words = recipe.collect_words(self.recipe, share, self.data)
            self.start("collect", "eval.collect", words)
            code = self.finish("collect", self.until["collect"])
            if code == 0:
                done = share
            elif code != 130:
                raise RuntimeError(f"eval.collect ended with {code}; see log.txt")
            if code or time.time() > self.until["collect"]:
                break
        file = self.data / "collection-train.json"
        if not done or not file.is_file():
            raise RuntimeError(
                "expected the first part of the demonstrations in time, got none; give more "
                "--minutes, fewer collect.episodes or a smaller first value of collect.parts"
            )
        counts = json.loads(file.read_text())["counts"]
        self.bench.row("demonstrations", share=done, **counts)
        asked = f"episodes, {done:.0%} of those asked for"
        self.bench.figure("demonstrations", counts["episodes"], asked)
        return True

    # ---------------------------------------------------------------- training

    def steps_left(self, job: Job) -> int:
        """Steps of the recipe that no earlier run has done."""
        return max(0, self.recipe["train"]["steps"] - archive.steps_done(self.kept, job.name))

    def train(self, jobs: list[Job], to_train: list[Job]) -> None:
        """Train all runs at once; each ends at its last step or in time to be saved."""
        began = time.time()
        minutes = max(0.05, (self.until["train"] - began - 10) / 60)
        before = {job.name: archive.steps_done(self.kept, job.name) for job in jobs}
        for job in to_train:
            words = recipe.train_words(
                self.recipe, job, self.data, self.work / job.name, self.bench.device, minutes
            )
            if before[job.name]:
                left = self.steps_left(job)
                weights = self.kept / "runs" / job.name / "checkpoint"
                words += [f"init={weights}", f"trainer.total_steps={left}"]
                self.bench.note(
                    f"{job.name}: continued from its weights at step {before[job.name]} for {left} "
                    "steps, with a new optimiser and schedule"
                )
            self.start(job.name, "robotics.finetune", words)
        for job in jobs:
            self.bench.cell(f"train {job.name}", lambda job=job: self._finished(job, before, began))

    def _finished(self, job: Job, before: dict[str, int], began: float) -> bool:
        if job.name not in self.processes:
            return True
        code = self.finish(job.name, self.until["train"])
        steps = archive.keep(self.work / job.name, self.kept, job.name, before[job.name])
        if steps is None:
            raise RuntimeError(f"{job.name} left no checkpoint, status {code}; see log.txt")
        self.bench.row(
            "training", run=job.name, steps=steps, of=self.recipe["train"]["steps"],
            minutes=(time.time() - began) / 60, status=code,
        )  # fmt: skip
        return True

    # ---------------------------------------------------------------- evaluation

    def evaluate(self, job: Job) -> bool:
        """Evaluate one run; finished episodes are not played again."""
        weights = self.kept / "runs" / job.name / "checkpoint"
        if not weights.is_dir():
            raise RuntimeError(f"{job.name} has no checkpoint to evaluate")
        out = self.kept / "evaluations" / job.name
        self.start("evaluate", "eval.simpler", recipe.evaluate_words(self.recipe, weights, out))
        code = self.finish("evaluate", self.until["evaluate"])
        if code == 130:
            raise RuntimeError(f"{job.name}: cut before every episode was played")
        if code not in (0, 1):
            raise RuntimeError(f"eval.simpler of {job.name} ended with {code}; see log.txt")
        return True

    def report(self, jobs: list[Job]) -> None:
        """Success rates by run and task, and their means over training seeds."""
        by_arm: dict[str, list[float]] = {}
        for job in jobs:
            tally = archive.successes(self.kept / "evaluations" / job.name / "episodes.jsonl")
            if not tally:
                continue
            rates = [won / played for won, played in tally.values()]
            by_arm.setdefault(job.arm, []).append(sum(rates) / len(rates))
            self.bench.row(
                "success", run=job.name, mean=f"{by_arm[job.arm][-1]:.1%}",
                **{task: f"{won}/{played}" for task, (won, played) in sorted(tally.items())},
            )  # fmt: skip
        for arm, means in by_arm.items():
            self.bench.figure(
                f"success, {arm}", round(100 * sum(means) / len(means), 1),
                f"% over the tasks, {len(means)} training seeds",
            )  # fmt: skip

    def bring_back(self) -> None:
        """Pack everything kept into archives in --out."""
        left_out = archive.pack(self.kept, self.bench.out)
        if left_out:
            self.bench.found["notes"] = [
                note for note in self.bench.found["notes"] if not note.startswith("no room for")
            ]
            self.bench.note(f"no room for {', '.join(left_out)} in what comes back")
