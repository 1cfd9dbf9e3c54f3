"""This harness against SimplerEnv's own serial evaluation loop, on the real simulator.

    python -m benchmarks.simpler --simpler-python PATH
    python -m benchmarks.simpler --simpler-python PATH --task open_drawer --cells 0 40 --steps 12

Both run the same scripted actions (the expert's, recorded once per cell) in the same cells with
the same renderer, in processes that live through all rounds. Upstream's loop builds an environment
for every episode and draws both of its cameras at every step; its video and plot are left out. The
harness runs in two ways: chunks of 6 executed open loop, drawn only when a chunk is predicted, and
an observation at every step. Rounds of the three take turns, medians are printed, and every final
state has to be upstream's, number by number.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from eval.policies import ExpertPolicy
from eval.rollout import run_episode
from eval.simpler_backend.adapters import Adapter
from eval.simpler_backend.cells import cell_at
from eval.simpler_backend.client import TIMEOUTS, Child, RemoteEnv
from eval.simpler_backend.server import SCENE_VARIABLE
from eval.tasks import get_task
from robotics.control import Action, Observation
from selfflow_wm.cli import at_least, run_main
from selfflow_wm.files import atomic_file

PARTS = ("build", "physics", "render", "policy", "overhead")
UPSTREAM = "upstream"
CHUNKS = {"chunks of 6": 6, "every step": 1}
AIMS = {"chunks of 6": 3.0, "every step": 1.5}
"""How many times as fast as upstream the harness should be."""
LONG = 3600.0
"""s; a whole episode of upstream's is one answer of its process."""


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
    """The expert, noting what it did; ends the episode after `steps` actions."""

    def __init__(self, steps: int | None) -> None:
        super().__init__()
        self._steps = steps
        self.actions: list[Action] = []

    def act(self, observation: Observation | None) -> Action:
        """The expert's action, for as long as it may."""
        if self._steps is not None and len(self.actions) >= self._steps:
            return Action(np.zeros(7, np.float32), True)
        action = super().act(observation)
        self.actions.append(action)
        return action


@contextmanager
def scene(name: str) -> Iterator[None]:
    """Simulators started inside serve `benchmarks.simpler_sides:name`."""
    before = os.environ.get(SCENE_VARIABLE)
    os.environ[SCENE_VARIABLE] = f"benchmarks.simpler_sides:{name}"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SCENE_VARIABLE]
        else:
            os.environ[SCENE_VARIABLE] = before


class Bench:
    """Both simulators, and the recorded actions of every cell."""

    def __init__(self, python: str, task: str, cells: list[int], steps: int | None) -> None:
        self.task, self.cells = get_task(task), cells
        for number in cells:
            cell_at(task, "vm", number)
        with scene("Harness"):
            self._env = RemoteEnv(task, "vm", python)
            self._scripts = {number: self._record(number, steps) for number in cells}
        with scene("Upstream"):
            seconds = {**TIMEOUTS, "reset": LONG}
            self._upstream = Child(python, "rasterised", seconds)
            self._upstream.ask("open")

    def run(self, side: str) -> dict[int, dict[str, Any]]:
        """One round of a side: an episode per cell."""
        one = self._run_upstream if side == UPSTREAM else lambda cell: self._run_ours(cell, side)
        return {number: one(number) for number in self.cells}

    def close(self) -> None:
        """End both simulators."""
        self._env.close()
        if hasattr(self, "_upstream"):
            self._upstream.end()

    def _record(self, number: int, steps: int | None) -> tuple[np.ndarray, list[bool]]:
        policy = Recorder(steps)
        policy.attach(self._env, self.task, "simpler")
        run_episode(self._env, policy, self.task, number)
        controls = np.stack([np.asarray(action.control, np.float32) for action in policy.actions])
        return controls, [bool(action.terminate) for action in policy.actions]

    def _run_ours(self, number: int, side: str) -> dict[str, Any]:
        script = Script(*self._scripts[number], CHUNKS[side])
        started = time.perf_counter()
        result = run_episode(self._env, script, self.task, number)
        total = time.perf_counter() - started
        label = self._env.current_label()
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


def summarise(rounds: list[dict[str, dict[int, dict[str, Any]]]]) -> dict[str, Any]:
    """Medians over rounds of the seconds per episode, ratios within a round, differences."""
    found: dict[str, Any] = {}
    for side in rounds[0]:
        per_round = [list(one[side].values()) for one in rounds]

        def median(value: Any, per_round: Any = per_round) -> float:
            return statistics.median(statistics.mean(map(value, rows)) for rows in per_round)

        ratios = [
            sum(row["total"] for row in one[UPSTREAM].values())
            / sum(row["total"] for row in one[side].values())
            for one in rounds
        ]
        pairs = [
            (row, one[UPSTREAM][number]) for one in rounds for number, row in one[side].items()
        ]
        found[side] = {
            "total": median(lambda row: row["total"]),
            "seconds": {part: median(lambda row, p=part: row["seconds"][p]) for part in PARTS},
            "steps": median(lambda row: row["steps"]),
            "times_upstream": statistics.median(ratios),
            "largest_difference": max(compare(a["state"], b["state"]) for a, b in pairs),
            "same_outcomes": all(
                (a["success"], a["steps"]) == (b["success"], b["steps"]) for a, b in pairs
            ),
        }
    return found


def table(found: dict[str, Any]) -> str:
    """One line per side."""
    words = ["side", "s/episode", *PARTS, "x upstream", "aim", "final state", "outcomes"]
    lines = ["".join(f"{word:>13}" for word in words)]
    for side, row in found.items():
        apart = row["largest_difference"]
        cells = [
            side, f"{row['total']:.2f}", *(f"{row['seconds'][part]:.2f}" for part in PARTS),
            f"{row['times_upstream']:.2f}", f"{AIMS[side]:g}" if side in AIMS else "",
            "identical" if apart == 0 else f"off {apart:.1e}",
            "same" if row["same_outcomes"] else "DIFFER",
        ]  # fmt: skip
        lines.append("".join(f"{cell:>13}" for cell in cells))
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m benchmarks.simpler`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--simpler-python", required=True, metavar="PATH", help="where SIMPLER is installed")
    add("--task", default="open_drawer_place", metavar="NAME", help="default %(default)s")
    add("--cells", type=at_least(0), nargs="+", default=[0, 4, 8], metavar="N",
        help="numbers of the cells of vm (default 0 4 8)")  # fmt: skip
    add("--steps", type=at_least(1), metavar="N", help="end episodes early (default: play out)")
    add("--rounds", type=at_least(1), default=5, metavar="N", help="default %(default)s")
    add("--json", type=Path, metavar="FILE", help="write every episode's numbers, too")
    return parser


def main() -> int:
    """Measure, print, and say with the exit code whether states and outcomes are upstream's."""
    args = build_parser().parse_args()
    bench = Bench(args.simpler_python, args.task, args.cells, args.steps)
    sides, rounds = [UPSTREAM, *CHUNKS], []
    try:
        for side in sides:  # shaders compile and files are read once
            bench.run(side)
        for turn in range(args.rounds):
            order = sides[turn % 3 :] + sides[: turn % 3]
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
            Path(path).write_text(
                json.dumps({"settings": settings, "summary": found, "rounds": rounds}, indent=1)
            )
    same = all(row["largest_difference"] == 0 and row["same_outcomes"] for row in found.values())
    return 0 if same else 1


if __name__ == "__main__":
    run_main(main)
