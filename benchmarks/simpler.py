"""This harness against SimplerEnv's own serial evaluation loop, on the real simulator.

    python -m benchmarks.simpler --simpler-python PATH
    python -m benchmarks.simpler --simpler-python PATH --task open_drawer --cells 0 40 --steps 12
    python -m benchmarks.simpler --simpler-python PATH --workers 1 2

Both run the same scripted actions (the expert's, recorded once per cell) in the same cells with
the same renderer, in processes that live through all rounds. Upstream's loop takes one cell after
the other, draws both of its cameras at every step, and may use every core to draw; its video and
plot are left out. The harness has as many simulators as workers, with one drawing thread each if
they are several, and runs in two ways: chunks of 6 executed open loop, drawn only when a chunk is
predicted, and an observation at every step. Rounds take turns, medians are printed, and every final
state has to be upstream's, number by number. "s/episode" is the round's time over its cells; the
parts are an episode's own, in its process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from eval.envs.simpler import Simpler
from eval.envs.simpler.adapters import Adapter
from eval.envs.simpler.client import TIMEOUTS, Child, RemoteEnv
from eval.envs.simpler.protocols import cell_at
from eval.envs.simpler.server import SCENE_VARIABLE
from eval.envs.simpler.tasks import SIMPLER_TASKS
from eval.policies.scripted import ExpertPolicy
from eval.rollout.episode import run_episode
from eval.rollout.workers import RENDERER_THREADS
from robotics.embodiment.control import Action, Observation
from selfflow_wm.cli import at_least, run_main
from selfflow_wm.files import atomic_file
from selfflow_wm.processes import started_with

PARTS = ("build", "physics", "render", "policy", "overhead")
UPSTREAM = "upstream"
CHUNKS = {"chunks of 6": 6, "every step": 1}
AIMS = {"chunks of 6": 3.0, "every step": 1.5}
"""How many times as fast as upstream the harness should be."""
LONG = 3600.0
"""s; a whole episode of upstream's is one answer of its process."""


class Side(NamedTuple):
    """One contender: upstream's loop, or the harness with this many actions per look."""

    name: str
    workers: int = 1

    def __str__(self) -> str:
        return self.name if self.workers == 1 else f"{self.name}, {self.workers} workers"


SERIAL = Side(UPSTREAM)


class Script:
    """A list of actions behind the policy protocol, looking once a chunk.

    controls: (T, 7). terminate: (T,). chunk: actions executed per observation. Terminates once the
    actions are used up.
    """

    def __init__(self, controls: np.ndarray, terminate: list[bool], chunk: int) -> None:
        self._controls, self._terminate, self._chunk = controls, terminate, chunk
        self.seconds = 0.0
        self._used = self._left = 0

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start from the first action."""
        self._used = self._left = 0

    def instruct(self, instruction: str) -> None:
        """Look again, as a policy would that planned for another instruction."""
        self._left = 0

    @property
    def needs_observation(self) -> bool:
        """At the start of each chunk."""
        return self._left == 0

    def act(self, observation: Observation | None) -> Action:
        """The next action."""
        started = time.perf_counter()
        if self._left == 0:
            assert observation is not None and "image" in observation
            self._left = self._chunk
        self._left -= 1
        used, self._used = self._used, self._used + 1
        if used < len(self._controls):
            action = Action(self._controls[used], self._terminate[used])
        else:
            action = Action(np.zeros(7, np.float32), True)
        self.seconds += time.perf_counter() - started
        return action


class Recorder(ExpertPolicy):
    """The expert, recording its actions; ends the episode after `steps` actions."""

    def __init__(self, steps: int | None) -> None:
        super().__init__()
        self._steps = steps
        self.actions: list[Action] = []

    def act(self, observation: Observation | None) -> Action:
        """The expert's action, up to the limit of steps."""
        if self._steps is not None and len(self.actions) >= self._steps:
            return Action(np.zeros(7, np.float32), True)
        action = super().act(observation)
        self.actions.append(action)
        return action


def served(scene: str) -> dict[str, str]:
    """The variables of a simulator that serves `benchmarks.simpler_sides:scene`."""
    return {SCENE_VARIABLE: f"benchmarks.simpler_sides:{scene}"}


class Bench:
    """All simulators, and the recorded actions of every cell."""

    def __init__(
        self, python: str, task: str, cells: list[int], steps: int | None, workers: list[int]
    ) -> None:
        self.task, self.cells = SIMPLER_TASKS[task], cells
        self._envs: dict[int, list[RemoteEnv]] = {}
        for number in cells:
            cell_at(task, "vm", number)
        for count in workers:
            threads = {} if count == 1 else RENDERER_THREADS
            with started_with({**served("Harness"), **threads}):
                self._envs[count] = [RemoteEnv(task, "vm", python) for _ in range(count)]
                for env in self._envs[count]:
                    env.reset(seed=cells[0])
        first = self._envs[workers[0]][0]
        self._scripts = {number: self._record(first, number, steps) for number in cells}
        with started_with(served("Upstream")):
            seconds = {**TIMEOUTS, "reset": LONG}
            self._upstream = Child(python, "rasterised", seconds)
            self._upstream.ask("open")

    def run(self, side: Side) -> dict[str, Any]:
        """One round of a side, an episode per cell: {"wall": s, "cells": {number: row}}."""
        started = time.perf_counter()
        if side == SERIAL:
            rows = [self._run_upstream(number) for number in self.cells]
        else:
            idle: SimpleQueue[RemoteEnv] = SimpleQueue()
            for env in self._envs[side.workers]:
                idle.put(env)
            with ThreadPoolExecutor(side.workers) as pool:
                rows = list(pool.map(lambda cell: self._run_ours(cell, side, idle), self.cells))
        wall = time.perf_counter() - started
        return {"wall": wall, "cells": dict(zip(self.cells, rows, strict=True))}

    def close(self) -> None:
        """End all simulators."""
        for env in (env for envs in self._envs.values() for env in envs):
            env.close()
        if hasattr(self, "_upstream"):
            self._upstream.end()

    def _record(
        self, env: RemoteEnv, number: int, steps: int | None
    ) -> tuple[np.ndarray, list[bool]]:
        policy = Recorder(steps)
        policy.attach(env, self.task, Simpler())
        run_episode(env, policy, self.task, number)
        controls = np.stack([np.asarray(action.control, np.float32) for action in policy.actions])
        return controls, [bool(action.terminate) for action in policy.actions]

    def _run_ours(self, number: int, side: Side, idle: SimpleQueue[RemoteEnv]) -> dict[str, Any]:
        env = idle.get()
        script = Script(*self._scripts[number], CHUNKS[side.name])
        started = time.perf_counter()
        result = run_episode(env, script, self.task, number)
        total = time.perf_counter() - started
        label = env.current_label()
        idle.put(env)
        parts = {name: label["seconds"][name] for name in ("build", "physics", "render")}
        parts["policy"] = script.seconds
        return {
            "total": total, "seconds": {**parts, "overhead": total - sum(parts.values())},
            "state": label["state"], "success": result.success, "steps": result.steps,
        }  # fmt: skip

    def _run_upstream(self, number: int) -> dict[str, Any]:
        cell = cell_at(self.task.name, "vm", number)
        controls, terminate = self._scripts[number]
        # The harness repeats gripper commands in its adapter, upstream's policies do it themselves.
        adapter = Adapter(cell.build["robot"])
        sent = [adapter.to_simulator(control).tolist() for control in controls]
        words = {**cell.to_json(), "controls": sent, "terminate": terminate}
        answer, _ = self._upstream.ask("reset", cell=words)
        return answer["info"]


def compare(state: list, other: list) -> float:
    """0.0 for equal states, else the largest difference; infinite where bodies differ."""
    if [row[0] for row in state] != [row[0] for row in other]:
        return float("inf")
    pairs = [(np.array(a[1]), np.array(b[1])) for a, b in zip(state, other, strict=True)]
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return max((float(np.abs(a - b).max()) for a, b in pairs if a.size), default=0.0)


def summarise(rounds: list[dict[Side, dict[str, Any]]]) -> dict[Side, Any]:
    """Medians over rounds of the seconds per episode, ratios within a round, differences."""
    found: dict[Side, Any] = {}
    for side in rounds[0]:
        per_round = [list(one[side]["cells"].values()) for one in rounds]

        def median(value: Any, per_round: Any = per_round) -> float:
            return statistics.median(statistics.mean(map(value, rows)) for rows in per_round)

        ratios = [one[SERIAL]["wall"] / one[side]["wall"] for one in rounds]
        pairs = [
            (row, one[SERIAL]["cells"][number])
            for one in rounds
            for number, row in one[side]["cells"].items()
        ]
        cells = len(per_round[0])
        found[side] = {
            "total": statistics.median(one[side]["wall"] / cells for one in rounds),
            "seconds": {part: median(lambda row, p=part: row["seconds"][p]) for part in PARTS},
            "steps": median(lambda row: row["steps"]),
            "times_upstream": statistics.median(ratios),
            "largest_difference": max(compare(a["state"], b["state"]) for a, b in pairs),
            "same_outcomes": all(
                (a["success"], a["steps"]) == (b["success"], b["steps"]) for a, b in pairs
            ),
        }
    return found


def table(found: dict[Side, Any]) -> str:
    """One line per side."""
    words = ["s/episode", *PARTS, "x upstream", "aim", "final state", "outcomes"]
    lines = [f"{'':<24}" + "".join(f"{word:>12}" for word in words)]
    for side, row in found.items():
        apart = row["largest_difference"]
        cells = [
            f"{row['total']:.2f}", *(f"{row['seconds'][part]:.2f}" for part in PARTS),
            f"{row['times_upstream']:.2f}", f"{AIMS[side.name]:g}" if side.name in AIMS else "",
            "identical" if apart == 0 else f"off {apart:.1e}",
            "same" if row["same_outcomes"] else "DIFFER",
        ]  # fmt: skip
        lines.append(f"{side!s:<24}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m benchmarks.simpler`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--simpler-python", required=True, metavar="PATH", help="where SIMPLER is installed")
    add("--task", default="open_drawer_place", metavar="NAME", help="default %(default)s")
    add("--cells", type=at_least(0), nargs="+", default=[0, 4, 8, 12], metavar="N",
        help="numbers of the cells of vm (default 0 4 8 12)")  # fmt: skip
    add("--steps", type=at_least(1), metavar="N", help="end episodes early (default: play out)")
    add("--workers", type=at_least(1), nargs="+", default=[os.cpu_count() or 1], metavar="N",
        help="simulators of the harness; several: in turn (default: cores)")  # fmt: skip
    add("--rounds", type=at_least(1), default=5, metavar="N", help="default %(default)s")
    add("--json", type=Path, metavar="FILE", help="write every episode's numbers, too")
    return parser


def main() -> int:
    """Measure, print, and say with the exit code whether states and outcomes are upstream's."""
    args = build_parser().parse_args()
    bench = Bench(args.simpler_python, args.task, args.cells, args.steps, args.workers)
    sides = [SERIAL, *(Side(name, count) for count in args.workers for name in CHUNKS)]
    rounds = []
    try:
        for side in sides:  # shaders compile and files are read once
            bench.run(side)
        for turn in range(args.rounds):
            start = turn % len(sides)
            order = sides[start:] + sides[:start]
            done = {side: bench.run(side) for side in order}
            rounds.append({side: done[side] for side in sides})
            print(f"round {turn + 1} of {args.rounds}", file=sys.stderr, flush=True)
    finally:
        bench.close()
    found = summarise(rounds)
    print(f"{args.task}, cells {args.cells}, {args.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(table(found))
    if args.json:
        settings = {key: str(value) for key, value in vars(args).items()}
        with atomic_file(args.json) as path:
            text = {
                "settings": settings,
                "summary": {str(side): row for side, row in found.items()},
                "rounds": [{str(side): row for side, row in one.items()} for one in rounds],
            }
            Path(path).write_text(json.dumps(text, indent=1))
    same = all(row["largest_difference"] == 0 and row["same_outcomes"] for row in found.values())
    return 0 if same else 1


if __name__ == "__main__":
    run_main(main)
